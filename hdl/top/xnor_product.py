"""The unit of binary products: the XNOR engine between its spaces (docs/isa.md)."""

from __future__ import annotations

from typing import Any

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for

from ...dataflow.program.control import MachineError
from ...dataflow.program.isa import Unit
from ...dataflow.program.spaces import BIT_WORD, Space, Target
from ...dataflow.xnor.mapping import require_xnor
from ..blocks.run_setup import RunSetup
from ..blocks.xnor import Xnor
from .banks import READ, OutputBanks
from .command import take_command, unit_ports
from .load import write_layout
from .transfer_rules import stop_at_first
from .xnor_banks import LevelBanks, SignBanks, WordBanks

__all__ = ["XnorUnit"]

_BEATS_BITS = bits_for(8 * 8 * 2)


class XnorUnit(wiring.Component):
    """Runs the commands of `Unit.XNOR` one at a time; ``done`` is up two cycles after the array is seen to be quiet,
    when the last strip is there.

    Loads fill the operand spaces and LEVELS by ``write``; stores empty SUMS and SIGNS by ``read``, as `OutputBanks` has
    it. With ``error`` not 0 the unit stands still until reset.
    """

    def __init__(self, target: Target, lanes: int, *, blackbox: bool = False) -> None:
        self.target, self.lanes, self.own = target, lanes, require_xnor(target.spec)
        self.array = Xnor(self.own, blackbox=blackbox)
        super().__init__(
            {
                **unit_ports(Unit.XNOR, target),
                "write": In(write_layout(lanes)),
                "writes": In(1),
                "read": In(READ),
                "sums_read": Out(32).array(lanes),
                "signs_read": Out(32).array(lanes),
            }
        )

    @property
    def parts(self) -> dict[str, Any]:
        """The modules that a black-boxed unit is made of, by name."""
        return self.array.parts

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.array = array = self.array
        c, begins, runs = take_command(m, self, Unit.XNOR)
        m.submodules.setup = setup = RunSetup(self.own)
        m.submodules.signs = signs = SignBanks(self.target, self.own.cols, self.own.accumulators, self.lanes)
        m.submodules.sums = sums = OutputBanks(self.target, self.lanes, Space.SUMS)
        contradicts, quiet = self._contradicts(c), Signal()
        m.d.comb += [
            setup.put.valid.eq(begins & ~contradicts),
            setup.busy.eq(array.busy),
            array.start.eq(setup.start),
            signs.start.eq(setup.start),
            sums.start.eq(setup.start),
        ]
        m.d.sync += [quiet.eq(setup.done), self.done.eq(quiet)]
        with m.If(self.done):
            m.d.sync += runs.eq(0)
        deep = {space: self.target.size(space).depth for space in (Space.SUMS, Space.SIGNS)}
        stop_at_first(
            m,
            self,
            (begins & contradicts, MachineError.COMMAND, 0),
            (sums.beyond, MachineError.PLACE, deep[Space.SUMS]),
            (signs.beyond, MachineError.PLACE, deep[Space.SIGNS]),
        )
        self._registers(m, c, setup)
        self._operands(m, c)
        self._results(m, c, sums, signs)
        return m

    def _operands(self, m: Module, c: Any) -> None:
        """Words to planes: a sign under a mask of ones, or a mask without a sign; and the levels of sums."""
        array, bits = self.array, self.own.word_bits
        m.submodules.w2e = w2e = WordBanks(self.target, Space.XNOR_W2E, self.lanes)
        m.submodules.n2s = n2s = WordBanks(self.target, Space.XNOR_N2S, self.lanes)
        m.submodules.levels = levels = LevelBanks(self.target, self.lanes)
        m.d.comb += [w2e.half.eq(c.w2e_half), n2s.half.eq(c.n2s_half), levels.half.eq(c.levels_half)]
        for banks in (w2e, n2s, levels):
            m.d.comb += [banks.write.eq(self.write), banks.writes.eq(self.writes)]
        for r, word in enumerate(w2e.words_read):
            m.d.comb += [
                w2e.ask[r].eq(array.west_ask[r].address),
                array.west[r][0].eq(Cat(Mux(c.signs_a, word, 0), word | c.signs_a.replicate(bits))),
            ]
        for column, word in enumerate(n2s.words_read):
            north, level = array.north[column], levels.words[column]
            m.d.comb += [
                n2s.ask[column].eq(array.north_ask[column].address),
                north.sign.eq(Mux(c.signs_b, word, 0)),
                north.mask.eq(word | c.signs_b.replicate(bits)),
                north.valid.eq(1),
                levels.ask[column].eq(array.levels_ask[column].address),
                array.levels[column].level.eq(Cat(level[1:], level[BIT_WORD - 1])),
                array.levels[column].flip.eq(level[0]),
            ]

    def _results(self, m: Module, c: Any, sums: Any, signs: Any) -> None:
        """Sums to SUMS; bits, which come a cycle later from column to column, side by side to SIGNS."""
        array, last = self.array, self.own.cols - 1
        m.d.comb += [sums.half.eq(c.output_half), sums.en.eq(array.advance)]
        bits = []
        for column, south in enumerate(array.south):
            made = array.made[column]
            m.d.comb += [
                south.ready.eq(1),
                sums.south[column].valid.eq(south.valid & ~c.threshold),
                sums.south[column].word.eq(made.value),
            ]
            bit: Any = ~made.passes
            for i in range(last - column):
                later = Signal(name=f"bit_{column}_{i}")
                m.d.sync += later.eq(bit)
                bit = later
            bits.append(bit)
        m.d.comb += [
            signs.half.eq(c.output_half),
            signs.combine.eq(c.combine),
            signs.contexts.eq(c.interleave),
            signs.made.valid.eq(array.south[last].valid & c.threshold),
            signs.made.bits.eq(Cat(*bits)),
        ]
        for banks, shown in ((sums, self.sums_read), (signs, self.signs_read)):
            m.d.comb += banks.read.eq(self.read)
            m.d.comb += [lane.eq(word) for lane, word in zip(shown, banks.lanes_read, strict=True)]

    def _registers(self, m: Module, c: Any, setup: Any) -> None:
        """What the array is told of a dense product of slots, each a beat of a pair of words."""
        chosen, array, both = setup.put.payload, self.array, c.signs_a & c.signs_b
        beats = Signal(_BEATS_BITS)
        m.d.comb += [
            # a product by Yosys would take a multiplier of the device
            beats.eq(sum(Mux(c.planes_b[i], c.planes_a << i, 0) for i in range(4)) << (c.signs_a ^ c.signs_b)),
            chosen.weight_stationary.eq(0),
            *(chosen[name].eq(1) for name in ("keep", "group", "rest")),
            *(chosen[name].eq(c[name]) for name in ("interleave", "rows", "across", "down")),
            chosen.parts.eq(beats),
            chosen.runs.eq(c.words),
            chosen.last_a.eq(c.planes_a - 1),
            chosen.last_b.eq(c.planes_b - 1),
            chosen.ways.eq(c.signs_a ^ c.signs_b),
            chosen.signed_a.eq(c.negative_a),
            chosen.signed_b.eq(c.negative_b),
            chosen.twice.eq(both),
            chosen.length.eq(Mux(both, c.length, 0)),
            chosen.edge_contexts.eq(c.interleave),
            chosen.rows_used.eq(c.rows),
        ]
        m.d.comb += [getattr(array.run, name).eq(getattr(setup.run, name)) for name, _ in setup.format.run]
        # of a tile a column's results are those that it drains
        m.d.comb += array.run.edge_words.eq(setup.run.drain_words)

    def _contradicts(self, c: Any) -> Any:
        """What no engine of this size runs (dataflow/program/binary_product.py)."""
        frame = self.array.frame
        wrong = [c[f"signs_{x}"] & ((c[f"planes_{x}"] != 1) | c[f"negative_{x}"]) for x in "ab"]
        return (
            (c.interleave > frame.accumulators)
            | (c.rows > frame.rows)
            | ((c.down > 1) & (c.rows != frame.rows))
            | (c.combine & ~c.threshold)
            | wrong[0]
            | wrong[1]
        )
