"""The packets of the link, in one place: RTL, host and docs/board.md follow these tables.

A host asks, the board answers; there is one request at a time. A packet stands between two flags, stuffed as octets are
in RFC 1662 (4.2), and ends in a CRC-32. Numbers are little-endian.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

__all__ = [
    "ANSWER",
    "CRC_BYTES",
    "ESCAPE",
    "FIELDS",
    "FLAG",
    "FLIP",
    "HEADER_BYTES",
    "IDENTITY",
    "IDENTITY_BYTES",
    "LINK_VERSION",
    "LONGEST",
    "Opcode",
    "Packet",
    "PacketReader",
    "Status",
    "Where",
    "frame",
    "identity",
]

LINK_VERSION = 1
FLAG, ESCAPE, FLIP = 0x7E, 0x7D, 0x20
"""Begins and ends a packet; stands before an octet that is one of the two, which is then sent with bit 5 flipped."""
LONGEST = 1024
"""Bytes of payload at most: half of one block RAM of the ECP5, and 10 ms of a line of 1 Mbaud."""
ANSWER = 0x80
"""Bit of the opcode that an answer has."""

FIELDS = (
    ("opcode", 1, "what is asked for; in an answer with bit 7 set"),
    ("where", 1, "request: which memory; answer: status"),
    ("count", 2, "bytes that are read or written; answer: bytes of payload"),
    ("sequence", 4, "request: the last one's plus 1; answer: that of its request"),
    ("address", 4, "request: first byte; answer: the byte at which the bus failed, with SEQUENCE the last number"),
)
"""Name, bytes and meaning of a header; the payload follows, then the CRC."""
HEADER_BYTES = sum(size for _, size, _ in FIELDS)
CRC_BYTES = 4
"""CRC-32 of header and payload: that of zlib and Ethernet."""


class Opcode(IntEnum):
    """What a host asks for."""

    IDENTIFY = 1
    """Who is there. Takes any sequence number, which comes back, and changes nothing."""
    READ = 2
    """``count`` bytes from ``address`` on. Asked for again under its number, it is read again."""
    WRITE = 3
    """The payload to ``address`` on. Asked for again under its number, it is answered again and not done again."""


class Where(IntEnum):
    """Which memory."""

    MEMORY = 0
    """What loads and stores of the machine see: the tensors."""
    PROGRAM = 1
    """Instructions."""
    REGISTERS = 2
    """What the host sees of the machine (isa.md), four bytes each, read in the order of their addresses."""


class Status(IntEnum):
    """Of an answer."""

    DONE = 0
    SEQUENCE = 1
    """Neither the number of the last request nor the one after it: nothing was done."""
    REQUEST = 2
    """Opcode, memory or count that there is not: nothing was done."""
    BUS = 3
    """The bus answered with an error, at ``address``; bytes before it were written."""


IDENTITY = (
    ("version", "of the link"),
    ("sequence", "number of the last request that was taken; 0 after a reset"),
    ("dropped", "packets that came damaged, since the reset"),
    ("memory", "bytes of memory"),
    ("program", "bytes of memory for instructions"),
    ("hz", "clock of the machine"),
)
"""Payload of the answer to IDENTIFY: numbers of four bytes."""
IDENTITY_BYTES = 4 * len(IDENTITY)


@dataclass(frozen=True, slots=True)
class Packet:
    """A request or an answer; ``where`` is an answer's status."""

    opcode: int
    where: int
    count: int
    sequence: int
    address: int
    payload: bytes = b""

    def to_bytes(self) -> bytes:
        """Header, payload and CRC, as they are before they are stuffed."""
        head = b"".join(getattr(self, name).to_bytes(size, "little") for name, size, _ in FIELDS)
        body = head + self.payload
        return body + zlib.crc32(body).to_bytes(CRC_BYTES, "little")

    @classmethod
    def from_bytes(cls, data: bytes) -> Packet | None:
        """The packet that ``data`` is, or None: it came damaged."""
        body, crc = data[:-CRC_BYTES], data[-CRC_BYTES:]
        if len(body) < HEADER_BYTES or zlib.crc32(body).to_bytes(CRC_BYTES, "little") != crc:
            return None
        values, at = {}, 0
        for name, size, _ in FIELDS:
            values[name] = int.from_bytes(body[at : at + size], "little")
            at += size
        return cls(**values, payload=body[HEADER_BYTES:])


def identity(payload: bytes) -> dict[str, int]:
    """What the answer to IDENTIFY says, by name."""
    return {name: int.from_bytes(payload[4 * i : 4 * i + 4], "little") for i, (name, _) in enumerate(IDENTITY)}


def frame(packet: Packet) -> bytes:
    """The packet as it is sent: stuffed, between flags."""
    sent = bytearray([FLAG])
    for octet in packet.to_bytes():
        sent += bytes([ESCAPE, octet ^ FLIP]) if octet in (FLAG, ESCAPE) else bytes([octet])
    return bytes(sent) + bytes([FLAG])


class PacketReader:
    """Packets out of the octets of a line; ``dropped``: those that came damaged."""

    def __init__(self) -> None:
        self.dropped = 0
        self._held = bytearray()
        self._escaped = False

    def packets(self, octets: bytes) -> Iterator[Packet]:
        """Those that ``octets`` complete."""
        for octet in octets:
            if octet == FLAG:
                found = None if self._escaped else Packet.from_bytes(bytes(self._held))
                if found is None:
                    self.dropped += bool(self._held)
                else:
                    yield found
                self._held.clear()
                self._escaped = False
            elif octet == ESCAPE:
                self._escaped = True
            else:
                if len(self._held) <= HEADER_BYTES + LONGEST + CRC_BYTES:
                    self._held.append(octet ^ FLIP if self._escaped else octet)
                self._escaped = False
