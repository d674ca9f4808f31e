"""The array register by register in plain Python, to be read beside docs/design/machine.md.

It shares nothing with the kernels, knows no closed form, and moves every word over every hop. Within a cycle the PEs
are visited from the south-east corner, so each reads its neighbours' registers before they change.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ...dataflow.accelerator import AcceleratorSpec
from ...dataflow.stce.mapping import ArrayMapping, Dataflow
from ..array import canonical, check_operands, require_ready
from ..compact import BUBBLE, Compact
from ..operand import Half, Word

__all__ = ["ReferenceRun", "array_reference"]

MINUS_ZERO = np.float32(-0.0)
Single = npt.NDArray[np.float32]
Pair = tuple[Word, int]
EMPTY: Pair = (MINUS_ZERO, BUBBLE)


@dataclass(frozen=True, slots=True, eq=False)
class ReferenceRun:
    """``result`` float32 [m, n], ``left`` int64 [m, n] as of `ArrayRun`, and the length of the run."""

    result: Single
    left: npt.NDArray[np.int64]
    cycles: int


def array_reference(
    spec: AcceleratorSpec,
    mapping: ArrayMapping,
    a: Half,
    b: Half | Compact,
    *,
    run: int = 0,
    ready: npt.NDArray[np.bool_] | None = None,
) -> ReferenceRun:
    """C[m, n] = A[m, k] B[k, n] on every register; operands and ``ready`` as of `run_array`, of its dtypes."""
    machine = (_OutputStationary if mapping.dataflow == Dataflow.OS else _WeightStationary)(
        spec, mapping, a, check_operands(spec, mapping, a, b, run)
    )
    require_ready(spec, ready)
    with np.errstate(all="ignore"):
        while machine.awaited:
            if not machine.waiting:
                machine.step()
                machine.t += 1
            machine.take([True] * spec.array.cols if ready is None or machine.now >= len(ready) else ready[machine.now])
            machine.now += 1
    return ReferenceRun(canonical(machine.result), machine.left, machine.now)


@dataclass(frozen=True, slots=True)
class _Token:
    """Control word of one issue. ``takes``: the PE moves its prefetched part into use; ``first``, ``last`` of a sum."""

    tile: int
    batch: int
    pair: int
    context: int
    takes: bool
    first: bool
    last: bool


class _Pe:
    """One multiplier, one adder, and the registers around them."""

    def __init__(self, spec: AcceleratorSpec, contexts: int) -> None:
        self.multiplier: deque[Any] = deque([None] * spec.pe.multiply_latency)
        self.adder: deque[Any] = deque([None] * spec.pe.add_latency)
        self.sums = [MINUS_ZERO] * contexts
        self.leaving: tuple[_Token, np.float32] | None = None  # on the adder's output in this cycle
        self.part: list[Word] = []
        self.prefetched: list[Word] = []
        self.hop_words: list[Word] = []
        self.hop_token: Any = None
        self.hop_result: np.float32 | None = None
        self.pairs: list[Pair] = []  # WS: what the PE holds
        self.draining = -1  # OS: cycles since the first context of a tile was complete, -1 when there is none
        self.drain = [MINUS_ZERO] * contexts

    def finish(self) -> None:
        """The adder's output becomes visible."""
        self.leaving = self.adder.popleft()
        if self.leaving is not None:
            token, total = self.leaving
            self.sums[token.context] = total

    def add(self, north: np.float32) -> None:
        """A product meets its sum, or at the first of a sum what comes from the north."""
        issued = self.multiplier.popleft()
        if issued is not None:
            token, product = issued
            issued = token, np.float32((north if token.first else self.sums[token.context]) + product)
        self.adder.append(issued)

    def issue(self, token: _Token | None, pair: Pair, offset: int, part_words: int) -> None:
        """A pair and its partner in the part in use enter the multiplier; ``offset``: of the context in the part."""
        if token is None:
            self.multiplier.append(None)
            return
        if token.takes:
            assert len(self.prefetched) == part_words, "a part is used before it is there"
            self.part, self.prefetched = self.prefetched, []
        value, index = pair
        product = MINUS_ZERO if index == BUBBLE else np.float32(self.part[offset + index]) * np.float32(value)
        self.multiplier.append((token, product))

    def receive(self, words: list[Word]) -> None:
        """Words from the west go into the prefetch buffer and on to the east."""
        self.prefetched = self.prefetched + words
        self.hop_words = words


class _Machine:
    """What both dataflows share: operands, the grid, the western edge of row 0 and the delay lines along the edges."""

    def __init__(self, spec: AcceleratorSpec, mapping: ArrayMapping, a: Half, pairs: Compact) -> None:
        self.spec, self.pairs, self.a = spec, pairs, a
        self.m, self.n = a.shape[0], pairs.n
        self.keep, self.group = mapping.pattern.keep, mapping.pattern.group
        self.rows, self.cols, self.contexts = spec.array.rows, spec.array.cols, mapping.interleave
        self.used_cols = min(self.cols, self.n)
        self.grid = [[_Pe(spec, self.contexts) for _ in range(self.cols)] for _ in range(self.rows)]
        self.groups = self._cut()
        self.result = np.zeros((self.m, self.n), np.float32)
        self.left = np.zeros((self.m, self.n), np.int64)
        self.rounds = np.zeros((self.m, self.n), np.int64)  # words taken for each result, in WS one a k-tile
        self.awaited = 0  # words still to leave at the south edge of the used columns
        self.waiting: dict[int, tuple[int, int, np.float32]] = {}  # at the south edge, by column of the array
        self.t = 0  # array cycles
        self.now = 0  # clock cycles
        self.tokens: list[_Token | None] = []  # what the controller issued, by cycle
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
        end = min(self.offset + self.spec.array.w2e_words, self.part_length(self.part))
        self.sent.append((self.part, self.offset, end))
        self.offset = end

    def edge_words(self, row: int, delay: int) -> list[Word]:
        """Words that enter ``row`` from the west, ``delay`` cycles behind row 0."""
        if self.t < delay or (sent := self.sent[self.t - delay]) is None:
            return []
        return [self.part_word(row, sent[0], x) for x in range(sent[1], sent[2])]

    def edge_token(self, delay: int) -> _Token | None:
        """Control word that enters the grid ``delay`` cycles behind PE (0, 0)."""
        return self.tokens[self.t - delay] if self.t >= delay else None

    def deliver(self, row: int, column: int, value: np.float32) -> None:
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

    def controller(self) -> Iterator[_Token | None]:
        raise NotImplementedError

    def part_length(self, part: int) -> int:
        raise NotImplementedError

    def part_word(self, row: int, part: int, x: int) -> Word:
        raise NotImplementedError

    def step(self) -> None:
        raise NotImplementedError


class _OutputStationary(_Machine):
    """Sums stay; pairs and control move south, dense groups east; a drain chain a column carries results south."""

    def __init__(self, spec: AcceleratorSpec, mapping: ArrayMapping, a: Half, pairs: Compact) -> None:
        super().__init__(spec, mapping, a, pairs)
        self.across = -(-self.n // (self.cols * self.contexts))
        self.tiles = -(-self.m // self.rows) * self.across
        self.used_rows = min(self.rows, self.m)
        self.tile_words = self.used_rows * self.contexts
        self.awaited = self.tiles * self.tile_words * self.used_cols
        self.arrived = [0] * self.cols
        self.last_start = -self.tile_words

    def controller(self) -> Iterator[_Token | None]:
        for tile in range(self.tiles):
            while self.t < self.last_start + self.tile_words:
                yield None
            for g, (_, length, _) in enumerate(self.groups):
                while not self.prefetched():
                    yield None
                if g == 0:
                    self.last_start = self.t
                for p in range(min(self.keep, length)):
                    first = g == 0 and p == 0
                    last = g == len(self.groups) - 1 and p == min(self.keep, length) - 1
                    for turn in range(max(self.contexts, self.spec.pe.add_latency)):
                        takes = p == 0 and turn == 0
                        yield _Token(tile, g, p, turn, takes, first, last) if turn < self.contexts else None

    def part_length(self, part: int) -> int:
        return self.groups[part % len(self.groups)][1] if part < self.tiles * len(self.groups) else 0

    def part_word(self, row: int, part: int, x: int) -> Word:
        tile, g = divmod(part, len(self.groups))
        return self.word(tile // self.across * self.rows + row, self.groups[g][0] + x)

    def step(self) -> None:
        self.control_step()
        for c in reversed(range(self.cols)):
            for r in reversed(range(self.rows)):
                self.pe_step(r, c)

    def pe_step(self, r: int, c: int) -> None:
        pe = self.grid[r][c]
        north = self.grid[r - 1][c] if r else None
        if north is not None:
            arriving: tuple[_Token, Pair] | None = north.hop_token
        else:
            entering = self.edge_token(c)
            arriving = (entering, self.north_pair(entering, c)) if entering else None
        pe.finish()
        pe.add(MINUS_ZERO)
        token, pair = arriving or (None, EMPTY)
        pe.issue(token, pair, 0, self.groups[token.batch][1] if token else 0)
        pe.receive(self.grid[r][c - 1].hop_words if c else self.edge_words(r, r))
        pe.hop_token = arriving
        self.drain_step(pe, north, r, c)

    def north_pair(self, token: _Token, c: int) -> Pair:
        column = (token.tile % self.across * self.contexts + token.context) * self.cols + c
        return self.pair(token.batch, token.pair, column)

    def drain_step(self, pe: _Pe, north: _Pe | None, r: int, c: int) -> None:
        """A used row waits for the rows below it, then puts its contexts on the chain."""
        if pe.leaving is not None and pe.leaving[0].last:
            pe.drain[pe.leaving[0].context] = pe.leaving[1]
            if pe.leaving[0].context == 0 and r < self.used_rows:
                assert pe.draining < 0, "a tile is complete before its predecessor has left"
                pe.draining = 0
        on_chain = north.hop_result if north is not None else None
        if pe.draining >= 0:
            turn = pe.draining - (self.used_rows - 1 - r) * self.contexts
            pe.draining += 1
            if turn >= 0:
                assert on_chain is None, "two words on one chain"
                on_chain = pe.drain[turn]
                if turn == self.contexts - 1:
                    pe.draining = -1
        pe.hop_result = on_chain
        if r == self.rows - 1 and on_chain is not None:
            tile, word = divmod(self.arrived[c], self.tile_words)
            row = tile // self.across * self.rows + self.used_rows - 1 - word // self.contexts
            self.arrived[c] += 1
            self.deliver(row, (tile % self.across * self.contexts + word % self.contexts) * self.cols + c, on_chain)


class _WeightStationary(_Machine):
    """Pairs stay; control and batches move east, partial sums and, through shadow registers, the next pairs south."""

    def __init__(self, spec: AcceleratorSpec, mapping: ArrayMapping, a: Half, pairs: Compact) -> None:
        super().__init__(spec, mapping, a, pairs)
        self.pace = max(self.contexts, spec.pe.add_latency)
        self.row_delay = (self.keep - 1) * self.pace + spec.pe.add_latency
        self.batches = -(-self.m // self.contexts)
        self.across = -(-self.n // self.cols)
        self.tiles = -(-len(self.groups) // self.rows) * self.across
        self.awaited = self.tiles * self.batches * self.contexts * self.used_cols
        self.shadow: list[list[Pair]] = [[EMPTY] * (self.keep * self.rows) for _ in range(self.cols)]
        self.shifts: list[tuple[int, int] | None] = []  # column 0, by cycle: tile, position of the pair that enters
        self.shift_tile, self.to_shift = 0, self.keep * self.rows
        self.returns: list[int | None] = [0] * self.across  # first cycle in which an n-tile may start, once it is known

    def controller(self) -> Iterator[_Token | None]:
        for tile in range(self.tiles):
            while self.shift_tile < tile or self.to_shift or not self.sums_are_back(tile % self.across):
                yield None
            self.returns[tile % self.across] = None
            for batch in range(self.batches):
                while not self.prefetched():
                    yield None
                for p in range(self.keep):
                    for turn in range(self.pace):
                        takes = p == 0 and turn == 0
                        token = _Token(tile, batch, p, turn, takes, p == 0, p == self.keep - 1)
                        yield token if turn < self.contexts else None

    def sums_are_back(self, n_tile: int) -> bool:
        """Whether the partial sums of an n-tile will be in the output buffer when its first product meets them."""
        back = self.returns[n_tile]
        return back is not None and self.t >= back

    def part_length(self, part: int) -> int:
        return self.contexts * self.group if part < self.tiles * self.batches else 0

    def part_word(self, row: int, part: int, x: int) -> Word:
        tile, batch = divmod(part, self.batches)
        g = tile // self.across * self.rows + row
        context, index = divmod(x, self.group)
        if g >= len(self.groups) or index >= self.groups[g][1]:
            return self.a.dtype.type(0)
        return self.word(batch * self.contexts + context, self.groups[g][0] + index)

    def step(self) -> None:
        self.control_step()
        for row in self.grid:
            for pe in row:
                pe.finish()
        for c in reversed(range(self.cols)):
            for r in reversed(range(self.rows)):
                self.pe_step(r, c)
        self.shift_step()

    def pe_step(self, r: int, c: int) -> None:
        pe = self.grid[r][c]
        token: _Token | None = self.grid[r][c - 1].hop_token if c else self.edge_token(r * self.row_delay)
        pe.add(self.from_north(pe, r, c))
        if token is not None and token.takes and token.batch == 0:
            self.take_over(pe, r, c)
        if token is not None and r == self.rows - 1 and c == 0 and token.batch == token.context == 0 and token.last:
            # It leaves a multiplication and an addition from now, is in the buffer a cycle later, and is needed again
            # only at the adder of the next round's first product.
            self.returns[token.tile % self.across] = self.t + self.spec.pe.add_latency + 1
        pe.issue(
            token,
            pe.pairs[token.pair] if token else EMPTY,
            token.context * self.group if token else 0,
            self.contexts * self.group,
        )
        pe.receive(self.grid[r][c - 1].hop_words if c else self.edge_words(r, r * self.row_delay))
        pe.hop_token = token
        if r == self.rows - 1 and pe.leaving is not None and pe.leaving[0].last:
            done, total = pe.leaving
            row, column = done.batch * self.contexts + done.context, done.tile % self.across * self.cols + c
            self.deliver(row, column, total)

    def from_north(self, pe: _Pe, r: int, c: int) -> np.float32:
        """What stands on the northern wire of a PE in this cycle."""
        issued = pe.multiplier[0]
        if issued is None or not issued[0].first:
            return MINUS_ZERO
        token: _Token = issued[0]
        if r:
            leaving = self.grid[r - 1][c].leaving
            assert leaving is not None and leaving[0].last, "no partial sum comes from the north"
            assert (leaving[0].batch, leaving[0].context) == (token.batch, token.context), "a wrong partial sum comes"
            return leaving[1]
        row, column = token.batch * self.contexts + token.context, token.tile % self.across * self.cols + c
        if token.tile < self.across or row >= self.m or column >= self.n:
            return MINUS_ZERO
        assert self.rounds[row, column] == token.tile // self.across, "a partial sum is used before it has left"
        assert self.left[row, column] < self.now, "a partial sum is used before it is back"
        return np.float32(self.result[row, column])

    def take_over(self, pe: _Pe, r: int, c: int) -> None:
        """The pairs of the next tile come into use; once the last row has them, those after may be shifted in."""
        pe.pairs = self.shadow[c][r * self.keep : (r + 1) * self.keep]
        if r == self.rows - 1 and c == 0:
            self.shift_tile, self.to_shift = self.shift_tile + 1, self.keep * self.rows

    def shift_step(self) -> None:
        """One cycle of every column's shadow chain; the pair that goes furthest enters first."""
        self.shifts.append((self.shift_tile, self.to_shift - 1) if self.to_shift else None)
        self.to_shift = max(self.to_shift - 1, 0)
        for c in range(self.cols):
            if self.t >= c and (shift := self.shifts[self.t - c]) is not None:
                tile, position = shift
                g = tile // self.across * self.rows + position // self.keep
                pair = self.pair(g, position % self.keep, tile % self.across * self.cols + c)
                self.shadow[c] = [pair, *self.shadow[c][:-1]]
