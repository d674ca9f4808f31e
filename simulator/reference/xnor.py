"""The XNOR engine register by register, to be read beside docs/design/xnor.md: the STCE's array with another PE.

Words are Python integers made of the values one by one, control words come from the page's table; nothing is shared
with the kernels, and no closed form is known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, assert_never

import numpy as np
import numpy.typing as npt

from ...dataflow.accelerator import AcceleratorSpec
from ...dataflow.stce.mapping import Dataflow
from ...dataflow.xnor.mapping import XnorMapping, require_xnor
from ...workloads.levels import Levels
from ..operand import Word
from ..stalls import Bools, require_stalls
from .array import ReferenceRun, drive
from .output_stationary import OutputStationary
from .registers import EMPTY, Grid, Machine, Pair, Sum, Token
from .weight_stationary import WeightStationary

__all__ = ["xnor_reference"]

NOTHING = (0, 0)
"""A plane pair of which no bit counts."""
Lists = list[list[int]]
"""By tile (OS) or by columns (WS): the slots that are not left out."""


class Beat(NamedTuple):
    """An N2S word with the control that travels beside it."""

    planes: tuple[int, int]
    differ: bool
    weight: int


class Counting:
    """Compares two words, counts, and adds up in 32 bits."""

    zero = np.int32(0)

    def product(self, dense: Word, value: Word) -> Sum:
        (sign_a, mask_a), (sign_b, mask_b) = dense, value.planes
        both = mask_a & mask_b
        differ = both & (sign_a ^ sign_b)
        return value.weight * (differ if value.differ else both & ~differ).bit_count()

    def add(self, x: Sum, y: Sum) -> Sum:
        return np.int32((int(x) + int(y) + 2**31) % 2**32 - 2**31)


class Columns(NamedTuple):
    """The N2S operand, `registers.Pairs`."""

    values: Any
    indices: Any
    k: int
    run: int

    @property
    def n(self) -> int:
        return int(self.values.shape[1])


class XnorOutputStationary(OutputStationary):
    """Every tile has its own slots."""

    unit = Counting()
    sums = np.int32
    lists: Lists

    def start(self, lists: Lists) -> None:
        self.lists = lists
        self.parts = [(tile, slot) for tile, slots in enumerate(lists) for slot in slots]
        self.last_slot = -self.tile_words - self.contexts

    def controller(self) -> Iterator[Token | None]:
        for tile, slots in enumerate(self.lists):
            # Its first word may come to the chain when the last one before it has gone by.
            while self.t + (len(slots) - 1) * self.contexts < self.last_slot + self.tile_words:
                yield None
            for place, slot in enumerate(slots):
                while not self.prefetched():
                    yield None
                self.last_slot = self.t
                for turn in range(self.contexts):
                    yield Token(tile, slot, 0, turn, turn == 0, place == 0, place == len(slots) - 1)

    def part_length(self, part: int) -> int:
        return int(part < len(self.parts))

    def part_word(self, row: int, part: int, x: int) -> Word:
        tile, slot = self.parts[part]
        return self.word(tile // self.across * self.rows + row, slot)

    def word(self, row: int, k: int) -> Word:
        return self.a[row, k] if row < self.m else NOTHING


class XnorWeightStationary(WeightStationary):
    """Every n-tile has its own slots; of those with fewer k-tiles, later rounds have none."""

    unit = Counting()
    sums = np.int32
    lists: Lists

    def start(self, lists: Lists) -> None:
        self.lists = lists
        held = self.rows * self.keep
        k_tiles = [-(-len(slots) // held) for slots in lists]
        self.order = [(n, k) for k in range(max(k_tiles)) for n in range(self.across) if k < k_tiles[n]]
        self.tiles = len(self.order)
        self.awaited = self.tiles * self.batches * self.contexts * self.used_cols

    def n_tile(self, tile: int) -> int:
        return self.order[tile][0]

    def k_tile(self, tile: int) -> int:
        return self.order[tile][1]

    def slot(self, tile: int, row: int, index: int) -> int | None:
        n, k = self.order[tile]
        at = (k * self.rows + row) * self.keep + index
        return self.lists[n][at] if at < len(self.lists[n]) else None

    def part_word(self, row: int, part: int, x: int) -> Word:
        tile, batch = divmod(part, self.batches)
        context, index = divmod(x, self.group)
        line, slot = batch * self.contexts + context, self.slot(tile, row, index)
        return self.a[line, slot] if slot is not None and line < self.m else NOTHING

    def held_pair(self, tile: int, row: int, p: int, column: int) -> Pair:
        slot = self.slot(tile, row, p)
        return EMPTY if slot is None or column >= self.n else (self.pairs.values[slot, column], p)


def xnor_reference(
    spec: AcceleratorSpec,
    mapping: XnorMapping,
    a: npt.NDArray[np.integer],
    b: npt.NDArray[np.integer],
    levels: tuple[Levels, Levels],
    *,
    run: int = 0,
    skip: bool = False,
    ready: Bools | None = None,
    hold: Bools | None = None,
) -> ReferenceRun:
    """C[m, n] = A[m, k] B[k, n] on every register; operands as of `run_xnor`, the result int32."""
    own, run = require_xnor(spec), run or a.shape[1]
    words = [range(lo, min(lo + own.word_bits, at + run)) for at in range(0, a.shape[1], run)
             for lo in range(at, at + run, own.word_bits)]  # fmt: skip
    control = _control(*levels)
    slots = len(words) * len(control)
    west = np.empty((a.shape[0], slots + 1), object)
    north = np.empty((slots + 1, b.shape[1]), object)
    for matrix, lines, side in ((west, a, 0), (north.T, b.T, 1)):
        for line, values in enumerate(lines):
            for w, of in enumerate(words):
                planes = _planes([int(values[k]) for k in of], levels[side])
                for i, (*plane, differ, weight) in enumerate(control):
                    pair = planes[plane[side]]
                    matrix[line, w * len(control) + i] = Beat(pair, differ, weight) if side else pair
            matrix[line, slots] = Beat(NOTHING, False, 1) if side else NOTHING

    def occupied(rows: range, columns: range) -> list[int]:
        """Slots of words that have a value on both sides; one of nothing if there are none."""
        found = [
            w * len(control) + i
            for w, of in enumerate(words)
            if not skip or (a[rows.start : rows.stop, of].any() and b[of, columns.start : columns.stop].any())
            for i in range(len(control))
        ]
        return found or [slots]

    # w = 1 word a cycle, an addition takes La = 1.
    size = Grid(own.rows, own.cols, 1, own.popcount_latency, 1)
    made = _machine(mapping, size, west, Columns(north, np.zeros(north.shape, int), slots + 1, slots + 1), occupied)
    require_stalls(own.cols, ready, hold)
    drive(made, own.cols, ready, hold)
    both_binary = levels == (Levels.BINARY, Levels.BINARY)
    result = 2 * made.result - a.shape[1] if both_binary else made.result
    return ReferenceRun(result.astype(np.int32), made.left, made.now)


def _machine(
    mapping: XnorMapping, size: Grid, west: Any, north: Columns, occupied: Callable[[range, range], list[int]]
) -> Machine:
    m, n = len(west), north.n
    match mapping.dataflow:
        case Dataflow.OS:
            os = XnorOutputStationary(size, mapping, west, north)
            wide = size.cols * mapping.interleave
            os.start(
                [
                    occupied(range(r, min(r + size.rows, m)), range(c, min(c + wide, n)))
                    for r in range(0, m, size.rows)
                    for c in range(0, n, wide)
                ]
            )
            return os
        case Dataflow.WS:
            ws = XnorWeightStationary(size, mapping, west, north)
            ws.start([occupied(range(m), range(c, min(c + size.cols, n))) for c in range(0, n, size.cols)])
            return ws
        case Dataflow.OS1:
            raise AssertionError("a mapping refuses it")
        case _:
            assert_never(mapping.dataflow)


def _planes(values: list[int], levels: Levels) -> list[tuple[int, int]]:
    """The plane pairs of a word: sign and mask, value ``i`` at bit ``i``; what lies beyond is padding."""

    def word(bits: list[bool]) -> int:
        return sum(1 << i for i, bit in enumerate(bits) if bit)

    match levels:
        case Levels.BINARY:
            return [(word([v < 0 for v in values]), word([True for _ in values]))]
        case Levels.SPIKE:
            return [(0, word([v == 1 for v in values]))]
        case Levels.TERNARY:
            return [(word([v < 0 for v in values]), word([v != 0 for v in values]))]
        case _:
            return [(0, word([bool(v % 2**levels.bits >> i & 1) for v in values])) for i in range(levels.bits)]


def _control(a: Levels, b: Levels) -> list[tuple[int, int, bool, int]]:
    """Plane of a, plane of b, whether differing bits are counted, and the weight of their count; beat after beat."""
    signs = (Levels.BINARY, Levels.TERNARY)

    def weights(levels: Levels) -> list[int]:
        if levels in signs or levels == Levels.SPIKE:
            return [1]
        return [-(2**i) if i == levels.bits - 1 else 2**i for i in range(levels.bits)]

    found = []
    for i, x in enumerate(weights(a)):
        for j, y in enumerate(weights(b)):
            found.append((i, j, False, x * y))
            if (a in signs or b in signs) and not a == b == Levels.BINARY:
                found.append((i, j, True, -x * y))
    return found
