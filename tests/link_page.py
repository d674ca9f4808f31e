"""docs/link.md, made of the tables in `hdl/host/packet.py`: `python -m weft.tests.link_page` writes it."""

from __future__ import annotations

from pathlib import Path

from weft.hdl.host import packet
from weft.hdl.host.packet import FIELDS, HEADER_BYTES, IDENTITY, LINK_VERSION, LONGEST, Opcode, Status, Where

from .isa_page import said, table

PAGE = Path(__file__).parents[1] / "docs" / "link.md"

HEAD = f"""# The serial link, version {LINK_VERSION}

What a host and a board say to each other over eight bits, no parity, one stop bit. The host asks and the board
answers, one request at a time; how to use it is in [board.md](board.md). `python -m weft.tests.link_page` makes this
page of `hdl/host/packet.py`, which RTL and host follow, and a test compares.

A packet stands between two octets `{packet.FLAG:#04x}`. Within it an octet that is `{packet.FLAG:#04x}` or
`{packet.ESCAPE:#04x}` is sent as `{packet.ESCAPE:#04x}` and itself XOR `{packet.FLIP:#04x}` (octet stuffing as in
RFC 1662, 4.2). Numbers are little-endian."""

RULES = """## What is recovered

A request that is not answered in time is sent again as it was. The board keeps the number of the last request that it
took.

- *The number after it*: the request is done, and its number kept.
- *The same number*: a read is read again, a write is answered with the status that it had and not done again. So a
  start is one start, however often it is asked for.
- *Any other*: nothing is done, and the answer says the last number. That is a reset of the board, or another host: the
  host's end raises an error, as it does when no answer comes after all tries; the message says what may or may not
  have been done.
- *A packet that came damaged* - its CRC, its length, a stop bit that is none - is dropped and counted; while the board
  is at work on a request it takes no other.

Octets that are lost, repeated, changed or exchanged damage a packet or repeat it, and both are covered. What is not:
damage that a CRC-32 misses, one in 2^32 of packets damaged at random."""


def page() -> str:
    """The whole page."""
    parts = [
        HEAD,
        "## A packet",
        table(
            ("field", "bytes", ""),
            [
                *([f"`{name}`", size, what] for name, size, what in FIELDS),
                ["`payload`", f"0 to {LONGEST:,}", "of a write, and of the answer to a read"],
                ["`crc`", packet.CRC_BYTES, "CRC-32 of all before it, that of zlib and Ethernet"],
            ],
        ),
        f"A header is {HEADER_BYTES} bytes. An answer has the fields of its request but for those that say otherwise.",
        "## Opcodes",
        table(("", "opcode", ""), ([int(o), f"`{o.name}`", said(Opcode)[o.name]] for o in Opcode)),
        "## Memories",
        table(("", "where", ""), ([int(w), f"`{w.name}`", said(Where)[w.name]] for w in Where)),
        "## Status of an answer",
        table(("", "status", ""), ([int(s), f"`{s.name}`", said(Status).get(s.name, "done")] for s in Status)),
        "## Who is there",
        "The payload of the answer to `IDENTIFY`: numbers of four bytes.",
        table(("byte", "", ""), ([4 * i, f"`{name}`", what] for i, (name, what) in enumerate(IDENTITY))),
        RULES,
    ]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())
