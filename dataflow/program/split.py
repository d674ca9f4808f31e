"""A product whose contraction no half of a buffer holds: weight-stationary, as many commands as it takes.

Each goes on, in order of k, from the sums that the one before left in OUTPUT, so that they are those of one command.
Dense, groups of one: row r of the array holds elements r, r + rows, ... of the contraction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

from ...workloads.graph import Node
from ..integers import ceil_div
from .boxes import boxes
from .isa import COUNTS, Unit
from .layout import Atom
from .matrix import FAR, Matrix, distance, encodings, in_few
from .results import store_results
from .spaces import BIAS_WORDS, Form, Space, place
from .work import BANK, Level, Work

__all__ = ["load_bias", "multiply_split"]


@dataclass(frozen=True, slots=True)
class _Part:
    """Of an axis of a matrix in memory: places ``first`` to ``end``, and where they go to on chip.

    ``levels``: counts and steps from place to place, the last fastest; ``at`` of how many are before. A transfer that
    begins elsewhere than at a multiple of ``banks`` ends at the next one.
    """

    atoms: Sequence[Atom]
    first: int
    end: int
    banks: int
    levels: Sequence[Level]
    at: Callable[[int], int]

    def room(self, offset: int) -> int:
        return self.banks - offset % self.banks if offset % self.banks else FAR


def multiply_split(
    work: Work, node: Node, left: Matrix, right: Matrix, made: Matrix, bias: int | None, bias_first: int
) -> None:
    """A dense product, macro-tile by macro-tile of what it makes; operands come again for each."""
    gemm, array, pe = node.gemm, work.spec.array, work.spec.pe
    assert gemm is not None
    rows, cols = array.rows, array.cols
    w2e, n2s, output = (work.target.size(space).depth for space in (Space.W2E, Space.N2S, Space.OUTPUT))
    contexts = min(pe.accumulators, pe.add_latency, pe.dense_words, w2e, output)
    high = min(ceil_div(gemm.m, contexts), w2e // contexts, output // contexts) * contexts
    across = max(1, min(ceil_div(gemm.n, cols), output // high, n2s // rows))
    if bias is not None:
        across = min(across, BIAS_WORDS // cols)
    down = min(ceil_div(gemm.k, rows), w2e // high, n2s // (across * rows))
    for n0 in range(0, gemm.n, across * cols):
        n1 = min(gemm.n, n0 + across * cols)
        wide = ceil_div(n1 - n0, cols)
        added = None if bias is None else load_bias(work, bias, bias_first + n0, n1 - n0)
        for m0 in range(0, gemm.m, high):
            m1 = min(gemm.m, m0 + high)
            batch = ceil_div(m1 - m0, contexts) * contexts
            sums = work.half(Space.OUTPUT)
            for k0 in range(0, gemm.k, down * rows):
                k1 = min(gemm.k, k0 + down * rows)
                dense, pairs = work.half(Space.W2E), work.half(Space.N2S)
                _load(work, Space.W2E, dense, left, *_of_left(left, (m0, m1), (k0, k1), rows, batch))
                _blank(work, pairs, k1 - k0, wide)
                _load(work, Space.N2S, pairs, right, *_of_right(right, (n0, n1), (k0, k1), (rows, cols), wide))
                work.emitter.command(
                    Unit.PRODUCT,
                    stationary=1,
                    keep=1,
                    group=1,
                    rest=1,
                    interleave=contexts,
                    rows=rows,
                    parts=batch // contexts,
                    runs=1,
                    across=wide,
                    down=ceil_div(k1 - k0, rows),
                    resume=int(k0 > 0),
                    w2e_half=dense,
                    n2s_half=pairs,
                    output_half=sums,
                    **encodings(left, right),
                )
            store_results(
                work,
                made,
                (m0, m1),
                (n0, n1),
                sums,
                room=lambda _: FAR,
                at=lambda rows: rows,
                inner=[(0, batch), (work.spec.array.cols, BANK)],
                outer=[(0, 1)],
                bias=added,
                watch=int(work.placement.is_gradient(node.makes[0])),
            )


def _of_left(left: Matrix, m: tuple[int, int], k: tuple[int, int], rows: int, batch: int) -> tuple[_Part, _Part]:
    """Rows of A one behind the other in a bank, k-tile by k-tile; the contraction goes round the banks."""
    lines = _Part(in_few(left.lines), *m, 1, [(0, 1)], lambda i: i)
    levels = [(0, batch), (rows, BANK)]
    slots = _Part(in_few(left.slots), *k, rows, levels, lambda i: place(i % rows, i // rows * batch))
    return lines, slots


def _of_right(
    right: Matrix, n: tuple[int, int], k: tuple[int, int], sides: tuple[int, int], wide: int
) -> tuple[_Part, _Part]:
    """Columns of B go round the banks; of a k-tile the southernmost row's word comes first."""
    rows, cols = sides
    lines = _Part(in_few(right.lines), *n, cols, [(0, rows), (cols, BANK)], lambda i: place(i % cols, i // cols * rows))
    levels = [(0, wide * rows), (rows, -1)]
    slots = _Part(in_few(right.slots), *k, rows, levels, lambda i: i // rows * wide * rows + rows - 1 - i % rows)
    return lines, slots


def _load(work: Work, space: Space, half: int, matrix: Matrix, lines: _Part, slots: _Part) -> None:
    """Of either axis the one of which more lies side by side in memory is that of the words of a transfer."""
    beside = [part.atoms[-1].length if part.atoms[-1].stride == 1 else 1 for part in (slots, lines)]
    along, across = (slots, lines) if beside[0] >= beside[1] else (lines, slots)
    inner = along.atoms[-1].length if along.atoms[-1].stride == 1 else 1

    def room(offset: int) -> int:
        return min(along.room(offset), inner - (along.first + offset) % inner)

    for begin, counts in boxes([a.length for a in along.atoms], along.first, along.end, room):
        for start, turns in boxes([a.length for a in across.atoms], across.first, across.end, across.room):
            strides = [a.stride for a in across.atoms[len(across.atoms) - len(turns) :]]
            assert len(turns) <= COUNTS
            work.move(
                Unit.LOAD,
                space,
                half,
                form=matrix.element,
                address=matrix.address + matrix.each * (distance(along.atoms, begin) + distance(across.atoms, start)),
                which=int(space == Space.N2S),
                words=prod(counts),
                lines=[(n, matrix.each * stride) for n, stride in zip(turns, strides, strict=True)],
                at=along.at(begin - along.first) + across.at(start - across.first),
                inner=along.levels,
                outer=across.levels,
            )


def _blank(work: Work, half: int, k: int, wide: int) -> None:
    """Bubbles for the rows of the last k-tile that are beyond the contraction."""
    rows, cols = work.spec.array.rows, work.spec.array.cols
    missing = -k % rows
    if missing:
        work.move(
            Unit.LOAD,
            Space.N2S,
            half,
            form=Form.BLANK,
            words=wide * cols,
            lines=[(missing, 0)],
            at=k // rows * wide * rows,
            inner=[(0, rows), (cols, BANK)],
            outer=[(0, 1)],
        )


def load_bias(work: Work, bias: int, first: int, words: int) -> int:
    """Words of a vector from ``first`` on into a half of BIAS, which is given."""
    half, of = work.half(Space.BIAS), work.placement
    work.move(
        Unit.LOAD, Space.BIAS, half, form=of.element(bias), address=of.address(bias, first), words=words, inner=[(0, 1)]
    )
    return half
