"""The RTL of the unit for spanning trees equals reference and simulator: every sum, and the cycle it is made in."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from weft.dataflow.spanning_tree import TreeEngine, tree_cost
from weft.dataflow.stce.spec import ArraySpec
from weft.dataflow.tree_spec import TreeSpec
from weft.hdl.blocks import tree_lane
from weft.hdl.drivers.tree import TreeDriver
from weft.simulator.reference.spanning_tree import tree_reference
from weft.simulator.spanning_tree import run_tree
from weft.workloads.errors import InputError
from weft.workloads.spanning_tree import spanning_tree

from ..examples_drawn import examples
from ..hdl.proof import mutant
from ..strategies import make_spec

SPECS = {
    "2 lanes of 3 bits": TreeSpec(lanes=2, word_bits=3, positions=3, inputs=37, tasks=32, words=256),
    "3 lanes, a position each": TreeSpec(
        lanes=3, word_bits=8, positions=3, inputs=64, tasks=16, words=128, popcount_latency=3
    ),
    "1 lane of 1 bit": TreeSpec(lanes=1, word_bits=1, inputs=9, tasks=16, words=256, popcount_latency=2),
}
SMALLEST = "2 lanes of 3 bits"


@cache
def driver(name):
    """One for all tests: what a run leaves behind must not matter to the next."""
    return TreeDriver(replace(make_spec(array=ArraySpec(rows=1, cols=1)), tree=SPECS[name]))


@st.composite
def layers(draw, own):
    channels, k = draw(st.integers(1, 12)), draw(st.integers(1, own.inputs))
    weights = draw(arrays(np.bool_, (channels, k)))
    if draw(st.booleans()):  # close to one another, some the same, some inverted
        weights = (
            weights[:1] ^ (weights & draw(arrays(np.bool_, (channels, k)))) ^ draw(arrays(np.bool_, (channels, 1)))
        )
    return weights, draw(arrays(np.bool_, (own.positions, k)))


def first_difference(rtl, weights, inputs, inverse):
    """What the RTL says otherwise than the reference, which knows parents alone, and the stepped machine."""
    own, tree = rtl.own, spanning_tree(weights, inverse=inverse)
    engine = TreeEngine(lanes=own.lanes, word_bits=own.word_bits, positions=own.positions)
    want = tree_reference(
        weights.tolist(),
        tree.parent.tolist(),
        tree.inverted.tolist(),
        inputs.tolist(),
        lanes=own.lanes,
        word_bits=own.word_bits,
    )
    stepped = run_tree(tree, weights, inputs, engine)
    got = rtl.run(tree, weights, inputs, cycles=want.cycles)
    made = np.where(got.made < 0, stepped.made, got.made - own.latency)
    assert (got.made >= 0).all(0).tolist() == (tree.distance > 0).tolist()
    for what, found, meant in (
        ("cycles", got.cycles, want.cycles),
        ("of the closed form", got.cycles, tree_cost(tree, engine).cycles),
        ("sums", got.result.tolist(), want.sums),
        ("made in", made.tolist(), want.made),
        ("made as stepped", made.tolist(), stepped.made.tolist()),
    ):
        if found != meant:
            return what, found, meant
    return None


@pytest.mark.parametrize("name", [SMALLEST, *(pytest.param(n, marks=pytest.mark.slow) for n in SPECS if n != SMALLEST)])
@settings(max_examples=examples(120), deadline=None)
@given(data=st.data())
def test_rtl_equals_reference_and_simulator(name, data):
    """Ragged words, channels that are the same or inverted, lanes without work, one run after another."""
    rtl = driver(name)
    weights, inputs = data.draw(layers(rtl.own))

    assert first_difference(rtl, weights, inputs, data.draw(st.booleans())) is None


@pytest.mark.slow
@pytest.mark.parametrize("name", SPECS)
def test_ten_thousand_random_layers(name):
    rtl, rng = driver(name), np.random.default_rng(1)
    for _ in range(-(-10_000 // len(SPECS))):
        channels, k = rng.integers(1, 13), rng.integers(1, rtl.own.inputs + 1)
        apart = rng.random((channels, k)) < rng.choice((0.5, 0.1, 0.02))
        weights = (rng.random(k) < 0.5) ^ apart ^ (rng.random((channels, 1)) < rng.choice((0.0, 0.3)))
        inputs = rng.random((rtl.own.positions, k)) < 0.5
        assert first_difference(rtl, weights, inputs, bool(rng.integers(2))) is None


def test_all_ones_against_all_zeros_are_the_ends_of_a_sum():
    rtl = driver(SMALLEST)
    k = rtl.own.inputs
    weights = np.stack([np.ones(k, np.bool_), np.zeros(k, np.bool_), np.ones(k, np.bool_)])
    inputs = np.stack([np.ones(k, np.bool_), np.zeros(k, np.bool_), np.arange(k) % 2 == 0])
    for inverse in (False, True):
        got = rtl.run(spanning_tree(weights, inverse=inverse), weights, inputs, cycles=200)
        assert got.result.tolist() == [[k, -k, k], [-k, k, -k], [1, -1, 1]]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("task.start + beat", "task.start"),
        ("task.level == self.level", "task.level >= self.level"),
        ("self.active & ~ends, beat + 1", "self.active, beat + 1"),
        ("masks & ~(found ^ signs)", "~(found ^ signs)"),
        ("[stage.lane]", "[0]"),
        ("stages[latency - 1], stages[latency])", "stages[latency], stages[latency])"),
    ],
)
def test_a_broken_lane_is_found(old, new, monkeypatch):
    from weft.hdl.blocks import tree

    monkeypatch.setattr(tree, "TreeLane", mutant(tree_lane.TreeLane, old, new))
    rtl = TreeDriver(replace(make_spec(array=ArraySpec(rows=1, cols=1)), tree=SPECS[SMALLEST]))
    rng, found = np.random.default_rng(3), False
    for _ in range(20):
        weights = (rng.random(30) < 0.5) ^ (rng.random((9, 30)) < 0.2)
        try:
            found |= first_difference(rtl, weights, rng.random((3, 30)) < 0.5, False) is not None
        except (RuntimeError, AssertionError):
            found = True  # counts that never came, or too many
        if found:
            return
    pytest.fail("nothing differed")


def test_a_layer_of_another_size_and_a_machine_without_the_unit_are_refused():
    rtl, weights = driver(SMALLEST), np.ones((2, 4), np.bool_)
    with pytest.raises(InputError, match=r"the unit holds 3 positions, not \[2, 4\] weights and \[2, 4\] inputs"):
        rtl.run(spanning_tree(weights), weights, weights, cycles=10)
    with pytest.raises(InputError, match=r"has no unit for spanning trees: give it a table \[tree\]"):
        TreeDriver(make_spec(array=ArraySpec(rows=1, cols=1)))
    with pytest.raises(RuntimeError, match="keep the unit busy for more than the given 3 cycles"):
        weights = np.random.default_rng(0).random((9, 37)) < 0.5
        rtl.run(spanning_tree(weights), weights, weights[:3], cycles=3)
