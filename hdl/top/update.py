"""The unit that updates weights: WUVE between its spaces, a beat of the lanes a cycle, and SORE behind it
(docs/isa.md)."""

from __future__ import annotations

from typing import Any

from amaranth import Array, Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ...dataflow.program.control import MachineError
from ...dataflow.program.isa import Unit
from ...dataflow.program.spaces import HALVES, PLACE_ADDRESS_BITS, VECTOR_DEPTH, Space, Target
from ..blocks.fp.units import CONVERTED
from ..blocks.sorter import drive_sore, sore_client
from ..blocks.update import Wuve
from .banks import READ
from .command import take_command, unit_ports
from .load import write_layout
from .transfer_rules import stop_at_first
from .unit_banks import LoadedBanks, StoredBanks, loads
from .update_copies import Copies

__all__ = ["UpdateUnit"]

_SKIPPED = 2
"""Cycles of the rounding of a weight that is skipped; less than those of WUVE."""


class UpdateUnit(wiring.Component):
    """Runs the commands of `Unit.UPDATE` one at a time; ``done`` is up in the cycle in which the last word is written,
    `update_cycles` after the command was taken.

    ``write`` is that of a load; ``updated_read`` and ``pairs_read`` answer a store as `OutputBanks` does. With ``skip``
    in the cycle in which a command is taken, what it reads is written as it is. Copies go through the SORE at ``sore``,
    which is in use while ``sorts``; with ``sore_busy`` another is at it, which is an error. With ``error`` not 0 the
    unit stands still until reset, and nothing that was wrong has been written; ``value`` is the first word of a bank
    that there is not.

    With ``blackbox`` the lanes are instances of the module in `parts`.
    """

    def __init__(self, target: Target, lanes: int, *, blackbox: bool = False) -> None:
        self.target, self.store_lanes = target, lanes
        self.wuve = Wuve(target.spec, target.rule, widened=True, blackbox=blackbox)
        pattern = target.pattern if target.spec.wuve.pregenerate else None
        self.copies = None if pattern is None else Copies(target, lanes)
        sorted_ = {} if pattern is None else {"sore": Out(sore_client(target.spec, pattern))}
        super().__init__(
            {
                **unit_ports(Unit.UPDATE, target),
                **sorted_,
                "sorts": Out(1),
                "sore_busy": In(1),
                "pairs_read": Out(32).array(lanes),
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
        m.d.comb += self.sorts.eq(self.busy & (c.copies != 0))
        issues, address = self._issue(m, c, begins, runs)
        made = self._datapath(m, c, issues, address, skips)
        if self.copies is not None:
            self._sort(m, c, runs, skips, *made)
        return m

    def _issue(self, m: Module, c: Any, begins: Any, runs: Any) -> tuple[Any, Any]:
        """Whether a beat is read in this cycle, and its address."""
        address, ends = Signal(range(VECTOR_DEPTH + 1)), Signal()
        beat, tile, drains = Signal(range(VECTOR_DEPTH)), Signal(16), Signal()
        beyond, issues = Signal(), Signal()
        # of no copies, one, and two: cycles after a tile before the next one, and after the last beat to the end
        plans = () if self.copies is None else self.copies.plans
        pauses = [0, *(plan.distance - plan.fill for plan in plans)]
        lasts = [self.wuve.latency, *(plan.depth + plan.reduce + plan.tail for plan in plans)]
        pause, left = Signal(range(max(pauses) + 1)), Signal(range(max(lasts) + 1))
        m.d.comb += [
            ends.eq(beat == c.beats - 1),
            beyond.eq(runs & ~drains & (address == VECTOR_DEPTH)),
            issues.eq(runs & ~drains & ~beyond & (pause == 0) & (self.error == 0)),
            self.done.eq(drains & (left == 0) & (self.error == 0)),
        ]
        m.d.sync += [left.eq(left - 1), pause.eq(Mux(pause == 0, 0, pause - 1))]
        with m.If(issues):
            m.d.sync += [address.eq(address + 1), beat.eq(Mux(ends, 0, beat + 1)), tile.eq(tile + ends)]
            with m.If(ends):
                m.d.sync += pause.eq(Array(pauses)[c.copies])
            with m.If(ends & (tile == c.tiles - 1)):
                m.d.sync += [drains.eq(1), left.eq(Array(lasts)[c.copies])]
        with m.If(~runs):
            m.d.sync += [x.eq(0) for x in (address, beat, tile, drains, pause)]
        fill = plans[0].fill if plans else 0
        contradicts = (c.copies != 0) & ((c.beats != fill) | (c.copies > len(plans)))
        beyond_pairs = 0 if self.copies is None else self.copies.beyond
        stop_at_first(
            m,
            self,
            (begins & contradicts, MachineError.COMMAND, 0),
            (begins & (c.copies != 0) & self.sore_busy, MachineError.SORE, 0),
            (beyond | beyond_pairs, MachineError.PLACE, VECTOR_DEPTH),
        )
        return issues, address

    def _datapath(self, m: Module, c: Any, issues: Any, address: Any, skips: Any) -> tuple[Any, list[Any]]:
        """Between the spaces; whether a beat enters WUVE in this cycle, and the master weights that do."""
        target, wuve, lanes = self.target, self.wuve, self.target.spec.wuve.lanes
        rule = target.rule
        m.submodules.wuve = wuve
        m.submodules.weights = weights = LoadedBanks(target, Space.WEIGHTS, self.store_lanes)
        m.submodules.updated = updated = StoredBanks(target, Space.UPDATED, self.store_lanes)
        entered, writes, into = Signal(), Signal(), Signal(range(VECTOR_DEPTH))
        # a skipped step needs no registers beside the pipeline: it writes at once, and takes its time all the same
        m.d.comb += writes.eq(Mux(skips, entered, wuve.leaving[0]))
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
        return entered, weights.words[lanes : 2 * lanes]

    def _sort(self, m: Module, c: Any, runs: Any, skips: Any, entered: Any, masters: list[Any]) -> None:
        """What WUVE has made goes on to SORE; of a skipped step what it has read, rounded beside WUVE."""
        copies, wuve = self.copies, self.wuve
        assert copies is not None, "asked for only where there are copies"
        m.submodules.copies = copies
        rounded = Signal(_SKIPPED)
        m.d.sync += rounded.eq(Cat(entered, rounded))
        m.d.comb += [
            copies.runs.eq(runs & (c.copies != 0)),
            copies.both.eq(c.copies == 2),
            copies.half.eq(c.pairs_half),
            copies.read.eq(self.read),
            copies.write.eq(Mux(skips, rounded[-1], wuve.leaving[0]) & (c.copies != 0)),
            *drive_sore(copies.sore, self.sore),
            *(out.eq(word) for out, word in zip(self.pairs_read, copies.lanes_read, strict=True)),
        ]
        for i, master in enumerate(masters):
            m.submodules[f"narrow_{i}"] = narrow = CONVERTED[self.target.spec.pe.format].narrow(_SKIPPED)
            m.d.comb += [narrow.value.eq(master), copies.value[i].eq(Mux(skips, narrow.half, wuve.weight16[i]))]

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
