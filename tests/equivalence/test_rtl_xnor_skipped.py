"""The RTL of the XNOR engine leaves out words as the simulator does: every sum, bit and cycle, in one run a product."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.dataflow.stce.mapping import Dataflow
from weft.dataflow.xnor.mapping import XnorMapping
from weft.hdl.blocks import xnor
from weft.hdl.blocks.xnor_tiles import XnorTiles
from weft.hdl.drivers.xnor import XnorDriver
from weft.simulator.reference.xnor import xnor_reference
from weft.simulator.xnor import run_xnor
from weft.workloads.errors import InputError
from weft.workloads.gemm import Gemm
from weft.workloads.levels import Levels

from ..examples_drawn import examples
from ..hdl.proof import mutant
from ..strategies import LEVELS, gemms, holds, integers_of, receivers
from .test_rtl_xnor import SMALLEST, SPECS, driver, machine

TERNARY = (Levels.TERNARY, Levels.TERNARY)


def sparse(rng, levels, *shape):
    """Values of ``levels``, where 0 is one of them mostly 0, so that tiles have no word, one, some and all."""
    found = rng.choice(np.array(tuple(levels.values)), shape)
    return found * (rng.random(shape) < rng.choice((0.02, 0.1, 0.3, 1))) if 0 in levels.values else found


def assert_equal(rtl, mapping, gemm, levels, a, b, ready=None, hold=None):
    """Registers of the reference, stepped engine and RTL; thresholds on the sums and beside them."""
    want = run_xnor(rtl.spec, mapping, a, b, levels, run=gemm.run, skip=True, ready=ready, hold=hold)
    registers = xnor_reference(rtl.spec, mapping, a, b, levels, run=gemm.run, skip=True, ready=ready, hold=hold)
    at = (want.result[np.arange(gemm.n) % gemm.m, np.arange(gemm.n)] + np.arange(gemm.n) // 2 % 3 - 1).astype(np.int32)
    flip = np.arange(gemm.n) % 2 == 1
    got = rtl.run(
        mapping, gemm, levels, a, b, cycles=want.length, thresholds=(at, flip), ready=ready, hold=hold, skip=True
    )

    assert got.left.tolist() == want.left.tolist() == registers.left.tolist()
    assert got.cycles == want.length == registers.cycles
    assert got.result.tolist() == want.result.tolist() == (a @ b).tolist()
    assert (got.passed == np.where(flip, want.result <= at, want.result >= at)).all()
    return want


@pytest.mark.parametrize("name", [SMALLEST, *(pytest.param(n, marks=pytest.mark.slow) for n in SPECS if n != SMALLEST)])
@settings(max_examples=examples(60), deadline=None)
@given(data=st.data())
def test_words_are_left_out_as_the_simulator_does(name, data):
    """All levels, mixed; ragged in m, n, run and words; receivers that wait; runs that leave out nothing between."""
    rtl = driver(name)
    mapping = XnorMapping(dataflow=Dataflow.OS, interleave=data.draw(st.integers(1, rtl.own.accumulators)))
    gemm, levels = data.draw(gemms(11, 11)), data.draw(st.tuples(LEVELS, LEVELS))
    shapes = (gemm.m, gemm.k), (gemm.k, gemm.n)
    if data.draw(st.booleans()):
        rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
        a, b = (sparse(rng, level, *shape) for level, shape in zip(levels, shapes, strict=True))
    else:
        a, b = (data.draw(integers_of(level, *shape)) for level, shape in zip(levels, shapes, strict=True))
    ready, hold = data.draw(st.none() | receivers(rtl.own.cols)), data.draw(st.none() | holds())

    assert_equal(rtl, mapping, gemm, levels, a, b, ready, hold)
    if data.draw(st.booleans()):
        whole = run_xnor(rtl.spec, mapping, a, b, levels, run=gemm.run)
        got = rtl.run(mapping, gemm, levels, a, b, cycles=whole.length)
        assert (got.left == whole.left).all() and got.cycles == whole.length


def of_tiles(words, contexts):
    """Operands for the smallest machine, ternary, of which tile ``j`` across has ``words[j]`` words: 2 rows, 8 bits."""
    k, wide = 8 * max(*words, 1), 3 * contexts
    b = np.zeros((k, wide * len(words)), np.int64)
    for j, count in enumerate(words):
        b[: 8 * count, wide * j : wide * (j + 1)] = 1
    return np.where(np.arange(2 * k).reshape(2, k) % 3 == 0, -1, 1), b


@pytest.mark.parametrize("contexts", [1, 2, 3])
@pytest.mark.parametrize("words", [(0,), (0, 0, 0), (1, 0, 4, 1, 1), (5, 1, 0, 5), (1, 2, 1, 3, 0, 0, 2)], ids=str)
def test_tiles_of_no_word_of_one_and_of_many(words, contexts):
    """A short tile behind a long one, a long one behind a short one, and several short ones in a row."""
    rtl, (a, b) = driver(SMALLEST), of_tiles(words, contexts)
    mapping = XnorMapping(dataflow=Dataflow.OS, interleave=contexts)
    gemm = Gemm(m=2, k=len(b), n=b.shape[1])
    want = assert_equal(rtl, mapping, gemm, TERNARY, a, b)
    # two beats a word, one slot of none: a tile goes on while the D cycles of the last drain
    issue, drain = [max(2 * w, 1) * contexts for w in words], 2 * contexts
    assert want.length == 1 + issue[0] + sum(max(x, drain) for x in issue[1:]) - contexts + 3 + 1 + 2 + drain


@pytest.mark.slow
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("last.eq(self.slots == 1)", "last.eq(0)"),
        ("run.rows_used > self.slots, run.rows_used - self.slots, 0", "run.rows_used > 1, run.rows_used - 1, 0"),
    ],
)
def test_a_broken_count_is_found(old, new, monkeypatch):
    monkeypatch.setattr(xnor, "XnorTiles", mutant(XnorTiles, old, new))
    rtl = XnorDriver(machine(2, 1, 8, 1, 2, 2, 1))
    a, b = np.ones((2, 16), np.int64), np.zeros((16, 3), np.int64)
    b[:, 1] = 1
    gemm, mapping = Gemm(m=2, k=16, n=3), XnorMapping(dataflow=Dataflow.OS, interleave=1)
    want = run_xnor(rtl.spec, mapping, a, b, (Levels.SPIKE, Levels.SPIKE), skip=True)
    try:
        got = rtl.run(mapping, gemm, (Levels.SPIKE, Levels.SPIKE), a, b, cycles=want.length + 9, skip=True)
    except RuntimeError:
        return
    assert not (got.left == want.left).all()


def test_weights_that_stay_leave_out_no_words():
    rtl, ones = driver(SMALLEST), np.ones((2, 2), np.int64)
    mapping = XnorMapping(dataflow=Dataflow.WS, interleave=1, group=1)
    with pytest.raises(InputError, match="skip is True, but in dataflow ws the RTL leaves out no words, only in os"):
        rtl.run(mapping, Gemm(m=2, k=2, n=2), TERNARY, ones, ones, cycles=50, skip=True)


def test_a_tile_of_more_slots_than_are_counted_is_refused():
    rtl, k = driver(SMALLEST), 8 * 2**10
    mapping, levels = XnorMapping(dataflow=Dataflow.OS, interleave=1), (Levels.INT8, Levels.INT8)
    a, b = np.ones((1, k), np.int64), np.ones((k, 1), np.int64)
    with pytest.raises(InputError, match="a tile has 65536 slots, but the controller counts up to 65535"):
        rtl.run(mapping, Gemm(m=1, k=k, n=1), levels, a, b, cycles=50, skip=True)
