"""How operands of a binary network lie in memory: positions of an image, each of whole words of bits, plane after
plane (docs/design/accelerator.md, "A binary product")."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from ...workloads.im2col import Window
from ...workloads.levels import Levels
from ..xnor.words import beats_of, plane_weights, signed

__all__ = ["BitImage", "level_words", "weight_words"]

Bits = npt.NDArray[np.bool_]
Bytes = npt.NDArray[np.uint8]
Places = npt.NDArray[np.int64]
LEVEL_BITS = 31


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BitImage:
    """What a layer reads: ``shape`` [channels, *image] of an image with ``halo`` around, in memory from ``address`` on.

    ``channel``: of each bit of a position the channel, or -1, int64 [words x word_bits]. ``turned``: channels that are
    stored as their negatives, bool [channels]. What stands in the halo, and around, is ``edge``.
    """

    address: int
    shape: tuple[int, ...]
    halo: tuple[int, ...]
    levels: Levels
    word_bits: int
    channel: Places
    turned: Bits
    edge: int

    @property
    def planes(self) -> int:
        """Of a word."""
        return len(plane_weights(self.levels))

    @property
    def words(self) -> int:
        """Of a position, each of all its planes."""
        return len(self.channel) // self.word_bits

    @property
    def grid(self) -> tuple[int, ...]:
        """Positions with their halo."""
        return tuple(size + 2 * around for size, around in zip(self.shape[1:], self.halo, strict=True))

    @property
    def pitch(self) -> int:
        """Bytes from position to position."""
        return self.words * self.planes * self.word_bits // 8

    @property
    def strides(self) -> tuple[int, ...]:
        """Bytes from image to image, and along each of its sides."""
        steps = [self.pitch]
        for size in reversed(self.grid):
            steps.append(steps[-1] * size)
        return (steps[-1], *reversed(steps[:-1]))

    @property
    def first(self) -> int:
        """Byte, from ``address`` on, of the first position inside of the halo."""
        return sum(step * around for step, around in zip(self.strides[1:], self.halo, strict=True))

    def encode(self, values: npt.NDArray[np.int8]) -> Bytes:
        """Values [images, *shape] as they lie, uint8 [bytes], halo and all."""
        around = [(0, 0), (0, 0), *((size, size) for size in self.halo)]
        padded = np.pad(values.astype(np.int64), around, constant_values=self.edge)
        last = np.moveaxis(padded * self._turn, 1, -1)
        real = self.channel >= 0
        bits = _planes(last[..., np.where(real, self.channel, 0)], self.levels) & real
        cut = bits.reshape(*bits.shape[:-1], self.words, self.word_bits)
        # planes of a word one behind the other
        return np.packbits(np.moveaxis(cut, 0, -2).reshape(-1), bitorder="little")

    def decode(self, raw: Bytes) -> npt.NDArray[np.int8]:
        """What lies in ``raw``, uint8 [bytes], as values int8 [images, *shape]."""
        shape = (-1, *self.grid, self.words, self.planes, self.word_bits)
        bits = np.unpackbits(raw, bitorder="little").reshape(shape).astype(np.int64)
        if signed(self.levels):
            values = 1 - 2 * bits[..., 0, :]
        else:
            values = np.einsum("...pb,p->...b", bits, np.array(plane_weights(self.levels)))
        inside = tuple(slice(around, around + size) for around, size in zip(self.halo, self.shape[1:], strict=True))
        flat = values.reshape(*values.shape[:-2], -1)[:, *inside]
        found = np.zeros((len(flat), *self.shape), np.int8)
        real = np.flatnonzero(self.channel >= 0)
        found[:, self.channel[real]] = np.moveaxis(flat[..., real], -1, 1)
        return found * self._turn.astype(np.int8)

    @property
    def _turn(self) -> Places:
        return np.where(self.turned, -1, 1).reshape(-1, *[1] * len(self.halo))

    def contraction(self, window: Window) -> tuple[Places, Places]:
        """Of each bit along a row of the product its place in a column of the weights, or -1, and its channel, int64
        [bits]: taps of a convolution, or the whole image of a linear layer."""
        real = self.channel >= 0
        if window.kernel:
            at = np.arange(window.taps)[:, None] * self.shape[0] + self.channel
            count = window.taps
        else:
            count = prod(self.shape[1:])
            at = np.arange(count)[:, None] + self.channel * count
        return np.where(real, at, -1).ravel(), np.tile(np.where(real, self.channel, 0), count)


def _planes(values: npt.NDArray[Any], levels: Levels) -> Bits:
    """Bits of values, bool [planes, ...]: the sign, 1 below 0, or the planes of two's complement."""
    if signed(levels):
        return (values < 0)[None]
    return np.stack([(values >> i & 1).astype(np.bool_) for i in range(len(plane_weights(levels)))])


def weight_words(weights: Places, levels: tuple[Levels, Levels], at: Places, word_bits: int, columns: Places) -> Bytes:
    """Weights [k, n] as XNOR_N2S takes them, uint8 [bytes]: by bank, tile across, slot and context of ``columns``
    [cols, across, contexts], which may lie beyond n; ``at``: of each bit its place along k, or -1."""
    n = weights.shape[1]
    pad = signed(levels[1])
    values = weights[np.where(at >= 0, at, 0)]
    planes = np.where((at >= 0)[:, None], _planes(values, levels[1]), pad)
    chosen = planes[..., np.minimum(columns, n - 1)].reshape(len(planes), -1, word_bits, *columns.shape)
    slots = chosen[[beat.plane_b for beat in beats_of(*levels)]]
    # [beats, words, bits, cols, across, contexts] by column, tile, word, beat, context, bit
    return np.packbits(slots.transpose(3, 4, 1, 0, 5, 2).reshape(-1), bitorder="little")


def level_words(at: Places, flip: Bits, length: int | None, columns: Places) -> npt.NDArray[np.uint32]:
    """What LEVELS holds, uint32 [contexts of all tiles, cols], of thresholds ``at`` int64 and ``flip`` bool, both [n],
    by ``columns`` [cols, contexts]: of sums that are 2 P - ``length``, or P itself where that is None.

    A value is at least ``at``, with ``flip`` at most; the edge asks whether P is at least its level, with flip below.
    What is beyond n passes always.
    """
    most = (1 << LEVEL_BITS - 1) - 1
    least = at + flip
    level = (least if length is None else -(-(least + length) // 2)).clip(-most - 1, most)
    inside = columns < len(at)
    found = np.where(inside, level[np.minimum(columns, len(at) - 1)], -most - 1)
    flipped = inside & flip[np.minimum(columns, len(at) - 1)]
    return np.ascontiguousarray((found << 1 | flipped).T).astype(np.int32).view(np.uint32)
