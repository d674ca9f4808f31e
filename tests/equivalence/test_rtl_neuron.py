"""The RTL of the engine with neurons equals the simulator: every spike, membrane and cycle, step after step."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.dataflow.stce.mapping import Dataflow
from weft.dataflow.xnor.mapping import XnorMapping
from weft.dataflow.xnor.neuron import Neurons
from weft.hdl.drivers.xnor import Product
from weft.hdl.drivers.xnor_neuron import SpikingDriver
from weft.simulator.reference.array import ReferenceRun
from weft.simulator.reference.xnor_neuron import neuron_reference
from weft.simulator.xnor import run_xnor
from weft.simulator.xnor_neuron import fire
from weft.workloads.errors import InputError
from weft.workloads.gemm import Gemm
from weft.workloads.levels import Levels

from ..examples_drawn import examples
from ..strategies import LEVELS, gemms, holds, integers_of, receivers, xnor_mappings
from .test_rtl_xnor import SMALLEST, SPECS


@cache
def driver():
    """One for all tests: what a run leaves behind must not matter to the next."""
    return SpikingDriver(SPECS[SMALLEST])


def assert_equal(mapping, gemm, levels, neurons, pairs, ready=None, hold=None, skip=False):
    """``pairs`` of operands, a time step each: RTL, integers, and memories word by word."""
    rtl, cols = driver(), SPECS[SMALLEST].xnor.cols
    want, seen = None, None
    memories = [[] for _ in range(cols)]
    for a, b in pairs:
        stepped = run_xnor(rtl.spec, mapping, a, b, levels, run=gemm.run, skip=skip, ready=ready, hold=hold)
        spikes, want = fire(stepped.result, want, neurons)
        product = Product(mapping, gemm, levels, a, b, skip)
        got = rtl.fire(product, neurons, seen, cycles=stepped.length, ready=ready, hold=hold)
        seen = got.membrane

        assert got.spikes.tolist() == spikes.tolist()
        assert got.membrane.tolist() == want.tolist()
        assert got.left.tolist() == stepped.left.tolist()
        assert got.cycles == stepped.length
        word_by_word = neuron_reference(
            ReferenceRun(a @ b, got.left, got.cycles), cols, neurons.leak, neurons.threshold.tolist(), memories
        )
        assert got.spikes.tolist() == word_by_word.tolist()


@settings(max_examples=examples(60), deadline=None)
@given(data=st.data())
def test_rtl_equals_the_simulator(data):
    """Both dataflows, all levels, ragged sizes, receivers that wait, several time steps."""
    spec = SPECS[SMALLEST]
    mapping, levels = data.draw(xnor_mappings(spec)), data.draw(st.tuples(LEVELS, LEVELS))
    gemm = data.draw(gemms(9, 9))
    pairs = [
        (data.draw(integers_of(levels[0], gemm.m, gemm.k)), data.draw(integers_of(levels[1], gemm.k, gemm.n)))
        for _ in range(data.draw(st.integers(1, 3)))
    ]
    ready, hold = data.draw(st.none() | receivers(spec.xnor.cols)), data.draw(st.none() | holds())
    most = max(1, int(max(np.abs(a @ b).max() for a, b in pairs)))
    threshold = np.array([data.draw(st.integers(1, most)) for _ in range(gemm.n)], np.int32)

    assert_equal(mapping, gemm, levels, Neurons(data.draw(st.integers(0, 31)), threshold), pairs, ready, hold)


@pytest.mark.parametrize("mapping", [(Dataflow.OS, 2, 1), (Dataflow.WS, 3, 3)], ids=str)
def test_several_tiles_either_way(mapping):
    """Rows of tiles in OS, tiles along k in WS; sums of 2 P - k, ties, both signs of a membrane."""
    dataflow, interleave, group = mapping
    rng, gemm = np.random.default_rng(5), Gemm(m=9, k=60, n=8, run=20)
    levels = (Levels.BINARY, Levels.BINARY)
    pairs = [(rng.choice([-1, 1], (9, 60)), rng.choice([-1, 1], (60, 8))) for _ in range(4)]
    neurons = Neurons(1, np.arange(1, 9, dtype=np.int32))

    assert_equal(XnorMapping(dataflow=dataflow, interleave=interleave, group=group), gemm, levels, neurons, pairs)


def test_silent_words_are_left_out():
    """Of spikes that are rare, so that tiles differ in length and some have none, in every time step others."""
    rng, gemm, levels = np.random.default_rng(8), Gemm(m=7, k=64, n=8, run=16), (Levels.SPIKE, Levels.TERNARY)
    pairs = [((rng.random((7, 64)) < 0.03).astype(int), rng.choice([-1, 0, 1], (64, 8))) for _ in range(3)]
    ready, neurons = rng.random((200, 3)) < 0.6, Neurons(2, np.arange(1, 9, dtype=np.int32) % 3 + 1)

    assert_equal(XnorMapping(dataflow=Dataflow.OS, interleave=2), gemm, levels, neurons, pairs, ready, skip=True)


def test_what_is_no_layer_of_the_product_is_refused():
    ones, mapping = np.ones((2, 2), int), XnorMapping(dataflow=Dataflow.OS, interleave=1)
    product = Product(mapping, Gemm(m=2, k=2, n=2), (Levels.SPIKE, Levels.BINARY), ones, ones)
    with pytest.raises(InputError, match="threshold must be one a channel, 2 of them, not 3"):
        driver().fire(product, Neurons(1, np.ones(3, np.int32)), None, cycles=50)
    with pytest.raises(InputError, match=r"membrane must be int32 \[2, 2\], not int32 \[3, 2\]"):
        driver().fire(product, Neurons(1, np.ones(2, np.int32)), np.ones((3, 2), np.int32), cycles=50)
