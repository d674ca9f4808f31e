"""Request streams for a DRAM: named patterns, the transfers of tiles, and anybody's trace.

An address is in bytes; a request asks for one line, the burst of the memory it is sent to.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..workloads.errors import InputError, require_int
from ..workloads.strict import read_text
from .dram_spec import MemorySpec

__all__ = ["PATTERNS", "Requests", "lines_of", "nest", "pattern", "read_trace"]

Int64 = npt.NDArray[np.int64]

PATTERNS = (
    "seq_read", "seq_write",
    "rand_read_64B", "rand_read_256B", "rand_read_1KB", "rand_read_4KB", "rand_write_64B", "rand_rw_64B",
    "copy_1r1w_block1", "copy_1r1w_block64", "copy_1r1w_block256", "add_2r1w_block64", "train_3r1w_block64",
    "read_4r0w_block1", "stride_8KB_read", "stride_64KB_read", "stride_128KB_read",
)  # fmt: skip
"""Examples; every size, count and block of their forms is understood."""

_FORMS = "seq_read|write, rand_read|write|rw_SIZE, stride_SIZE_read|write, [name_]NrMw_blockK; SIZE as 64B, 4KB, 1MB"
_STREAMS_APART = 64 * 2**20
"""Bytes between the streams of a block pattern: a multiple of all banks' rows, so that they meet in the same banks."""
_RANDOM_REGION = 8 * 2**30
_SEED = 1
_LATEST = 10**11
"""Cycles: more than a minute, and a second of ours for the refreshes of an idle memory."""
_MOST = 10**7


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Requests:
    """``line`` int64: which line; ``write`` bool; ``time`` int64: the earliest cycle, never decreasing. All [n]."""

    line: Int64
    write: npt.NDArray[np.bool_]
    time: Int64

    def __len__(self) -> int:
        return len(self.line)


def lines_of(line: Int64, write: npt.NDArray[np.bool_] | bool) -> Requests:
    """Requests that all are there from the start, as many as the controller takes."""
    return Requests(line=line, write=np.broadcast_to(write, len(line)), time=np.zeros(len(line), np.int64))


def pattern(name: str, memory: MemorySpec, count: int) -> Requests:
    """``count`` requests of a named pattern.

    ``seq``: line after line. ``rand``: blocks of SIZE at random places of the first 8 GiB, for ``rw`` each read or
    written as a whole, at even odds. ``stride``: one line every SIZE. ``NrMw_blockK``: N read and M write streams, each
    sequential, 64 MiB apart, in turns of K lines. Whatever passes the end of the memory starts again at 0.
    """
    require_int("requests", count, 1, _MOST)
    line_bytes, lines = memory.organization.line_bytes, memory.organization.lines
    i = np.arange(count, dtype=np.int64)
    if found := re.fullmatch(r"seq_(read|write)", name):
        return lines_of(i % lines, found[1] == "write")
    if found := re.fullmatch(r"stride_(\d{1,9})(B|KB|MB)_(read|write)", name):
        return lines_of(i * _lines(name, found[1], found[2], line_bytes) % lines, found[3] == "write")
    if found := re.fullmatch(r"rand_(read|write|rw)_(\d{1,9})(B|KB|MB)", name):
        rng, block = np.random.default_rng(_SEED), _lines(name, found[2], found[3], line_bytes)
        region = min(lines, _RANDOM_REGION // line_bytes)
        if block > region:
            raise InputError(f"pattern {name!r}: a block is larger than its {region * line_bytes} bytes of room")
        blocks = -(-count // block)
        places = rng.integers(0, region // block, blocks).repeat(block)[:count]
        mixed = rng.random(blocks).repeat(block)[:count] < 0.5
        write = mixed if found[1] == "rw" else np.full(count, found[1] == "write")
        return lines_of(places * block + i % block, write)
    if found := re.fullmatch(r"(?:[a-z]+_)?(\d{1,3})r(\d{1,3})w_block(\d{1,9})", name):
        reads, writes, block = int(found[1]), int(found[2]), int(found[3])
        if reads + writes == 0 or block == 0:
            raise InputError(f"pattern {name!r} has no stream or no block")
        turn = i // block
        stream = turn % (reads + writes)
        within = turn // (reads + writes) * block + i % block
        return lines_of((stream * (_STREAMS_APART // line_bytes) + within) % lines, stream >= reads)
    raise InputError(f"pattern {name!r} is none of {_FORMS}; for example {', '.join(PATTERNS[:3])}")


def _lines(name: str, size: str, unit: str, line_bytes: int) -> int:
    """A size in lines; at least one, since no request is smaller."""
    size_bytes = int(size) * {"B": 1, "KB": 2**10, "MB": 2**20}[unit]
    if size_bytes == 0 or (size_bytes > line_bytes and size_bytes % line_bytes):
        raise InputError(f"pattern {name!r}: the size must be a positive multiple of the line, {line_bytes} bytes")
    return max(size_bytes // line_bytes, 1)


def nest(base: int, counts: Sequence[int], pitches: Sequence[int], run_bytes: int, line_bytes: int) -> Int64:
    """Lines that a nest of loops touches: at each step ``run_bytes`` side by side; the last loop is the innermost.

    A matrix tile: counts (rows,), pitches (bytes of a matrix row,), a run of the tile's row. im2col windows of a stored
    NHWC tensor: loops over output rows, output columns and kernel rows, a run of one kernel row with all its channels.
    Compact N:M columns: one nest over the values and one over the indices. A line that ends one run and begins the next
    is asked for once.
    """
    start = np.array([base], np.int64)
    for count, pitch in zip(counts, pitches, strict=True):
        start = (start[:, None] + np.arange(count, dtype=np.int64) * pitch).ravel()
    first, last = start // line_bytes, (start + run_bytes - 1) // line_bytes
    length = last - first + 1
    ends = np.cumsum(length)
    line = np.arange(ends[-1]) - np.repeat(ends - length, length) + np.repeat(first, length)
    found: Int64 = line[np.r_[True, line[1:] != line[:-1]]]
    return found


def read_trace(path: Path, memory: MemorySpec) -> Requests:
    """Requests of a CSV file: address in bytes (decimal or 0x...), R or W, and optionally the earliest cycle.

    A first line ``address,op[,time]`` is a heading, empty lines and those that begin with # are skipped. Addresses are
    rounded down to a line.
    """
    address, write, time = list[int](), list[bool](), list[int]()
    for number, row in _rows(path):
        where = f"{path}:{number}"
        if len(row) not in (2, 3):
            raise InputError(f"{where}: {len(row)} fields; a request is address,R|W or address,R|W,cycle")
        address.append(
            _number(where, "address", row[0], memory.organization.lines * memory.organization.line_bytes - 1)
        )
        if row[1].upper() not in ("R", "W"):
            raise InputError(f"{where}: operation must be R or W, not {row[1]!r}")
        write.append(row[1].upper() == "W")
        time.append(_number(where, "cycle", row[2], _LATEST) if len(row) == 3 else (time[-1] if time else 0))
        if len(time) > 1 and time[-1] < time[-2]:
            raise InputError(f"{where}: cycle {time[-1]} is before {time[-2]} of the request above; sort by time")
        if len(address) > _MOST:
            raise InputError(f"{where}: more than {_MOST} requests; cut the trace")
    if not address:
        raise InputError(f"{path}: holds no request")
    line = np.array(address, np.int64) // memory.organization.line_bytes
    return Requests(line=line, write=np.array(write), time=np.array(time, np.int64))


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Fields of each line that holds a request, with the number of the line."""
    heading = True
    reader = csv.reader(read_text(path).splitlines())
    try:
        for row in reader:
            fields = [field.strip() for field in row]
            if not any(fields) or fields[0].startswith("#"):
                continue
            if heading and fields[0].lower() == "address":
                heading = False
                continue
            heading = False
            yield reader.line_num, fields
    except csv.Error as error:
        raise InputError(f"{path}:{reader.line_num}: is not CSV: {error}") from None


def _number(where: str, what: str, text: str, most: int) -> int:
    if not re.fullmatch(r"0[xX][0-9a-fA-F]{1,16}|[0-9]{1,19}", text, re.ASCII):
        raise InputError(f"{where}: {what} must be a number from 0 on, decimal or 0x..., not {text!r}")
    value = int(text, 0) if text[:2].lower() == "0x" else int(text)
    if value > most:
        raise InputError(f"{where}: {what} {text} is beyond the last one, {most}")
    return value
