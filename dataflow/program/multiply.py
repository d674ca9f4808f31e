"""A matrix product as commands: output-stationary, macro-tile by macro-tile with operands that stay.

Operands are loaded in boxes of places: whole inner counts of lines where they begin at bank 0, and what stands between.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from ...workloads.errors import InputError
from ...workloads.graph import Node
from ...workloads.sparsity import NMPattern
from ..integers import ceil_div
from ..operand import FP32
from .boxes import boxes
from .isa import COUNTS, Unit
from .layout import Atom
from .matrix import FAR, Matrix, distance, distances, encodings, in_few
from .results import store_results
from .spaces import BIAS_WORDS, Space, place
from .split import load_bias, multiply_split
from .work import BANK, Level, Work, refuse

__all__ = ["multiply", "require_fit"]


@dataclass(frozen=True, slots=True)
class _Bank:
    """How lines of an operand lie on chip: ``banks`` side by side, then ``contexts``, a line of so many ``words``."""

    space: Space
    half: int
    banks: int
    contexts: int
    words: int

    def room(self, offset: int) -> int:
        """Lines that one transfer can move from ``offset`` on."""
        if offset % self.banks:
            return self.banks - offset % self.banks
        tile = self.banks * self.contexts
        return tile - offset % tile if offset % tile else FAR

    def at(self, offset: int) -> int:
        """Place of a line's first word."""
        tile, context = divmod(offset // self.banks, self.contexts)
        return place(offset % self.banks, tile * self.words * self.contexts + context)

    @property
    def levels(self) -> list[Level]:
        """From line to line."""
        next_tile = (0, self.words * self.contexts)
        return [next_tile, *([(self.contexts, 1)] if self.contexts > 1 else []), (self.banks, BANK)]


@dataclass(frozen=True, slots=True)
class _Pairs:
    """B's pairs: of a pattern through SORE, or one by one; ``run``: elements from cut to cut of the grouping."""

    pattern: NMPattern | None
    run: int

    def kept(self, k: int) -> int:
        """Of ``k`` elements of a column."""
        if self.pattern is None:
            return k
        return k // self.run * self.pattern.kept(self.run, self.run)


def _pairs(work: Work, node: Node) -> _Pairs:
    """What of B is multiplied."""
    kept, gemm = node.kept, node.gemm
    assert gemm is not None
    if kept is None:
        return _Pairs(None, gemm.run)
    if not kept.compact:
        refuse(node, "multiplies the zeros of a pattern")
    if kept.operand == "a":
        refuse(node, "runs on pairs of its gradient")
    if kept.pattern != work.target.pattern:
        raise InputError(
            f"{node.op} of {node.module!r} keeps {kept.pattern}, but SORE of the machine is built for "
            f"{work.target.pattern}; compile for a target with that pattern"
        )
    return _Pairs(kept.pattern, gemm.run)


@dataclass(frozen=True, slots=True)
class _Tiles:
    """How a product is cut: ``down`` by ``across`` tiles of the array at a time, each of ``contexts`` contexts."""

    contexts: int
    down: int
    across: int


def _tiles(work: Work, node: Node, k: int, slots: int, bias: bool) -> _Tiles:
    """As many rows and columns as a half of each buffer holds."""
    array, pe, gemm = work.spec.array, work.spec.pe, node.gemm
    assert gemm is not None
    w2e, n2s, output = (work.target.size(space).depth for space in (Space.W2E, Space.N2S, Space.OUTPUT))
    rows = min(array.rows, gemm.m)
    if rows > output:
        raise InputError(
            f"{node.op} of {node.module!r} makes {rows} words a column at once, which no half of buffers.output_bytes "
            f"of {work.spec.name!r} holds; it takes {2 * FP32.bytes * rows * array.cols:,} bytes"
        )
    contexts = min(pe.accumulators, pe.add_latency, ceil_div(gemm.n, array.cols), n2s // slots, output // rows)
    if bias:
        contexts = min(contexts, BIAS_WORDS // array.cols)
    down = min(ceil_div(gemm.m, array.rows), w2e // k)
    across = min(ceil_div(gemm.n, array.cols * contexts), n2s // (slots * contexts))
    if bias:
        across = min(across, BIAS_WORDS // (array.cols * contexts))
    while down * across * rows * contexts > output:
        down, across = (down, across - 1) if across > down else (down - 1, across)
    return _Tiles(contexts, down, across)


def _is_split(work: Work, node: Node) -> bool:
    """Whether no half of a buffer holds a row of A, or a column of B."""
    assert node.gemm is not None
    k = node.gemm.k
    return k > work.target.size(Space.W2E).depth or _pairs(work, node).kept(k) > work.target.size(Space.N2S).depth


def require_fit(work: Work, node: Node) -> None:
    """Refuse a product of which the buffers do not hold what is worked on at once."""
    gemm, spec = node.gemm, work.spec
    assert gemm is not None
    pairs = _pairs(work, node)
    if not _is_split(work, node):
        _tiles(work, node, gemm.k, pairs.kept(gemm.k), bias=False)
        return
    least = spec.array.rows if pairs.pattern is None else pairs.kept(gemm.k)
    if pairs.pattern is not None or least > work.target.size(Space.N2S).depth:
        name, words = "n2s_bytes", spec.array.cols * least
        if pairs.pattern is not None and gemm.k > work.target.size(Space.W2E).depth:
            name, words = "w2e_bytes", spec.array.rows * gemm.k
        raise InputError(
            f"{node.op} of {node.module!r} contracts over {gemm.k} words, which no half of buffers.{name} of "
            f"{spec.name!r} holds; it takes {2 * spec.pe.operand.bytes * words:,} bytes"
        )


def multiply(
    work: Work, node: Node, left: Matrix, right: Matrix, made: Matrix, bias: int | None, bias_first: int = 0
) -> None:
    """Every macro-tile of a product: columns stay while rows come and go."""
    if _is_split(work, node):
        multiply_split(work, node, left, right, made, bias, bias_first)
        return
    gemm, array, pairs = node.gemm, work.spec.array, _pairs(work, node)
    assert gemm is not None
    slots = pairs.kept(gemm.k)
    tiles = _tiles(work, node, gemm.k, slots, bias is not None)
    wide, high = tiles.across * array.cols * tiles.contexts, tiles.down * array.rows
    rows = min(array.rows, gemm.m)
    for n0 in range(0, gemm.n, wide):
        n1 = min(gemm.n, n0 + wide)
        across = ceil_div(n1 - n0, array.cols * tiles.contexts)
        columns = _Bank(Space.N2S, work.half(Space.N2S), array.cols, tiles.contexts, slots)
        _load(work, right, columns, n0, n1, pairs)
        added = None if bias is None else load_bias(work, bias, bias_first + n0, n1 - n0)
        for m0 in range(0, gemm.m, high):
            m1 = min(gemm.m, m0 + high)
            dense = _Bank(Space.W2E, work.half(Space.W2E), array.rows, 1, gemm.k)
            _load(work, left, dense, m0, m1)
            output = work.half(Space.OUTPUT)
            work.emitter.command(
                Unit.PRODUCT,
                stationary=0,
                **_grouped(pairs, gemm.k),
                interleave=tiles.contexts,
                rows=rows,
                across=across,
                down=ceil_div(m1 - m0, array.rows),
                w2e_half=dense.half,
                n2s_half=columns.half,
                output_half=output,
                **encodings(left, right),
            )
            watch = int(work.placement.is_gradient(node.makes[0]))
            _store(work, made, (m0, m1), (n0, n1), output, across, tiles.contexts, rows, added, watch)


def _grouped(pairs: _Pairs, k: int) -> dict[str, int]:
    """Registers of a product: how a column is made of groups."""
    if pairs.pattern is None:
        return {"keep": 1, "group": 1, "rest": 1, "parts": pairs.run, "runs": k // pairs.run}
    keep, group = pairs.pattern.keep, pairs.pattern.group
    parts = ceil_div(pairs.run, group)
    rest = pairs.run - (parts - 1) * group
    return {"keep": keep, "group": group, "rest": rest, "parts": parts, "runs": k // pairs.run}


def _load(work: Work, matrix: Matrix, bank: _Bank, first: int, end: int, pairs: _Pairs | None = None) -> None:
    """Lines ``first`` to ``end`` of an operand, each a row of words in memory, or side by side across lines."""
    lines, slots = in_few(matrix.lines), in_few(matrix.slots)
    beside = [atoms[-1].length if atoms[-1].stride == 1 else 1 for atoms in (slots, lines)]
    if beside[0] >= beside[1]:
        _load_along(work, matrix, bank, (lines, slots), (first, end), pairs)
    else:
        _load_across(work, matrix, bank, (lines, slots), (first, end), pairs)


def _load_along(
    work: Work,
    matrix: Matrix,
    bank: _Bank,
    atoms: tuple[Sequence[Atom], Sequence[Atom]],
    ends: tuple[int, int],
    pairs: _Pairs | None,
) -> None:
    """Words along a line of the operand are side by side in memory."""
    lines, slots = atoms
    words, inside = (slots[-1].length, slots[:-1]) if slots[-1].stride == 1 else (1, slots)
    through = {} if pairs is None or pairs.pattern is None else {"reduce": 1, "run": pairs.run}
    assert not through or not inside, "a kernel lies in one piece"
    for start, counts in boxes([a.length for a in lines], *ends, bank.room):
        rows = [(n, matrix.each * a.stride) for n, a in zip(counts, lines[len(lines) - len(counts) :], strict=True)]
        levels, room = bank.levels, COUNTS - sum(n > 1 for n, _ in rows)
        # what neither the counts of lines nor those of places have room for goes one by one
        split = len(inside) if len(levels) == COUNTS - 1 else max(0, len(inside) - room)
        apart, together = inside[:split], inside[split:]
        number = prod(a.length for a in together)
        for i, offset in enumerate(distances(apart)):
            work.move(
                Unit.LOAD,
                bank.space,
                bank.half,
                form=matrix.element,
                address=matrix.address + matrix.each * (distance(lines, start) + offset),
                which=int(bank.space == Space.N2S),
                words=words,
                lines=[*rows, *((a.length, matrix.each * a.stride) for a in together)],
                at=bank.at(start - ends[0]) + i * number * words * bank.contexts,
                inner=[(0, bank.contexts)],
                outer=[*levels, *([(number, words * bank.contexts)] if number > 1 else [])],
                **through,
            )


def _load_across(
    work: Work,
    matrix: Matrix,
    bank: _Bank,
    atoms: tuple[Sequence[Atom], Sequence[Atom]],
    ends: tuple[int, int],
    pairs: _Pairs | None,
) -> None:
    """The same word of neighbouring lines of the operand is side by side in memory."""
    lines, slots = atoms
    inner, most, through = lines[-1].length, FAR, {}
    if pairs is not None and pairs.pattern is not None:
        most, through = work.spec.sore.lanes, {"reduce": 1, "across": 1, "run": pairs.run}
        assert len(slots) <= COUNTS, "a kernel lies in one piece"

    def room(offset: int) -> int:
        return min(bank.room(offset), most, inner - (ends[0] + offset) % inner)

    apart, together = slots[: max(0, len(slots) - COUNTS)], slots[-COUNTS:]
    number = prod(a.length for a in together)
    for start, counts in boxes([a.length for a in lines], *ends, room):
        for i, offset in enumerate(distances(apart)):
            work.move(
                Unit.LOAD,
                bank.space,
                bank.half,
                form=matrix.element,
                address=matrix.address + matrix.each * (distance(lines, start) + offset),
                which=int(bank.space == Space.N2S),
                words=prod(counts),
                lines=[(a.length, matrix.each * a.stride) for a in together],
                at=bank.at(start - ends[0]) + i * number * bank.contexts,
                inner=bank.levels,
                outer=[(0, bank.contexts)],
                **through,
            )


def _store(
    work: Work,
    made: Matrix,
    rows: tuple[int, int],
    columns: tuple[int, int],
    half: int,
    across: int,
    contexts: int,
    used: int,
    bias: int | None,
    watch: int,
) -> None:
    """A macro-tile of C: the southernmost row that is used leaves the array first."""
    high = work.spec.array.rows

    def at(before: int) -> int:
        tile, row = divmod(before, high)
        return place(0, tile * across * used * contexts + (used - 1 - row) * contexts)

    store_results(
        work,
        made,
        rows,
        columns,
        half,
        room=lambda o: high - o % high if o % high else FAR,
        at=at,
        inner=[(0, used * contexts), (contexts, 1), (work.spec.array.cols, BANK)],
        outer=[(0, across * used * contexts), (high, -contexts)],
        bias=bias,
        watch=watch,
    )
