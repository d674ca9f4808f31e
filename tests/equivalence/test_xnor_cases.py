"""Ten thousand random products on the XNOR engine, and no difference: integers, closed forms, the stepped engine; the
registers of its array and its RTL on those that are small.

A case is drawn from its number alone, so a difference is named by it: `case(number)` is that product again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pytest

from weft.dataflow.accelerator import AcceleratorSpec
from weft.dataflow.stce.mapping import Dataflow
from weft.dataflow.xnor.mapping import XnorMapping
from weft.dataflow.xnor.spec import XnorSpec
from weft.dataflow.xnor.time import skipped_cycles, xnor_cycles
from weft.dataflow.xnor.words import beats_of
from weft.hdl.drivers.xnor import XnorDriver
from weft.simulator.reference.xnor import xnor_reference
from weft.simulator.xnor import occupied_words, pack, run_xnor
from weft.workloads.gemm import Gemm
from weft.workloads.levels import Levels

from ..hdl.xnor_model import modelled
from .test_rtl_xnor import machine

CASES = 10_000
PARTS = 10
"""So that the workers of a test run share them."""
SEED = 13
LEVELS = tuple(Levels)
Integers = npt.NDArray[np.int64]


BUILT = {
    "2x3 of 8 bits": machine(2, 3, 8, 3, 9, 3, 2),
    "1x1 of 8 bits": machine(1, 1, 8, 1, 1, 1, 1),
    "4x4 of 64 bits": machine(4, 4, 64, 4, 16, 5, 3),
    "3x2 of 40 bits": machine(3, 2, 40, 6, 12, 4, 5),
}
"""Machines whose RTL is compiled, once for all of their cases; those of `test_rtl_xnor.py`."""
TURNS = (*BUILT, "2x3 of 8 bits", "4x4 of 64 bits", "3x2 of 40 bits")
"""Which of them is next: one element alone takes longest, so it comes less often."""


class Case(NamedTuple):
    spec: AcceleratorSpec
    mapping: XnorMapping
    gemm: Gemm
    levels: tuple[Levels, Levels]
    a: Integers
    b: Integers
    skip: bool
    built: str | None
    """The machine among `BUILT` that it runs on."""
    small: bool

    def __str__(self) -> str:
        own, g = self.spec.xnor, self.gemm
        return (
            f"{g.m} x {g.k} x {g.n} in runs of {g.run}, {self.levels[0]} by {self.levels[1]}, on {own}, {self.mapping}"
            + ", zero words left out" * self.skip
        )


def case(number: int) -> Case:
    """Of five, two are on a machine of `BUILT` and one more is as small; every other one of the rest leaves out zero
    words."""
    rng = np.random.default_rng((SEED, number))
    built = TURNS[number // 5 % len(TURNS)] if number % 5 < 2 else None
    small = number % 5 < 3
    spec = BUILT[built] if built else _drawn(rng, 4 if small else 12)
    most_rows, most_run = (11, 20) if small else (90, 300)
    # Contractions below a word, of exactly some words, and ragged.
    run = int(rng.integers(1, most_run + 1))
    if rng.random() < 0.2:
        run = spec.xnor.word_bits * int(rng.integers(1, 4))
    runs = int(rng.integers(1, 4))
    gemm = Gemm(m=int(rng.integers(1, most_rows + 1)), k=run * runs, n=int(rng.integers(1, most_rows + 1)), run=run)
    levels = (LEVELS[rng.integers(len(LEVELS))], LEVELS[rng.integers(len(LEVELS))])
    if rng.random() < 0.5:  # the pairs that networks have, more often than by chance
        levels = tuple(LEVELS[i] for i in rng.integers(0, 3, 2))
    a, b = _values(rng, levels[0], gemm.m, gemm.k), _values(rng, levels[1], gemm.n, gemm.k).T
    skip = built is None and number % 2 == 1
    return Case(spec, _mapping(rng, spec.xnor), gemm, levels, a, np.ascontiguousarray(b), skip, built, small)


def _drawn(rng: np.random.Generator, side: int) -> AcceleratorSpec:
    bits = 8 * int(rng.integers(1, 33)) if rng.random() < 0.5 else int(rng.choice((8, 32, 64, 128, 256)))
    sizes = (int(rng.integers(1, most + 1)) for most in (side, side, 8, 32, 4, 5))
    rows, cols, contexts, dense, held, latency = sizes
    return machine(rows, cols, bits, contexts, dense, held, latency)


def _mapping(rng: np.random.Generator, own: XnorSpec) -> XnorMapping:
    if rng.random() < 0.5:
        return XnorMapping(dataflow=Dataflow.OS, interleave=int(rng.integers(1, own.accumulators + 1)))
    group = int(rng.integers(1, min(own.weight_words, own.dense_words) + 1))
    most = min(own.accumulators, own.dense_words // group)
    return XnorMapping(dataflow=Dataflow.WS, interleave=int(rng.integers(1, most + 1)), group=group)


def _values(rng: np.random.Generator, levels: Levels, lines: int, k: int) -> Integers:
    """Lines of all values, of the ends alone, of one alone (all ones, all zeros), mostly of 0, of 0 in whole stretches,
    or of the least and most in turn."""
    values = np.array(tuple(levels.values))
    found: Integers = rng.choice(values, (lines, k))
    match rng.integers(6):
        case 1:
            found = rng.choice(values[[0, -1]], (lines, k))
        case 2:
            found = np.full((lines, k), rng.choice((*values[[0, -1]], 0) if 0 in values else values))
        case 3 if 0 in values:
            found *= rng.random((lines, k)) < 0.03
        case 4 if 0 in values:
            stretch = int(rng.integers(1, k + 1))
            found *= np.repeat(rng.random((lines, -(-k // stretch))) < 0.4, stretch, axis=1)[:, :k]
        case 5:
            found = np.broadcast_to(np.resize(values[[0, -1]], k), (lines, k)).copy()
    return found


def cases(part: int) -> Iterator[tuple[int, Case]]:
    each = CASES // PARTS
    for number in range(part * each, (part + 1) * each):
        yield number, case(number)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_sums_are_those_of_integers_and_cycles_those_of_the_closed_form(part: int) -> None:
    wrong = []
    for number, x in cases(part):
        run = run_xnor(x.spec, x.mapping, x.a, x.b, x.levels, run=x.gemm.run, skip=x.skip)
        if not (run.result == x.a @ x.b).all() or run.cycles != closed(x) or run.left.max() >= run.length:
            wrong.append((number, str(x)))

    assert wrong == []


def closed(x: Case):
    if not x.skip:
        return xnor_cycles(x.spec, x.gemm, x.mapping, x.levels)
    own = x.spec.xnor
    west, north = (pack(v, level, own.word_bits, x.gemm.run) for v, level in zip((x.a, x.b.T), x.levels, strict=True))
    occupied = occupied_words(own, x.mapping, west, north)
    return skipped_cycles(x.spec, x.mapping, x.gemm.m, x.gemm.n, len(beats_of(*x.levels)), occupied)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_registers_have_the_same_sums_in_the_same_cycles(part: int) -> None:
    """Of each result, the cycle in which it leaves; of what leaves nothing out, by the formulas of the pages too."""
    wrong = []
    for number, x in cases(part):
        if not x.small:
            continue
        run = run_xnor(x.spec, x.mapping, x.a, x.b, x.levels, run=x.gemm.run, skip=x.skip)
        registers = xnor_reference(x.spec, x.mapping, x.a, x.b, x.levels, run=x.gemm.run, skip=x.skip)
        same = (run.result == registers.result).all() and (run.left == registers.left).all()
        same = same and run.length == registers.cycles
        if not x.skip:
            formulas = modelled(x.spec.xnor, x.mapping, x.gemm, x.levels, x.a, x.b)
            same = same and run.length == formulas.cycles and (run.left == formulas.left).all()
        if not same:
            wrong.append((number, str(x)))

    assert wrong == []


@pytest.mark.slow
@pytest.mark.parametrize("name", BUILT)
def test_the_rtl_has_the_same_sums_in_the_same_cycles(name: str) -> None:
    """Every other product of OS with zero words left out, too."""
    driver, wrong = XnorDriver(BUILT[name]), []
    for number in range(CASES):
        x = case(number)
        if x.built != name:
            continue
        skip = x.mapping.dataflow is Dataflow.OS and number % 2 == 1
        run = run_xnor(x.spec, x.mapping, x.a, x.b, x.levels, run=x.gemm.run, skip=skip)
        rtl = driver.run(x.mapping, x.gemm, x.levels, x.a, x.b, cycles=run.length, skip=skip)
        if rtl.cycles != run.length or not ((rtl.result == x.a @ x.b).all() and (rtl.left == run.left).all()):
            wrong.append((number, str(x)))

    assert wrong == []


def test_the_cases_are_of_every_kind() -> None:
    """Of the first thousand: pairs of levels, dataflows, words left out, machines; ragged in rows, columns, words."""
    drawn = [case(number) for number in range(1000)]
    assert len({x.levels for x in drawn}) > 90
    assert Counter(x.mapping.dataflow for x in drawn).keys() == {Dataflow.OS, Dataflow.WS}
    assert Counter(x.built for x in drawn).keys() == {None, *BUILT}
    assert sum(x.built is not None for x in drawn) == 400
    assert sum(x.skip for x in drawn) == 300
    for ragged in (
        lambda x: x.gemm.m % x.spec.xnor.rows,
        lambda x: x.gemm.n % x.spec.xnor.cols,
        lambda x: x.gemm.run % x.spec.xnor.word_bits,
    ):
        assert 100 < sum(bool(ragged(x)) for x in drawn) < 1000
    assert sum(not x.a.any() or not x.b.any() for x in drawn) > 20
    assert len({x.spec.xnor.word_bits for x in drawn}) == 32
