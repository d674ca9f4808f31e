"""A queue of a stream: what enters shows at the other end from the next cycle on; full and empty are registers' own."""

from __future__ import annotations

from typing import Any

from amaranth import Module, Value
from amaranth.hdl import ShapeLike
from amaranth.lib import stream, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out

__all__ = ["Queue"]


class Queue(wiring.Component):
    """Holds up to ``depth`` payloads in order; ``ready`` and ``valid`` depend on nothing of the same cycle."""

    def __init__(self, payload: ShapeLike, depth: int) -> None:
        self.payload, self.depth = payload, depth
        super().__init__({"into": In(stream.Signature(payload)), "out": Out(stream.Signature(payload))})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.fifo = fifo = SyncFIFO(width=len(Value.cast(self.into.payload)), depth=self.depth)
        m.d.comb += [
            fifo.w_data.eq(self.into.payload),
            fifo.w_en.eq(self.into.valid),
            self.into.ready.eq(fifo.w_rdy),
            self.out.payload.eq(fifo.r_data),
            self.out.valid.eq(fifo.r_rdy),
            fifo.r_en.eq(self.out.ready),
        ]
        return m
