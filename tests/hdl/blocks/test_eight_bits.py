"""What a PE of FP8 and of INT8 is made of, on all pairs of words, against ml_dtypes and Python's integers."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from amaranth import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from weft.dataflow.operand import E5M2, FP8, FormatName
from weft.hdl.blocks.fp.units import CONVERTED, MOVED, OPERAND_UNITS
from weft.hdl.flow.cosim import Cosim
from weft.simulator.operand import narrow, widen

A, B = (x.ravel() for x in np.meshgrid(np.arange(256, dtype=np.uint8), np.arange(256, dtype=np.uint8)))
KINDS = [ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2]


class Entered(wiring.Component):
    """``product`` of two operands as they enter an array and are multiplied ``latency`` cycles later."""

    def __init__(self, format: FormatName, latency: int) -> None:
        self.units, self.latency = OPERAND_UNITS[format], latency
        super().__init__({"a": In(8), "b": In(8), "of_a": In(1), "of_b": In(1), "product": Out(32)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.multiply = multiply = self.units.multiply(self.latency)
        m.d.comb += [
            multiply.a.eq(self.units.enter(m, "a_in", self.a, self.of_a)),
            multiply.b.eq(self.units.enter(m, "b_in", self.b, self.of_b)),
            self.product.eq(multiply.product),
        ]
        return m


def products(format: FormatName, latency: int, of_a: Any, of_b: Any, a: Any, b: Any) -> Any:
    """Bits of the products, taken a latency after their operands."""
    fed = {"a": a, "b": b, "of_a": of_a, "of_b": of_b}
    wide = {
        name: np.pad(np.broadcast_to(value, a.shape).astype(np.uint32), (0, latency)) for name, value in fed.items()
    }
    return Cosim(Entered(format, latency)).run(wide)["product"][latency:]


def test_every_pair_of_fp8_in_every_combination() -> None:
    a, b = np.tile(A, 4), np.tile(B, 4)
    of_a, of_b = np.repeat([0, 0, 1, 1], len(A)), np.repeat([0, 1, 0, 1], len(A))
    wide = [
        np.where(of, *(words.view(kind).astype(np.float64) for kind in KINDS[::-1]))
        for words, of in ((a, of_a), (b, of_b))
    ]
    with np.errstate(invalid="ignore"):
        exact = (wide[0] * wide[1]).astype(np.float32)

    found = products("fp8", 2, of_a, of_b, a, b)

    assert np.array_equal(found, np.where(np.isnan(exact), np.uint32(0x7FC00000), exact.view(np.uint32)))


@pytest.mark.parametrize("latency", [1, pytest.param(4, marks=pytest.mark.slow)])
def test_every_pair_of_int8(latency: int) -> None:
    exact = A.view(np.int8).astype(np.int32) * B.view(np.int8).astype(np.int32)

    assert np.array_equal(products("int8", latency, 0, 0, A, B), exact.view(np.uint32))


@pytest.mark.slow
@pytest.mark.parametrize(("latency", "gradient"), [(1, None), (2, None), (3, None), (2, False), (2, True)])
def test_fp32_to_fp8_is_the_narrowing_of_the_simulator(latency: int, gradient: bool | None) -> None:
    """Every number and tie, their neighbours, the ends, raw bits, and numbers of all sizes of the format; by WUVE, and
    by a store in either encoding."""
    rng = np.random.default_rng(7)
    encoding = E5M2 if gradient else FP8
    held = widen(np.arange(encoding.largest + 1, dtype=np.uint8).view(KINDS[bool(gradient)]))
    ends = np.float32([464, 480, 500, 57344, 61439, 61440, 1e9, np.inf, np.nan, 1e-40])
    some = np.concatenate([held, (held[1:] + held[:-1]) / 2, ends])
    some = np.concatenate([some, np.nextafter(some, np.float32(np.inf)), np.nextafter(some, np.float32(-np.inf))])
    sizes = (rng.standard_normal(2**18) * np.exp2(rng.integers(-14, 12, 2**18))).astype(np.float32)
    values = np.concatenate([some, -some, rng.integers(0, 2**32, 2**18, np.uint32).view(np.float32), sizes])

    fed = {"value": np.pad(values.view(np.uint32), (0, latency))}
    if gradient is None:
        found = Cosim(CONVERTED["fp8"].narrow(latency)).run(fed)
    else:
        found = Cosim(MOVED["fp8"].narrow(latency)).run(fed | {"gradient": np.full(len(fed["value"]), gradient)})

    assert np.array_equal(found["half"][latency:], narrow(values, "fp8", gradient=bool(gradient)).view(np.uint8))


@pytest.mark.slow
def test_every_e5m2_in_fp32() -> None:
    wide = widen(np.arange(256, dtype=np.uint8).view(KINDS[1]))
    found = Cosim(CONVERTED["fp8"].widen(1)).run({"half": np.pad(np.arange(256, dtype=np.uint32), (0, 1))})["value"][1:]

    assert np.array_equal(found, np.where(np.isnan(wide), np.uint32(0x7FC00000), wide.view(np.uint32)))


@pytest.mark.slow
@pytest.mark.parametrize("gradient", [0, 1])
def test_what_a_load_makes_of_every_fp8(gradient: int) -> None:
    wide = widen(np.arange(256, dtype=np.uint8).view(KINDS[gradient]))
    fed = {"half": np.pad(np.arange(256, dtype=np.uint32), (0, 1)), "gradient": np.full(257, gradient)}
    found = Cosim(MOVED["fp8"].widen(1)).run(fed)["value"][1:]

    assert np.array_equal(found, np.where(np.isnan(wide), np.uint32(0x7FC00000), wide.view(np.uint32)))


@pytest.mark.slow
@pytest.mark.parametrize("latency", [1, 3])
def test_sums_of_integers_wrap_around(latency: int) -> None:
    rng = np.random.default_rng(1)
    a, b = rng.integers(0, 2**32, (2, 4096), np.uint32)
    a[:4], b[:4] = [2**31 - 1, 2**31, 2**32 - 1, 5], [1, 2**31, 1, 2**32 - 7]
    unit = Cosim(OPERAND_UNITS["int8"].add(latency))

    found = unit.run({"a": np.pad(a, (0, latency)), "b": np.pad(b, (0, latency))})["sum"][latency:]

    assert np.array_equal(found, a + b)
    assert found[:4].tolist() == [2**31, 0, 0, 2**32 - 2]
