"""Work on every element, and sums of them, on the vector unit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product as every
from math import prod

from ...workloads.graph import Node
from ..integers import ceil_div
from .boxes import Block, Dim, blocks_of
from .isa import Unit
from .layout import View, merged, refined, stored_order
from .placement import VIEWS
from .spaces import COLUMN_BEATS, VECTOR_DEPTH, Space
from .vector_operations import Slot, VectorOpcode
from .work import Work, fp32_bits, refuse

__all__ = [
    "add_up",
    "blocks_of_views",
    "by_place",
    "column_chunks",
    "copied",
    "elementwise",
    "load_block",
    "places_of",
    "scale",
    "store_block",
    "summed",
]


def elementwise(work: Work, node: Node, operation: VectorOpcode, **constants: int) -> None:
    """A result of the same place of every operand, sides of 1 repeated, block by block."""
    (made,) = node.makes
    shape = work.graph.tensors[made].shape
    views = [work.placement.views[tensor].expanded(shape) for tensor in (made, *node.reads)]
    by_place(work, node, operation, views, node.reads, **constants)


def copied(work: Work, node: Node) -> None:
    """A view as a tensor of its own."""
    (read,), (made,) = node.reads, node.makes
    views = work.placement.views
    seen = VIEWS[node.op](views[read], node, work.graph.tensors[made].shape)
    by_place(work, node, VectorOpcode.COPY, [views[made], seen], node.reads)


def by_place(
    work: Work, node: Node, operation: VectorOpcode, views: Sequence[View], reads: Sequence[int], **constants: int
) -> None:
    """An operation on the same place of all ``views``, of what a node makes and of the tensors ``reads``."""
    (made,) = node.makes
    held = work.placement.views
    first = tuple(view.offset - held[tensor].offset for view, tensor in zip(views, (made, *reads), strict=True))
    for block in blocks_of_views(work, places_of(node, views), first):
        operands, results = work.half(Space.OPERANDS), work.half(Space.RESULTS)
        for number, tensor in enumerate(reads):
            load_block(work, operands, number, tensor, block, 1 + number)
        beats = ceil_div(block.words, work.lanes)
        work.vector(operation, beats, rows=block.rows, operands_half=operands, results_half=results, **constants)
        store_block(work, results, made, block, 0)


def scale(work: Work, node: Node) -> None:
    """A product with a constant."""
    factor = node.settings["other"]
    assert isinstance(factor, int | float)
    elementwise(work, node, VectorOpcode.SCALE, factor=fp32_bits(factor))


def summed(work: Work, node: Node, *, mean: bool) -> None:
    """Sums in order of what they run over, of as many columns as lie side by side at a time; means of them."""
    ((read,), (made,)) = node.reads, node.makes
    dims, view, out = node.settings["dims"], work.placement.views[read], work.placement.views[made]
    assert isinstance(dims, tuple)
    rank = len(view.axes)
    over = sorted(dim % rank for dim in dims)
    rows = [atom for axis in over for atom in view.axes[axis]]
    kept = refined([[a for axis in range(rank) if axis not in over for a in v.axes[axis]] for v in (view, out)])
    if kept is None:
        refuse(node, "makes a tensor that lies in other pieces")
    pairs = [(a.length, (a.stride, b.stride)) for a, b in zip(*kept, strict=True)]
    beside = next((i for i, (_, strides) in enumerate(pairs) if strides == (1, 1)), None)
    length = 1 if beside is None else pairs[beside][0]
    others = [pair for i, pair in enumerate(pairs) if i != beside]
    count = prod(atom.length for atom in rows)
    dims_of_rows = [(n, (step,)) for n, (step,) in merged([rows])]
    for start in every(*(range(n) for n, _ in others)):
        at, to = (sum(i * s[k] for i, (_, s) in zip(start, others, strict=True)) for k in range(2))
        for first, words in column_chunks(work, length):
            columns = work.half(Space.COLUMNS)
            add_up(work, VectorOpcode.SUM, columns, (read,), dims_of_rows, (at + first,), words)
            slot = Slot.SUM
            if mean:
                slot, beats = Slot.MEAN, ceil_div(words, work.lanes)
                work.vector(VectorOpcode.MEAN, beats, columns_half=columns, factor=fp32_bits(1 / count))
            work.column(Unit.STORE, columns, slot, made, to + first, words)


def column_chunks(work: Work, length: int) -> Iterator[tuple[int, int]]:
    """First column and how many, of as many as a slot holds."""
    widest = COLUMN_BEATS * work.lanes
    for first in range(0, length, widest):
        yield first, min(widest, length - first)


def add_up(
    work: Work,
    operation: VectorOpcode,
    columns: int,
    tensors: Sequence[int],
    rows: Sequence[Dim],
    at: tuple[int, ...],
    words: int,
) -> None:
    """A sum over rows of tensors into a slot, block by block."""
    beats = ceil_div(words, work.lanes)
    for i, block in enumerate(blocks_of(at, words, rows, VECTOR_DEPTH // beats)):
        operands = work.half(Space.OPERANDS)
        for number, tensor in enumerate(tensors):
            load_block(work, operands, number, tensor, block, number)
        work.vector(operation, beats, rows=block.rows, first=int(i == 0), operands_half=operands, columns_half=columns)


def load_block(work: Work, half: int, operand: int, tensor: int, block: Block, number: int) -> None:
    """A block of a tensor, the ``number``-th of those that are iterated over, to an operand of the vector unit."""
    work.rows(
        Unit.LOAD,
        Space.OPERANDS,
        half,
        tensor,
        element=block.at[number],
        words=block.words,
        lines=[(n, s[number]) for n, s in zip(block.counts, block.strides, strict=True)],
        operand=operand,
    )


def store_block(work: Work, half: int, tensor: int, block: Block, number: int) -> None:
    """The same from RESULTS to a tensor."""
    work.rows(
        Unit.STORE,
        Space.RESULTS,
        half,
        tensor,
        element=block.at[number],
        words=block.words,
        lines=[(n, s[number]) for n, s in zip(block.counts, block.strides, strict=True)],
    )


def places_of(node: Node, views: Sequence[View]) -> list[Dim]:
    """Lengths and strides of an iteration over all places of views; the last is of words side by side in each."""
    order = stored_order(len(views[0].axes))
    atoms = refined([[a for axis in order for a in view.axes[axis]] for view in views])
    if atoms is None:
        refuse(node, "works on tensors that lie in pieces of other sizes")
    dims = merged(atoms)
    if any(stride != 1 for stride in dims[-1][1]) and dims[-1][0] > 1:
        dims.append((1, (1,) * len(views)))
    return dims


def blocks_of_views(work: Work, dims: Sequence[Dim], first: Sequence[int]) -> Iterator[Block]:
    """Cut an iteration over views into blocks that the vector unit's spaces hold; ``first``: where each begins."""
    (length, _), outer = dims[-1], dims[:-1]
    widest = work.lanes * VECTOR_DEPTH
    for begin in range(0, length, widest):
        words = min(length - begin, widest)
        room = VECTOR_DEPTH // ceil_div(words, work.lanes)
        yield from blocks_of(tuple(x + begin for x in first), words, outer, room)
