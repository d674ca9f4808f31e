"""The commands of a layer of a binary network: columns stay while rows come and go."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod

import numpy as np

from ...workloads.im2col import Window
from ..integers import ceil_div
from ..xnor.words import beats_of, plane_weights, signed
from .binary_plan import Group, Plan
from .bits import BitImage
from .boxes import boxes
from .isa import COUNTS, Unit
from .layout import Atom
from .matrix import FAR, distance
from .moves import BANK, Level, Moves
from .spaces import BIT_WORD, Form, Space, place

__all__ = ["LayerCommands"]

_WORD = BIT_WORD // 8


class LayerCommands:
    """Of layer ``i`` of a plan: ``groups`` of columns, ``sums`` the byte where those of the last one go."""

    def __init__(
        self, plan: Plan, i: int, inputs: Sequence[BitImage], groups: Sequence[Group], sums: int, moves: Moves
    ) -> None:
        self.plan, self.groups, self.sums, self.moves = plan, groups, sums, moves
        self.layer, self.read, self.tiling = plan.layers[i], inputs[i], plan.tilings[i]
        self.made = inputs[i + 1] if i + 1 < len(inputs) else None
        self.rows, self.cols, self.parts = plan.own.rows, plan.own.cols, plan.target.bit_words
        self.beats = len(beats_of(*self.layer.levels))
        self.positions = plan.positions(i)

    def emit(self) -> None:
        """Write them."""
        count, high = self.plan.images * prod(self.positions), self.tiling.down * self.rows
        for group in self.groups:
            n2s, levels = self._load_columns(group)
            for m0 in range(0, count, high):
                m1 = min(count, m0 + high)
                output = self.moves.half(Space.SUMS if self.made is None else Space.SIGNS)
                for number, tap in enumerate(self._taps()):
                    w2e = self.moves.half(Space.XNOR_W2E)
                    self._load_rows(tap, m0, m1, w2e)
                    self._product(group, m1 - m0, (w2e, n2s, levels, output), combine=number > 0)
                self._store(group, m0, m1, output)

    def _load_columns(self, group: Group) -> tuple[int, int]:
        """Words and levels of a group; the halves that they lie in."""
        n2s, levels, made = self.moves.half(Space.XNOR_N2S), 0, group.across * self.tiling.contexts
        words = made * self.tiling.slots * self.parts
        lines = [(self.cols, _WORD * words)]
        self._load(Space.XNOR_N2S, n2s, group.words, words, lines, inner=[(0, 1)], outer=[(0, BANK)])
        if self.made is not None:
            levels, across = self.moves.half(Space.LEVELS), [(0, 1), (self.cols, BANK)]
            self._load(Space.LEVELS, levels, group.levels, made * self.cols, [], inner=across, outer=[])
        return n2s, levels

    def _load(
        self,
        space: Space,
        half: int,
        address: int,
        words: int,
        lines: Sequence[Level],
        *,
        inner: Sequence[Level],
        outer: Sequence[Level],
        at: int = 0,
    ) -> None:
        self.moves.move(
            Unit.LOAD,
            space,
            half,
            form=Form.FP32,
            address=address,
            words=words,
            lines=lines,
            at=at,
            inner=inner,
            outer=outer,
        )

    def _taps(self) -> Iterator[tuple[int, ...]]:
        """Places of the pool, from the first one of a window: of none, one."""
        pool = self.layer.pool
        if pool is None:
            yield (0,) * len(self.positions)
            return
        for index in np.ndindex(*pool.kernel):
            yield tuple(i * d for i, d in zip(index, pool.dilation, strict=True))

    def _load_rows(self, tap: tuple[int, ...], m0: int, m1: int, half: int) -> None:
        """Rows ``m0`` to ``m1`` of A, each the windows of a position, of the pool's place ``tap``."""
        read, window = self.read, self.layer.window
        pool = self.layer.pool.stride if self.layer.pool is not None else (1,) * len(tap)
        apart = [s * step for s, step in zip(window.stride, read.strides[1:], strict=False)]
        steps = [p * step for p, step in zip(pool, apart, strict=True)]
        rows = list(map(Atom, (self.plan.images, *self.positions), (read.strides[0], *steps)))
        base = read.address + sum(t * step for t, step in zip(tap, apart, strict=True))
        line, inside = self._line(window)
        number = prod(count for count, _ in inside)
        for start, lines, at in self._boxes(rows, m0, m1, COUNTS - len(inside)):
            tile, row = divmod(at, self.rows)
            self._load(
                Space.XNOR_W2E,
                half,
                base + distance(rows, start),
                line,
                [*lines, *inside],
                inner=[(0, 1)],
                outer=[(0, self.tiling.slots * self.parts), (self.rows, BANK), (number, line)],
                at=place(row, tile * self.tiling.slots * self.parts),
            )

    def _line(self, window: Window) -> tuple[int, list[Level]]:
        """Words of 32 bits that lie side by side along a row, and the counts and steps of such lines of it."""
        read = self.read
        inside: list[Level] = []
        if window.kernel:
            inside.append((window.kernel[0], window.dilation[0] * read.strides[1]))
            run = window.kernel[1] if window.dilation[1] == 1 else 1
            if run == 1:
                inside.append((window.kernel[1], window.dilation[1] * read.strides[2]))
            length = run * read.pitch
        else:
            length = read.strides[0]
        again = self.beats // read.planes
        if again > 1:
            # a plane that several beats read is loaded as often
            each = self.parts * _WORD
            inside += [(length // each, each), (again, 0)]
            length = each
        return length // _WORD, [level for level in inside if level[0] > 1]

    def _boxes(self, rows: Sequence[Atom], m0: int, m1: int, room: int) -> Iterator[tuple[int, list[Level], int]]:
        """Transfers of rows ``m0`` to ``m1``, ``rows`` in bytes: the first one, counts and steps of at most
        ``room`` of them, and how far it is from ``m0``."""
        # what there are no counts for goes stretch by stretch
        inner = rows[-room:] if room else [Atom(1, rows[-1].stride)]
        lengths, high = [a.length for a in inner], self.rows
        whole = prod(lengths)
        start = m0
        while start < m1:
            end, begun = min(m1, (start // whole + 1) * whole), start - m0

            def fits(offset: int, begun: int = begun) -> int:
                within = (begun + offset) % high
                return high - within if within else FAR

            for at, counts in boxes(lengths, start % whole, start % whole + end - start, fits):
                first = start + at - start % whole
                own = inner[len(inner) - len(counts) :]
                yield first, [(n, a.stride) for n, a in zip(counts, own, strict=True)], first - m0
            start = end

    def _product(self, group: Group, rows: int, halves: tuple[int, int, int, int], *, combine: bool) -> None:
        (x, w), (w2e, n2s, levels, output) = self.layer.levels, halves
        down = ceil_div(rows, self.rows)
        planes = {"a": plane_weights(x), "b": plane_weights(w)}
        signs = {"a": signed(x), "b": signed(w)}
        self.moves.emitter.command(
            Unit.XNOR,
            words=self.tiling.slots // self.beats,
            **{f"planes_{side}": len(of) for side, of in planes.items()},
            **{f"signs_{side}": int(of) for side, of in signs.items()},
            **{f"negative_{side}": int(of[-1] < 0) for side, of in planes.items()},
            length=len(self.layer.weights) if all(signs.values()) else 0,
            interleave=self.tiling.contexts,
            rows=rows if down == 1 else self.rows,
            across=group.across,
            down=down,
            threshold=int(self.made is not None),
            combine=int(combine),
            w2e_half=w2e,
            n2s_half=n2s,
            levels_half=levels,
            output_half=output,
        )

    def _store(self, group: Group, m0: int, m1: int, half: int) -> None:
        """Strips side by side, or sums; the southernmost row that is used leaves the engine first."""
        used = min(m1 - m0, self.rows)
        contexts, made = self.tiling.contexts, self.made
        if made is None:
            n = self.layer.weights.shape[1]
            words = min(n - group.first, group.across * contexts * self.cols)
            rows = [Atom(self.plan.images, n * _WORD)]
            space, base, each = Space.SUMS, self.sums + group.first * _WORD, contexts
            inner: list[Level] = [(0, used * contexts), (contexts, 1), (self.cols, BANK)]
        else:
            strip = self.plan.strip_words(contexts)
            words = group.across * strip
            rows = list(map(Atom, (self.plan.images, *self.positions), made.strides))
            space, each = Space.SIGNS, 1
            base = made.address + made.first + group.first // (contexts * self.cols) * strip * _WORD
            inner = [(0, used), (strip, BANK)]
        for start, lines, at in self._boxes(rows, m0, m1, COUNTS):
            tile, row = divmod(at, self.rows)
            self.moves.move(
                Unit.STORE,
                space,
                half,
                form=Form.FP32,
                address=base + distance(rows, start),
                words=words,
                lines=lines,
                at=place(0, (tile * group.across * used + used - 1 - row) * each),
                inner=inner,
                outer=[(0, group.across * used * each), (self.rows, -each)],
            )
