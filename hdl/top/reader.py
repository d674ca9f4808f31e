"""A manager of AXI4 that reads the lines of transfers."""

from __future__ import annotations

from typing import Any

from amaranth import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from .axi import ADDRESS_BITS, Axi4
from .bursts import Beats, Bursts, Fence, beat_layout, burst_layout
from .lines import OFFSET_BITS, WORD, Lines, transfer_layout
from .queue import Queue

__all__ = ["Reader", "read_layout"]


def read_layout(beat_bytes: int, word: int = WORD) -> data.StructLayout:
    """A beat that was read: ``data``, and which of its lanes, ``word`` bytes wide, are of the line."""
    return data.StructLayout({"data": 8 * beat_bytes, "of": beat_layout(beat_bytes, word)})


class Reader(wiring.Component):
    """Reads what a transfer lists, beat by beat in its order, with up to ``outstanding`` bursts asked for at a time.

    Nothing is asked for outside of the window, ``size`` bytes from ``base`` on: ``outside`` then stays up. ``failed``
    stays up from the first answer that is not OKAY on; its data goes on, as AXI4 has every beat of a burst taken.
    With ``blank``, which stands still during a transfer, no memory is read: beats of zeros come as if it had been.
    ``address`` is the offset of the first line outside, or of the burst that failed. With ``quit``, which stays up,
    nothing more is asked for; what has been asked for comes. ``word``: bytes of the words of a transfer.
    """

    def __init__(self, beat_bytes: int, *, outstanding: int = 16, longest: int = 16, word: int = WORD) -> None:
        self.beat_bytes, self.outstanding, self.longest, self.word = beat_bytes, outstanding, longest, word
        bus = Axi4(beat_bytes).members
        super().__init__(
            {
                "transfer": In(stream.Signature(transfer_layout(word))),
                "blank": In(1),
                "quit": In(1),
                "base": In(ADDRESS_BITS),
                "size": In(OFFSET_BITS),
                "ar": bus["ar"],
                "r": bus["r"],
                "beats": Out(stream.Signature(read_layout(beat_bytes, word))),
                "outside": Out(1),
                "failed": Out(1),
                "address": Out(OFFSET_BITS),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.lines = lines = Lines(self.word)
        m.submodules.fence = fence = Fence(self.word)
        m.submodules.bursts = bursts = Bursts(self.beat_bytes, self.longest, self.word)
        m.submodules.asked = asked = Queue(self.ar.payload.shape(), 2)
        m.submodules.flying = flying = Queue(burst_layout(self.beat_bytes, self.word), self.outstanding)
        m.submodules.counted = counted = Beats(self.beat_bytes, self.word)
        wiring.connect(m, lines.lines, fence.inside)
        wiring.connect(m, fence.lines, bursts.lines)
        wiring.connect(m, flying.out, counted.bursts)
        wiring.connect(m, asked.out, wiring.flipped(self.ar))
        wiring.connect(m, wiring.flipped(self.transfer), lines.transfer)
        # What enters a queue may look at whether the other has room: neither is a port of the bus.
        burst = bursts.bursts
        both = Signal()
        there = Signal()
        m.d.comb += [
            fence.base.eq(self.base),
            fence.size.eq(Mux(self.blank, (1 << OFFSET_BITS) - 1, self.size)),
            both.eq((asked.into.ready | self.blank) & flying.into.ready & ~self.quit),
            there.eq(self.r.valid | self.blank),
            burst.ready.eq(both),
            asked.into.valid.eq(burst.valid & both & ~self.blank),
            flying.into.valid.eq(burst.valid & both),
            flying.into.payload.eq(burst.payload),
            *Axi4.burst(asked.into.payload, self.beat_bytes, burst.payload.address, burst.payload.length),
            self.beats.valid.eq(there & counted.beats.valid),
            self.beats.payload.data.eq(Mux(self.blank, 0, self.r.payload.data)),
            self.beats.payload.of.eq(counted.beats.payload),
            self.r.ready.eq(self.beats.ready & counted.beats.valid & ~self.blank),
            counted.beats.ready.eq(self.beats.ready & there),
            self.outside.eq(fence.outside),
        ]
        with m.If(self.r.valid & self.r.ready & (self.r.payload.resp != 0) & ~self.failed & ~self.outside):
            m.d.sync += [self.failed.eq(1), self.address.eq(flying.out.payload.address - self.base)]
        with m.If(fence.breaks & ~self.failed):
            m.d.sync += self.address.eq(lines.lines.payload.address)
        return m
