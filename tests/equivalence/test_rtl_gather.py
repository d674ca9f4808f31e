"""The RTL of the gather engine equals reference and simulator: every sum, and the cycle in which it is there."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.dataflow.accelerator import AcceleratorSpec
from weft.dataflow.config_io import load_spec
from weft.dataflow.gather.dense import most_columns, most_lines
from weft.dataflow.gather.mapping import require_gather
from weft.dataflow.gather.spec import GatherSpec
from weft.dataflow.gather.time import gather_cycles, slots_of_lines
from weft.hdl.blocks import gather, gather_lane, gather_pe
from weft.hdl.drivers.gather import GatherDriver
from weft.simulator.gather import run_gather
from weft.simulator.operand import bits_of, operand_types
from weft.simulator.reference.gather import gather_reference
from weft.workloads.errors import InputError
from weft.workloads.unstructured import Cell

from ..engines.test_gather import masks
from ..examples_drawn import examples
from ..hdl.proof import mutant
from ..strategies import halves


def machine(
    lanes: int, width: int, banks: int, balance: Any = "static", interleave: int = 1, **pe: Any
) -> AcceleratorSpec:
    tiny = load_spec("tiny")
    own = GatherSpec(lanes=lanes, width=width, banks=banks, balance=balance, interleave=interleave)
    return replace(tiny, gather=own, pe=replace(tiny.pe, **{"accumulators": 3, **pe}))


SPECS = {
    "2 lanes of 3 lines, 2 banks": machine(2, 1, 2, interleave=3, add_latency=5),
    "2 lanes, 2 banks": machine(2, 1, 2, add_latency=5),
    "3 lanes of 2 and 4 lines, 4 banks, sorted": machine(3, 2, 4, "sorted", 4, accumulators=8, add_latency=7),
    "1 lane of more lines than sums": machine(1, 2, 0, interleave=5, add_latency=2),
    "3 lanes of 2, 4 banks": machine(3, 2, 4),
    "4 lanes of 1, 3 banks": machine(4, 1, 3, accumulators=8, add_latency=2),
    "3 lanes of 2, 1 bank": machine(3, 2, 1, accumulators=1),
    "2 lanes of 3, a copy each": machine(2, 3, 0),
    "1 lane of 1": machine(1, 1, 2, accumulators=1, multiply_latency=1, add_latency=1),
    "5 lanes, sorted": machine(5, 1, 2, "sorted", add_latency=7),
}
SMALLEST = "2 lanes of 3 lines, 2 banks"
FORMATS = {"bf16": machine(2, 1, 3, format="bf16"), "fp8": machine(2, 1, 3, format="fp8")}
FORMATS["int8"] = machine(2, 2, 3, format="int8")


@cache
def driver(name: str) -> GatherDriver:
    """One for all tests: what a run leaves behind must not matter to the next."""
    return GatherDriver((SPECS | FORMATS)[name])


def first_difference(
    rtl: GatherDriver, a: Any, b: Any, mask: Any, lines: int = 1, gradients: Any = (False, False)
) -> Any:
    want = run_gather(rtl.spec, a, b, mask, interleave=lines)
    got = rtl.run(bits_of(a), bits_of(b), mask, cycles=want.length + 8, interleave=lines, gradients=gradients)
    compared = [
        ("sums", want.result.view(np.uint32).tolist(), got.result.tolist()),
        ("left", want.left.tolist(), got.left.tolist()),
        ("cycles", want.length, got.cycles),
    ]
    if a.dtype == np.float16:
        slow = gather_reference(rtl.spec, a, b, mask, lines)
        compared.append(("left of the reference", slow.left, got.left.tolist()))
        compared.append(("sums of the reference", slow.result.view(np.uint32).tolist(), got.result.tolist()))
    return next((found for found in compared if found[1] != found[2]), None)


@pytest.mark.parametrize("name", [SMALLEST, *(pytest.param(n, marks=pytest.mark.slow) for n in SPECS if n != SMALLEST)])
@settings(max_examples=examples(100), deadline=None)
@given(data=st.data())
def test_rtl_equals_reference_and_simulator(name: str, data: st.DataObject) -> None:
    """Masks that are empty, full, of one line, in one bank or badly balanced; one run after another."""
    rtl = driver(name)
    k, n = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 9))
    lines = data.draw(st.integers(1, most_lines(rtl.spec)))
    m = data.draw(st.integers(1, min(most_columns(rtl.spec, k, lines), 9)))
    a, b, mask = data.draw(halves(m, k)), data.draw(halves(k, n)), data.draw(masks(k, n))

    assert first_difference(rtl, a, b, mask, lines) is None


@pytest.mark.slow
@pytest.mark.parametrize("name", SPECS)
def test_thousands_of_random_masks(name: str) -> None:
    rtl, rng = driver(name), np.random.default_rng(5)
    for _ in range(1000):
        k, n, lines = rng.integers(1, 30), rng.integers(1, 14), int(rng.integers(1, most_lines(rtl.spec) + 1))
        m = rng.integers(1, most_columns(rtl.spec, int(k), lines) + 1)
        mask = rng.random((k, n)) < rng.choice((0.0, 0.1, 0.5, 1.0), size=n if rng.integers(2) else 1)
        a, b = (rng.standard_normal(shape).astype(np.float16) for shape in ((m, k), (k, n)))
        assert first_difference(rtl, a, b, mask, lines) is None


def grouped(rng: np.random.Generator, shape: tuple[int, int], k: int, n: int) -> Any:
    """A mask [k, n] of groups of ``shape``, lines by places, of which all, none or some are kept."""
    cells = rng.random((k // shape[1], n // shape[0])) < rng.choice((0.0, 0.3, 0.6, 1.0))
    return cells.repeat(shape[1], axis=0).repeat(shape[0], axis=1)


@pytest.mark.parametrize("name", [SMALLEST, *(pytest.param(n, marks=pytest.mark.slow) for n in SPECS if n != SMALLEST)])
@pytest.mark.parametrize("shape", [(1, 4), (4, 1), (2, 2)])
def test_groups_are_gathered_as_what_is_in_them(name: str, shape: tuple[int, int]) -> None:
    """1 x g, g x 1 and b x b: sums and cycles, the closed form's where it has one."""
    rtl, rng = driver(name), np.random.default_rng(7)
    own, exact = require_gather(rtl.spec), 0
    for _ in range(40):
        k, n = shape[1] * rng.integers(1, 5), shape[0] * rng.integers(1, 4)
        m = rng.integers(1, most_columns(rtl.spec, int(k)) + 1)
        mask = grouped(rng, shape, int(k), int(n))
        a, b = (rng.standard_normal(size).astype(np.float16) for size in ((m, k), (k, n)))
        assert first_difference(rtl, a, b, mask) is None
        slots = slots_of_lines(own, np.count_nonzero(mask, axis=0).astype(np.int64), Cell(*shape))
        if slots.least == slots.most:
            exact += 1
            assert gather_cycles(rtl.spec, slots.least, int(m)).total == run_gather(rtl.spec, a, b, mask).length
    assert exact or shape[0] % own.lanes


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_other_formats(name: str) -> None:
    rtl, rng = driver(name), np.random.default_rng(6)
    types = operand_types(rtl.spec.pe.format)
    for i in range(200):
        k, n, m = rng.integers(1, 12), rng.integers(1, 9), rng.integers(1, 4)
        raw = [rng.integers(0, 256, (*shape, 2), np.uint8) for shape in ((m, k), (k, n))]
        kinds = [i % len(types), i // len(types) % len(types)]
        a, b = (
            (x if np.dtype(types[kind]).itemsize == 2 else x[..., :1].copy()).view(types[kind])[..., 0]
            for x, kind in zip(raw, kinds, strict=True)
        )
        mask = rng.random((k, n)) < rng.random()
        assert first_difference(rtl, a, b, mask, gradients=(kinds[0] == 1, kinds[1] == 1)) is None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("where", "old", "new"),
    [
        ("Gather", "between = passed[min(i, j)] & ~passed[max(i, j)]", "between = Const(0, 1)"),
        ("Gather", "firsts[j] & other[i, j]", "wants[j] & other[i, j]"),
        ("Gather", "(wanted[i].address != wanted[j].address)", "Const(1, 1)"),
        ("Gather", 'wants_{i}", work & ~wanted[i].empty', 'wants_{i}", work'),
        ("Gather", "Mux(lane.some, read[fraction:], 0)", "read[fraction:]"),
        ("Gather", "lane.element.address + part", "lane.element.address"),
        ("Gather", "least = wire(m", "least = 0 & wire(m"),
        ("GatherLane", "mine.eq(~self.element.last)", "mine.eq(1)"),
        ("GatherLane", "begun.bit_select(turn, 1)", "begun.bit_select(0, 1)"),
        ("GatherLane", "Mux(over, 0, first + self.row_words)", "first"),
        (
            "GatherLane",
            "with m.Elif(self.served & self.ends):\n            over",
            "with m.Elif(self.ends):\n            over",
        ),
        ("GatherLane", "finish.valid & finish.last", "finish.valid"),
        ("GatherPe", "Mux(finish.valid & (finish.context == add.context), adder.sum, held)", "held"),
    ],
)
def test_a_broken_part_is_found(where: str, old: str, new: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from weft.hdl.blocks import gather_banks

    source = {"Gather": gather, "GatherLane": gather_lane, "GatherPe": gather_pe}[where]
    holder = gather_banks if where == "Gather" else gather
    monkeypatch.setattr(holder, where, mutant(getattr(source, where), old, new))
    rtl = GatherDriver(machine(3, 1, 3, accumulators=4, interleave=2))
    rng, found = np.random.default_rng(3), False
    for i in range(20):
        lines, mask = 1 + i % 2, rng.random((6, 7)) < rng.choice((0.2, 0.8), size=7)
        m = rng.integers(1, 4 // lines + 1)
        a, b = rng.standard_normal((m, 6)).astype(np.float16), rng.standard_normal((6, 7)).astype(np.float16)
        try:
            found |= first_difference(rtl, a, b, mask, lines) is not None
        except RuntimeError:
            found = True  # sums that never came, or too many
        if found:
            return
    pytest.fail("nothing differed")


def test_what_it_does_not_hold_is_refused() -> None:
    rtl = driver(SMALLEST)
    wide, ones = np.ones((4, 2), np.uint16), np.ones((2, 2), np.uint16)
    with pytest.raises(InputError, match="the engine holds 3 columns of 2 rows at interleave 1, not 4"):
        rtl.run(wide, ones, ones == 1, cycles=10)
    with pytest.raises(RuntimeError, match="busy for more than the given 1 cycles"):
        rtl.run(ones, ones, ones == 1, cycles=1)
    with pytest.raises(InputError, match="is stealing, of which there is no RTL"):
        GatherDriver(machine(2, 1, 0, "stealing"))
