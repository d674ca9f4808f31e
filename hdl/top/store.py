"""The unit that stores: lines of memory out of the spaces on chip (docs/isa.md)."""

from __future__ import annotations

from typing import Any

from amaranth import Array, Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for, exact_log2

from ...dataflow.operand import FP32, NumberFormat
from ...dataflow.program.control import MachineError
from ...dataflow.program.isa import COUNTS, Unit
from ...dataflow.program.spaces import BIAS_WORDS, BIT_SPACES, PLACE_ADDRESS_BITS, Form, Space, Target
from ..blocks.fp.add import Fp32Add
from ..blocks.fp.units import MOVED
from .axi import ADDRESS_BITS, Axi4
from .banks import READ
from .command import take_command, unit_ports
from .lines import OFFSET_BITS
from .places import Places, plan_of
from .queue import Queue
from .transfer_rules import is_misaligned, is_outside, stop_at_first, units_of
from .writer import Writer

__all__ = ["ADD", "NARROW", "PIPELINE", "StoreUnit"]

ADD, NARROW = 4, 2
"""Cycles of the adder of the bias, and of the rounding to an operand."""
PIPELINE = 2 + ADD + NARROW
"""Cycles from that in which words are asked for to that in which they are on their way into a beat."""
_ROOM = 16
"""Beats that wait for memory; at least those that the pipeline can hold."""


class StoreUnit(wiring.Component):
    """Runs the commands of `Unit.STORE` one at a time; ``done`` is up in the cycle in which memory has answered all.

    ``read`` asks the space ``space`` for words, which stand at ``lanes_read`` in the next cycle as `OutputBanks` has
    them; so does ``bias_place`` ask BIAS for ``lanes`` words in order. A beat is gathered in as many cycles as it has
    pieces of words that lie side by side across the banks. ``nonfinite`` is up for a cycle in which a watched store
    passes on an Inf or NaN.
    """

    def __init__(self, target: Target, beat_bytes: int, *, outstanding: int = 32) -> None:
        self.target, self.beat_bytes, self.outstanding = target, beat_bytes, outstanding
        self.bits, self.lanes = target.spec.pe.operand.bits, beat_bytes // target.spec.pe.operand.bytes
        self.index_bits = 0 if target.pattern is None else target.pattern.index_bits
        bus = Axi4(beat_bytes).members
        super().__init__(
            {
                **unit_ports(Unit.STORE, target),
                "base": In(ADDRESS_BITS),
                "size": In(OFFSET_BITS),
                "aw": bus["aw"],
                "w": bus["w"],
                "b": bus["b"],
                "space": Out(4),
                "read": Out(READ),
                "lanes_read": In(32).array(self.lanes),
                "bias_half": Out(1),
                "bias_place": Out(bits_for(BIAS_WORDS)),
                "bias_read": In(32).array(self.lanes),
                "nonfinite": Out(1),
            }
        )

    @property
    def _narrower(self) -> int:
        """Binary logarithm of the operands in a number of FP32."""
        found: int = exact_log2(FP32.bits // self.bits)
        return found

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.writer = writer = Writer(self.beat_bytes, outstanding=self.outstanding, word=self.bits // 8)
        m.submodules.places = places = Places(self.lanes)
        m.submodules.gathered = gathered = Queue(8 * self.beat_bytes, _ROOM)
        c, begins, runs = take_command(m, self, Unit.STORE)
        for name in ("aw", "w"):
            wiring.connect(m, getattr(writer, name), wiring.flipped(getattr(self, name)))
        wiring.connect(m, wiring.flipped(self.b), writer.b)
        wiring.connect(m, gathered.out, writer.beats)
        m.d.comb += [self.done.eq(writer.done & (self.error == 0)), self.space.eq(c.space)]
        self._start(m, c, begins, writer, places)
        piece = Signal(self._piece_layout())
        self._pieces(m, c, runs, writer, places, gathered, piece)
        passes = self._require(m, c, begins, writer, places, piece)
        self._pipeline(m, c, piece, passes, gathered)
        with m.If(writer.done):
            m.d.sync += runs.eq(0)
        return m

    def _piece_layout(self) -> data.StructLayout:
        """Words that are asked for in a cycle, and the lanes of the beat that they become; the bits below a pair."""
        lane = exact_log2(self.lanes)
        fields = {"valid": 1, "start": lane, "origin": lane, "words": lane + 1, "ends": 1}
        return data.StructLayout(fields | {"fill": range(8 * self.beat_bytes)})

    def _start(self, m: Module, c: Any, begins: Any, writer: Any, places: Any) -> None:
        transfer = writer.transfer.payload
        m.d.comb += [
            writer.base.eq(self.base),
            writer.size.eq(self.size),
            writer.quit.eq(self.error != 0),
            writer.transfer.valid.eq(begins & (self.error == 0)),
            transfer.address.eq(c.address),
            transfer.words.eq(units_of(self.target, c.form, c.words)),
            *(transfer.counts[i].eq(c[f"count{i}"]) for i in range(COUNTS)),
            *(transfer.steps[i].eq(c[f"step{i}"]) for i in range(COUNTS)),
            places.begin.eq(begins),
            *plan_of(c, places.plan),
            places.allow_along.eq(0),
            places.allow_across.eq(c.form != Form.PAIR),
        ]

    def _pieces(self, m: Module, c: Any, runs: Any, writer: Any, places: Any, gathered: Any, piece: Any) -> None:
        """Asks for the next words of the beat that is gathered, while there is room for all beats on their way."""
        lanes, ask = self.lanes, writer.asks.payload
        wide = c.form == Form.FP32
        fresh = Signal(init=1)
        at = Signal(range(lanes))
        word = Signal(24)
        first, start, end = (Signal(range(lanes), name=f"{name}_word") for name in ("first", "start", "end"))
        left = Signal(range(lanes + 1))
        room = Signal(range(_ROOM + 1), init=_ROOM)
        out = Signal()
        bank = self.read.place[PLACE_ADDRESS_BITS:]
        m.d.comb += [
            first.eq(Mux(wide, ask.first >> self._narrower, ask.first)),
            start.eq(Mux(fresh, first, at)),
            end.eq(Mux(wide, ask.end >> self._narrower, ask.end)),
            left.eq(end - start + 1),
            piece.valid.eq(runs & writer.asks.valid & (room != 0) & (self.error == 0)),
            piece.start.eq(start),
            piece.words.eq(Mux(left < places.words, left, places.words)),
            piece.ends.eq(piece.words == left),
            piece.origin.eq(Mux(places.across, bank, self.read.place)),
            places.take.eq(Mux(piece.valid, piece.words, 0)),
            places.line_end.eq(piece.valid & piece.ends & ask.line_end),
            self.read.half.eq(c.half),
            self.read.place.eq(places.place),
            self.read.across.eq(places.across),
            self.bias_half.eq(c.bias_half),
            self.bias_place.eq(c.bias_place + word),
            out.eq(gathered.out.valid & gathered.out.ready),
        ]
        m.d.sync += room.eq(room + out - writer.asks.ready)
        with m.If(piece.valid):
            m.d.sync += [
                fresh.eq(piece.ends),
                at.eq(start + piece.words),
                word.eq(Mux(places.line_end, 0, word + piece.words)),
            ]
        if self.target.pattern is not None:
            with m.If(c.form == Form.PAIR):
                self._pair(m, c, ask, places, piece)
        with m.If(~runs):
            m.d.sync += [fresh.eq(1), word.eq(0)]

    def _pair(self, m: Module, c: Any, ask: Any, places: Any, piece: Any) -> None:
        """Asks for the next pair of a line, or, where the last one has ended a beat and goes on, for none."""
        beat, bits = 8 * self.beat_bytes, self.bits + self.index_bits
        fresh, left = Signal(init=1, name="fresh_line"), Signal(24, name="pairs_left")
        now, kept = Signal(24, name="pairs_now"), Signal(range(beat), name="kept_fill")
        after, over, line_ends = Signal(range(beat + bits), name="fill_after"), Signal(name="over"), Signal(name="ends")
        m.d.comb += [
            now.eq(Mux(fresh, c.words, left)),
            piece.fill.eq(Mux(fresh, ask.first << exact_log2(self.bits), kept)),
            piece.start.eq(0),
            piece.words.eq(now != 0),
            after.eq(piece.fill + Mux(now != 0, bits, 0)),
            over.eq(after >= beat),
            line_ends.eq((now == 0) | ((now == 1) & (~over | (after == beat)))),
            piece.ends.eq(over | (now <= 1)),
            places.line_end.eq(piece.valid & (now == 1)),
        ]
        with m.If(piece.valid):
            m.d.sync += [fresh.eq(line_ends), left.eq(now - (now != 0)), kept.eq(after)]

    def _require(self, m: Module, c: Any, begins: Any, writer: Any, places: Any, piece: Any) -> Any:
        """Errors; whether the piece is none."""
        contradicts = Signal()
        last = Signal(32)
        m.d.comb += [
            contradicts.eq(
                ~Cat(*[c.space == space for space in self.target.stored]).any()
                | ((c.form == Form.PAIR) != (c.space == Space.PAIRS))
                | ((c.form == Form.PAIR) & (self.target.pattern is None))
                | (c.form == Form.BLANK)
                | ((c.bias | c.relu) & (c.space != Space.OUTPUT))
            ),
            last.eq(places.place + Mux(places.across, (piece.words - 1).as_unsigned() << PLACE_ADDRESS_BITS, 0)),
        ]
        bits = [c.space == space for space in self.target.stored if space in BIT_SPACES]
        if bits:
            with m.If(Cat(*bits).any() & (c.form != Form.FP32)):
                m.d.comb += contradicts.eq(1)
        outside = is_outside(m, self.target, c.space, self.target.stored, last)
        stop_at_first(
            m,
            self,
            (begins & contradicts, MachineError.COMMAND, 0),
            (begins & is_misaligned(self.target, c), MachineError.ALIGNMENT, c.address),
            (piece.valid & (piece.words != 0) & outside, MachineError.PLACE, last),
            (writer.outside, MachineError.WINDOW, writer.address),
            (writer.failed, MachineError.WRITE, writer.address),
        )
        passes = ~outside | (piece.words == 0)
        # a beat that will not be gathered is not taken: the writer ends its burst without it
        m.d.comb += writer.asks.ready.eq(piece.valid & piece.ends & passes)
        return passes

    def _pipeline(self, m: Module, c: Any, piece: Any, passes: Any, gathered: Any) -> None:
        """Words, read, turned to their lanes, with their bias, the ReLU, narrowed; put together to beats."""
        lanes = self.lanes
        steps = [piece]
        for i in range(PIPELINE):
            later = Signal.like(piece, name=f"piece_{i}")
            m.d.sync += later.eq(steps[-1])
            if i == 0:
                m.d.sync += later.valid.eq(piece.valid & passes)
            steps.append(later)
        done = steps[-1]
        made = [self._lane(m, c, lane, steps[1], done) for lane in range(lanes)]
        words, narrow_words, flags = zip(*made, strict=True)
        beat = Signal(8 * self.beat_bytes)
        now = Signal.like(beat)
        parts = 1 << self._narrower
        for lane in range(lanes):  # an operand's bits of a beat
            whole, behind = Signal(name=f"of_piece_{lane}"), Signal(exact_log2(lanes), name=f"word_behind_{lane}")
            wide_lane = words[lane // parts].word_select(lane % parts, self.bits)
            m.d.comb += [
                behind.eq(Mux(c.form == Form.FP32, lane // parts, lane) - done.start),
                whole.eq(behind < done.words),
                now.word_select(lane, self.bits).eq(
                    Mux(
                        whole,
                        Mux(c.form == Form.FP32, wide_lane, narrow_words[lane]),
                        beat.word_select(lane, self.bits),
                    )
                ),
            ]
        with m.If(done.valid):
            m.d.sync += beat.eq(now)
        m.d.comb += [
            gathered.into.payload.eq(now),
            gathered.into.valid.eq(done.valid & done.ends),
            self.nonfinite.eq(done.valid & c.watch & (c.form != Form.PAIR) & Cat(*flags).any()),
        ]
        if self.target.pattern is not None:
            bits = self.bits + self.index_bits
            held, packed = (Signal(8 * self.beat_bytes + bits, name=name) for name in ("pairs_held", "pairs_packed"))
            m.d.comb += packed.eq(held | (Mux(done.words != 0, words[0][:bits], 0) << done.fill))
            with m.If(c.form == Form.PAIR):
                m.d.comb += gathered.into.payload.eq(packed)
                with m.If(done.valid):
                    m.d.sync += held.eq(Mux(done.ends, packed >> 8 * self.beat_bytes, packed))

    def _lane(self, m: Module, c: Any, lane: int, read: Any, done: Any) -> tuple[Any, Any, Any]:
        """A word of a piece: in FP32, as an operand, and whether what is stored of it is an Inf or NaN."""
        turn = Signal(exact_log2(self.lanes), name=f"turn_{lane}")
        shown, bias = Signal(32, name=f"shown_{lane}"), Signal(32, name=f"bias_{lane}")
        m.d.comb += turn.eq(read.origin - read.start + lane)
        m.d.sync += [
            shown.eq(Array(self.lanes_read)[turn]),
            bias.eq(Array(self.bias_read)[(lane - read.start)[: len(turn)]]),
        ]
        m.submodules[f"add_{lane}"] = add = Fp32Add(ADD, subnormals=True)
        m.submodules[f"narrow_{lane}"] = narrow = MOVED[self.target.spec.pe.format].narrow(NARROW)
        plain = self._later(m, f"shown_{lane}", shown, ADD)
        total, kept = Signal(32, name=f"total_{lane}"), Signal(32, name=f"kept_{lane}")
        nan = (total[23:31] == 0xFF) & total[:23].any()
        positive = ~total[31] & total[:31].any()
        m.d.comb += [
            add.a.eq(shown),
            add.b.eq(bias),
            total.eq(Mux(c.bias, add.sum, plain)),
            kept.eq(Mux(c.relu & ~(nan | positive), 0, total)),
            narrow.value.eq(kept),
        ]
        wide = self._later(m, f"kept_{lane}", kept, NARROW)
        infinite, behind = Signal(name=f"infinite_{lane}"), Signal(exact_log2(self.lanes), name=f"behind_{lane}")
        if self.target.spec.pe.operand.gradient is not None:
            m.d.comb += narrow.gradient.eq(c.gradient)
        m.d.comb += [
            behind.eq(lane - done.start),
            infinite.eq(
                (behind < done.words) & Mux(c.form == Form.FP32, wide[23:31] == 0xFF, self._broken(c, narrow.half))
            ),
        ]
        return wide, narrow.half, infinite

    def _broken(self, c: Any, half: Any) -> Any:
        """Whether an operand is an Inf or NaN; E4M3 has but the one NaN."""

        def of(encoding: NumberFormat) -> Any:
            least = encoding.nan if encoding.finite else encoding.infinity
            return (half & least) == least

        own = self.target.spec.pe.operand
        return of(own) if own.gradient is None else Mux(c.gradient, of(own.gradient), of(own))

    def _later(self, m: Module, name: str, value: Any, cycles: int) -> Any:
        """``value``, 32 bits, of so many cycles ago."""
        for i in range(cycles):
            later = Signal(32, name=f"{name}_{i}")
            m.d.sync += later.eq(value)
            value = later
        return value
