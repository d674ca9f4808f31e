"""What the link's tests have at its other end: the bridge before two memories and a register that adds."""

from __future__ import annotations

import random

from amaranth import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from weft.hdl.host.bridge import Bridge
from weft.hdl.host.simulated import SimulatedLine
from weft.hdl.top.axi_memory import AxiMemory
from weft.hdl.top.csr import AxiLite

MEMORY, PROGRAM = 2048, 512
DIVISOR, HZ = 4, 4_000_000


class Tally(wiring.Component):
    """Registers that are one sum: what is written is added, so that a write done twice shows; from 2 KiB on errors."""

    def __init__(self) -> None:
        super().__init__({"bus": In(AxiLite())})

    def elaborate(self, platform):
        m = Module()
        bus, total, answers = self.bus, Signal(32), Signal()
        asked = Signal.like(bus.ar.payload)
        reads, failed = Signal(), Signal()
        takes = bus.aw.valid & bus.w.valid & ~answers
        m.d.comb += [
            bus.aw.ready.eq(takes),
            bus.w.ready.eq(takes),
            bus.b.valid.eq(answers),
            bus.b.payload.resp.eq(Mux(failed, 2, 0)),
            bus.ar.ready.eq(~reads),
            bus.r.valid.eq(reads),
            bus.r.payload.data.eq(total),
            bus.r.payload.resp.eq(Mux(asked.addr[-1], 2, 0)),
        ]
        with m.If(takes):
            m.d.sync += [answers.eq(1), total.eq(total + bus.w.payload.data), failed.eq(bus.aw.payload.addr[-1])]
        with m.Elif(bus.b.ready):
            m.d.sync += answers.eq(0)
        with m.If(~reads & bus.ar.valid):
            m.d.sync += [asked.eq(bus.ar.payload), reads.eq(1)]
        with m.Elif(bus.r.ready):
            m.d.sync += reads.eq(0)
        return m


class Linked(wiring.Component):
    """The bridge alone, between a line and what answers it."""

    def __init__(self) -> None:
        super().__init__({"rx": In(1, init=1), "tx": Out(1, init=1), "talks": Out(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.bridge = bridge = Bridge(8, DIVISOR, sizes=(MEMORY, PROGRAM), hz=HZ)
        m.submodules.memory = memory = AxiMemory(8, MEMORY // 8)
        m.submodules.program = program = AxiMemory(8, PROGRAM // 8)
        m.submodules.tally = tally = Tally()
        wiring.connect(m, bridge.memory, memory.bus)
        wiring.connect(m, bridge.program, program.bus)
        wiring.connect(m, bridge.registers, tally.bus)
        m.d.comb += [bridge.rx.eq(self.rx), self.tx.eq(bridge.tx), self.talks.eq(bridge.busy)]
        return m


def linked_line() -> SimulatedLine:
    return SimulatedLine(Linked(), DIVISOR, HZ)


class Noise:
    """A line that does to an octet, now and then, what lines do, or exchanges it with the next one."""

    def __init__(self, line, seed: int, rate: float) -> None:
        self.line, self.rate, self.done = line, rate, 0
        self._random = random.Random(seed)

    def send(self, octets: bytes) -> None:
        self.line.send(self._spoiled(octets))

    def receive(self, seconds: float) -> bytes:
        until = self.now() + seconds
        while octets := self.line.receive(until - self.now()):
            if spoiled := self._spoiled(octets):
                return spoiled
        return b""

    def now(self) -> float:
        return self.line.now()

    def _spoiled(self, octets: bytes) -> bytes:
        found, at = bytearray(octets), 0
        while at < len(found):
            if self._random.random() < self.rate:
                self.done += 1
                match self._random.choice(("lose", "repeat", "change", "exchange", "replay")):
                    case "lose":
                        del found[at]
                        continue
                    case "repeat":
                        found.insert(at, found[at])
                        at += 1
                    case "change":
                        found[at] ^= 1 << self._random.randrange(8)
                    case "exchange" if at + 1 < len(found):
                        found[at], found[at + 1] = found[at + 1], found[at]
                        at += 1
                    case _:
                        found[at:at] = found[:at]
                        at += at
            at += 1
        return bytes(found)
