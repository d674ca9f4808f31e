"""The array register by register, sums staying in the PEs; with drain registers and without."""

from __future__ import annotations

from collections.abc import Iterator

from ...dataflow.stce.mapping import ArrayMapping
from ...dataflow.xnor.mapping import XnorMapping
from ..operand import Half, Word
from .registers import EMPTY, Grid, Machine, Pair, Pairs, Pe, Sum, Token

__all__ = ["OutputStationary", "SingleBuffered"]


class OutputStationary(Machine):
    """Sums stay; pairs and control move south, dense groups east; a drain chain a column carries results south."""

    def __init__(self, size: Grid, mapping: ArrayMapping | XnorMapping, a: Half, pairs: Pairs) -> None:
        super().__init__(size, mapping, a, pairs)
        self.across = -(-self.n // (self.cols * self.contexts))
        self.tiles = -(-self.m // self.rows) * self.across
        self.used_rows = min(self.rows, self.m)
        self.tile_words = self.used_rows * self.contexts
        self.awaited = self.tiles * self.tile_words * self.used_cols
        self.arrived = [0] * self.cols
        self.last_start = -self.tile_words

    def controller(self) -> Iterator[Token | None]:
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
                    for turn in range(max(self.contexts, self.size.add_latency)):
                        takes = p == 0 and turn == 0
                        yield Token(tile, g, p, turn, takes, first, last) if turn < self.contexts else None

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
            arriving: tuple[Token, Pair] | None = north.hop_token
        else:
            entering = self.edge_token(c)
            arriving = (entering, self.north_pair(entering, c)) if entering else None
        pe.finish()
        pe.add(self.unit.zero)
        token, pair = arriving or (None, EMPTY)
        pe.issue(token, pair, 0, self.groups[token.batch][1] if token else 0)
        pe.receive(self.grid[r][c - 1].hop_words if c else self.edge_words(r, r))
        pe.hop_token = arriving
        self.drain_step(pe, north, r, c)

    def north_pair(self, token: Token, c: int) -> Pair:
        column = (token.tile % self.across * self.contexts + token.context) * self.cols + c
        return self.pair(token.batch, token.pair, column)

    def drained(self, pe: Pe, context: int) -> Sum:
        """The result of a context, as the chain takes it over."""
        return pe.drain[context]

    def drain_step(self, pe: Pe, north: Pe | None, r: int, c: int) -> None:
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
                on_chain = self.drained(pe, turn)
                if turn == self.contexts - 1:
                    pe.draining = -1
        pe.hop_result = on_chain
        if r == self.rows - 1 and on_chain is not None:
            tile, word = divmod(self.arrived[c], self.tile_words)
            row = tile // self.across * self.rows + self.used_rows - 1 - word // self.contexts
            self.arrived[c] += 1
            self.deliver(row, (tile % self.across * self.contexts + word % self.contexts) * self.cols + c, on_chain)


class SingleBuffered(OutputStationary):
    """No drain registers: a result leaves from its accumulator, and no tile may overwrite one that has not."""

    def controller(self) -> Iterator[Token | None]:
        for token in super().controller():
            if token is not None and token.last and token.context == 0:
                self.last_start = self.t
            yield token

    def drained(self, pe: Pe, context: int) -> Sum:
        return pe.sums[context]
