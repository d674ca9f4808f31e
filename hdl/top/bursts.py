"""Lines of a transfer as bursts of AXI4, and bursts as beats."""

from __future__ import annotations

from typing import Any

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from .axi import ADDRESS_BITS, BOUNDARY, LONGEST_BURST, require_beat
from .lines import OFFSET_BITS, WORD, line_layout, words_bits

__all__ = ["Beats", "Bursts", "Fence", "beat_layout", "burst_layout", "placed_layout"]


def placed_layout(word: int) -> data.StructLayout:
    """A line by its byte address, in words of ``word`` bytes."""
    return data.StructLayout({"address": ADDRESS_BITS, "words": words_bits(word), "last": 1})


def burst_layout(beat_bytes: int, word: int = WORD) -> data.StructLayout:
    """``first`` and ``end``: lane, ``word`` bytes wide, of the first word of the first beat, of the last word of the
    last; ``last``: of the transfer."""
    lane = exact_log2(beat_bytes // word)
    return data.StructLayout(
        {"address": ADDRESS_BITS, "length": 8, "first": lane, "end": lane, "line_end": 1, "last": 1}
    )


def beat_layout(beat_bytes: int, word: int = WORD) -> data.StructLayout:
    """Lanes ``first`` to ``end``, inclusive, of a beat, ``word`` bytes wide; ``burst_end``: of a burst."""
    lane = exact_log2(beat_bytes // word)
    return data.StructLayout({"first": lane, "end": lane, "burst_end": 1, "line_end": 1, "last": 1})


class Fence(wiring.Component):
    """Passes lines that lie within the window of ``size`` bytes from ``base`` on, a cycle later, with their addresses.

    At the first that does not, ``breaks`` is up for a cycle, and from then on, with ``outside`` up, nothing passes
    until reset: so nothing beyond the window is ever asked for. ``base`` is a multiple of 4 KiB.
    """

    def __init__(self, word: int = WORD) -> None:
        self.word = word
        super().__init__(
            {
                "base": In(ADDRESS_BITS),
                "size": In(OFFSET_BITS),
                "inside": In(stream.Signature(line_layout(word))),
                "lines": Out(stream.Signature(placed_layout(word))),
                "breaks": Out(1),
                "outside": Out(1),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        given = self.inside.payload
        kept = Signal(placed_layout(self.word), reset_less=True)
        valid = Signal()
        end = Signal(OFFSET_BITS + 1)
        page = exact_log2(BOUNDARY)
        m.d.comb += [
            end.eq(given.address + (given.words << exact_log2(self.word))),
            self.breaks.eq(self.inside.valid & self.inside.ready & (end > self.size)),
            self.inside.ready.eq(~self.outside & (~valid | self.lines.ready)),
            self.lines.valid.eq(valid),
            self.lines.payload.eq(kept),
        ]
        with m.If(self.inside.ready):
            m.d.sync += [
                valid.eq(self.inside.valid & ~self.breaks),
                kept.address.eq(Cat(given.address[:page], self.base[page:] + given.address[page:])),
                kept.words.eq(given.words),
                kept.last.eq(given.last),
                self.outside.eq(self.breaks),
            ]
        with m.Elif(self.lines.ready):
            m.d.sync += valid.eq(0)
        return m


class Bursts(wiring.Component):
    """Cuts lines into bursts that cross no multiple of 4 KiB and have at most ``longest`` beats, one a cycle.

    A burst begins at a beat; words of its first and last beat that are not of the line are left out by lane.
    """

    def __init__(self, beat_bytes: int, longest: int = 16, word: int = WORD) -> None:
        require_beat(beat_bytes)
        assert 1 <= longest <= LONGEST_BURST, f"a burst has 1 to {LONGEST_BURST} beats, not {longest}"
        self.beat_bytes, self.longest, self.word = beat_bytes, longest, word
        lines, bursts = placed_layout(word), burst_layout(beat_bytes, word)
        super().__init__({"lines": In(stream.Signature(lines)), "bursts": Out(stream.Signature(bursts))})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        shift, small = exact_log2(self.beat_bytes), exact_log2(self.word)
        lanes = self.beat_bytes // self.word
        line, out = self.lines.payload, self.bursts.payload
        going = Signal()
        at = Signal(ADDRESS_BITS - shift, reset_less=True)
        left = Signal(words_bits(self.word) + 1, reset_less=True)
        begin = Signal.like(at)
        beats = Signal.like(left)
        lane = Signal(range(lanes))
        span = Signal(words_bits(self.word) + 1)
        beats_of = range(BOUNDARY // self.beat_bytes + LONGEST_BURST)
        room = Signal(beats_of)
        some = Signal(beats_of)
        taken = Signal(beats_of)
        ends = Signal()
        page = exact_log2(BOUNDARY // self.beat_bytes)
        m.d.comb += [
            lane.eq(line.address[small:shift]),
            span.eq(lane + line.words + (lanes - 1)),
            begin.eq(Mux(going, at, line.address[shift:])),
            beats.eq(Mux(going, left, span >> (shift - small))),
            room.eq((1 << page) - begin[:page]),
            some.eq(Mux(room < self.longest, room, self.longest)),
            taken.eq(Mux(beats < some, beats, some)),
            ends.eq(taken == beats),
            self.bursts.valid.eq(self.lines.valid),
            self.lines.ready.eq(self.bursts.ready & ends),
            out.address.eq(begin << shift),
            out.length.eq(taken - 1),
            out.first.eq(Mux(going, 0, lane)),
            # span was rounded up by lanes - 1, which is -1 in the lanes' arithmetic: the last word's lane
            out.end.eq(Mux(ends, lane + line.words - 1, lanes - 1)),
            out.line_end.eq(ends),
            out.last.eq(ends & line.last),
        ]
        with m.If(self.bursts.valid & self.bursts.ready):
            m.d.sync += [going.eq(~ends), at.eq(begin + taken), left.eq(beats - taken)]
        return m


class Beats(wiring.Component):
    """The beats of bursts, one a cycle, with the lanes that count."""

    def __init__(self, beat_bytes: int, word: int = WORD) -> None:
        self.beat_bytes, self.word = beat_bytes, word
        super().__init__(
            {
                "bursts": In(stream.Signature(burst_layout(beat_bytes, word))),
                "beats": Out(stream.Signature(beat_layout(beat_bytes, word))),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        burst, beat = self.bursts.payload, self.beats.payload
        number = Signal(8)
        ends = Signal()
        m.d.comb += [
            ends.eq(number == burst.length),
            self.beats.valid.eq(self.bursts.valid),
            self.bursts.ready.eq(self.beats.ready & ends),
            beat.first.eq(Mux(number == 0, burst.first, 0)),
            beat.end.eq(Mux(ends, burst.end, self.beat_bytes // self.word - 1)),
            beat.burst_end.eq(ends),
            beat.line_end.eq(ends & burst.line_end),
            beat.last.eq(ends & burst.last),
        ]
        with m.If(self.beats.valid & self.beats.ready):
            m.d.sync += number.eq(Mux(ends, 0, number + 1))
        return m
