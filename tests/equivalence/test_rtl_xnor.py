"""The RTL of the XNOR engine equals the formulas and the simulator: every sum, and the cycle in which it leaves."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.dataflow.stce.mapping import Dataflow
from weft.dataflow.stce.spec import ArraySpec
from weft.dataflow.xnor.mapping import XnorMapping
from weft.dataflow.xnor.spec import XnorSpec
from weft.hdl.blocks import beats
from weft.hdl.drivers.xnor import XnorDriver
from weft.simulator.xnor import run_xnor
from weft.workloads.errors import InputError
from weft.workloads.gemm import Gemm
from weft.workloads.levels import Levels

from ..examples_drawn import examples
from ..hdl.proof import mutant
from ..hdl.xnor_model import modelled
from ..strategies import LEVELS, gemms, holds, integers_of, make_spec, receivers, xnor_mappings


def machine(rows, cols, bits, contexts, dense, held, latency):
    own = XnorSpec(
        rows=rows,
        cols=cols,
        word_bits=bits,
        accumulators=contexts,
        dense_words=dense,
        weight_words=held,
        popcount_latency=latency,
    )
    return replace(make_spec(array=ArraySpec(rows=1, cols=1)), xnor=own)


SPECS = {
    "2x3 of 8 bits": machine(2, 3, 8, 3, 9, 3, 2),
    "1x1 of 8 bits, nothing to spare": machine(1, 1, 8, 1, 1, 1, 1),
    "4x4 of 64 bits": machine(4, 4, 64, 4, 16, 5, 3),
    "3x2 of 40 bits": machine(3, 2, 40, 6, 12, 4, 5),
}

SMALLEST = "2x3 of 8 bits"
"""Compiled for this file and the suite of engines; each of the others takes seconds more."""


@cache
def driver(name):
    """One for all tests: what a run leaves behind must not matter to the next."""
    return XnorDriver(SPECS[name])


def first_difference(driver, got, want):
    """Cycle, column and both values of the earliest word that is not what the formulas say."""
    wrong = np.argwhere((got.sums != want.sums) | (got.left != want.left))
    if not len(wrong):
        return None
    row, column = min(map(tuple, wrong), key=lambda at: want.left[at])
    return (
        f"south__{column % driver.own.cols}: C[{row}, {column}] leaves the RTL in cycle {got.left[row, column]} as "
        f"{got.sums[row, column]}, by the formulas in cycle {want.left[row, column]} as {want.sums[row, column]}"
    )


def assert_equal(driver, mapping, gemm, levels, a, b, ready=None, hold=None):
    """The formulas, the stepped engine and the RTL say the same; every bit of a threshold is the comparison's."""
    want = modelled(driver.own, mapping, gemm, levels, a, b, ready, hold)
    stepped = run_xnor(driver.spec, mapping, a, b, levels, run=gemm.run, ready=ready, hold=hold)
    # on the sums and beside them, so that ties are among them
    at = want.result[np.arange(gemm.n) % gemm.m, np.arange(gemm.n)] + np.arange(gemm.n) // 2 % 3 - 1
    flip = np.arange(gemm.n) % 2 == 1
    thresholds = (at.astype(np.int32), flip)
    got = driver.run(mapping, gemm, levels, a, b, cycles=want.cycles, thresholds=thresholds, ready=ready, hold=hold)

    assert first_difference(driver, got, want) is None
    assert got.cycles == want.cycles == stepped.length
    assert got.result.tolist() == want.result.tolist() == stepped.result.tolist()
    assert want.left.tolist() == stepped.left.tolist()
    assert (got.passed == np.where(flip, want.result <= at, want.result >= at)).all()


@pytest.mark.parametrize("name", [SMALLEST, *(pytest.param(n, marks=pytest.mark.slow) for n in SPECS if n != SMALLEST)])
@settings(max_examples=examples(120), deadline=None)
@given(data=st.data())
def test_rtl_equals_the_formulas(name, data):
    """Both dataflows; all levels, mixed; ragged in m, n, run and words; receivers that wait; one run after another."""
    rtl = driver(name)
    mapping, levels = data.draw(xnor_mappings(rtl.spec)), data.draw(st.tuples(LEVELS, LEVELS))
    gemm = data.draw(gemms(11, 11))
    a, b = data.draw(integers_of(levels[0], gemm.m, gemm.k)), data.draw(integers_of(levels[1], gemm.k, gemm.n))
    ready, hold = data.draw(st.none() | receivers(rtl.own.cols)), data.draw(st.none() | holds())

    assert_equal(rtl, mapping, gemm, levels, a, b, ready, hold)


MAPPINGS = (
    XnorMapping(dataflow=Dataflow.OS, interleave=2),
    XnorMapping(dataflow=Dataflow.WS, interleave=2, group=1),
    XnorMapping(dataflow=Dataflow.WS, interleave=3, group=3),
)


@pytest.mark.parametrize("mapping", MAPPINGS, ids=lambda mapping: f"{mapping.dataflow}-{mapping.group}")
@pytest.mark.parametrize("levels", list(product(Levels, Levels)), ids=lambda pair: f"{pair[0]}-{pair[1]}")
def test_every_pair_of_levels(levels, mapping):
    """Words that end inside a tile of WS, so that the beats of a word lie in two rows and in two tiles."""
    rtl, rng = driver("2x3 of 8 bits"), np.random.default_rng(7)
    gemm = Gemm(m=5, k=22, n=7, run=11)
    a, b = (
        rng.choice(np.array(tuple(side.values)), shape)
        for side, shape in zip(levels, ((gemm.m, gemm.k), (gemm.k, gemm.n)), strict=True)
    )

    assert_equal(rtl, mapping, gemm, levels, a, b)


@pytest.mark.parametrize("order", [1, -1])
def test_a_run_may_follow_another_at_once(order):
    """Rows 1 cycle apart and 17, beats of another kind, thresholds of other columns."""
    rtl, rng = driver("4x4 of 64 bits"), np.random.default_rng(2)
    one = (Levels.BINARY, Levels.BINARY), XnorMapping(dataflow=Dataflow.OS, interleave=1), Gemm(m=1, k=1, n=1)
    long = (
        (Levels.INT3, Levels.TERNARY),
        XnorMapping(dataflow=Dataflow.WS, interleave=4, group=4),
        Gemm(m=9, k=200, n=6),
    )
    for levels, mapping, gemm in [one, long][::order] * 2:
        a = rng.choice(np.array(tuple(levels[0].values)), (gemm.m, gemm.k))
        b = rng.choice(np.array(tuple(levels[1].values)), (gemm.k, gemm.n))
        assert_equal(rtl, mapping, gemm, levels, a, b)


def test_the_largest_sums_there_are():
    """-128 x -128, so that every shift and both signs of a plane meet; and thresholds at the ends of 32 bits."""
    rtl = driver("4x4 of 64 bits")
    gemm, levels = Gemm(m=1, k=2000, n=2), (Levels.INT8, Levels.INT8)
    a, b = np.full((1, gemm.k), -128), np.repeat([[-128, 127]], gemm.k, axis=0)

    assert_equal(rtl, XnorMapping(dataflow=Dataflow.OS, interleave=1), gemm, levels, a, b)
    got = rtl.run(
        XnorMapping(dataflow=Dataflow.OS, interleave=1),
        gemm,
        levels,
        a,
        b,
        cycles=10**4,
        thresholds=(np.array([-(2**31), 2**31 - 1], np.int32), np.array([True, False])),
    )
    assert got.result.tolist() == [[32_768_000, -32_512_000]]
    assert got.passed.tolist() == [[False, False]]


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("shifted", "beat.a + beat.b", "beat.b"),
        *(
            pytest.param(*fault, marks=pytest.mark.slow)
            for fault in (
                ("negated", "Cat(beat.way, last_a, last_b).xor()", "Cat(beat.way, last_a, last_b).any()"),
                ("added", "both - last - 1", "both - last"),
                ("differs", "return beat.way", "return 0"),
            )
        ),
    ],
)
def test_wrong_beats_are_found(name, old, new, monkeypatch):
    from weft.hdl.blocks import xnor

    monkeypatch.setattr(xnor, name, mutant(getattr(beats, name), old, new))
    rtl, rng = XnorDriver(machine(2, 1, 8, 1, 2, 2, 1)), np.random.default_rng(3)
    mapping, gemm = XnorMapping(dataflow=Dataflow.WS, interleave=1, group=2), Gemm(m=3, k=20, n=2)
    found = []
    for levels in ((Levels.INT3, Levels.INT2), (Levels.TERNARY, Levels.INT2)):
        a = rng.choice(np.array(tuple(levels[0].values)), (gemm.m, gemm.k))
        b = rng.choice(np.array(tuple(levels[1].values)), (gemm.k, gemm.n))
        want = modelled(rtl.own, mapping, gemm, levels, a, b)
        got = rtl.run(mapping, gemm, levels, a, b, cycles=want.cycles)
        assert (got.left == want.left).all()
        found.append(first_difference(rtl, got, want))
    assert any(found)


@pytest.mark.parametrize(
    ("gemm", "levels", "reason"),
    [
        (Gemm(m=2, k=2**17, n=2), (Levels.INT8, Levels.INT8), "may reach 2.31"),
        (Gemm(m=2, k=8 * 2**16, n=2, run=8), (Levels.BINARY, Levels.BINARY), "65536 runs, but a loop counter"),
        (Gemm(m=2, k=8, n=2, groups=2), (Levels.BINARY, Levels.BINARY), "one product, but .* has 2"),
    ],
)
def test_what_the_registers_do_not_hold_is_refused(gemm, levels, reason):
    rtl = driver("2x3 of 8 bits")
    a, b = np.ones((gemm.m, gemm.k), int), np.ones((gemm.k, gemm.n), int)
    with pytest.raises(InputError, match=reason):
        rtl.run(XnorMapping(dataflow=Dataflow.OS, interleave=1), gemm, levels, a, b, cycles=10)


def test_thresholds_of_other_columns_are_refused():
    rtl, ones = driver("2x3 of 8 bits"), np.ones((2, 2), int)
    mapping = XnorMapping(dataflow=Dataflow.OS, interleave=1)
    with pytest.raises(InputError, match="thresholds must be one a column of C, 2 of them"):
        rtl.run(
            mapping,
            Gemm(m=2, k=2, n=2),
            (Levels.BINARY, Levels.BINARY),
            ones,
            ones,
            cycles=50,
            thresholds=(np.zeros(3, np.int32), np.zeros(2, np.bool_)),
        )
