"""A program, and the file that it is: a header of 24 bytes, then instructions, all little-endian."""

from __future__ import annotations

import re
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

from ...workloads.errors import InputError
from ...workloads.files import write_atomically
from ...workloads.strict import read_file
from .control import MAGIC
from .instruction import Instruction, decode, encode
from .isa import VERSION

__all__ = ["HEADER", "HEADER_FIELDS", "Program", "read_program"]

HEADER_FIELDS = (
    ("magic", 4, "WEFT in ASCII"),
    ("version", 4, "of the instruction set"),
    ("machine", 8, "the machine that it is for: its hash, 12 hexadecimal digits, as a number"),
    ("length", 4, "instructions that follow"),
    ("crc", 4, "CRC-32 (that of zlib and Ethernet) of header and instructions, these four bytes left out"),
)
"""Name, bytes and meaning."""
HEADER = struct.Struct("<IIQII")
_WORD = 8
_MOST = 1 << 28
"""Instructions of a file: 2 GiB, far beyond what is meant and still an address of 32 bits."""


@dataclass(frozen=True, slots=True)
class Program:
    """``instructions`` for the machine whose `Target.hash` is ``machine``."""

    instructions: tuple[Instruction, ...]
    machine: str

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[0-9a-f]{12}", self.machine):
            raise InputError(
                f"machine of a program is {self.machine!r}; it must be 12 hexadecimal digits in lower case"
            )

    @property
    def words(self) -> bytes:
        """The instructions alone, as a machine fetches them."""
        return b"".join(encode(i).to_bytes(_WORD, "little") for i in self.instructions)

    def to_bytes(self) -> bytes:
        """The file."""
        words = self.words
        head = HEADER.pack(MAGIC, VERSION, int(self.machine, 16), len(self.instructions), 0)[:-4]
        return head + zlib.crc32(words, zlib.crc32(head)).to_bytes(4, "little") + words

    @classmethod
    def from_bytes(cls, data: bytes, source: str) -> Program:
        """The program of a file; ``source`` names it in errors."""
        if len(data) < HEADER.size:
            raise InputError(f"{source}: {len(data)} bytes are no program, whose header alone has {HEADER.size}")
        magic, version, machine, length, crc = HEADER.unpack_from(data)
        words = data[HEADER.size :]
        if magic != MAGIC:
            raise InputError(f"{source}: begins with {data[:4]!r}, a program with {MAGIC.to_bytes(4, 'little')!r}")
        if version != VERSION:
            raise InputError(f"{source}: is of version {version} of the instruction set; version {VERSION} is run here")
        if length > _MOST or len(words) != length * _WORD:
            raise InputError(
                f"{source}: says {length} instructions of {_WORD} bytes, but {len(words)} bytes follow the header"
            )
        found = zlib.crc32(words, zlib.crc32(data[: HEADER.size - 4]))
        if found != crc:
            raise InputError(
                f"{source}: CRC-32 is {found:#010x}, but the header says {crc:#010x}; the file was changed"
            )
        if machine >> 48:
            raise InputError(f"{source}: machine {machine:#x} has more than 12 hexadecimal digits")
        return cls(tuple(_decoded(words, source)), f"{machine:012x}")

    def write(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        write_atomically(path, self.to_bytes())


def read_program(path: Path) -> Program:
    """The program of a file."""
    return Program.from_bytes(read_file(path), str(path))


def _decoded(words: bytes, source: str) -> list[Instruction]:
    instructions = []
    for i, (word,) in enumerate(struct.iter_unpack("<Q", words)):
        try:
            instructions.append(decode(word))
        except InputError as error:
            raise InputError(f"{source}: instruction {i}: {error}") from None
    return instructions
