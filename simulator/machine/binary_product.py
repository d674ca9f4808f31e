"""What a command of the XNOR engine makes of its spaces: sums, and strips of bits (docs/design/accelerator.md)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ...dataflow.program.commands import Command
from ...dataflow.program.spaces import BIT_WORD
from ...dataflow.xnor.words import Beat

__all__ = ["binary_sums", "strips", "values"]

Words = npt.NDArray[np.uint32]
Sums = npt.NDArray[np.int32]
Single = npt.NDArray[np.float32]


def binary_sums(c: Command, west: Words, north: Words, parts: int) -> Sums:
    """Sums as they leave the array, int32 [cols, down, across, rows, contexts], of the words of both operand spaces,
    uint32 [bank, address], ``parts`` addresses each."""
    beats = _beats(c)
    slots = c.words * len(beats)
    a = west[: c.rows, : c.down * slots * parts].reshape(c.rows, c.down, c.words, len(beats), parts)
    b = north[:, : c.across * slots * c.interleave * parts]
    b = b.reshape(len(north), c.across, c.words, len(beats), c.interleave, parts)
    rows, columns = (c.rows, c.down), (len(north), c.across, c.interleave)
    total = np.zeros((np.prod(rows), np.prod(columns)), np.int64)
    for i, beat in enumerate(beats):
        x = _bits(a[:, :, :, i]).reshape(len(total), -1)
        y = _bits(b[:, :, :, i].transpose(0, 1, 3, 2, 4)).reshape(total.shape[1], -1)
        total += beat.weight * _count(c, beat, x, y)
    return _wrapped(total).reshape(*rows, *columns).transpose(2, 1, 3, 0, 4)


def values(c: Command, sums: Sums) -> Sums:
    """What the edge makes of sums, int32 [cols, words]: tile by tile, the southernmost row first, contexts in order."""
    made = np.ascontiguousarray(sums[:, :, :, ::-1]).reshape(len(sums), -1)
    return _wrapped(2 * made.astype(np.int64) - c.length) if c.signs_a and c.signs_b else made


def strips(sums: Sums, levels: Words, banks: int) -> Words:
    """Bits of rows as they leave, uint32 [banks, rows], of what ``levels`` [cols, columns of C that each makes] say."""
    cols, down, across, rows, contexts = sums.shape
    by_tile = levels.reshape(cols, 1, across, 1, contexts)
    flip, level = (by_tile & 1).astype(np.bool_), by_tile.view(np.int32) >> 1
    stored = ((sums >= level) ^ flip) == 0
    bits = np.zeros((down, across, rows, banks * BIT_WORD), np.bool_)
    bits[..., : contexts * cols] = stored[:, :, :, ::-1].transpose(1, 2, 3, 4, 0).reshape(down, across, rows, -1)
    return np.packbits(bits, axis=-1, bitorder="little").view("<u4").reshape(-1, banks).T


def _wrapped(total: npt.NDArray[np.int64]) -> Sums:
    """As an accumulator of 32 bits has it."""
    return (total & 0xFFFFFFFF).astype(np.uint32).view(np.int32)


def _beats(c: Command) -> list[Beat]:
    """Those of a word in their order, by what the registers say of planes and signs."""
    ways = (False, True) if c.signs_a != c.signs_b else (False,)
    return [
        Beat(i, j, differ, i + j, top ^ differ)
        for i in range(c.planes_a)
        for j in range(c.planes_b)
        for top in (bool(c.negative_a and i + 1 == c.planes_a) ^ bool(c.negative_b and j + 1 == c.planes_b),)
        for differ in ways
    ]


def _bits(words: Words) -> Single:
    """Bits of words uint32 [..., parts], the lowest first, float32 [..., 32 parts]."""
    raw = np.ascontiguousarray(words, "<u4").view(np.uint8)
    return np.unpackbits(raw, axis=-1, bitorder="little").astype(np.float32)


def _count(c: Command, beat: Beat, x: Single, y: Single) -> npt.NDArray[np.int64]:
    """Bits that are counted of each pair of lines of [lines, bits]; up to 2^24, which FP32 adds exactly."""
    if c.signs_a and c.signs_b:
        found = x @ y.T + (1 - x) @ (1 - y).T
    elif c.signs_a:
        found = (x if beat.differ else 1 - x) @ y.T
    elif c.signs_b:
        found = x @ (y if beat.differ else 1 - y).T
    else:
        found = x @ y.T
    counted: npt.NDArray[np.int64] = found.astype(np.int64)
    return counted
