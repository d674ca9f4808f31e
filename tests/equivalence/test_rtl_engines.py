"""SORE and WUVE in RTL against the stepped engines: every bit, in every cycle."""

from __future__ import annotations

import math
from functools import cache
from typing import Literal

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.dataflow.accelerator import SoreSpec, WuveSpec
from weft.dataflow.engine_time import sore_issue, sore_latency
from weft.dataflow.operand import FormatName
from weft.dataflow.stce.spec import ArraySpec, PESpec
from weft.dataflow.streams import sore_streams, wuve_streams
from weft.hdl.blocks.batcher import batcher_stages
from weft.hdl.blocks.fp.units import CONVERTED
from weft.hdl.drivers.engines import SoreDriver, WuveDriver
from weft.simulator import engines
from weft.simulator.engines import run_sore, run_wuve
from weft.simulator.operand import OPERAND_TYPES, Half, bits_of, is_gradient, operand_types
from weft.simulator.streams import run_streams
from weft.simulator.update_settings import Adam, AdamW, Nesterov, Sgd, UpdateSettings
from weft.workloads.sparsity import NMPattern
from weft.workloads.update_rule import UPDATE_RULES

from ..examples_drawn import examples
from ..strategies import gemms, halves, holds, make_spec, receivers, singles
from .waiting import Bools, assert_waits

Kind = Literal["serial", "network"]
Array = npt.NDArray[np.integer]
PATTERNS = ("1:4", "2:4", "2:8", "4:8", "2:16")
AFTERWARDS = 4
"""Cycles watched after a run: nothing may leave any more."""


@cache
def sore_driver(kind: Kind, lanes: int, text: str, format: FormatName = "fp16") -> SoreDriver:
    pe, sore = PESpec(format=format), SoreSpec(kind=kind, lanes=lanes)
    spec = make_spec(array=ArraySpec(rows=1, cols=1), pe=pe, sore=sore)
    return SoreDriver(spec, NMPattern.parse(text))


def check_sore(
    driver: SoreDriver, values: Half, run: int, offered: Bools | None = None, ready: Bools | None = None
) -> None:
    stalls = {"offered": offered, "ready": ready}
    want = run_sore(driver.spec, values, driver.pattern, run, **stalls)
    issue = sore_issue(want.nan_flags.size, driver.pattern, driver.spec)
    if offered is None and ready is None:
        assert want.cycles == issue + sore_latency(driver.pattern, driver.spec)
    bits, gradient = bits_of(values).astype(np.uint16), is_gradient(values, driver.spec.pe)
    got = driver.run(bits, run, cycles=want.cycles + AFTERWARDS, gradient=gradient, **stalls)
    assert_waits(got.ran, run_streams(sore_streams(driver.spec, driver.pattern), issue, **stalls))
    assert_same(
        got.left,
        want.left,
        ("pair.value", got.values, bits_of(want.compact.values)),
        ("pair.index", got.indices, want.compact.indices),
    )
    assert got.nan_flags.tolist() == want.nan_flags.tolist()
    assert got.cycles == want.cycles


def assert_same(left: Array, expected_left: Array, *signals: tuple[str, Array, Array]) -> None:
    """Name the signal, the cycle and both values of the earliest difference."""
    for signal, found, expected in (("valid", left, expected_left), *signals):
        differs = np.argwhere(found != expected)
        if len(differs):
            at = min(map(tuple, differs), key=lambda place: int(expected_left[place]))
            pytest.fail(f"{signal}{list(map(int, at))}, cycle {expected_left[at]}: not {expected[at]} but {found[at]}")


@pytest.mark.parametrize("text", PATTERNS)
@pytest.mark.parametrize("kind", ["serial", "network"])
@settings(max_examples=examples(60))
@given(data=st.data())
def test_sore_of_three_lanes_is_the_stepped_engine(kind: Kind, text: str, data: st.DataObject) -> None:
    gemm = data.draw(gemms())
    check_sore(sore_driver(kind, 3, text), data.draw(halves(gemm.k, gemm.n)), gemm.run)


@pytest.mark.parametrize(
    "text", ["2:8", *(pytest.param(t, marks=pytest.mark.slow) for t in ("1:1", "4:4", "3:5", "5:13"))]
)
@pytest.mark.parametrize("kind", ["serial", "network"])
@settings(max_examples=examples(40))
@given(data=st.data())
def test_sore_of_one_lane_is_the_stepped_engine(kind: Kind, text: str, data: st.DataObject) -> None:
    gemm = data.draw(gemms())
    check_sore(sore_driver(kind, 1, text), data.draw(halves(gemm.k, gemm.n)), gemm.run)


@pytest.mark.parametrize("kind", ["serial", "network"])
@settings(max_examples=examples(60))
@given(data=st.data(), held=holds(), ready=receivers(1))
def test_sore_waits_for_whom_it_serves_and_loses_nothing(
    kind: Kind, data: st.DataObject, held: Bools, ready: Bools
) -> None:
    gemm = data.draw(gemms())
    check_sore(sore_driver(kind, 3, "2:8"), data.draw(halves(gemm.k, gemm.n)), gemm.run, ~held, ready)


@pytest.mark.parametrize("kind", ["serial", "network"])
def test_sore_of_a_long_run_of_raw_bits(kind: Kind) -> None:
    bits = np.random.default_rng(11).integers(0, 2**16, (9 * 100, 64), np.uint16)
    check_sore(sore_driver(kind, 3, "2:8"), bits.view(np.float16), 100)


@pytest.mark.parametrize("kind", ["serial", "network"])
def test_sore_in_bf16_flags_the_nans_of_bf16(kind: Kind) -> None:
    """All 2^16 words; words of which nearly all are a NaN in FP16 only."""
    every = np.random.default_rng(12).permutation(np.arange(2**16, dtype=np.uint16)).reshape(1024, 64)
    near = np.random.default_rng(13).integers(0x7C01, 0x7F84, (1024, 64), np.uint16)
    assert 0 < np.count_nonzero(near > 0x7F80) < near.size // 100
    for words in (every, near):
        check_sore(sore_driver(kind, 3, "2:8", "bf16"), words.view(OPERAND_TYPES["bf16"]), 128)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["serial", "network"])
@pytest.mark.parametrize("text", ["2:8", "3:5"])
def test_sore_in_int8_ranks_magnitudes(kind: Kind, text: str) -> None:
    """All words, many equally large: -128 is the largest of them."""
    every = np.random.default_rng(15).permutation(np.repeat(np.arange(256, dtype=np.uint8), 16)).reshape(64, 64)
    check_sore(sore_driver(kind, 3, text, "int8"), every.view(np.int8), 32)
    few = np.random.default_rng(16).choice(np.array([-128, 127, -127, 1, -1, 0], np.int8), (64, 9))
    check_sore(sore_driver(kind, 3, text, "int8"), few, 16)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["serial", "network"])
def test_sore_in_fp8_flags_the_nans_of_either_encoding(kind: Kind) -> None:
    """All words of both: 0x7d is a NaN in E5M2 only, and the infinity of E5M2, 0x7c, a number in E4M3."""
    every = np.random.default_rng(14).permutation(np.repeat(np.arange(256, dtype=np.uint8), 16)).reshape(64, 64)
    for encoding in operand_types("fp8"):
        check_sore(sore_driver(kind, 3, "2:8", "fp8"), every.view(encoding), 32)


@pytest.mark.parametrize("inputs", range(1, 33))
def test_rtl_and_simulator_have_one_network(inputs: int) -> None:
    assert batcher_stages(inputs) == engines.batcher_stages(inputs)


@cache
def wuve_driver(
    rule: str, lanes: int, multiply_latency: int, add_latency: int, format: FormatName = "fp16"
) -> WuveDriver:
    pe = PESpec(multiply_latency=multiply_latency, add_latency=add_latency, format=format)
    return WuveDriver(make_spec(array=ArraySpec(rows=1, cols=1), pe=pe, wuve=WuveSpec(lanes=lanes)), UPDATE_RULES[rule])


def registers(rule: UpdateSettings) -> tuple[float, ...]:
    """What the page says the host computes in double precision, in the order of the lanes' constants."""
    if isinstance(rule, Sgd | Nesterov):
        return rule.inverse_scale, rule.weight_decay, rule.momentum, rule.rate
    root = math.sqrt(1.0 - rule.beta2**rule.step)
    rate, epsilon = rule.rate * root / (1.0 - rule.beta1**rule.step), rule.epsilon * root
    moments = rule.inverse_scale, rule.beta1, 1.0 - rule.beta1, rule.beta2, 1.0 - rule.beta2, rate, epsilon
    return (*moments, 1.0 - rule.rate * rule.weight_decay) if isinstance(rule, AdamW) else moments


def check_wuve(
    driver: WuveDriver,
    rule: UpdateSettings,
    master: npt.NDArray[np.float32],
    gradient16: Half,
    state: tuple[npt.NDArray[np.float32], ...],
    offered: Bools | None = None,
    ready: Bools | None = None,
) -> None:
    stalls = {"offered": offered, "ready": ready}
    want = run_wuve(driver.spec, rule, master, gradient16, state, **stalls)
    beats = -(-len(master) // driver.spec.wuve.lanes)
    if offered is None and ready is None:
        assert want.cycles == beats + driver.engine.latency
    got = driver.run(
        registers(rule),
        master.view(np.uint32),
        bits_of(gradient16).astype(np.uint16),
        [x.view(np.uint32) for x in state],
        cycles=want.cycles + AFTERWARDS,
        **stalls,
    )
    assert_waits(got.ran, run_streams(wuve_streams(driver.spec, rule.rule), beats, **stalls))
    assert_same(
        got.left,
        want.left,
        ("next_master", got.master, want.master.view(np.uint32)),
        ("weight16", got.weights16, bits_of(want.weights16)),
        *(
            (f"next_{name}", found, expected.view(np.uint32))
            for name, found, expected in zip(driver.engine.rule.held[1:], got.state, want.state, strict=True)
        ),
    )
    assert got.cycles == want.cycles


scales = st.integers(-20, 20).map(lambda e: 2.0**e)
rates = st.floats(-(2.0**100), 2.0**100, width=32)
shares = st.floats(0, 1, width=32, exclude_max=True)
rules: dict[str, st.SearchStrategy[UpdateSettings]] = {
    **{
        made.rule.name: st.builds(
            made,
            rate=rates,
            momentum=shares | st.floats(0, 2.0**-120, width=32),
            weight_decay=st.floats(0, 0.125, width=32),
            inverse_scale=scales,
        )
        for made in (Sgd, Nesterov)
    },
    **{
        made.rule.name: st.builds(
            made,
            rate=st.floats(-(2.0**60), 2.0**60),
            beta1=st.floats(0, 0.9375),
            beta2=st.floats(0, 0.9375),
            epsilon=st.floats(0, 2.0**-10) | st.just(0.0),
            step=st.integers(1, 1000),
            inverse_scale=scales,
            **more,
        )
        for made, more in ((Adam, {}), (AdamW, {"weight_decay": st.floats(0, 0.125)}))
    },
}
machines = [
    ("sgd", 3, 2, 4),
    pytest.param("nesterov", 3, 2, 4, marks=pytest.mark.slow),
    *(
        pytest.param(r, *c, marks=pytest.mark.slow)
        for r in ("sgd", "nesterov")
        for c in ((1, 1, 1), (3, 3, 5), (2, 4, 1))
    ),
    *(pytest.param(r, *c, marks=pytest.mark.slow) for r in ("adam", "adamw") for c in ((3, 2, 4), (1, 1, 1))),
]


@pytest.mark.parametrize(("rule", "lanes", "multiply", "add"), machines)
@settings(max_examples=examples(100))
@given(data=st.data())
def test_wuve_is_the_stepped_engine(rule: str, lanes: int, multiply: int, add: int, data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 70))
    driver = wuve_driver(rule, lanes, multiply, add)
    state = tuple(data.draw(singles(n)) for _ in driver.engine.rule.state)
    check_wuve(driver, data.draw(rules[rule]), data.draw(singles(n)), data.draw(halves(n)), state)


@settings(max_examples=examples(100))
@given(data=st.data(), held=holds(), ready=receivers(1))
def test_wuve_waits_for_whom_it_serves_and_loses_nothing(data: st.DataObject, held: Bools, ready: Bools) -> None:
    n = data.draw(st.integers(1, 200))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    master, velocity = (rng.integers(0, 2**32, n, np.uint32).view(np.float32) for _ in range(2))
    gradient16 = rng.integers(0, 2**16, n, np.uint16).view(np.float16)
    check_wuve(wuve_driver("sgd", 3, 2, 4), RAW[0], master, gradient16, (velocity,), ~held, ready)


@pytest.mark.slow
@pytest.mark.parametrize("format", ["bf16", "fp8"])
@settings(max_examples=examples(100))
@given(data=st.data())
def test_wuve_in_another_format_is_the_stepped_engine(format: FormatName, data: st.DataObject) -> None:
    """Of FP8 the gradient is E5M2, and the weight E4M3."""
    n = data.draw(st.integers(1, 70))
    master, velocity = data.draw(singles(n)), data.draw(singles(n))
    gradient16 = data.draw(halves(n, format=format)).view(operand_types(format)[-1])
    check_wuve(wuve_driver("sgd", 3, 2, 4, format), data.draw(rules["sgd"]), master, gradient16, (velocity,))


RAW = [Sgd(rate=r, momentum=s, weight_decay=0.1 * s) for r in (0.1, 1e-30, 1e30) for s in (0.0, 1e-39, 1e-20, 0.9)]
RAW_NESTEROV = [
    Nesterov(rate=r, momentum=s, weight_decay=0.1 * s) for r in (0.1, 1e-30, 1e30) for s in (0.0, 1e-39, 1e-20, 0.9)
]
RAW_ADAM = [Adam(rate=r, step=t, epsilon=e) for r in (1e-3, 1e-30, 1e30) for t, e in ((1, 1e-8), (9, 0.0))]
RAW_ADAMW = [
    AdamW(rate=r, step=t, epsilon=e, weight_decay=0.05) for r in (1e-3, 1e-30, 1e30) for t, e in ((1, 1e-8), (9, 0.0))
]


@pytest.mark.parametrize(
    ("rule", "format", "cases"),
    [
        ("sgd", "fp16", RAW),
        ("sgd", "bf16", RAW),
        pytest.param("nesterov", "fp16", RAW_NESTEROV, marks=pytest.mark.slow),
        *(pytest.param("adam", format, RAW_ADAM, marks=pytest.mark.slow) for format in CONVERTED),
        *(pytest.param("adamw", format, RAW_ADAMW, marks=pytest.mark.slow) for format in CONVERTED),
    ],
)
def test_wuve_of_long_runs_of_raw_bits(rule: str, format: FormatName, cases: list[UpdateSettings]) -> None:
    """Subnormal operands, products and sums, infinities and NaNs among them."""
    rng, n = np.random.default_rng(5), 100_000
    driver = wuve_driver(rule, 3, 2, 4, format)
    master, *state = (
        rng.integers(0, 2**32, n, np.uint32).view(np.float32) for _ in range(1 + len(driver.engine.rule.state))
    )
    kind = operand_types(format)[-1]
    gradient16 = np.frombuffer(rng.bytes(n * np.dtype(kind).itemsize), kind)
    for case in cases:
        check_wuve(driver, case, master, gradient16, tuple(state))
