"""The array register by register, pairs staying in the PEs."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ...dataflow.stce.mapping import ArrayMapping
from ...dataflow.xnor.mapping import XnorMapping
from ..operand import Half, Word
from .registers import EMPTY, Grid, Machine, Pair, Pairs, Pe, Sum, Token

__all__ = ["WeightStationary"]


class WeightStationary(Machine):
    """Pairs stay; control and batches move east, partial sums and, through shadow registers, the next pairs south."""

    def __init__(self, size: Grid, mapping: ArrayMapping | XnorMapping, a: Half, pairs: Pairs) -> None:
        super().__init__(size, mapping, a, pairs)
        self.pace = max(self.contexts, size.add_latency)
        self.row_delay = (self.keep - 1) * self.pace + size.add_latency
        self.batches = -(-self.m // self.contexts)
        self.across = -(-self.n // self.cols)
        self.tiles = -(-len(self.groups) // self.rows) * self.across
        self.awaited = self.tiles * self.batches * self.contexts * self.used_cols
        self.shadow: list[list[Pair]] = [[EMPTY] * (self.keep * self.rows) for _ in range(self.cols)]
        self.shifts: list[tuple[int, int] | None] = []  # column 0, by cycle: tile, position of the pair that enters
        self.shift_tile, self.to_shift = 0, self.keep * self.rows
        self.gone = np.zeros((self.m, self.n), np.int64)  # array cycle in which a partial sum left last
        self.returns: list[int | None] = [0] * self.across  # first cycle in which an n-tile may start, once it is known

    def controller(self) -> Iterator[Token | None]:
        for tile in range(self.tiles):
            while self.shift_tile < tile or self.to_shift or not self.sums_are_back(self.n_tile(tile)):
                yield None
            self.returns[self.n_tile(tile)] = None
            for batch in range(self.batches):
                while not self.prefetched():
                    yield None
                for p in range(self.keep):
                    for turn in range(self.pace):
                        takes = p == 0 and turn == 0
                        token = Token(tile, batch, p, turn, takes, p == 0, p == self.keep - 1)
                        yield token if turn < self.contexts else None

    def sums_are_back(self, n_tile: int) -> bool:
        """Whether the partial sums of an n-tile will be in the output buffer when its first product meets them."""
        back = self.returns[n_tile]
        return back is not None and self.t >= back

    def n_tile(self, tile: int) -> int:
        """The columns of a tile."""
        return tile % self.across

    def k_tile(self, tile: int) -> int:
        """The part of the contraction of a tile."""
        return tile // self.across

    def part_length(self, part: int) -> int:
        return self.contexts * self.group if part < self.tiles * self.batches else 0

    def part_word(self, row: int, part: int, x: int) -> Word:
        tile, batch = divmod(part, self.batches)
        g = self.k_tile(tile) * self.rows + row
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
        token: Token | None = self.grid[r][c - 1].hop_token if c else self.edge_token(r * self.row_delay)
        pe.add(self.from_north(pe, r, c))
        if token is not None and token.takes and token.batch == 0:
            self.take_over(pe, r, c)
        if token is not None and r == self.rows - 1 and c == 0 and token.batch == token.context == 0 and token.last:
            # It leaves a multiplication and an addition from now, may be asked for in that very cycle, and is needed
            # again only at the adder of the next round's first product.
            self.returns[self.n_tile(token.tile)] = self.t + self.size.add_latency + self.size.read_latency
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
            row, column = done.batch * self.contexts + done.context, self.n_tile(done.tile) * self.cols + c
            if row < self.m and column < self.n:
                self.gone[row, column] = self.t
            self.deliver(row, column, total)

    def from_north(self, pe: Pe, r: int, c: int) -> Sum:
        """What stands on the northern wire of a PE in this cycle."""
        issued = pe.multiplier[0]
        if issued is None or not issued[0].first:
            return self.unit.zero
        token: Token = issued[0]
        if r:
            leaving = self.grid[r - 1][c].leaving
            assert leaving is not None and leaving[0].last, "no partial sum comes from the north"
            assert (leaving[0].batch, leaving[0].context) == (token.batch, token.context), "a wrong partial sum comes"
            return leaving[1]
        row, column = token.batch * self.contexts + token.context, self.n_tile(token.tile) * self.cols + c
        if self.k_tile(token.tile) == 0 or row >= self.m or column >= self.n:
            return self.unit.zero
        assert self.rounds[row, column] == self.k_tile(token.tile), "a partial sum is used before it has left"
        assert self.gone[row, column] <= self.t - self.size.read_latency, "a partial sum is asked for before it leaves"
        return self.result[row, column]

    def take_over(self, pe: Pe, r: int, c: int) -> None:
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
                row, p = divmod(position, self.keep)
                there = tile < self.tiles  # behind the last tile nothing is shifted in
                pair = self.held_pair(tile, row, p, self.n_tile(tile) * self.cols + c) if there else EMPTY
                self.shadow[c] = [pair, *self.shadow[c][:-1]]

    def held_pair(self, tile: int, row: int, p: int, column: int) -> Pair:
        """Pair ``p`` that a row holds under a tile."""
        return self.pair(self.k_tile(tile) * self.rows + row, p, column)
