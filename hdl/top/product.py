"""The unit of products: the STCE between its operand and output spaces (docs/isa.md)."""

from __future__ import annotations

from typing import Any

from amaranth import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ...dataflow.program.control import MachineError
from ...dataflow.program.isa import Unit
from ...dataflow.program.spaces import Space, Target
from ..blocks.array import Stce
from ..blocks.run_setup import RunSetup
from .banks import READ, OperandBanks, OutputBanks
from .command import take_command, unit_ports
from .load import write_layout

__all__ = ["ProductUnit"]


class ProductUnit(wiring.Component):
    """Runs the commands of `Unit.PRODUCT` one at a time; ``done`` is up in the cycle after that of the last word.

    Loads fill W2E and N2S by ``write``; stores empty OUTPUT by ``read``, as `OutputBanks` has it. With ``error``
    not 0 the unit stands still until reset.
    """

    def __init__(self, target: Target, lanes: int, *, blackbox: bool = False) -> None:
        self.target, self.lanes = target, lanes
        self.array = Stce(target.spec, blackbox=blackbox)
        super().__init__(
            {
                **unit_ports(Unit.PRODUCT, target),
                "write": In(write_layout(lanes)),
                "writes": In(1),
                "read": In(READ),
                "lanes_read": Out(32).array(lanes),
            }
        )

    @property
    def parts(self) -> dict[str, Any]:
        """The modules that a black-boxed unit is made of, by name."""
        return self.array.parts

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.array = array = self.array
        m.submodules.w2e = w2e = OperandBanks(self.target, Space.W2E, self.lanes)
        m.submodules.n2s = n2s = OperandBanks(self.target, Space.N2S, self.lanes)
        m.submodules.output = output = OutputBanks(self.target, self.lanes)
        c, begins, runs = take_command(m, self, Unit.PRODUCT)
        m.submodules.setup = setup = RunSetup(self.target.spec)
        contradicts = self._contradicts(c)
        m.d.comb += [
            setup.put.valid.eq(begins & ~contradicts),
            setup.busy.eq(array.busy),
            array.start.eq(setup.start),
            output.start.eq(setup.start),
            self.done.eq(setup.done),
        ]
        with m.If(self.done):
            m.d.sync += runs.eq(0)
        with m.If(begins & contradicts):
            m.d.sync += self.error.eq(MachineError.COMMAND)
        with m.If(output.beyond & (self.error == 0)):
            m.d.sync += [self.error.eq(MachineError.PLACE), self.value.eq(self.target.size(Space.OUTPUT).depth)]
        self._registers(m, c, setup, output)
        for banks, asks in ((w2e, array.west_ask), (n2s, array.north_ask)):
            m.d.comb += [banks.write.eq(self.write), banks.writes.eq(self.writes), banks.en.eq(array.advance)]
            for own, ask in zip(banks.ask, asks, strict=True):
                m.d.comb += [own.valid.eq(ask.valid), own.address.eq(ask.address)]
        m.d.comb += [w2e.half.eq(c.w2e_half), n2s.half.eq(c.n2s_half), output.half.eq(c.output_half)]
        for r, words in enumerate(w2e.words_read):
            m.d.comb += [array.west[r][i].eq(word.value) for i, word in enumerate(words)]
        for column, (word,) in enumerate(n2s.words_read):
            north = array.north[column]
            m.d.comb += [north.value.eq(word.value), north.index.eq(word.index), north.valid.eq(~word.bubble)]
        m.d.comb += output.en.eq(array.advance)
        for column, south in enumerate(array.south):
            own, ask = output.south[column], array.sums_ask[column]
            m.d.comb += [
                south.ready.eq(1),
                own.valid.eq(south.valid),
                own.word.eq(south.word),
                output.sums_ask[column].valid.eq(ask.valid),
                output.sums_ask[column].address.eq(ask.address),
                array.sums[column].eq(output.sums[column]),
            ]
        m.d.comb += output.read.eq(self.read)
        m.d.comb += [lane.eq(word) for lane, word in zip(self.lanes_read, output.lanes_read, strict=True)]
        return m

    def _registers(self, m: Module, c: Any, setup: Any, output: Any) -> None:
        """What the array is told, and after how many words the sums of WS come round again."""
        chosen = setup.put.payload
        own = ("interleave", "keep", "group", "rest", "rows", "parts", "runs", "across", "down")
        m.d.comb += [chosen.weight_stationary.eq(c.stationary), *(chosen[name].eq(c[name]) for name in own)]
        if self.target.spec.pe.operand.gradient is not None:
            m.d.comb += [chosen.west_gradient.eq(c.w2e_gradient), chosen.north_gradient.eq(c.n2s_gradient)]
        m.d.comb += [getattr(self.array.run, name).eq(getattr(setup.run, name)) for name, _ in setup.format.run]
        # needed a whole round later, so no path of a cycle
        tiles = Signal(32)
        m.d.sync += [tiles.eq(c.across * c.parts), output.turn.eq(Mux(c.stationary, tiles * c.interleave, 0))]

    def _contradicts(self, c: Any) -> Any:
        """What no array of this size runs (dataflow/program/legal.py)."""
        frame = self.array.frame
        stationary = (
            (c.keep > frame.held)
            | (c.group * c.interleave > frame.dense_words)
            | (c.rest != c.group)
            | (c.rows != frame.rows)
            | (c.runs != 1)
        )
        return (
            (c.group > frame.longest)
            | (c.group > frame.dense_words)
            | (c.keep > c.group)
            | (c.rest > c.group)
            | (c.interleave > frame.accumulators)
            | (c.rows > frame.rows)
            | c.resume
            | (c.stationary & stationary)
        )
