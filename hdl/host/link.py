"""A host's end of the link: each request is done once and answered, or the error says what is not known (packet.py)."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from ...workloads.errors import InputError
from .packet import ANSWER, LINK_VERSION, LONGEST, Opcode, Packet, PacketReader, Status, Where, frame, identity

__all__ = ["BusError", "Line", "Link", "LinkError", "LinkUse"]

_TRIES = 10
"""Of a request; a line that damages every second packet loses one in a thousand so."""
_PATIENCE = 0.3
"""Seconds: several times what a USB adapter holds octets back for (16 ms by default) and 1,024 octets take."""
_ADDRESSES = 1 << 32


class Line(Protocol):
    """Octets to a board and from it; they may be lost, repeated, changed and exchanged."""

    def send(self, octets: bytes) -> None:
        """Put them on the way."""

    def receive(self, seconds: float) -> bytes:
        """What came: at least one octet, or none within so many seconds."""

    def now(self) -> float:
        """Seconds, of the clock that the other end has too: a simulated design has its own."""


class LinkError(RuntimeError):
    """A request was not answered, or the board is not the one that it was: what is known of it is in the message."""


class BusError(RuntimeError):
    """The bus of the machine answered with an error: ``where`` and the ``address`` of the beat."""

    def __init__(self, where: Where, address: int) -> None:
        super().__init__(f"{where.name.lower()} has no byte at {address:#x}, or does not let a host have it")
        self.where, self.address = where, address


@dataclass(slots=True)
class LinkUse:
    """Packets since the link was opened: requests, those that were sent again, answers that came damaged or late."""

    requests: int = 0
    repeats: int = 0
    damaged: int = 0
    strays: int = 0


class Link:
    """Requests over ``line``, one at a time.

    A request that is not answered within ``patience`` seconds is sent again, up to ``tries`` times, under its number:
    what it writes is written once. `LinkError` says what cannot be recovered. ``board`` is what the board says of
    itself. A value that is wrong and unnoticed asks for damage that a CRC-32 misses: of packets damaged at random one
    in 2^32.
    """

    def __init__(self, line: Line, *, patience: float = _PATIENCE, tries: int = _TRIES) -> None:
        self.line, self.patience, self.tries = line, patience, tries
        self.use = LinkUse()
        self._reader = PacketReader()
        self.board = self.identify()
        if self.board["version"] != LINK_VERSION:
            raise LinkError(f"the board speaks version {self.board['version']} of the link, this is {LINK_VERSION}")
        self._sequence = self.board["sequence"]

    def identify(self) -> dict[str, int]:
        """What the board says of itself now, by the names of `packet.IDENTITY`."""
        # a number that no answer of an earlier session on this line has
        request = Packet(Opcode.IDENTIFY, 0, 0, secrets.randbits(32), 0)
        return identity(self._ask(request, "the question who is there").payload)

    def read(self, where: Where, address: int, count: int, said: Callable[[int, int], object] | None = None) -> bytes:
        """``count`` bytes from ``address`` on; ``said`` hears how many of them have come."""
        _require_range(where, address, count)
        found = bytearray()
        while len(found) < count:
            part = min(LONGEST, count - len(found))
            what = f"a read of {part} bytes of {where.name.lower()} at {address + len(found):#x}"
            found += self._next(Opcode.READ, where, address + len(found), part, b"", what).payload
            if said is not None:
                said(len(found), count)
        return bytes(found)

    def write(self, where: Where, address: int, data: bytes, said: Callable[[int, int], object] | None = None) -> None:
        """``data`` to ``address`` on; ``said`` hears how much of it is there."""
        _require_range(where, address, len(data))
        for at in range(0, len(data), LONGEST):
            part = data[at : at + LONGEST]
            what = f"a write of {len(part)} bytes of {where.name.lower()} at {address + at:#x}"
            self._next(Opcode.WRITE, where, address + at, len(part), part, what)
            if said is not None:
                said(at + len(part), len(data))

    def _next(self, opcode: Opcode, where: Where, address: int, count: int, payload: bytes, what: str) -> Packet:
        self._sequence = (self._sequence + 1) % (1 << 32)
        answer = self._ask(Packet(opcode, where, count, self._sequence, address, payload), what)
        match answer.where:
            case Status.DONE if len(answer.payload) == (count if opcode == Opcode.READ else 0):
                return answer
            case Status.BUS:
                raise BusError(where, answer.address)
            case Status.SEQUENCE:
                raise LinkError(
                    f"{what} is number {self._sequence}, but the last one that the board took is {answer.address}: it "
                    f"was reset, or another host speaks to it; what was written since is not known"
                )
            case _:
                raise LinkError(f"{what} was answered with status {answer.where} and {len(answer.payload)} bytes")

    def _ask(self, request: Packet, what: str) -> Packet:
        """The answer to a request, sent as often as it takes."""
        self.use.requests += 1
        for turn in range(self.tries):
            self.use.repeats += turn > 0
            self.line.send(frame(request))
            found = self._await(request)
            if found is not None:
                return found
        done = "; it was done once or not at all" if request.opcode == Opcode.WRITE else ""
        raise LinkError(f"{what} was not answered, asked {self.tries} times ({self.patience:g} s each){done}")

    def _await(self, request: Packet) -> Packet | None:
        """Its answer, unless none comes: octets that do give it time, but noise does not for ever."""
        until = limit = self.line.now() + self.patience
        limit += self.patience
        while (left := min(until, limit) - self.line.now()) > 0:
            octets = self.line.receive(left)
            if not octets:
                break
            until = self.line.now() + self.patience
            found, damaged = None, self._reader.dropped
            for packet in self._reader.packets(octets):
                if (packet.sequence, packet.opcode) == (request.sequence, request.opcode | ANSWER):
                    found = packet
                else:
                    self.use.strays += 1
            self.use.damaged += self._reader.dropped - damaged
            if found is not None:
                return found
        return None


def _require_range(where: Where, address: int, count: int) -> None:
    if not (address >= 0 and count >= 1 and address + count <= _ADDRESSES):
        raise InputError(
            f"{count} bytes of {where.name.lower()} at {address:#x} are none of the {_ADDRESSES} there are"
        )
