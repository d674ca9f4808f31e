"""The neuron behind a column of the XNOR engine: its equation and its width proved, and its memory."""

from __future__ import annotations

import random
from typing import Any

import pytest
from amaranth.hdl import Assert, Assume, C, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In
from amaranth.sim import Simulator

from weft.dataflow.xnor.spec import XnorSpec
from weft.hdl.blocks.control_format import ControlFormat
from weft.hdl.blocks.xnor_neuron import MembraneTurns, XnorNeuron

from ..proof import mutant, proved

SPEC = XnorSpec(rows=2, cols=1, word_bits=8, accumulators=3)


class Fires(wiring.Component):
    """Any membrane, sum and threshold of ``width`` bits, any leak: the equation in wide integers, without a shift.

    ``most`` stands for the largest sum. By induction a membrane is at most 2^leak times that, before its reset too, if
    a threshold is above 0: so where the bits hold this product, the sum of a step never wraps.
    """

    def __init__(self, neuron: Any = XnorNeuron, width: int = 5) -> None:
        self.neuron, self.width = neuron(width), width
        inputs = self.neuron.signature.members.items()
        super().__init__({name: In(m.shape) for name, m in inputs if m.flow == wiring.In} | {"most": In(width - 1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.neuron = neuron = self.neuron
        for name in self.neuron.signature.members:
            if name not in ("next", "spikes"):
                m.d.comb += getattr(neuron, name).eq(getattr(self, name))
        wide = signed(2 * self.width + 4)
        read, s, v = self.membrane.as_signed(), self.value.as_signed(), self.threshold.as_signed()
        held, lost, rest, charged, bound = (Signal(wide, name=n) for n in ("u", "lost", "rest", "charged", "bound"))
        left = Signal(wide, name="behind")
        m.d.comb += held.eq(Mux(self.fresh, 0, read))
        with m.Switch(self.leak):
            for leak in range(1 << len(self.leak)):
                with m.Case(leak):
                    m.d.comb += [lost.eq(held // C(1 << leak, wide)), bound.eq(self.most * C(1 << leak, wide))]
        m.d.comb += [
            rest.eq(held - lost),
            charged.eq(rest + s),
            left.eq(Mux(charged >= v, charged - v, charged)),
            Assume((s <= self.most) & (-s <= self.most) & (v >= 1)),
            Assume((bound < 1 << self.width - 1) & (held <= bound) & (-held <= bound)),
            Assert((charged <= bound) & (-charged <= bound)),
            Assert((left <= bound) & (-left <= bound)),
            Assert(neuron.spikes == (charged >= v)),
            Assert(neuron.next.as_signed() == left),
        ]
        return m


@pytest.mark.parametrize("width", [5, pytest.param(8, marks=pytest.mark.slow)])
def test_a_neuron_is_its_equation_and_never_wraps(width, tmp_path):
    assert proved(Fires(width=width), tmp_path, 2)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("charged >= threshold", "charged > threshold"),
        ("held >> self.leak", "held.as_unsigned() >> self.leak"),
        ("Mux(self.spikes, threshold, 0)", "Mux(self.spikes, charged, 0)"),
        ("Mux(self.fresh, 0, self.membrane)", "self.membrane"),
    ],
)
def test_a_broken_neuron_is_refuted(old, new, tmp_path):
    assert not proved(Fires(mutant(XnorNeuron, old, new)), tmp_path, 2)


def numbers(turns, *, stationary, across, down, rounds=2, contexts=2):
    """What is asked for in every cycle of two runs, of words that leave when they like, and how many have left."""
    draw, seen = random.Random(across + 4 * down), []
    counter = turns(ControlFormat(SPEC).run, SPEC.accumulators)
    words = contexts * rounds * across * down

    async def bench(ctx: Any) -> None:
        registers = {"edge_contexts": contexts, "edge_words": contexts * rounds, "across": across, "down": down}
        ctx.set(counter.run, registers | {"weight_stationary": stationary})
        for _ in range(2):
            gone = 0
            ctx.set(counter.start, 1)
            ctx.set(counter.en, 1)
            await ctx.tick()
            ctx.set(counter.start, 0)
            while gone < words:
                leaves, en = draw.random() < 0.7, draw.random() < 0.7
                ctx.set(counter.leaves, leaves)
                ctx.set(counter.en, en)
                if en:
                    gone += leaves
                    seen.append((gone, ctx.get(counter.number)))
                await ctx.tick()
            ctx.set(counter.leaves, 0)

    simulator = Simulator(counter)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    return seen


def in_order(turns):
    """Whether each word has the number of final ones before it: of all in OS, of its tile along k in WS."""
    for stationary, across, down in ((0, 1, 1), (0, 2, 3), (1, 1, 1), (1, 2, 3), (1, 3, 2)):
        again = 4 * across * (1 if stationary else down)
        for gone, number in numbers(turns, stationary=stationary, across=across, down=down):
            if number != gone % again:
                return False
    return True


def test_every_word_has_the_number_of_its_membrane():
    assert in_order(MembraneTurns)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("run.weight_stationary | ", ""),
        ("block + 1 == run.down", "block == run.down"),
        ("Mux(again, 0, before + 1)", "before + 1"),
    ],
)
def test_numbers_out_of_order_are_found(old, new):
    assert not in_order(mutant(MembraneTurns, old, new))
