"""How a binary network is cut for a machine: contexts and tiles of its layers, and what each of them reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ...workloads.errors import InputError
from ...workloads.integer_network import IntegerLayer
from ..integers import ceil_div
from ..xnor.mapping import require_xnor
from ..xnor.words import beats_of
from .bits import BitImage
from .spaces import BIT_WORD, HALVES, Space, Target

__all__ = ["Group", "Plan", "Thresholds", "Tiling"]

Places = npt.NDArray[np.int64]
Thresholds = tuple[npt.NDArray[np.int32], npt.NDArray[np.bool_]]
"""What a sum of each channel is compared with, int32 [n], and whether it is to be at most that, bool [n]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiling:
    """How a layer is cut: ``contexts`` of an element, ``across`` and ``down`` tiles in a command at most; ``slots`` of
    a row or column."""

    contexts: int
    across: int
    down: int
    slots: int


class Group(NamedTuple):
    """Columns that one command makes, from ``first`` on: the bytes of their words and of their levels."""

    first: int
    across: int
    words: int
    levels: int


class Plan:
    """``layers`` for ``images`` of the shape ``image`` at a time on the machine ``target``, cut so that each layer and
    the one that reads it are quickest."""

    def __init__(
        self,
        target: Target,
        images: int,
        layers: Sequence[IntegerLayer],
        image: tuple[int, ...],
        thresholds: Sequence[Thresholds],
    ) -> None:
        self.target, self.images, self.layers = target, images, layers
        self.own = require_xnor(target.spec)
        shape = image if layers[0].window.kernel else (prod(image),)
        first = self._spread(np.arange(shape[0]))
        self.inputs = [self._input(0, shape, first, np.zeros(shape[0], np.bool_))]
        self.tilings = list[Tiling]()
        for i in range(len(layers)):
            self.tilings.append(self._tiling(i))
            if i + 1 < len(layers):
                self.inputs.append(self._made(i, thresholds[i]))

    def positions(self, i: int) -> tuple[int, ...]:
        """What layer ``i`` makes: those of its pool, where it has one."""
        layer = self.layers[i]
        return layer.window.positions if layer.pool is None else layer.pool.positions

    def strip_words(self, contexts: int) -> int:
        """Of 32 bits, of a row of a tile."""
        return ceil_div(contexts * self.own.cols, BIT_WORD)

    def _depth(self, space: Space) -> int:
        return self.target.size(space).depth

    def _taps(self, i: int) -> int:
        """Positions along a row of layer ``i``."""
        window = self.layers[i].window
        return window.taps if window.kernel else prod(self.positions(i - 1)) if i else 1

    def _position_words(self, i: int, contexts: int) -> int:
        """Words of the engine that hold a position of what layer ``i`` makes."""
        tiles = ceil_div(self.layers[i].weights.shape[1], contexts * self.own.cols)
        return ceil_div(tiles * self.strip_words(contexts), self.target.bit_words)

    def _tiling(self, i: int) -> Tiling:
        layer, own, parts, last = self.layers[i], self.own, self.target.bit_words, i + 1 == len(self.layers)
        n, slots = layer.weights.shape[1], self._taps(i) * self.inputs[i].words * len(beats_of(*layer.levels))
        high, wide = (self._depth(space) // (slots * parts) for space in (Space.XNOR_W2E, Space.XNOR_N2S))
        for have, buffer, banks in ((high, "w2e", own.rows), (wide, "n2s", own.cols)):
            if not have:
                raise InputError(
                    f"layer {layer.name!r} takes {slots} words of a row or column, which no half of "
                    f"buffers.{buffer}_bytes of {self.target.spec.name!r} holds; it takes "
                    f"{HALVES * slots * own.word_bits // 8 * banks:,} bytes"
                )
        made = self._depth(Space.SUMS if last else Space.SIGNS) // own.rows
        most = min(own.accumulators, wide, *([made] if last else []))
        if not most:
            raise InputError(
                f"layer {layer.name!r} makes more words of a tile than half of buffers.output_bytes of "
                f"{self.target.spec.name!r} holds"
            )

        def cost(contexts: int) -> int:
            tiles = ceil_div(n, contexts * own.cols)
            mine = ceil_div(layer.gemm(self.images).m, own.rows) * tiles * contexts * max(slots, own.rows)
            if last:
                return mine
            after = self.layers[i + 1].gemm(self.images)
            reads = self._taps(i + 1) * self._position_words(i, contexts)
            return mine + ceil_div(after.m, own.rows) * ceil_div(after.n, own.cols) * reads

        contexts = min(range(1, most + 1), key=cost)
        each = contexts if last else 1
        tiles = ceil_div(n, contexts * own.cols)
        across = min(tiles, wide // contexts, self._depth(Space.LEVELS) // contexts, made // each)
        return Tiling(contexts=contexts, across=across, down=min(high, made // (each * across)), slots=slots)

    def _made(self, i: int, threshold: Thresholds) -> BitImage:
        """What layer ``i`` makes, strip by strip."""
        layer, contexts = self.layers[i], self.tilings[i].contexts
        n, wide = layer.weights.shape[1], contexts * self.own.cols
        tile, bit = np.arange(ceil_div(n, wide))[:, None], np.arange(self.strip_words(contexts) * BIT_WORD)
        column = np.where(bit < wide, tile * wide + bit, n)
        channel = self._spread(np.where(column < n, column, -1).ravel())
        turned = threshold[1] & (layer.pool is not None and layer.pool_first)
        return self._input(i + 1, (n, *self.positions(i)), channel, turned)

    def _input(self, i: int, shape: tuple[int, ...], channel: Places, turned: npt.NDArray[np.bool_]) -> BitImage:
        layer = self.layers[i]
        return BitImage(
            address=0,
            shape=shape,
            halo=layer.window.padding if layer.window.kernel else (0,) * (len(shape) - 1),
            levels=layer.levels[0],
            word_bits=self.own.word_bits,
            channel=channel,
            turned=turned,
            edge=layer.edge,
        )

    def _spread(self, channel: Places) -> Places:
        """Bits of whole words; -1: none."""
        return np.pad(channel, (0, -len(channel) % self.own.word_bits), constant_values=-1)
