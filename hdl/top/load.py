"""The unit that loads: lines of memory into the spaces on chip (docs/isa.md)."""

from __future__ import annotations

from typing import Any

from amaranth import Array, Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for, exact_log2

from ...dataflow.operand import FP32
from ...dataflow.program.control import MachineError
from ...dataflow.program.isa import COUNTS, Unit
from ...dataflow.program.spaces import BIT_SPACES, PLACE_ADDRESS_BITS, SIDE_BY_SIDE, SINGLE, Form, Space, Target
from ...workloads.sparsity import MAX_GROUP
from ..blocks.fp.units import MOVED
from ..blocks.sorter import drive_sore, sore_client
from .axi import ADDRESS_BITS, Axi4
from .command import take_command, unit_ports
from .lines import OFFSET_BITS
from .pairs import Unpack
from .places import Places, plan_of
from .reader import Reader
from .reduction import INDEX, Reduction
from .transfer_rules import is_misaligned, is_outside, stop_at_first, units_of

__all__ = ["LoadUnit", "write_layout"]


def write_layout(lanes: int) -> data.StructLayout:
    """``words`` of a space, from ``place`` on from address to address, or ``across`` the banks.

    ``values[x]`` is of the word whose bank (across) or address is ``x`` modulo the lanes. Pairs: ``indices[x]`` of the
    same word; ``bubble``: of all.
    """
    return data.StructLayout(
        {
            "space": 4,
            "half": 1,
            "place": 32,
            "across": 1,
            "words": bits_for(lanes),
            "values": data.ArrayLayout(32, lanes),
            "indices": data.ArrayLayout(INDEX, lanes),
            "bubble": 1,
        }
    )


class LoadUnit(wiring.Component):
    """Runs the commands of `Unit.LOAD` one at a time; ``done`` is up in the cycle in which the last word is written.

    A beat of memory is placed in a cycle, in as many as it has pieces where words do not lie side by side, or as it
    has pairs; where SORE is in the way, which stands at ``sore`` if the machine has one, as `Reduction` has it.
    SORE is in use while ``sorts``; with ``sore_busy`` another is at it, which is an error. ``starved``: there is no
    beat in this cycle. With ``error`` not 0 the unit stands still until reset, and
    nothing that was wrong has been written; ``value`` is the offset or place.
    """

    def __init__(self, target: Target, beat_bytes: int, *, outstanding: int = 32) -> None:
        self.target, self.beat_bytes, self.outstanding = target, beat_bytes, outstanding
        self.bits, self.lanes = target.spec.pe.operand.bits, beat_bytes // target.spec.pe.operand.bytes
        bus = Axi4(beat_bytes).members
        self.reduction = None if target.pattern is None else Reduction(target, self.lanes)
        sore = {} if target.pattern is None else {"sore": Out(sore_client(target.spec, target.pattern))}
        super().__init__(
            {
                **unit_ports(Unit.LOAD, target),
                **sore,
                "sorts": Out(1),
                "sore_busy": In(1),
                "base": In(ADDRESS_BITS),
                "size": In(OFFSET_BITS),
                "ar": bus["ar"],
                "r": bus["r"],
                "write": Out(write_layout(self.lanes)),
                "writes": Out(1),
                "starved": Out(1),
            }
        )

    @property
    def _narrower(self) -> int:
        """Binary logarithm of the operands in a number of FP32."""
        return (FP32.bits // self.bits).bit_length() - 1

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.reader = reader = Reader(self.beat_bytes, outstanding=self.outstanding, word=self.bits // 8)
        m.submodules.places = places = Places(self.lanes)
        if self.reduction is not None:
            m.submodules.reduction = self.reduction
            m.d.comb += drive_sore(self.reduction.sore, self.sore)
        c, begins, runs = take_command(m, self, Unit.LOAD)
        chunk = self._chunk_layout()
        taken = Signal(chunk)
        now = Signal(chunk)
        wiring.connect(m, reader.ar, wiring.flipped(self.ar))
        wiring.connect(m, wiring.flipped(self.r), reader.r)
        self._start(m, c, begins, reader, places)
        self._chunks(m, c, runs, reader, places, now)
        m.d.comb += self.sorts.eq(self.busy & self._reduces(c))
        passes = self._require(m, c, begins, reader, now)
        m.d.sync += [taken.eq(now), taken.valid.eq(now.valid & passes)]
        self._place(m, c, taken)
        with m.If(self.done):
            m.d.sync += runs.eq(0)
        return m

    def _chunk_layout(self) -> data.StructLayout:
        """Words that are placed in a cycle: lanes of a beat from ``start`` on."""
        return data.StructLayout(
            {
                "valid": 1,
                "last": 1,
                "lanes": data.ArrayLayout(self.bits, self.lanes),
                "start": bits_for(self.lanes - 1),
                "words": bits_for(self.lanes),
                "place": 32,
                "across": 1,
                "indices": data.ArrayLayout(INDEX, self.lanes),
            }
        )

    def _start(self, m: Module, c: Any, begins: Any, reader: Any, places: Any) -> None:
        """A cycle after a command is taken its transfer begins."""
        blank = c.form == Form.BLANK
        transfer = reader.transfer.payload
        along, across = (Signal(name=f"allow_{name}") for name in ("along", "across"))
        m.d.comb += [
            reader.base.eq(self.base),
            reader.size.eq(self.size),
            reader.blank.eq(blank),
            reader.quit.eq(self.error != 0),
            reader.transfer.valid.eq(begins & (self.error == 0)),
            transfer.address.eq(Mux(blank, 0, c.address)),
            transfer.words.eq(units_of(self.target, c.form, c.words)),
            *(transfer.counts[i].eq(c[f"count{i}"]) for i in range(COUNTS)),
            *(transfer.steps[i].eq(Mux(blank, 0, c[f"step{i}"])) for i in range(COUNTS)),
            places.begin.eq(begins),
            *plan_of(c, places.plan),
            along.eq(Cat(*[c.space == space for space in SIDE_BY_SIDE if space in self.target.loaded]).any()),
            across.eq(~Cat(*[c.space == space for space in SINGLE]).any()),
            places.allow_along.eq(along),
            places.allow_across.eq(across),
        ]

    def _chunks(self, m: Module, c: Any, runs: Any, reader: Any, places: Any, now: Any) -> None:
        """What is placed in this cycle."""
        beat, lanes = reader.beats.payload, self.lanes
        wide, pairs, grouped = (Signal(name=name) for name in ("wide", "pairs", "grouped"))
        fresh = Signal(init=1)
        at = Signal(range(lanes))
        first, start, end = (Signal(range(lanes), name=name) for name in ("first_word", "start_word", "end_word"))
        left, some, words = (Signal(range(lanes + 1), name=name) for name in ("left", "some", "words"))
        position, in_group, group = (
            Signal(range(MAX_GROUP + 1), name=name) for name in ("position", "in_group", "group")
        )
        run_left = Signal(24)
        goes, whole, takes, room, line_over = (Signal(name=n) for n in ("goes", "whole", "takes", "room", "line_over"))
        reduces = self._reduces(c)
        m.d.comb += [
            wide.eq(c.form == Form.FP32),
            pairs.eq(c.form == Form.PAIR),
            first.eq(Mux(wide, beat.of.first >> self._narrower, beat.of.first)),
            start.eq(Mux(fresh, first, at)),
            end.eq(Mux(wide, beat.of.end >> self._narrower, beat.of.end)),
            left.eq(end - start + 1),
            group.eq(Mux(reduces, 0 if self.target.pattern is None else self.target.pattern.group, c.group)),
            grouped.eq(reduces | ((c.space == Space.N2S) & (c.form == Form.OPERAND) & (c.group != 1))),
            in_group.eq(Mux(run_left < (group - position).as_unsigned(), run_left, group - position)),
            some.eq(Mux(reduces | (left < places.words), left, places.words)),
        ]
        m.d.comb += [
            words.eq(Mux(grouped & ~c.across & (in_group < some), in_group, some)),
            goes.eq(runs & reader.beats.valid & ~pairs & room & (self.error == 0)),
            room.eq(1),
            takes.eq(~pairs & runs & whole & room),
            whole.eq(words == left),
            line_over.eq(whole & beat.of.line_end),
        ]
        m.d.comb += [
            # by no channel of the bus (A3.2.1); after an error what was asked for is taken: others wait behind it
            reader.beats.ready.eq(takes | (self.error != 0)),
            now.valid.eq(goes),
            now.last.eq(whole & beat.of.last),
            now.start.eq(start),
            now.words.eq(words),
            now.place.eq(places.place),
            now.across.eq(places.across),
            *(now.indices[i].eq(Mux(grouped, position + Mux(c.across, 0, i - start), 0)) for i in range(lanes)),
            *(now.lanes[i].eq(beat.data.word_select(i, self.bits)) for i in range(lanes)),
            places.take.eq(Mux(now.valid, now.words, 0)),
            places.line_end.eq(now.valid & line_over),
        ]
        with m.If(goes):
            m.d.sync += [fresh.eq(whole), at.eq(start + words)]
        closes = self._groups(m, c, goes & grouped, group, words, position, run_left, line_over)
        if self.reduction is not None:
            with m.If(pairs):
                self._unpacked(m, c, runs, reader, places, now)
            self._enter(m, runs & reduces, reader, start, words, position, closes, line_over)
            with m.If(reduces):
                m.d.comb += room.eq(self.reduction.elements.ready)
                self._reduced(m, c, runs, places, now)
        with m.If(~runs):
            m.d.sync += [position.eq(0), run_left.eq(c.run), fresh.eq(1)]

    def _enter(
        self, m: Module, runs: Any, reader: Any, start: Any, words: Any, position: Any, closes: Any, line_over: Any
    ) -> None:
        """Elements of a beat on their way to SORE."""
        assert self.reduction is not None, "asked for only where there is one"
        elements, beat = self.reduction.elements, reader.beats.payload
        last = beat.of.last & line_over
        m.d.comb += [
            elements.valid.eq(runs & reader.beats.valid & (self.error == 0)),
            elements.payload.start.eq(start),
            elements.payload.words.eq(words),
            elements.payload.position.eq(position),
            elements.payload.closes.eq(closes | last),
            elements.payload.line_end.eq(line_over),
            elements.payload.last.eq(last),
            *(word.eq(beat.data.word_select(i, self.bits)) for i, word in enumerate(elements.payload.lanes)),
        ]

    def _reduces(self, c: Any) -> Any:
        """Whether a command goes through SORE."""
        return c.reduce & (c.space == Space.N2S) & (c.form == Form.OPERAND)

    def _reduced(self, m: Module, c: Any, runs: Any, places: Any, now: Any) -> None:
        """What is placed in this cycle of what leaves SORE."""
        reduction = self.reduction
        assert reduction is not None, "asked for only where there is one"
        words, whole = Signal(range(self.lanes + 1), name="pairs_placed"), Signal(name="all_placed")
        m.d.comb += [
            reduction.runs.eq(runs),
            reduction.across.eq(c.across),
            reduction.columns.eq(c.words),
            reduction.take.eq(Mux(now.valid, words, 0)),
            words.eq(Mux(reduction.left < places.words, reduction.left, places.words)),
            whole.eq(words == reduction.left),
            now.valid.eq(runs & reduction.valid & (self.error == 0)),
            now.last.eq(whole & reduction.ends),
            now.start.eq(reduction.start),
            now.words.eq(words),
            *(own.eq(word) for own, word in zip(now.lanes, reduction.values, strict=True)),
            *(own.eq(index) for own, index in zip(now.indices, reduction.indices, strict=True)),
            places.line_end.eq(now.valid & whole & reduction.ends_line),
        ]

    def _unpacked(self, m: Module, c: Any, runs: Any, reader: Any, places: Any, now: Any) -> None:
        """What is placed in this cycle of pairs that lie in memory."""
        assert self.target.pattern is not None, "asked for only where there is one"
        m.submodules.unpack = unpack = Unpack(self.target.pattern, self.beat_bytes, self.bits)
        m.d.comb += [
            unpack.runs.eq(runs & (self.error == 0)),
            unpack.words.eq(c.words),
            unpack.beats.valid.eq(reader.beats.valid),
            unpack.beats.payload.eq(reader.beats.payload),
            reader.beats.ready.eq(unpack.beats.ready | (self.error != 0)),
            now.valid.eq(unpack.valid),
            now.last.eq(unpack.last),
            now.start.eq(0),
            now.words.eq(1),
            now.lanes[0].eq(unpack.value),
            now.indices[0].eq(unpack.index),
            places.line_end.eq(unpack.valid & unpack.line_end),
        ]

    def _groups(
        self, m: Module, c: Any, goes: Any, group: Any, words: Any, position: Any, run_left: Any, line_end: Any
    ) -> Any:
        """The position in the group, and what is left of the run, behind ``words`` that go; whether a group ends."""
        stepped = Signal(range(MAX_GROUP + 2 + self.lanes))
        by = Signal.like(words)
        run_over = Signal()
        group_over = Signal()
        m.d.comb += [
            # along a line its words count, across lines each line does
            by.eq(Mux(c.across, 1, words)),
            stepped.eq(position + by),
            run_over.eq(run_left == by),
            group_over.eq(stepped == group),
        ]
        with m.If(goes & (~c.across | line_end)):
            m.d.sync += [
                position.eq(Mux(run_over | group_over, 0, stepped)),
                run_left.eq(Mux(run_over, c.run, run_left - by)),
            ]
            with m.If(line_end & ~c.across):
                m.d.sync += [position.eq(0), run_left.eq(c.run)]
        return Mux(c.across, line_end & (run_over | group_over), line_end | run_over | group_over)

    def _require(self, m: Module, c: Any, begins: Any, reader: Any, now: Any) -> Any:
        """Errors: of the command where it begins, of places and memory as they come; whether the words are none."""
        operand = Cat(c.space == Space.W2E, c.space == Space.N2S).any()
        contradicts = Signal()
        last = Signal(32)
        m.d.comb += [
            contradicts.eq(
                ~Cat(*[c.space == space for space in self.target.loaded]).any()
                | ((c.form == Form.PAIR) & ((c.space != Space.N2S) | (self.target.pattern is None)))
                | ((c.form == Form.FP32) & operand)
                | self._cannot_reduce(c)
            ),
            last.eq(now.place + Mux(now.across, (now.words - 1).as_unsigned() << PLACE_ADDRESS_BITS, now.words - 1)),
        ]
        bits = [c.space == space for space in self.target.loaded if space in BIT_SPACES]
        if bits:
            with m.If(Cat(*bits).any() & (c.form != Form.FP32)):
                m.d.comb += contradicts.eq(1)
        outside = is_outside(m, self.target, c.space, self.target.loaded, last)
        stop_at_first(
            m,
            self,
            (begins & contradicts, MachineError.COMMAND, 0),
            (begins & self._reduces(c) & self.sore_busy, MachineError.SORE, 0),
            (begins & (c.form != Form.BLANK) & is_misaligned(self.target, c), MachineError.ALIGNMENT, c.address),
            (now.valid & outside, MachineError.PLACE, last),
            (reader.outside, MachineError.WINDOW, reader.address),
            (reader.failed, MachineError.READ, reader.address),
        )
        return ~outside

    def _cannot_reduce(self, c: Any) -> Any:
        """Whether a command asks for a SORE that there is not, or for more lanes than it has."""
        reduces = self._reduces(c)
        return reduces if self.target.pattern is None else reduces & c.across & (c.words > self.target.spec.sore.lanes)

    def _place(self, m: Module, c: Any, taken: Any) -> None:
        """Widened where the space has FP32, and turned so that each lane stands where it is written."""
        lanes, shift = self.lanes, exact_log2(self.lanes)
        operand = Signal()
        wide = Signal()
        blank = Signal()
        again = Signal.like(taken)
        m.d.sync += again.eq(taken)
        m.d.comb += [
            operand.eq((c.space == Space.W2E) | (c.space == Space.N2S)),
            wide.eq(c.form == Form.FP32),
            blank.eq(c.form == Form.BLANK),
        ]
        values = [Signal(32, name=f"value_{i}") for i in range(lanes)]
        units, parts = MOVED[self.target.spec.pe.format], 1 << self._narrower
        for i, value in enumerate(values):
            widen = units.widen(1)
            m.submodules[f"widen_{i}"] = widen
            as_wide = Cat(*[again.lanes[parts * i + x] for x in range(parts)]) if i < lanes // parts else 0
            minus_zero = Mux(operand, 1 << self.bits - 1, 0x80000000)
            if self.target.spec.pe.operand.gradient is not None:
                m.d.comb += widen.gradient.eq(c.gradient)
            m.d.comb += [
                widen.half.eq(taken.lanes[i]),
                value.eq(Mux(blank, minus_zero, Mux(operand, again.lanes[i], Mux(wide, as_wide, widen.value)))),
            ]
        origin = Signal(shift)
        turn = Signal(shift)
        m.d.comb += [
            origin.eq(Mux(again.across, again.place[PLACE_ADDRESS_BITS:], again.place)),
            turn.eq(again.start - origin),
        ]
        out = self.write
        m.d.sync += [
            self.writes.eq(again.valid),
            self.done.eq(again.valid & again.last),
            out.space.eq(c.space),
            out.half.eq(c.half),
            out.place.eq(again.place),
            out.across.eq(again.across),
            out.words.eq(again.words),
            out.bubble.eq(blank),
            *(out.values[x].eq(Array(values)[(turn + x)[:shift]]) for x in range(lanes)),
            *(out.indices[x].eq(again.indices[(turn + x)[:shift]]) for x in range(lanes)),
        ]
