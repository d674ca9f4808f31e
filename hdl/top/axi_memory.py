"""A memory behind AXI4: block RAM that stands for DRAM where a board's own is not driven, and in co-simulation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from amaranth import Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In
from amaranth.utils import exact_log2

from ...dataflow.program.isa import LATENCY
from .axi import Axi4, Response
from .queue import Queue

__all__ = ["AxiMemory"]

_CLOCK = 16
"""Width of the times by which an answer waits; longer than any latency."""


class AxiMemory(wiring.Component):
    """``depth`` beats; a burst is answered from ``latency`` cycles after it was asked for on, a beat a cycle, in order.

    An access beyond the memory is answered with a decode error, and neither reads nor writes. ``hold_*`` keeps a
    channel from moving in a cycle, as a memory that is busy otherwise would; an answer that stands stays.
    """

    def __init__(
        self, beat_bytes: int, depth: int, *, latency: int = LATENCY, init: Sequence[int] = (), queue: int = 16
    ) -> None:
        assert 3 <= latency < 1 << (_CLOCK - 1), f"a latency of {latency} cycles"
        self.beat_bytes, self.depth, self.latency, self.queue = beat_bytes, depth, latency, queue
        self.init = list(init)
        super().__init__(
            {"bus": In(Axi4(beat_bytes)), **{f"hold_{channel}": In(1) for channel in ("ar", "r", "aw", "w", "b")}}
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.memory = memory = Memory(shape=8 * self.beat_bytes, depth=self.depth, init=self.init)
        now = Signal(_CLOCK)
        m.d.sync += now.eq(now + 1)
        read = memory.read_port()
        write = memory.write_port(granularity=8)
        self._reads(m, read, now)
        self._writes(m, write, now)
        return m

    def _asked(self, m: Module, name: str, channel: Any, hold: Any, now: Any) -> Any:
        """Bursts in order, with the time from which each is answered."""
        layout = data.StructLayout({"at": self.bus.ar.payload.shape(), "due": _CLOCK})
        queue = Queue(layout, self.queue)
        m.submodules[name] = queue
        m.d.comb += [
            queue.into.valid.eq(channel.valid & ~hold),
            channel.ready.eq(queue.into.ready & ~hold),
            queue.into.payload.at.eq(channel.payload),
        ]
        return queue

    def _due(self, m: Module, name: str, queue: Any, now: Any) -> Any:
        """Whether the head of ``queue`` is there and its time has come."""
        left, ripe, came = Signal(_CLOCK, name=f"{name}_left"), Signal(name=f"{name}_ripe"), Signal(name=f"{name}_came")
        m.d.comb += [left.eq(queue.out.payload.due - now), ripe.eq(queue.out.valid & (came | (left == 0) | left[-1]))]
        m.d.sync += came.eq(ripe & ~queue.out.ready)  # times repeat; one that came stays so
        return ripe

    def _reads(self, m: Module, port: Any, now: Any) -> None:
        shift = exact_log2(self.beat_bytes)
        asked = self._asked(m, "asked", self.bus.ar, self.hold_ar, now)
        beat = data.StructLayout({"data": 8 * self.beat_bytes, "resp": 2, "last": 1})
        m.submodules.answers = answers = Queue(beat, 4)
        burst = asked.out.payload
        number = Signal(8)
        place = Signal(len(burst.at.addr) - shift)
        fetching = Signal()
        beyond = Signal()
        ends = Signal()
        goes = Signal()
        going = Signal(data.StructLayout({"valid": 1, "beyond": 1, "last": 1}))
        room = Signal(3, init=4)
        stands = Signal(name="read_stands")
        m.d.comb += [
            asked.into.payload.due.eq(now + (self.latency - 2)),
            place.eq((burst.at.addr >> shift) + number),
            beyond.eq(place >= self.depth),
            ends.eq(number == burst.at.len),
            fetching.eq(self._due(m, "read", asked, now) & (room != 0)),
            port.addr.eq(place),
            port.en.eq(fetching),
            asked.out.ready.eq(fetching & ends),
            answers.into.valid.eq(going.valid),
            answers.into.payload.data.eq(Mux(going.beyond, 0, port.data)),
            answers.into.payload.resp.eq(Mux(going.beyond, Response.DECODE_ERROR, Response.OKAY)),
            answers.into.payload.last.eq(going.last),
            self.bus.r.valid.eq(answers.out.valid & (~self.hold_r | stands)),
            self.bus.r.payload.eq(answers.out.payload),
            answers.out.ready.eq(self.bus.r.ready & self.bus.r.valid),
            goes.eq(self.bus.r.valid & self.bus.r.ready),
        ]
        m.d.sync += [
            stands.eq(self.bus.r.valid & ~self.bus.r.ready),
            going.valid.eq(fetching),
            going.beyond.eq(beyond),
            going.last.eq(ends),
            room.eq(room + goes - fetching),
        ]
        with m.If(fetching):
            m.d.sync += number.eq(Mux(ends, 0, number + 1))

    def _writes(self, m: Module, port: Any, now: Any) -> None:
        shift = exact_log2(self.beat_bytes)
        asked = self._asked(m, "addressed", self.bus.aw, self.hold_aw, now)
        m.submodules.written = written = Queue(data.StructLayout({"resp": 2, "due": _CLOCK}), self.queue)
        w = self.bus.w
        burst = asked.out.payload
        number = Signal(8)
        place = Signal(len(burst.at.addr) - shift)
        beyond = Signal()
        failed = Signal()
        ends = Signal()
        takes = Signal()
        stands = Signal(name="answer_stands")
        m.d.comb += [
            place.eq((burst.at.addr >> shift) + number),
            beyond.eq(place >= self.depth),
            ends.eq(w.payload.last),
            w.ready.eq(asked.out.valid & written.into.ready & ~self.hold_w),
            takes.eq(w.valid & w.ready),
            port.addr.eq(place),
            port.data.eq(w.payload.data),
            port.en.eq(Mux(takes & ~beyond, w.payload.strb, 0)),
            asked.out.ready.eq(takes & ends),
            written.into.valid.eq(takes & ends),
            written.into.payload.resp.eq(Mux(failed | beyond, Response.DECODE_ERROR, Response.OKAY)),
            written.into.payload.due.eq(now + self.latency),
            self.bus.b.valid.eq(self._due(m, "answer", written, now) & (~self.hold_b | stands)),
            self.bus.b.payload.resp.eq(written.out.payload.resp),
            written.out.ready.eq(self.bus.b.valid & self.bus.b.ready),
        ]
        m.d.sync += stands.eq(self.bus.b.valid & ~self.bus.b.ready)
        with m.If(takes):
            m.d.sync += [number.eq(Mux(ends, 0, number + 1)), failed.eq(~ends & (failed | beyond))]
