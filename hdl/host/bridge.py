"""What a host asks for by packets, done on the buses of a machine and of its memories (packet.py)."""

from __future__ import annotations

from typing import Any

from amaranth import Array, Cat, Const, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from ..top.axi import Axi4, Response
from ..top.csr import AxiLite
from ..top.sequencer import INSTRUCTION_BYTES
from .framing import HEADER_BITS, Packing, Unpacking
from .packet import ANSWER, FIELDS, IDENTITY, IDENTITY_BYTES, LINK_VERSION, LONGEST, Opcode, Status, Where
from .uart import Receiver, Transmitter

__all__ = ["Bridge"]

_REGISTER_BYTES = 4


class Bridge(wiring.Component):
    """A serial line of ``divisor`` cycles a bit, and behind it the memories and registers of a machine.

    ``sizes`` are the bytes of memory and of program memory, and ``hz`` the clock, as a host is told them. A request is
    done once, whatever comes twice; a beat at a time, since the line is slower than any bus. ``busy``: one is at work.
    """

    def __init__(self, beat_bytes: int, divisor: int, *, sizes: tuple[int, int] = (0, 0), hz: int = 0) -> None:
        self.beat_bytes, self.divisor, self.sizes, self.hz = beat_bytes, divisor, sizes, hz
        super().__init__(
            {
                "rx": In(1, init=1),
                "tx": Out(1, init=1),
                "busy": Out(1),
                "memory": Out(Axi4(beat_bytes)),
                "program": Out(Axi4(INSTRUCTION_BYTES)),
                "registers": Out(AxiLite()),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.receiver = receiver = Receiver(self.divisor)
        m.submodules.transmitter = transmitter = Transmitter(self.divisor)
        m.submodules.unpacking = into = Unpacking()
        m.submodules.packing = out = Packing()
        m.submodules.payload = payload = Memory(shape=8, depth=2 * LONGEST, init=[])
        write, read = payload.write_port(), payload.read_port()
        self._asked = asked = _fields(into.header)
        self._into, self._out, self._write, self._read = into, out, write, read
        self._last, self._done, self._failed = (
            Signal(32, name="last"),
            Signal(8, name="done"),
            Signal(32, name="failed"),
        )
        """Of the last request that was taken: its number, its status, the byte at which the bus failed."""
        self._status, self._said = Signal(8, name="status"), Signal(32, name="said")
        self._count = Signal(16, name="count")
        told = self._identity(self._last, into.dropped)
        identity = Cat(*[Const(n, 32) if isinstance(n, int) else n for n in told])
        self._identifies = Signal(name="identifies")
        header = Cat(asked["opcode"] | ANSWER, self._status, self._count, asked["sequence"], self._said)
        m.d.comb += [
            receiver.rx.eq(self.rx),
            self.tx.eq(transmitter.tx),
            into.octets.eq(receiver.octet),
            into.valid.eq(receiver.valid),
            into.broken.eq(receiver.broken),
            into.hold.eq(self.busy),
            out.header.eq(header),
            out.count.eq(self._count),
            out.octet.eq(Mux(self._identifies, identity.word_select(out.place[:5], 8), read.data)),
        ]
        wiring.connect(m, out.octets, transmitter.octets)
        self._at, self._left, self._lane = Signal(32, name="at"), Signal(16, name="left"), Signal(range(128))
        self._place = Signal(range(2 * LONGEST), name="place")
        m.d.comb += [read.addr.eq(Mux(out.busy, out.place, self._place)), self.busy.eq(1)]
        self._follows, self._again = Signal(name="follows"), Signal(name="again")
        m.d.comb += [self._follows.eq(asked["sequence"] == self._last + 1)]
        m.d.comb += [self._again.eq(asked["sequence"] == self._last)]
        self._word = Signal(8 * max(self.beat_bytes, INSTRUCTION_BYTES), name="word")
        self._strobe = Signal(len(self._word) // 8, name="strobe")
        self._lanes(m)
        self._bus = self._buses(m, self._word, self._strobe)
        self._fails = Signal(name="fails")
        m.d.comb += self._fails.eq(self._bus["resp"] != Response.OKAY)
        with m.FSM():
            self._take(m)
            self._reading(m)
            self._writing(m)
            self._answering(m)
        return m

    def _take(self, m: Module) -> None:
        """A request comes, and what is to be done with it."""
        into, asked = self._into, self._asked
        legal = self._legal(into.length)
        with m.State("idle"):
            m.d.comb += [
                self.busy.eq(0),
                self._write.en.eq(into.put),
                self._write.addr.eq(into.place),
                self._write.data.eq(into.octet),
            ]
            m.d.sync += [
                self._identifies.eq(0),
                self._count.eq(0),
                self._place.eq(0),
                self._said.eq(asked["address"]),
                self._at.eq(asked["address"]),
                self._left.eq(asked["count"]),
            ]
            with m.If(into.done):
                m.next = "decide"
        with m.State("decide"):
            m.d.sync += self._status.eq(Status.DONE)
            with m.If((asked["opcode"] == Opcode.IDENTIFY) & (into.length == 0)):
                m.d.sync += [self._identifies.eq(1), self._count.eq(IDENTITY_BYTES)]
                m.next = "answer"
            with m.Elif(~legal):
                m.d.sync += self._status.eq(Status.REQUEST)
                m.next = "answer"
            with m.Elif(self._again & (asked["opcode"] == Opcode.WRITE)):
                m.d.sync += [self._status.eq(self._done), self._said.eq(self._failed)]
                m.next = "answer"
            with m.Elif(self._follows | self._again):
                m.d.sync += [self._last.eq(asked["sequence"]), self._done.eq(Status.DONE)]
                m.d.sync += self._failed.eq(asked["address"])
                m.next = "ask read"
                with m.If(asked["opcode"] == Opcode.WRITE):
                    m.next = "gather"
            with m.Else():
                m.d.sync += [self._status.eq(Status.SEQUENCE), self._said.eq(self._last)]
                m.next = "answer"

    def _reading(self, m: Module) -> None:
        """Beats of the bus into bytes of the answer."""
        bus, place = self._bus, self._place
        with m.State("ask read"):
            m.d.comb += bus["ask_read"].eq(1)
            with m.If(bus["read_taken"]):
                m.next = "read"
        with m.State("read"):
            m.d.comb += bus["take_read"].eq(1)
            with m.If(bus["read_came"]):
                m.d.sync += self._word.eq(bus["word"])
                m.next = "spread"
                with m.If(self._fails):
                    m.next = "failed"
        with m.State("spread"):
            m.d.comb += [
                self._write.en.eq(1),
                self._write.addr.eq(place),
                self._write.data.eq(self._word.word_select(self._lane, 8)),
            ]
            self._next_byte(m)
            with m.If(self._left == 1):
                m.d.sync += self._count.eq(self._asked["count"])
                m.next = "answer"
            with m.Elif(self._beat_ends):
                m.next = "ask read"

    def _writing(self, m: Module) -> None:
        """Bytes of the request into beats of the bus."""
        bus = self._bus
        with m.State("gather"):  # byte `place` stands in the next cycle
            m.next = "put"
        with m.State("put"):
            m.d.sync += self._word.word_select(self._lane, 8).eq(self._read.data)
            m.d.sync += self._strobe.bit_select(self._lane, 1).eq(1)
            m.next = "gather"
            with m.If((self._left == 1) | self._beat_ends):
                m.next = "ask write"
            with m.Else():
                self._next_byte(m)
        with m.State("ask write"):
            m.d.comb += bus["ask_write"].eq(1)
            with m.If(bus["write_taken"]):
                m.next = "written"
        with m.State("written"):
            m.d.comb += bus["take_answer"].eq(1)
            with m.If(bus["answered"]):
                m.d.sync += self._strobe.eq(0)
                with m.If(self._fails):
                    m.next = "failed"
                with m.Else():
                    self._next_byte(m)
                    m.next = "gather"
                    with m.If(self._left == 1):
                        m.next = "answer"

    def _answering(self, m: Module) -> None:
        with m.State("failed"):
            failed_at = self._bus["failed_at"]
            m.d.sync += [self._status.eq(Status.BUS), self._said.eq(failed_at)]
            m.d.sync += [self._done.eq(Status.BUS), self._failed.eq(failed_at)]
            m.next = "answer"
        with m.State("answer"):
            m.d.comb += self._out.start.eq(1)
            m.next = "sending"
        with m.State("sending"), m.If(~self._out.busy):
            m.next = "idle"

    def _identity(self, last: Any, dropped: Any) -> list[Any]:
        known = {
            "version": LINK_VERSION,
            "sequence": last,
            "dropped": dropped,
            "memory": self.sizes[0],
            "program": self.sizes[1],
            "hz": self.hz,
        }
        return [known[name] for name, _ in IDENTITY]

    def _legal(self, length: Any) -> Any:
        """Whether the request is one; its payload is what it says."""
        asked = self._asked
        counted = (asked["count"] != 0) & (asked["count"] <= LONGEST)
        reads = (asked["opcode"] == Opcode.READ) & (length == 0)
        writes = (asked["opcode"] == Opcode.WRITE) & (length == asked["count"])
        return (reads | writes) & counted & (asked["where"] <= max(Where))

    def _lanes(self, m: Module) -> None:
        """The byte of a beat that ``at`` is, by memory; whether it is the last one."""
        where = self._asked["where"]
        bits = [exact_log2(size) for size in (self.beat_bytes, INSTRUCTION_BYTES, _REGISTER_BYTES)]
        self._beat_ends = Signal()
        choices = Array([self._at[:n] for n in bits])
        m.d.comb += [
            self._lane.eq(choices[where[:2]]),
            self._beat_ends.eq(Array([self._at[:n].all() for n in bits])[where[:2]]),
        ]

    def _next_byte(self, m: Module) -> None:
        m.d.sync += [self._at.eq(self._at + 1), self._left.eq(self._left - 1), self._place.eq(self._place + 1)]

    def _buses(self, m: Module, word: Any, strobe: Any) -> dict[str, Any]:
        """One beat at ``at`` of the memory that the request names, whichever of the buses it is on."""
        names = ("ask_read", "read_taken", "take_read", "read_came", "ask_write", "write_taken", "take_answer")
        one = {name: Signal(name=name) for name in (*names, "answered")}
        one |= {"word": Signal(len(word)), "resp": Signal(2)}
        sent_address, sent_data = Signal(), Signal()
        one["failed_at"] = failed_at = Signal(32)
        with m.Switch(self._asked["where"]):
            for where, bus, size in (
                (Where.MEMORY, self.memory, self.beat_bytes),
                (Where.PROGRAM, self.program, INSTRUCTION_BYTES),
                (Where.REGISTERS, self.registers, _REGISTER_BYTES),
            ):
                with m.Case(where):
                    low = exact_log2(size)
                    start = Cat(Const(0, low), self._at[low:])
                    for channel in (bus.ar, bus.aw):
                        m.d.comb += (
                            channel.payload.addr.eq(start)
                            if where == Where.REGISTERS
                            else Axi4.burst(channel.payload, size, start, 0)
                        )
                    if where != Where.REGISTERS:
                        m.d.comb += bus.w.payload.last.eq(1)
                    m.d.comb += [
                        bus.ar.valid.eq(one["ask_read"]),
                        one["read_taken"].eq(bus.ar.ready),
                        bus.r.ready.eq(one["take_read"]),
                        one["read_came"].eq(bus.r.valid),
                        one["word"].eq(bus.r.payload.data),
                        one["resp"].eq(Mux(one["take_read"], bus.r.payload.resp, bus.b.payload.resp)),
                        bus.aw.valid.eq(one["ask_write"] & ~sent_address),
                        bus.w.valid.eq(one["ask_write"] & ~sent_data),
                        bus.w.payload.data.eq(word),
                        bus.w.payload.strb.eq(strobe),
                        one["write_taken"].eq((sent_address | bus.aw.ready) & (sent_data | bus.w.ready)),
                        bus.b.ready.eq(one["take_answer"]),
                        one["answered"].eq(bus.b.valid),
                        failed_at.eq(start),
                    ]
                    with m.If(one["ask_write"]):
                        m.d.sync += [
                            sent_address.eq((sent_address | bus.aw.ready) & ~one["write_taken"]),
                            sent_data.eq((sent_data | bus.w.ready) & ~one["write_taken"]),
                        ]
        return one


def _fields(header: Any) -> dict[str, Any]:
    """The fields of a header of a packet, by name."""
    assert len(header) == HEADER_BITS
    found, at = {}, 0
    for name, size, _ in FIELDS:
        found[name] = header[at : at + 8 * size]
        at += 8 * size
    return found
