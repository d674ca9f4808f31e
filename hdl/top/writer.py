"""A manager of AXI4 that writes the lines of transfers."""

from __future__ import annotations

from typing import Any

from amaranth import Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from .axi import ADDRESS_BITS, Axi4, Response
from .bursts import Beats, Bursts, Fence, beat_layout, burst_layout
from .lines import OFFSET_BITS, WORD, Lines, transfer_layout
from .queue import Queue

__all__ = ["Writer"]


class Writer(wiring.Component):
    """Writes what a transfer lists. ``asks`` says beat by beat which lanes come next; ``beats`` brings them, in order.

    ``done`` is up for a cycle when the last burst of a transfer, and so every one before it, has been answered by OKAY.
    Window and errors are those of `Reader`. With ``quit``, which stays up, no further burst begins and no beat is asked
    for: bursts that had begun end in beats that write nothing. ``word``: bytes of the words of a transfer.
    """

    def __init__(self, beat_bytes: int, *, outstanding: int = 16, longest: int = 16, word: int = WORD) -> None:
        self.beat_bytes, self.outstanding, self.longest, self.word = beat_bytes, outstanding, longest, word
        bus = Axi4(beat_bytes).members
        super().__init__(
            {
                "transfer": In(stream.Signature(transfer_layout(word))),
                "base": In(ADDRESS_BITS),
                "size": In(OFFSET_BITS),
                "quit": In(1),
                "asks": Out(stream.Signature(beat_layout(beat_bytes, word))),
                "beats": In(stream.Signature(8 * beat_bytes)),
                "aw": bus["aw"],
                "w": bus["w"],
                "b": bus["b"],
                "done": Out(1),
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
        m.submodules.addressed = addressed = Queue(self.aw.payload.shape(), 2)
        m.submodules.flying = flying = Queue(burst_layout(self.beat_bytes, self.word), self.outstanding)
        m.submodules.coming = coming = Queue(burst_layout(self.beat_bytes, self.word), 2)
        m.submodules.counted = counted = Beats(self.beat_bytes, self.word)
        kept = data.StructLayout({"of": beat_layout(self.beat_bytes, self.word), "void": 1})
        m.submodules.awaited = awaited = Queue(kept, 16)
        wiring.connect(m, lines.lines, fence.inside)
        wiring.connect(m, fence.lines, bursts.lines)
        wiring.connect(m, coming.out, counted.bursts)
        wiring.connect(m, addressed.out, wiring.flipped(self.aw))
        wiring.connect(m, wiring.flipped(self.transfer), lines.transfer)
        burst, queues = bursts.bursts, (addressed, flying, coming)
        room = Signal()
        taken = Signal()
        m.d.comb += [
            fence.base.eq(self.base),
            fence.size.eq(self.size),
            room.eq(addressed.into.ready & flying.into.ready & coming.into.ready & ~self.quit),
            burst.ready.eq(room),
            *(queue.into.valid.eq(burst.valid & room) for queue in queues),
            flying.into.payload.eq(burst.payload),
            coming.into.payload.eq(burst.payload),
            *Axi4.burst(addressed.into.payload, self.beat_bytes, burst.payload.address, burst.payload.length),
            # a beat is asked for when there is room to remember its lanes
            self.asks.payload.eq(counted.beats.payload),
            self.asks.valid.eq(counted.beats.valid & awaited.into.ready & ~self.quit),
            taken.eq(self.asks.ready | self.quit),
            awaited.into.payload.of.eq(counted.beats.payload),
            awaited.into.payload.void.eq(self.quit),
            awaited.into.valid.eq(counted.beats.valid & taken),
            counted.beats.ready.eq(taken & awaited.into.ready),
        ]
        lane = awaited.out.payload.of
        void = awaited.out.payload.void
        good = Signal()
        m.d.comb += [
            self.w.valid.eq((self.beats.valid | void) & awaited.out.valid),
            self.w.payload.data.eq(self.beats.payload),
            self.w.payload.last.eq(lane.burst_end),
            self.beats.ready.eq(self.w.ready & awaited.out.valid & ~void),
            awaited.out.ready.eq(self.w.ready & (self.beats.valid | void)),
            self.outside.eq(fence.outside),
            self.b.ready.eq(flying.out.valid),
            flying.out.ready.eq(self.b.valid),
            good.eq((self.b.payload.resp == Response.OKAY) & ~self.failed & ~self.outside),
            self.done.eq(self.b.valid & flying.out.valid & flying.out.payload.last & good),
        ]
        word = self.word
        for i in range(self.beat_bytes // word):
            m.d.comb += self.w.payload.strb[word * i : word * (i + 1)].eq(
                (~void & (lane.first <= i) & (i <= lane.end)).replicate(word)
            )
        self._errors(m, lines, fence, flying)
        return m

    def _errors(self, m: Module, lines: Any, fence: Any, flying: Any) -> None:
        """Where the first error was."""
        with m.If(self.b.valid & self.b.ready & (self.b.payload.resp != 0) & ~self.failed & ~self.outside):
            m.d.sync += [self.failed.eq(1), self.address.eq(flying.out.payload.address - self.base)]
        with m.If(fence.breaks & ~self.failed):
            m.d.sync += self.address.eq(lines.lines.payload.address)
