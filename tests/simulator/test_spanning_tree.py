"""A layer in the order of a spanning tree: sums as of the matrix product, cost as stepped, trees as by brute force."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from weft.dataflow.spanning_tree import TreeEngine, tree_cost
from weft.simulator.reference.spanning_tree import tree_reference
from weft.simulator.spanning_tree import run_tree
from weft.workloads.errors import InputError
from weft.workloads.spanning_tree import ROOT, spanning_tree


@st.composite
def layers(draw):
    channels, k, positions = draw(st.integers(1, 9)), draw(st.integers(1, 40)), draw(st.integers(1, 4))
    weights = draw(arrays(np.bool_, (channels, k)))
    if draw(st.booleans()):  # close to one another
        weights = weights[:1] ^ (
            weights & draw(arrays(np.bool_, (channels, k))) & draw(arrays(np.bool_, (channels, k)))
        )
    return weights, draw(arrays(np.bool_, (positions, k)))


engines = st.builds(TreeEngine, lanes=st.integers(1, 6), word_bits=st.integers(1, 16))


@given(layers(), engines, st.booleans())
def test_sums_are_those_of_the_product_and_cost_is_what_is_stepped(layer, engine, inverse):
    weights, inputs = layer
    engine = TreeEngine(lanes=engine.lanes, word_bits=engine.word_bits, positions=len(inputs))
    tree = spanning_tree(weights, inverse=inverse)
    run = run_tree(tree, weights, inputs, engine)
    cost = tree_cost(tree, engine)

    w, x = (np.where(bits, 1, -1) for bits in (weights, inputs))
    np.testing.assert_array_equal(run.result, x @ w.T)
    assert cost.cycles == run.cycles
    assert cost.compared * len(inputs) == run.compared <= cost.compared_plain * len(inputs)


@given(layers(), engines, st.booleans())
def test_every_count_is_made_in_the_cycle_of_the_reference(layer, engine, inverse):
    """Which works out levels, places and turns anew, a bit at a time."""
    weights, inputs = layer
    engine = TreeEngine(lanes=engine.lanes, word_bits=engine.word_bits, positions=len(inputs))
    tree = spanning_tree(weights, inverse=inverse)
    want = tree_reference(
        weights.tolist(),
        tree.parent.tolist(),
        tree.inverted.tolist(),
        inputs.tolist(),
        lanes=engine.lanes,
        word_bits=engine.word_bits,
    )
    run = run_tree(tree, weights, inputs, engine)

    assert (run.result.tolist(), run.made.tolist()) == (want.sums, want.made)
    assert (run.compared, run.cycles) == (want.compared, want.cycles)


def trees(channels):
    """All sets of edges that join all channels."""
    for edges in combinations(combinations(range(channels), 2), channels - 1):
        joined = {0}
        for _ in edges:
            joined |= {x for edge in edges if joined & set(edge) for x in edge}
        if len(joined) == channels:
            yield edges


@given(arrays(np.bool_, (5, 7)), st.booleans())
def test_no_tree_compares_fewer_bits_and_no_root_makes_this_one_shallower(weights, inverse):
    tree = spanning_tree(weights, inverse=inverse)

    def apart(i, j):
        d = int((weights[i] != weights[j]).sum())
        return min(d, 7 - d) if inverse else d

    own = [(i, int(p)) for i, p in enumerate(tree.parent) if p != ROOT]
    assert sum(apart(*edge) for edge in own) == min(sum(apart(*edge) for edge in edges) for edges in trees(5))
    assert tree.distance.sum() == 7 + sum(apart(*edge) for edge in own)

    def height(channel, before=-1):
        beside = [b if a == channel else a for a, b in own if channel in (a, b)]
        return max((1 + height(other, channel) for other in beside if other != before), default=0)

    assert tree.depth.max() == min(map(height, range(5)))


def test_a_chain_by_hand():
    weights = np.array([[0, 0, 0, 0], [0, 0, 0, 1], [0, 0, 1, 1]], np.bool_)
    tree = spanning_tree(weights)
    cost = tree_cost(tree, TreeEngine(lanes=2, word_bits=2))

    assert tree.parent.tolist() == [1, ROOT, 1]
    assert tree.distance.tolist() == [1, 4, 1]
    assert (cost.compared, cost.compared_plain) == (6, 12)
    # Four words of two places, each an index of 2 bits, a sign and a mask bit; half of two of them is empty.
    assert cost.held == 4 * 2 * (2 + 2)
    # The root's 4 bits, and of two edges an index of 2 bits, a parent of 2 and the bit that tells lists from masks.
    assert (cost.stored, cost.stored_plain) == (4 + 2 * (2 + 2 + 1), 12)
    # The root takes two beats on one lane, its children one each side by side; a cycle a level writes back.
    assert (cost.cycles, cost.levels) == (2 + 1 + 1 + 1, 2)


def test_the_inverse_of_a_channel_is_nothing_to_compare():
    weights = np.array([[0, 1, 1, 0, 1], [1, 0, 0, 1, 0]], np.bool_)

    assert sorted(spanning_tree(weights).distance.tolist()) == [5, 5]
    assert sorted(spanning_tree(weights, inverse=True).distance.tolist()) == [0, 5]


def test_random_weights_save_at_most_half_and_store_more():
    """Distances of random channels are near k / 2: what is saved before training is known beforehand."""
    weights = np.random.default_rng(0).random((64, 576)) < 0.5
    cost = tree_cost(spanning_tree(weights), TreeEngine(lanes=16, word_bits=32, positions=16))

    assert 0.4 < cost.compared / cost.compared_plain < 0.5
    assert cost.stored > cost.stored_plain


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        (np.zeros((0, 3), np.bool_), r"one of each at least, not bool \[0, 3\]"),
        (np.zeros((2, 3)), r"not float64 \[2, 3\]"),
        (np.zeros(3, np.bool_), r"not bool \[3\]"),
    ],
)
def test_what_is_no_layer_is_refused(weights, said):
    with pytest.raises(InputError, match=said):
        spanning_tree(weights)


def test_engine_and_inputs_must_fit():
    with pytest.raises(InputError, match=r"lanes of a tree engine must be an integer from 1 .* not 0"):
        TreeEngine(lanes=0, word_bits=8)
    weights = np.ones((2, 3), np.bool_)
    with pytest.raises(InputError, match=r"holds 1 positions, not \[2, 3\] weights and \[2, 3\] inputs"):
        run_tree(spanning_tree(weights), weights, weights, TreeEngine(lanes=1, word_bits=8))
