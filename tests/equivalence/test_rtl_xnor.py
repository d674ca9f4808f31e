"""The RTL of the XNOR engine equals the formulas: every sum, and the cycle in which it leaves."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.dataflow.stce.mapping import Dataflow
from weft.dataflow.xnor.spec import XnorSpec
from weft.hdl.blocks.banks import IN_RTL
from weft.hdl.blocks.xnor_banks import XnorWork
from weft.hdl.drivers.xnor import Thresholds, XnorDriver
from weft.workloads.gemm import Gemm
from weft.workloads.levels import Levels

from ..hdl.xnor_model import modelled

SPECS = {
    "2x3 of 8 bits": XnorSpec(
        rows=2, cols=3, word_bits=8, accumulators=3, dense_words=9, weight_words=3, popcount_latency=2
    ),
    "1x1, nothing to spare": XnorSpec(
        rows=1, cols=1, word_bits=8, accumulators=1, dense_words=1, weight_words=1, popcount_latency=1
    ),
    "4x4 of 64 bits": XnorSpec(
        rows=4, cols=4, word_bits=64, accumulators=4, dense_words=16, weight_words=5, popcount_latency=3
    ),
    "3x2 of 40 bits": XnorSpec(
        rows=3, cols=2, word_bits=40, accumulators=6, dense_words=12, weight_words=4, popcount_latency=5
    ),
}


@cache
def driver(name):
    """One for all tests: what a run leaves behind must not matter to the next."""
    return XnorDriver(SPECS[name])


def values(rng, levels, shape):
    """Any of them, and the ends more often."""
    allowed = np.array(tuple(levels.values))
    drawn = rng.choice(allowed, shape)
    ends = rng.choice(allowed[[0, -1]], shape)
    return np.where(rng.random(shape) < 0.3, ends, drawn).astype(np.int16)


@st.composite
def works(draw, spec, dimension=9, longest=40):
    dataflow = draw(st.sampled_from(IN_RTL), "dataflow")
    group = draw(st.integers(1, min(spec.weight_words, spec.dense_words)), "group") if dataflow is Dataflow.WS else 1
    most = min(spec.accumulators, spec.dense_words // group) if dataflow is Dataflow.WS else spec.accumulators
    run = draw(st.integers(1, longest), "run")
    gemm = Gemm(
        m=draw(st.integers(1, dimension), "m"),
        k=run * draw(st.integers(1, 3), "taps"),
        n=draw(st.integers(1, dimension), "n"),
        run=run,
    )
    levels = draw(st.tuples(*[st.sampled_from(list(Levels))] * 2), "levels")
    return XnorWork(
        dataflow=dataflow, interleave=draw(st.integers(1, most), "interleave"), group=group, gemm=gemm, levels=levels
    )


def assert_equal(driver, work, seed, ready=None):
    spec, gemm, rng = driver.spec, work.gemm, np.random.default_rng(seed)
    a, b = values(rng, work.levels[0], (gemm.m, gemm.k)), values(rng, work.levels[1], (gemm.k, gemm.n))
    want = modelled(spec, work, a, b, ready)
    # on and beside the sums, so that ties are among them
    level = rng.choice(want.result.ravel(), gemm.n) + rng.integers(-1, 2, gemm.n)
    flip = rng.random(gemm.n) < 0.5
    got = driver.run(work, a, b, cycles=want.cycles, thresholds=Thresholds(level.astype(np.int32), flip), ready=ready)

    assert first_difference(spec, got, want) is None
    assert got.cycles == want.cycles
    assert (got.result == want.result).all()
    assert (got.passed == np.where(flip, want.result <= level, want.result >= level)).all()


def first_difference(spec, got, want):
    """Cycle, column and both values of the earliest word that is not what the formulas say."""
    wrong = np.argwhere((got.sums != want.sums) | (got.left != want.left))
    if not len(wrong):
        return None
    row, column = min(map(tuple, wrong), key=lambda at: want.left[at])
    return (
        f"south__{column % spec.cols}: C[{row}, {column}] leaves the RTL in cycle {got.left[row, column]} as "
        f"{got.sums[row, column]}, by the formulas in cycle {want.left[row, column]} as {want.sums[row, column]}"
    )


def receivers(spec, seed, cycles=400):
    rng = np.random.default_rng(seed)
    return rng.random((cycles, spec.cols)) < rng.choice([0.2, 0.5, 0.9])


@pytest.mark.parametrize("name", SPECS)
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_rtl_equals_the_formulas(name, data):
    """Both dataflows; all levels, mixed; ragged in m, n, run and words; receivers that wait; one run after another."""
    rtl = driver(name)
    work = data.draw(works(rtl.spec, longest=3 * rtl.spec.word_bits // 2))
    seed = data.draw(st.integers(0, 2**32 - 1), "seed")
    ready = receivers(rtl.spec, seed) if data.draw(st.booleans(), "waits") else None

    assert_equal(rtl, work, seed, ready)
