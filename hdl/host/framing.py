"""Packets out of the octets of a line, and into them (packet.py): stuffing and CRC."""

from __future__ import annotations

from typing import Any

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for

from .packet import CRC_BYTES, ESCAPE, FLAG, FLIP, HEADER_BYTES, LONGEST

__all__ = ["HEADER_BITS", "Packing", "Unpacking"]

HEADER_BITS = 8 * HEADER_BYTES
_CRC_POLYNOMIAL, _CRC_INIT, _CRC_RESIDUE = 0xEDB88320, 0xFFFFFFFF, 0xDEBB20E3
"""Of CRC-32 (IEEE 802.3), low bit first; the residue is what any packet with its CRC leaves. zlib is the witness."""
_LARGEST = HEADER_BYTES + LONGEST + CRC_BYTES


class Crc(wiring.Component):
    """The CRC-32 of bytes taken with ``valid`` since ``start``; ``match``: the last four were that of all before."""

    def __init__(self) -> None:
        super().__init__({"start": In(1), "octet": In(8), "valid": In(1), "crc": Out(8 * CRC_BYTES), "match": Out(1)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        held = Signal(8 * CRC_BYTES, init=_CRC_INIT)
        following = held ^ self.octet
        for _ in range(8):
            following = (following >> 1) ^ Mux(following[0], _CRC_POLYNOMIAL, 0)
        with m.If(self.valid):
            m.d.sync += held.eq(following)
        with m.If(self.start):
            m.d.sync += held.eq(_CRC_INIT)
        m.d.comb += [self.crc.eq(~held), self.match.eq(held == _CRC_RESIDUE)]
        return m


class Unpacking(wiring.Component):
    """Octets of packets, without flags and stuffing; ``done`` for a cycle when a whole one came.

    ``header`` stands from then on, and ``length``, the bytes of payload. Payload goes out as it comes: ``put`` says
    that ``octet`` is byte ``place`` of it, of which those behind ``length`` are the CRC. While ``hold`` nothing is
    taken, and a packet that began meanwhile is lost; ``dropped`` counts those that came damaged.
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "octets": In(8),
                "valid": In(1),
                "broken": In(1),
                "hold": In(1),
                "put": Out(1),
                "place": Out(range(2 * LONGEST)),
                "octet": Out(8),
                "done": Out(1),
                "header": Out(HEADER_BITS),
                "length": Out(range(2 * LONGEST)),
                "dropped": Out(32),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.crc = crc = Crc()
        count = Signal(bits_for(_LARGEST + 1))
        escaped, spoiled, ends = Signal(), Signal(), Signal()
        taken = Signal()
        plain = Signal(8)
        m.d.comb += [
            plain.eq(Mux(escaped, self.octets ^ FLIP, self.octets)),
            ends.eq(self.valid & (self.octets == FLAG)),
            taken.eq(self.valid & (self.octets != FLAG) & (self.octets != ESCAPE) & ~self.hold),
            crc.octet.eq(plain),
            crc.valid.eq(taken),
            crc.start.eq(ends),
            self.octet.eq(plain),
            self.put.eq(taken & (count >= HEADER_BYTES) & (count < _LARGEST)),
            self.place.eq(count - HEADER_BYTES),
            self.done.eq(ends & ~self.hold & ~spoiled & ~escaped & crc.match & (count >= HEADER_BYTES + CRC_BYTES)),
        ]
        with m.If(taken):
            m.d.sync += [
                escaped.eq(0),
                count.eq(count + (count <= _LARGEST)),
                spoiled.eq(spoiled | (count >= _LARGEST)),
            ]
            with m.If(count < HEADER_BYTES):
                m.d.sync += self.header.eq(Cat(self.header[8:], plain))
        with m.If(self.valid & (self.octets == ESCAPE)):
            m.d.sync += escaped.eq(1)
        with m.If(self.broken | (self.hold & self.valid)):
            m.d.sync += spoiled.eq(1)
        with m.If(ends):
            m.d.sync += [count.eq(0), escaped.eq(0), spoiled.eq(self.hold)]
            with m.If(~self.hold):
                m.d.sync += self.length.eq(count - (HEADER_BYTES + CRC_BYTES))
            with m.If(~self.done & ~self.hold & (count != 0)):
                m.d.sync += self.dropped.eq(self.dropped + 1)
        return m


class Packing(wiring.Component):
    """Sends a packet when ``start`` is up for a cycle: flag, ``header``, ``count`` bytes of payload, CRC, flag.

    Byte ``place`` of the payload is asked for and stands in ``octet`` from the next cycle on; header and count have to
    stay while ``busy``.
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "start": In(1),
                "header": In(HEADER_BITS),
                "count": In(range(2 * LONGEST)),
                "place": Out(range(2 * LONGEST)),
                "octet": In(8),
                "busy": Out(1),
                "octets": Out(stream.Signature(8)),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.crc = crc = Crc()
        plain, number = Signal(8), Signal(range(HEADER_BYTES + 1))
        out, special, sent = self.octets, Signal(), Signal()
        escaped = Signal()
        m.d.comb += [
            special.eq((plain == FLAG) | (plain == ESCAPE)),
            sent.eq(out.ready & (~special | escaped)),
            crc.octet.eq(plain),
        ]

        def send(body: Any) -> None:
            """``plain``, behind an escape where it asks for one."""
            m.d.comb += [
                plain.eq(body),
                out.valid.eq(1),
                out.payload.eq(Mux(escaped, plain ^ FLIP, Mux(special, ESCAPE, plain))),
            ]
            with m.If(out.ready):
                m.d.sync += escaped.eq(special & ~escaped)

        m.d.comb += self.busy.eq(1)
        with m.FSM():
            with m.State("idle"):
                m.d.comb += [self.busy.eq(0), crc.start.eq(1)]
                m.d.sync += [number.eq(0), self.place.eq(0)]
                with m.If(self.start):
                    m.next = "open"
            self._flag(m, "open", "header")
            with m.State("header"):
                send(self.header.word_select(number, 8))
                m.d.comb += crc.valid.eq(sent)
                with m.If(sent):
                    m.d.sync += number.eq(number + 1)
                    with m.If(number == HEADER_BYTES - 1):
                        m.d.sync += number.eq(0)
                        m.next = "look"
            with m.State("look"):  # the byte stands in the next cycle
                m.next = "payload"
                with m.If(self.place == self.count):
                    m.next = "crc"
            with m.State("payload"):
                send(self.octet)
                m.d.comb += crc.valid.eq(sent)
                with m.If(sent):
                    m.d.sync += self.place.eq(self.place + 1)
                    m.next = "look"
            with m.State("crc"):
                send(crc.crc.word_select(number[:2], 8))
                with m.If(sent):
                    m.d.sync += number.eq(number + 1)
                    with m.If(number == CRC_BYTES - 1):
                        m.next = "close"
            self._flag(m, "close", "idle")
        return m

    def _flag(self, m: Module, state: str, then: str) -> None:
        with m.State(state):
            m.d.comb += [self.octets.valid.eq(1), self.octets.payload.eq(FLAG)]
            with m.If(self.octets.ready):
                m.next = then
