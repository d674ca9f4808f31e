"""The unit that updates weights: WUVE between its spaces, a beat of the lanes a cycle (docs/isa.md)."""

from __future__ import annotations

from typing import Any

from amaranth import Array, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ...dataflow.program.control import MachineError
from ...dataflow.program.isa import Unit
from ...dataflow.program.spaces import HALVES, PLACE_ADDRESS_BITS, VECTOR_DEPTH, Space, Target
from ..blocks.update import Wuve
from .banks import READ
from .command import take_command, unit_ports
from .load import write_layout
from .unit_banks import LoadedBanks, StoredBanks, loads

__all__ = ["UpdateUnit"]


class UpdateUnit(wiring.Component):
    """Runs the commands of `Unit.UPDATE` one at a time; ``done`` is up in the cycle in which the last word is written,
    `update_cycles` after the command was taken.

    ``write`` is that of a load; ``updated_read`` answers a store as `OutputBanks` does. With ``skip`` in the cycle in
    which a command is taken, what it reads is written as it is. Copies are an error yet. With ``error`` not 0 the unit
    stands still until reset, and nothing that was wrong has been written; ``value`` is the first word of a bank that
    there is not.

    With ``blackbox`` the lanes are instances of the module in `parts`.
    """

    def __init__(self, target: Target, lanes: int, *, blackbox: bool = False) -> None:
        self.target, self.store_lanes = target, lanes
        self.wuve = Wuve(target.spec, target.rule, widened=True, blackbox=blackbox)
        super().__init__(
            {
                **unit_ports(Unit.UPDATE),
                "skip": In(1),
                "write": In(write_layout(lanes)),
                "writes": In(1),
                "read": In(READ),
                "updated_read": Out(32).array(lanes),
            }
        )

    @property
    def parts(self) -> dict[str, Any]:
        """The module that a black-boxed unit is made of, by name."""
        return self.wuve.parts

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        c, begins, runs = take_command(m, self, Unit.UPDATE)
        skips = Signal()
        with m.If(self.command.valid & self.command.ready):
            m.d.sync += skips.eq(self.skip)
        with m.If(self.done):
            m.d.sync += runs.eq(0)
        issues, address, leaves = self._issue(m, c, begins, runs)
        self._datapath(m, c, issues, address, skips, leaves)
        return m

    def _issue(self, m: Module, c: Any, begins: Any, runs: Any) -> tuple[Any, Any, Any]:
        """Whether a beat is read in this cycle, its address, and whether one leaves WUVE."""
        address, ends = Signal(range(VECTOR_DEPTH + 1)), Signal()
        beat, tile, drains = Signal(range(VECTOR_DEPTH)), Signal(16), Signal()
        left = Signal(range(self.wuve.latency + 1))
        beyond, issues = Signal(), Signal()
        m.d.comb += [
            ends.eq(beat == c.beats - 1),
            beyond.eq(runs & ~drains & (address == VECTOR_DEPTH)),
            issues.eq(runs & ~drains & ~beyond & (self.error == 0)),
            self.done.eq(drains & (left == 0)),
        ]
        m.d.sync += left.eq(left - 1)
        with m.If(issues):
            m.d.sync += [address.eq(address + 1), beat.eq(Mux(ends, 0, beat + 1)), tile.eq(tile + ends)]
            with m.If(ends & (tile == c.tiles - 1)):
                m.d.sync += [drains.eq(1), left.eq(self.wuve.latency)]
        with m.If(~runs):
            m.d.sync += [x.eq(0) for x in (address, beat, tile, drains)]
        with m.If(self.error == 0):
            with m.If(begins & (c.copies != 0)):
                m.d.sync += [self.error.eq(MachineError.COMMAND), self.value.eq(0)]
            with m.Elif(beyond):
                m.d.sync += [self.error.eq(MachineError.PLACE), self.value.eq(VECTOR_DEPTH)]
        return issues, address, self.wuve.leaving[0]

    def _datapath(self, m: Module, c: Any, issues: Any, address: Any, skips: Any, leaves: Any) -> None:
        target, wuve, lanes = self.target, self.wuve, self.target.spec.wuve.lanes
        rule = target.rule
        m.submodules.wuve = wuve
        m.submodules.weights = weights = LoadedBanks(target, Space.WEIGHTS, self.store_lanes)
        m.submodules.updated = updated = StoredBanks(target, Space.UPDATED, self.store_lanes)
        entered, writes, into = Signal(), Signal(), Signal(range(VECTOR_DEPTH))
        # a skipped step needs no registers beside the pipeline: it writes at once, and takes its time all the same
        m.d.comb += writes.eq(Mux(skips, entered, leaves))
        m.d.sync += [entered.eq(issues), into.eq(Mux(self.busy, into + writes, 0))]
        m.d.comb += [
            weights.write.eq(self.write),
            weights.writes.eq(self.writes),
            weights.half.eq(c.weights_half),
            weights.address.eq(address),
            updated.half.eq(c.updated_half),
            updated.address.eq(into),
            updated.read.eq(self.read),
            updated.enables.eq(writes.replicate(len(rule.held) * lanes)),
            *(out.eq(word) for out, word in zip(self.updated_read, updated.lanes_read, strict=True)),
            *(getattr(wuve, name).eq(word) for name, word in self._constants(m, c).items()),
        ]
        for i in range(lanes):
            m.d.comb += wuve.valid[i].eq(entered)
            for x, name in enumerate(rule.enters):
                m.d.comb += getattr(wuve, name)[i].eq(weights.words[x * lanes + i])
            for x, name in enumerate(rule.held):
                held = weights.words[(x + 1) * lanes + i]
                m.d.comb += updated.words[x * lanes + i].eq(Mux(skips, held, getattr(wuve, f"next_{name}")[i]))

    def _constants(self, m: Module, c: Any) -> dict[str, Any]:
        """CONSTANTS, in registers, as all of them are wanted at once."""
        (chosen, value), *_ = loads(m, self.write, self.writes, Space.CONSTANTS, 1)
        shown = {}
        for number, name in enumerate(self.target.rule.constants):
            halves = [Signal(32, name=f"{name}_{half}", reset_less=True) for half in range(HALVES)]
            for half, register in enumerate(halves):
                at = (self.write.place[:PLACE_ADDRESS_BITS] == number) & (self.write.half == half)
                with m.If(chosen & at):
                    m.d.sync += register.eq(value)
            shown[name] = Array(halves)[c.constants_half]
        return shown
