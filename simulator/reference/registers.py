"""Registers of the array that every dataflow has: the PE, the grid, the western edge and the receivers in the south.

Within a cycle the PEs are visited from the south-east corner, so each reads its neighbours' registers before they
change.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from ...dataflow.accelerator import AcceleratorSpec
from ...dataflow.stce.mapping import ArrayMapping
from ...dataflow.xnor.mapping import XnorMapping
from ..compact import BUBBLE
from ..operand import Half, Word

__all__ = [
    "EMPTY",
    "MINUS_ZERO",
    "Arithmetic",
    "Grid",
    "Machine",
    "Pair",
    "Pairs",
    "Pe",
    "Fp32",
    "Sum",
    "Token",
    "stce_grid",
]

MINUS_ZERO = np.float32(-0.0)
Pair = tuple[Word, int]
EMPTY: Pair = (MINUS_ZERO, BUBBLE)
Sum = Any
"""A scalar of the accumulator's type."""


class Grid(NamedTuple):
    """Size and latencies of an array; words a cycle of a western port; cycles from an ask to a bank's answer."""

    rows: int
    cols: int
    port_words: int
    multiply_latency: int
    add_latency: int
    read_latency: int = 1


def stce_grid(spec: AcceleratorSpec) -> Grid:
    """The array of the STCE."""
    array, pe = spec.array, spec.pe
    return Grid(array.rows, array.cols, array.w2e_words, pe.multiply_latency, pe.add_latency, array.read_latency)


class Arithmetic(Protocol):
    """What a PE computes."""

    zero: Sum
    """What a sum starts from and a bubble adds."""

    def product(self, dense: Word, value: Word) -> Sum:
        """What a pair of words adds to a sum."""

    def add(self, x: Sum, y: Sum) -> Sum:
        """Their sum, as the accumulator holds it."""


class Fp32:
    """FP32: products and sums are rounded one by one."""

    zero = MINUS_ZERO

    def product(self, dense: Word, value: Word) -> Sum:
        return np.float32(dense) * np.float32(value)

    def add(self, x: Sum, y: Sum) -> Sum:
        return np.float32(x + y)


class Int32:
    """INT32, which wraps around."""

    zero = np.int32(0)

    def product(self, dense: Word, value: Word) -> Sum:
        return int(dense) * int(value)

    def add(self, x: Sum, y: Sum) -> Sum:
        return np.int32((int(x) + int(y) + 2**31) % 2**32 - 2**31)


class Pairs(Protocol):
    """The N2S operand, of a contraction of ``k`` in runs of ``run``: ``values`` [slots, n] of any dtype and ``indices``
    uint8 [slots, n]."""

    @property
    def values(self) -> Half:
        """[slots, n], of any dtype."""

    @property
    def indices(self) -> Any: ...
    @property
    def k(self) -> int: ...
    @property
    def run(self) -> int: ...
    @property
    def n(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Token:
    """Control word of one issue. ``takes``: the PE moves its prefetched part into use; ``first``, ``last`` of a sum."""

    tile: int
    batch: int
    pair: int
    context: int
    takes: bool
    first: bool
    last: bool


class Pe:
    """One multiplier, one adder, and the registers around them."""

    def __init__(self, grid: Grid, unit: Arithmetic, contexts: int) -> None:
        self.unit = unit
        self.multiplier: deque[Any] = deque([None] * grid.multiply_latency)
        self.adder: deque[Any] = deque([None] * grid.add_latency)
        self.sums = [unit.zero] * contexts
        self.leaving: tuple[Token, Sum] | None = None  # on the adder's output in this cycle
        self.part: list[Word] = []
        self.prefetched: list[Word] = []
        self.hop_words: list[Word] = []
        self.hop_token: Any = None
        self.hop_result: Sum | None = None
        self.pairs: list[Pair] = []  # WS: what the PE holds
        self.draining = -1  # OS: cycles since the first context of a tile was complete, -1 when there is none
        self.drain = [unit.zero] * contexts

    def finish(self) -> None:
        """The adder's output becomes visible."""
        self.leaving = self.adder.popleft()
        if self.leaving is not None:
            token, total = self.leaving
            self.sums[token.context] = total

    def add(self, north: Sum) -> None:
        """A product meets its sum, or at the first of a sum what comes from the north."""
        issued = self.multiplier.popleft()
        if issued is not None:
            token, product = issued
            issued = token, self.unit.add(north if token.first else self.sums[token.context], product)
        self.adder.append(issued)

    def issue(self, token: Token | None, pair: Pair, offset: int, part_words: int) -> None:
        """A pair and its partner in the part in use enter the multiplier; ``offset``: of the context in the part."""
        if token is None:
            self.multiplier.append(None)
            return
        if token.takes:
            assert len(self.prefetched) == part_words, "a part is used before it is there"
            self.part, self.prefetched = self.prefetched, []
        value, index = pair
        product = self.unit.zero if index == BUBBLE else self.unit.product(self.part[offset + index], value)
        self.multiplier.append((token, product))

    def receive(self, words: list[Word]) -> None:
        """Words from the west go into the prefetch buffer and on to the east."""
        self.prefetched = self.prefetched + words
        self.hop_words = words


class Machine:
    """What both dataflows share: operands, the grid, the western edge of row 0 and the delay lines along the edges."""

    unit: Arithmetic = Fp32()
    sums: type[np.generic] = np.float32
    """Of what leaves."""

    def __init__(self, size: Grid, mapping: ArrayMapping | XnorMapping, a: Half, pairs: Pairs) -> None:
        self.size, self.pairs, self.a = size, pairs, a
        if a.dtype == np.int8:
            self.unit, self.sums = Int32(), np.int32
        self.m, self.n = a.shape[0], pairs.n
        self.keep, self.group = mapping.pattern.keep, mapping.pattern.group
        self.rows, self.cols, self.contexts = size.rows, size.cols, mapping.interleave
        self.used_cols = min(self.cols, self.n)
        self.grid = [[Pe(size, self.unit, self.contexts) for _ in range(self.cols)] for _ in range(self.rows)]
        self.groups = self._cut()
        self.result = np.zeros((self.m, self.n), self.sums)
        self.left = np.zeros((self.m, self.n), np.int64)
        self.rounds = np.zeros((self.m, self.n), np.int64)  # words taken for each result, in WS one a k-tile
        self.awaited = 0  # words still to leave at the south edge of the used columns
        self.waiting: dict[int, tuple[int, int, Sum]] = {}  # at the south edge, by column of the array
        self.t = 0  # array cycles
        self.now = 0  # clock cycles
        self.tokens: list[Token | None] = []  # what the controller issued, by cycle
        self.sent: list[tuple[int, int, int] | None] = []  # what row 0 was fed, by cycle: part, from word, to word
        self.part, self.offset = 0, 0
        self.control = self.controller()

    def _cut(self) -> list[tuple[int, int, int]]:
        """(start, length, first slot) of every group."""
        groups, slot = [], 0
        for run_start in range(0, self.pairs.k, self.pairs.run):
            for start in range(run_start, run_start + self.pairs.run, self.group):
                length = min(self.group, run_start + self.pairs.run - start)
                groups.append((start, length, slot))
                slot += min(self.keep, length)
        return groups

    def pair(self, group: int, p: int, column: int) -> Pair:
        """Pair ``p`` of a group of a column of B; empty outside of B and of short groups."""
        if group >= len(self.groups) or column >= self.n or p >= min(self.keep, self.groups[group][1]):
            return EMPTY
        slot = self.groups[group][2] + p
        return self.pairs.values[slot, column], int(self.pairs.indices[slot, column])

    def word(self, row: int, k: int) -> Word:
        """One element of A, or a filler below its last row."""
        return self.a[row, k] if row < self.m else self.a.dtype.type(0)

    def prefetched(self) -> bool:
        """Whether PE (0, 0) holds the whole next part."""
        return len(self.grid[0][0].prefetched) == self.part_length(self.part)

    def control_step(self) -> None:
        """One cycle of the controller and of the port of row 0: a part is sent once its predecessor is taken."""
        token = next(self.control, None)
        self.tokens.append(token)
        if token is not None and token.takes:
            self.part, self.offset = self.part + 1, 0
        end = min(self.offset + self.size.port_words, self.part_length(self.part))
        self.sent.append((self.part, self.offset, end))
        self.offset = end

    def edge_words(self, row: int, delay: int) -> list[Word]:
        """Words that enter ``row`` from the west, ``delay`` cycles behind row 0."""
        if self.t < delay or (sent := self.sent[self.t - delay]) is None:
            return []
        return [self.part_word(row, sent[0], x) for x in range(sent[1], sent[2])]

    def edge_token(self, delay: int) -> Token | None:
        """Control word that enters the grid ``delay`` cycles behind PE (0, 0)."""
        return self.tokens[self.t - delay] if self.t >= delay else None

    def deliver(self, row: int, column: int, value: Sum) -> None:
        """A word has come to the south edge."""
        self.waiting[column % self.cols] = row, column, value

    def take(self, ready: Sequence[bool]) -> None:
        """One clock cycle of the receivers; while a word is left waiting, the array stands still."""
        for c in [c for c in self.waiting if ready[c]]:
            row, column, value = self.waiting.pop(c)
            self.awaited -= c < self.used_cols
            if row < self.m and column < self.n:
                self.result[row, column] = value
                self.left[row, column] = self.now
                self.rounds[row, column] += 1

    def controller(self) -> Iterator[Token | None]:
        raise NotImplementedError

    def part_length(self, part: int) -> int:
        raise NotImplementedError

    def part_word(self, row: int, part: int, x: int) -> Word:
        raise NotImplementedError

    def step(self) -> None:
        raise NotImplementedError
