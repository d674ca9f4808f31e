"""Trees of counters: proved to count at small widths, in every form; random bits at the widths of engines."""

from __future__ import annotations

import random
from typing import Any

import pytest
from amaranth.hdl import Assert, C, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from weft.hdl.blocks import popcount
from weft.hdl.blocks.popcount import Popcount, Tree, registered_after

from ..proof import mutant, proved
from ..stepping import step


class Counts(wiring.Component):
    """Any bits in any cycle: their count, added one by one, is what leaves ``latency`` cycles later."""

    def __init__(self, width: int, latency: int, tree: Tree, made: Any = Popcount) -> None:
        self.tree = made(width, latency=latency, tree=tree)
        super().__init__({"bits": In(width)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.tree = self.tree
        m.d.comb += self.tree.bits.eq(self.bits)
        want = C(0, len(self.tree.count))
        for i in range(len(self.bits)):
            want = Mux(self.bits[i], want + 1, want)[: len(self.tree.count)]
        old, since = Signal(range(self.tree.latency + 1)), want
        for i in range(self.tree.latency):
            later = Signal(len(self.tree.count), name=f"want_{i}")
            m.d.sync += later.eq(since)
            since = later
        m.d.sync += old.eq(Mux(old == self.tree.latency, old, old + 1))
        m.d.comb += Assert((old < self.tree.latency) | (self.tree.count == since))
        return m


@pytest.mark.parametrize(("width", "latency"), [(1, 1), (6, 0), pytest.param(13, 3, marks=pytest.mark.slow)])
@pytest.mark.parametrize("tree", Tree)
def test_every_tree_counts(tree, width, latency, tmp_path):
    assert proved(Counts(width, latency, tree), tmp_path, latency + 2)


@pytest.mark.parametrize(
    ("tree", "broken", "old", "new"),
    [
        (Tree.SIXES, "_in_counts", "range(0, len(bits), inputs)", "range(0, len(bits) - 2, inputs)"),
        (Tree.COMPRESS3, "_rows", "rows[0] + rows[1]", "rows[0] | rows[1]"),
        (Tree.COMPRESS6, "_compressed", "(weight, bit) for bit in bits]", "(weight + 1, bit) for bit in bits]"),
        (Tree.ADDERS, "_in_twos", "pair[1:]", "pair[2:]"),
    ],
)
def test_a_tree_that_miscounts_is_refuted(tree, broken, old, new, tmp_path, monkeypatch):
    monkeypatch.setattr(popcount, broken, mutant(getattr(popcount, broken), old, new))

    assert not proved(Counts(8, 1, tree), tmp_path, 3)


@pytest.mark.parametrize("latency", [0, 1, 4, 9])
@pytest.mark.parametrize("width", [32, 40, 128])  # of more bits, a chain of sums is too deep for Amaranth's simulator
@pytest.mark.parametrize("tree", Tree)
def test_wide_trees_count(tree, width, latency):
    draw = random.Random(width)
    bits = [0, (1 << width) - 1, *(draw.getrandbits(width) & draw.getrandbits(width) for _ in range(20))]

    class Clocked(wiring.Component):
        def __init__(self) -> None:
            self.tree = Popcount(width, latency=latency, tree=tree)
            super().__init__(dict(self.tree.signature.members))

        def elaborate(self, platform: object) -> Module:
            m = Module()
            m.submodules.tree = self.tree
            m.d.comb += [self.tree.bits.eq(self.bits), self.count.eq(self.tree.count)]
            m.d.sync += Signal().eq(1)
            return m

    seen = step(Clocked(), {"bits": bits}, len(bits) + latency)

    assert seen["count"][latency:] == [word.bit_count() for word in bits]


def test_registers_leave_room_for_what_follows_the_tree():
    """Of eight bits and one level behind: three levels and one, cut in two and in four."""
    assert registered_after(levels=3, latency=1, behind=1) == [2]
    assert registered_after(levels=3, latency=3, behind=1) == [1, 2, 3]
    assert registered_after(levels=3, latency=2, behind=0) == [2, 3]
