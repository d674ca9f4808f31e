"""A queue of a stream: what enters shows at the other end from the next cycle on; full and empty are registers' own."""

from __future__ import annotations

from typing import Any

from amaranth import Module, Mux, Signal, Value
from amaranth.hdl import ShapeLike
from amaranth.lib import stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

__all__ = ["Queue"]


class Queue(wiring.Component):
    """Holds up to ``depth`` payloads in order; ``ready`` and ``valid`` depend on nothing of the same cycle."""

    def __init__(self, payload: ShapeLike, depth: int) -> None:
        assert depth >= 2, f"a queue of {depth} cannot take and give in every cycle"
        self.payload, self.depth = payload, depth
        super().__init__({"into": In(stream.Signature(payload)), "out": Out(stream.Signature(payload))})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        level = Signal(range(self.depth + 1))
        takes = Signal()
        gives = Signal()
        m.d.comb += [
            self.into.ready.eq(level != self.depth),
            self.out.valid.eq(level != 0),
            takes.eq(self.into.valid & self.into.ready),
            gives.eq(self.out.valid & self.out.ready),
        ]
        m.d.sync += level.eq(level + takes - gives)
        if self.depth == 2:
            self._in_registers(m, level, gives)
        else:
            self._in_memory(m, takes, gives)
        return m

    def _in_registers(self, m: Module, level: Signal, gives: Signal) -> None:
        """For two: a memory of LUTs, which has 16 places, takes half as many sites again on an ECP5.

        What no payload stands in takes whatever comes: so one wire, of ``level`` alone, enables and selects.
        """
        bits = len(Value.cast(self.into.payload))
        first, second = (Signal(bits, name=name, reset_less=True) for name in ("first", "second"))
        m.d.comb += self.out.payload.eq(first)
        with m.If(level != 2):
            m.d.sync += second.eq(self.into.payload)
        with m.If(gives | (level == 0)):
            m.d.sync += first.eq(Mux(level == 2, second, self.into.payload))

    def _in_memory(self, m: Module, takes: Signal, gives: Signal) -> None:
        m.submodules.held = held = Memory(shape=len(Value.cast(self.into.payload)), depth=self.depth, init=[])
        write = held.write_port()
        read = held.read_port(domain="comb")
        first = Signal(range(self.depth))
        free = Signal(range(self.depth))
        m.d.comb += [
            write.addr.eq(free),
            write.data.eq(self.into.payload),
            write.en.eq(takes),
            read.addr.eq(first),
            self.out.payload.eq(read.data),
        ]
        for at, moves in ((free, takes), (first, gives)):
            with m.If(moves):
                m.d.sync += at.eq(Mux(at == self.depth - 1, 0, at + 1))
