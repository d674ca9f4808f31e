"""The edge of the XNOR engine: thresholds proved for every sum, and whose threshold comes to which word."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest
from amaranth.hdl import Assert, Assume, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In
from amaranth.sim import Simulator

from weft.dataflow.xnor.spec import XnorSpec
from weft.hdl.blocks.control_format import ControlFormat
from weft.hdl.blocks.xnor_edge import XnorEdge, XnorTurns

from ..proof import mutant, proved

SPEC = XnorSpec(rows=2, cols=1, word_bits=8, accumulators=3)


class Compares(wiring.Component):
    """Any sum, length, level: the value in wide integers, and the comparison of integers."""

    def __init__(self, edge: Any = XnorEdge) -> None:
        self.edge = edge()
        super().__init__({name: In(m.shape) for name, m in self.edge.signature.members.items() if m.flow == wiring.In})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.edge = edge = self.edge
        for name in self.signature.members:
            m.d.comb += getattr(edge, name).eq(getattr(self, name))
        word = self.word.as_signed()
        value = Signal(range(-(1 << 34), 1 << 34))
        m.d.comb += value.eq(Mux(self.twice, word + word - self.length, word))
        # what an engine is asked for has sums that 32 bits hold
        m.d.comb += Assume((value >= -(1 << 31)) & (value < 1 << 31))
        level = self.level.as_signed()
        m.d.comb += [
            Assert(edge.value.as_signed() == value),
            Assert(edge.passes == Mux(self.flip, word < level, word >= level)),
        ]
        return m


def test_a_threshold_is_passed_exactly_from_it_on(tmp_path):
    """All of 2^32 sums, either way round, ties included, binary products and others."""
    assert proved(Compares(), tmp_path, 2)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("self.word.as_signed() >= self", "self.word.as_signed() > self"),
        ("self.level.as_signed()", "self.level"),
        ("self.word << 1", "self.word"),
        ("Mux(self.twice, self.length, 0)", "self.length"),
    ],
)
def test_a_broken_edge_is_refuted(old, new, tmp_path):
    assert not proved(Compares(mutant(XnorEdge, old, new)), tmp_path, 2)


def addresses(turns, contexts, rounds, across):
    """What is asked for in every cycle with an enable, of words that leave when they like, for two blocks and more."""
    draw, seen = random.Random(contexts + 8 * rounds + 64 * across), []
    counter = turns(ControlFormat(SPEC).run, SPEC.accumulators)

    async def bench(ctx: Any) -> None:
        ctx.set(
            counter.run, {"edge_contexts": contexts, "edge_words": contexts * rounds, "across": across, "length": 5}
        )
        for start in (1, *[0] * 6 * contexts * rounds * across):
            # a word that leaves in the cycle of a start would be one of the run before
            leaves, en = draw.random() < 0.7 and not start, start or draw.random() < 0.7
            for port, value in ((counter.start, start), (counter.leaves, leaves), (counter.en, en)):
                ctx.set(port, value)
            if en and not start:
                seen.append((leaves, ctx.get(counter.address)))
            await ctx.tick()

    simulator = Simulator(counter)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    return seen


SHAPES = list(itertools.product((1, 2, 3), (1, 2, 3), (1, 2, 3)))


def in_order(turns):
    """Whether every address is the one that the number of words that have left says, by division."""
    for contexts, rounds, across in SHAPES:
        number = 0
        for leaves, address in addresses(turns, contexts, rounds, across):
            number += leaves
            tile, within = divmod(number, contexts * rounds)
            if address != tile % across * contexts + within % contexts:
                return False
    return True


def test_every_word_has_the_address_of_its_column():
    """Contexts in turn, row by row, then the next tile across, and again for the next block."""
    assert in_order(XnorTurns)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("round_ends & ~tile_ends", "round_ends"),
        ("Mux(block_ends, 0, tile + 1)", "tile + 1"),
        ("first.eq(self.address)", "first.eq(here)"),
        ("EnableInserter(self.en)(m)", "m"),
    ],
)
def test_addresses_out_of_order_are_found(old, new):
    assert not in_order(mutant(XnorTurns, old, new))
