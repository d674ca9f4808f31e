"""The sum of a channel from its parent's: proved for all weights and inputs of a few bits; tables that do not fit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from amaranth.hdl import Assert, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from weft.dataflow.tree_spec import TreeSpec
from weft.hdl.blocks.tree_lane import TreeSum
from weft.hdl.blocks.tree_tables import input_words, tree_tables
from weft.workloads.errors import InputError
from weft.workloads.spanning_tree import SpanningTree, spanning_tree

from ..proof import mutant, proved

K, COUNT = 5, 3


def ones(bits: Any) -> Any:
    return sum((bits[i] for i in range(K)), start=bits[0] & 0)


class Corrects(wiring.Component):
    """Any parent, child and input of five bits, in two beats cut anywhere: the count is the child's own."""

    def __init__(self, made: Any = TreeSum) -> None:
        self.begins, self.ends = made(COUNT, COUNT), made(COUNT, COUNT)
        bits = {name: In(K) for name in ("parent", "child", "x", "cut")}
        super().__init__({**bits, "inverted": In(1), "whole": In(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.begins, m.submodules.ends = self.begins, self.ends
        flip = self.inverted.replicate(K)
        places = Mux(self.whole, (1 << K) - 1, self.child ^ self.parent ^ flip)[:K]
        agree = ~(self.child ^ self.x) & places
        above, want, distance, offset = (Signal(8, name=name) for name in ("above", "want", "distance", "offset"))
        m.d.comb += [
            above.eq(ones(~(self.parent ^ self.x))),
            want.eq(ones(~(self.child ^ self.x))),
            distance.eq(ones(places)),
            offset.eq(Mux(self.whole, 0, Mux(self.inverted, K - distance, -distance))),
        ]
        for sums, first, part in ((self.begins, 1, agree & self.cut), (self.ends, 0, agree & ~self.cut)):
            m.d.comb += [
                sums.first.eq(first),
                sums.whole.eq(self.whole),
                sums.inverted.eq(self.inverted),
                sums.offset.eq(offset),
                sums.above.eq(above),
                sums.ones.eq(ones(part)),
            ]
        m.d.comb += [self.ends.held.eq(self.begins.total), Assert(self.ends.total == want)]
        m.d.sync += Signal().eq(1)
        return m


def test_a_channel_is_its_parent_corrected(tmp_path):
    assert proved(Corrects(), tmp_path, 2)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("-self.above", "self.above"),
        *(
            pytest.param(*fault, marks=pytest.mark.slow)
            for fault in (
                ("self.ones << 1", "self.ones"),
                ("+ self.offset", ""),
                ("self.held)", "0)"),
                ("Mux(self.whole, self.ones,", "Mux(self.whole, self.ones << 1,"),
            )
        ),
    ],
)
def test_a_wrong_correction_is_refuted(old, new, tmp_path):
    assert not proved(Corrects(mutant(TreeSum, old, new)), tmp_path, 2)


def test_inputs_lie_in_words_of_sixteen_a_row_of_words_a_position():
    own = TreeSpec(lanes=1, word_bits=4, positions=2, inputs=40)
    inputs = np.zeros((2, 20), np.bool_)
    inputs[0, 0] = inputs[0, 17] = inputs[1, 3] = True

    assert input_words(own, inputs) == ([0, 1, 4, 5], [1, 2, 8, 0])


CHAIN = np.tril(np.ones((6, 6), np.bool_))
"""Neighbours differ in one bit."""


@pytest.mark.parametrize(
    ("own", "said"),
    [
        (TreeSpec(lanes=1, word_bits=4, inputs=5), "6 bits of an input, but tree.inputs is 5"),
        (TreeSpec(lanes=1, word_bits=4, tasks=5), "6 counts of a lane, but tree.tasks is 5"),
        (TreeSpec(lanes=1, word_bits=4, words=6), "7 words of a lane, but tree.words is 6"),
    ],
)
def test_a_layer_that_does_not_fit_is_refused(own, said):
    with pytest.raises(InputError, match=said):
        tree_tables(own, spanning_tree(CHAIN), CHAIN)


def test_more_levels_than_a_unit_counts_are_refused():
    """Channels that differ nowhere take no task, but a level each: many are told from few by their number alone."""
    own = TreeSpec(lanes=1, word_bits=8, inputs=8, tasks=1)
    weights = np.zeros((3, 4), np.bool_)
    tables = tree_tables(own, spanning_tree(weights), weights)

    assert tables.own.sum() == 1 and (tables.slot == 0).all() and not tables.inverted.any()
    with pytest.raises(InputError, match="8 levels of the tree, but what the unit counts is 7"):
        tree_tables(own, _chained(np.zeros((8, 4), np.bool_)), np.zeros((8, 4), np.bool_))


def _chained(weights):
    """A tree in which every channel is made of the one before it."""
    channels, k = weights.shape
    own = np.arange(channels)
    return SpanningTree(
        k=k, parent=own - 1, distance=np.where(own, 0, k), depth=own, inverted=np.zeros(channels, np.bool_)
    )


def test_a_unit_whose_lanes_do_not_hold_one_channel_is_refused():
    with pytest.raises(InputError, match=r"tree\.tasks must hold a channel at 9 positions on 2 lanes, not 4; .* is 5"):
        TreeSpec(lanes=2, word_bits=8, positions=9, tasks=4)
