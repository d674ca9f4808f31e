"""The link over a line that loses, repeats, changes and exchanges octets: done once, or said; never a wrong value."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.hdl.host.link import BusError, Link, LinkError
from weft.hdl.host.packet import ESCAPE, FLAG, LONGEST, Opcode, Packet, PacketReader, Status, Where, frame
from weft.hdl.host.simulated import PseudoTerminal, SimulatedLine
from weft.hdl.host.tty import Tty
from weft.workloads.errors import InputError

from .linked import MEMORY, PROGRAM, Noise, linked_line

PATIENCE = 0.0004
"""Of the design's clock: as long as 40 octets."""
TALLY, ERRORS = 0, 2048
"""Registers: one that adds what is written to it, and one that answers with an error."""


@pytest.fixture(scope="module")
def design() -> SimulatedLine:
    return linked_line()


@pytest.fixture
def line(design: SimulatedLine) -> SimulatedLine:
    """As after a reset."""
    design.reset()
    return design


def tally(link: Link) -> int:
    return int.from_bytes(link.read(Where.REGISTERS, TALLY, 4), "little")


def add(link: Link, number: int) -> None:
    link.write(Where.REGISTERS, TALLY, number.to_bytes(4, "little"))


@given(st.data())
@settings(max_examples=5)
def test_what_is_written_is_read(design: SimulatedLine, data: st.DataObject) -> None:
    """At any byte, of any length, and nothing beside it changes."""
    design.reset()
    link = Link(design)
    for where, size in ((Where.MEMORY, MEMORY), (Where.PROGRAM, PROGRAM)):
        held = bytearray(size)
        for _ in range(2):
            address = data.draw(st.integers(0, size - 1))
            count = data.draw(st.integers(1, min(size - address, 40)))
            octets = st.sampled_from([0, 1, ESCAPE, FLAG, 255])
            written = bytes(data.draw(st.lists(octets, min_size=count, max_size=count)))
            link.write(where, address, written)
            held[address : address + count] = written
            begin = max(0, address - 9)
            assert link.read(where, begin, min(size - begin, count + 18)) == held[begin : begin + count + 18]
    assert (link.use.repeats, link.use.damaged, link.use.strays) == (0, 0, 0)


def test_more_than_a_packet_holds_goes_in_several(line: SimulatedLine) -> None:
    link, data = Link(line), random.Random(1).randbytes(LONGEST + 7)
    heard: list[tuple[int, int]] = []

    link.write(Where.MEMORY, 3, data, lambda done, all: heard.append((done, all)))

    assert link.read(Where.MEMORY, 3, len(data)) == data
    assert heard == [(LONGEST, LONGEST + 7), (LONGEST + 7, LONGEST + 7)]


class Once:
    """A line that does one thing to one octet, by its number among all that go one way."""

    def __init__(self, line: SimulatedLine, at: int, what: str, back: bool) -> None:
        self.line, self.at, self.what, self.back, self.now = line, at, what, back, line.now
        self.passed = 0

    def send(self, octets: bytes) -> None:
        self.line.send(octets if self.back else self._once(octets))

    def receive(self, seconds: float) -> bytes:
        octets = self.line.receive(seconds)
        return self._once(octets) if self.back else octets

    def _once(self, octets: bytes) -> bytes:
        i, found = self.at - self.passed, bytearray(octets)
        self.passed += len(octets)
        if not 0 <= i < len(octets):
            return octets
        match self.what:
            case "lose":
                del found[i]
            case "repeat":
                found.insert(i, found[i])
            case "change":
                found[i] ^= 0x10
            case "exchange":
                found[i : i + 2] = found[i : i + 2][::-1]
            case "replay":
                found[i:i] = found[: i + 1]
        return bytes(found) or bytes([FLAG])  # a line does not say "nothing" when it lost an octet


@pytest.mark.parametrize("every", [4, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("back", [False, True], ids=["to the board", "to the host"])
@pytest.mark.parametrize("what", ["lose", "repeat", "change", "exchange", "replay"])
def test_one_octet_of_a_request_or_its_answer_spoiled_changes_nothing(
    line: SimulatedLine, what: str, back: bool, every: int
) -> None:
    """Whichever: it is added once, whether it was the request that was lost or the answer."""
    octets = 18 if back else len(frame(Packet(Opcode.WRITE, Where.REGISTERS, 4, 0, 0, bytes(4))))
    for at in range(0, octets, every):
        line.reset()
        link = Link(line, patience=PATIENCE)
        spoiled = Once(line, at, what, back)
        link.line = spoiled
        add(link, 1 + at)
        assert tally(link) == 1 + at
        assert spoiled.passed > at
    assert tally(Link(line)) == 1 + at, "another host, later"


@pytest.mark.parametrize("seed", [*range(2), *(pytest.param(s, marks=pytest.mark.slow) for s in range(2, 300))])
def test_a_noisy_line_gives_right_values_or_says_that_it_cannot(line: SimulatedLine, seed: int) -> None:
    """Memory and tally against what was asked for; what a failed write left is looked at over a quiet line."""
    rng = random.Random(seed)
    noise = Noise(line, seed, rng.choice([0.0005, 0.002, 0.01, 0.05]))
    held, total = bytearray(MEMORY), 0
    try:
        link = Link(noise, patience=PATIENCE)
    except LinkError:
        return
    for _ in range(12):
        address, count = rng.randrange(MEMORY - 64), rng.randrange(1, 64)
        written = rng.randbytes(count)
        try:
            match rng.choice(["write", "read", "add"]):
                case "write":
                    link.write(Where.MEMORY, address, written)
                    held[address : address + count] = written
                case "read":
                    assert link.read(Where.MEMORY, address, count) == held[address : address + count]
                case "add":
                    add(link, count)
                    total += count
        except LinkError as error:
            quiet = Link(line)
            found = quiet.read(Where.MEMORY, 0, MEMORY)
            new = held[:address] + written + held[address + count :]
            assert found in (held, new) and tally(quiet) in (total, total + count), str(error)
            return
    quiet = Link(line)
    assert (quiet.read(Where.MEMORY, 0, MEMORY), tally(quiet)) == (held, total)


def test_what_cannot_be_recovered_is_said(line: SimulatedLine) -> None:
    link = Link(line, patience=PATIENCE, tries=3)
    line.send(frame(Packet(Opcode.WRITE, Where.REGISTERS, 4, 1, 0, bytes(4))))  # of somebody else
    line.receive(PATIENCE)
    add(link, 5)  # was taken for the one before, asked again: so numbers are not shared
    with pytest.raises(LinkError, match="is number 3, but the last one that the board took is 1"):
        link._sequence += 1
        add(link, 5)
    link = Link(line, patience=PATIENCE, tries=3)
    line.reset()
    with pytest.raises(LinkError, match="was reset, or another host speaks to it; what was written since is not known"):
        add(link, 5)
    link.line = Noise(line, 0, 1.0)
    with pytest.raises(
        LinkError, match=r"4 bytes of registers at 0x0 was not answered, asked 3 times \(0.0004 s each\)"
    ):
        tally(link)


def test_the_bus_is_heard(line: SimulatedLine) -> None:
    link = Link(line)
    for ask in (
        lambda: link.read(Where.MEMORY, MEMORY - 4, 20),
        lambda: link.write(Where.MEMORY, MEMORY - 4, bytes(9)),
    ):
        with pytest.raises(BusError, match=f"memory has no byte at {MEMORY:#x}"):
            ask()
    with pytest.raises(BusError, match="registers has no byte at 0x800"):
        add_at = link.write
        add_at(Where.REGISTERS, ERRORS, bytes(4))
    with pytest.raises(InputError, match="are none of the 4294967296 there are"):
        link.read(Where.MEMORY, (1 << 32) - 1, 2)
    assert link.read(Where.MEMORY, MEMORY - 4, 4) == bytes(4)


def test_requests_that_are_none_do_nothing(line: SimulatedLine) -> None:
    """Each is answered; none takes a number."""
    good = Packet(Opcode.WRITE, Where.MEMORY, 4, 1, 0, b"good")
    reader = PacketReader()
    for wrong in (
        replace(good, opcode=0),
        replace(good, opcode=7),
        replace(good, where=3),
        replace(good, count=5),
        replace(good, count=0, payload=b""),
        replace(good, opcode=Opcode.READ),
        replace(good, opcode=Opcode.READ, count=LONGEST + 1, payload=b""),
        replace(good, opcode=Opcode.IDENTIFY),
    ):
        line.send(frame(wrong))
        (answer,) = reader.packets(b"".join(iter(lambda: line.receive(PATIENCE), b"")))
        assert (answer.where, answer.payload) == (Status.REQUEST, b""), wrong
    line.send(frame(replace(good, payload=bytes(LONGEST + 1), count=LONGEST + 1)))
    assert line.receive(0.02) == b"", "a packet that is too long is none"
    link = Link(line)
    assert link.board["dropped"] == 1 and link.board["sequence"] == 0
    assert link.read(Where.MEMORY, 0, 4) == bytes(4)


def test_a_terminal_is_served_as_the_design_is(line: SimulatedLine) -> None:
    """The same octets, whoever runs the design: this process, or a thread behind a pseudo-terminal."""

    class Heard:
        def __init__(self, line) -> None:
            self.line, self.now, self.octets = line, line.now, bytearray()

        def send(self, octets: bytes) -> None:
            self.octets += octets
            self.line.send(octets)

        def receive(self, seconds: float) -> bytes:
            octets = self.line.receive(seconds)
            self.octets += octets
            return octets

    def works(heard: Heard) -> bytes:
        link = Link(heard, patience=30.0)
        heard.octets.clear()  # the question who is there has a number of its own
        link.write(Where.MEMORY, 5, bytes(range(256)))
        add(link, 77)
        assert link.read(Where.MEMORY, 0, 300) == bytes(5) + bytes(range(256)) + bytes(39)
        assert tally(link) == 77
        return bytes(heard.octets)

    alone = works(Heard(line))
    line.reset()
    with PseudoTerminal(line) as terminal, Tty(terminal.path) as tty:
        assert works(Heard(tty)) == alone


def test_a_terminal_that_is_none_is_refused(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is no serial line"):
        Tty(str(tmp_path / "file"))
    with pytest.raises(InputError, match="cannot be opened: No such file"):
        Tty(str(tmp_path / "none"))
    with pytest.raises(InputError, match=r"a terminal has no 123 baud; did you mean '.*'"):
        Tty("/dev/null", baud=123)
