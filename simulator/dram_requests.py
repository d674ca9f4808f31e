"""Request streams for a DRAM: named patterns and the transfers of tiles; `dram_traces` has those of files.

An address is in bytes; a request asks for one line, the burst of the memory it is sent to.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..workloads.errors import InputError, require_int
from .dram_spec import MemorySpec

__all__ = ["MOST_REQUESTS", "PATTERNS", "Requests", "lines_of", "nest", "pattern"]

Int64 = npt.NDArray[np.int64]

PATTERNS = (
    "seq_read",
    "seq_write",
    "rand_read_64B",
    "rand_read_256B",
    "rand_read_1KB",
    "rand_read_4KB",
    "rand_write_64B",
    "rand_rw_64B",
    "copy_1r1w_block1",
    "copy_1r1w_block64",
    "copy_1r1w_block256",
    "add_2r1w_block64",
    "train_3r1w_block64",
    "read_4r0w_block1",
    "stride_8KB_read",
    "stride_64KB_read",
    "stride_128KB_read",
)
"""Examples; every size, count and block of their forms is understood."""

_FORMS = "seq_read|write, rand_read|write|rw_SIZE, stride_SIZE_read|write, [name_]NrMw_blockK; SIZE as 64B, 4KB, 1MB"
_STREAMS_APART = 64 * 2**20
"""Bytes between the streams of a block pattern: a multiple of all banks' rows, so that they meet in the same banks."""
_RANDOM_REGION = 8 * 2**30
_SEED = 1
MOST_REQUESTS = 10**7
"""Of one run: some seconds, and 25 bytes of memory each."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Requests:
    """``line`` int64: which line; ``write`` bool; ``time`` int64: the earliest cycle, never decreasing. All [n]."""

    line: Int64
    write: npt.NDArray[np.bool_]
    time: Int64

    def __len__(self) -> int:
        return len(self.line)


def lines_of(line: Int64, write: npt.NDArray[np.bool_] | bool) -> Requests:
    """Requests that all are there from the start; ``line`` int64 [n], ``write`` bool [n] or one for all."""
    return Requests(line=line, write=np.broadcast_to(write, len(line)), time=np.zeros(len(line), np.int64))


def pattern(name: str, memory: MemorySpec, count: int) -> Requests:
    """``count`` requests of a named pattern.

    ``seq``: line after line. ``rand``: blocks of SIZE at random places of the first 8 GiB, for ``rw`` each read or
    written as a whole, at even odds. ``stride``: one line every SIZE. ``NrMw_blockK``: N read and M write streams, each
    sequential, 64 MiB apart, in turns of K lines. Whatever passes the end of the memory starts again at 0.
    """
    require_int("requests", count, 1, MOST_REQUESTS)
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
    """Lines that a nest of loops touches: at each step ``run_bytes`` side by side; the last loop is the innermost;
    int64 [lines].

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
