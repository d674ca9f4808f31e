"""Batch norms on the vector unit: trips over all positions, as many channels at a time as a slot holds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ...workloads.graph import Node
from ..integers import ceil_div
from .boxes import Block, Dim, blocks_of
from .elementwise import add_up, column_chunks, load_block, store_block
from .isa import Unit
from .layout import merged, refined
from .spaces import VECTOR_DEPTH, Space
from .vector_operations import Slot, VectorOpcode
from .work import Work, fp32_bits, refuse

__all__ = ["batch_norm", "batch_norm_backward"]


def batch_norm(work: Work, node: Node) -> None:
    """Mean, variance, running statistics, then y."""
    if not node.settings["training"]:
        refuse(node, "takes running statistics")
    x, weight, bias, *held = node.reads
    y, mean, deviation, *running = node.makes
    epsilon, momentum = node.settings["eps"], node.settings["momentum"]
    assert isinstance(epsilon, float) and isinstance(momentum, float)
    rows, channels, count = _rows(work, node, (y, x))
    only_x = [(n, (steps[1],)) for n, steps in rows]
    share = fp32_bits(1 / count)
    for first, words in column_chunks(work, channels):
        columns, beats = work.half(Space.COLUMNS), ceil_div(words, work.lanes)
        add_up(work, VectorOpcode.SUM, columns, (x,), only_x, (first,), words)
        work.vector(VectorOpcode.MEAN, beats, columns_half=columns, factor=share)
        add_up(work, VectorOpcode.SQUARES, columns, (x,), only_x, (first,), words)
        work.vector(VectorOpcode.DEVIATION, beats, columns_half=columns, factor=share, epsilon=fp32_bits(epsilon))
        for slot, tensor in ((Slot.RUNNING_MEAN, held[0]), (Slot.RUNNING_VARIANCE, held[1])):
            work.column(Unit.LOAD, columns, slot, tensor, first, words)
        shares = {"momentum": fp32_bits(momentum), "rest": fp32_bits(1 - momentum), "columns_half": columns}
        work.vector(VectorOpcode.RUNNING_MEAN, beats, **shares)
        work.vector(VectorOpcode.RUNNING_VARIANCE, beats, factor=fp32_bits(count / (count - 1)), **shares)
        made = ((Slot.MEAN, mean), (Slot.DEVIATION, deviation))
        for slot, tensor in (*made, (Slot.RUNNING_MEAN, running[0]), (Slot.RUNNING_VARIANCE, running[1])):
            work.column(Unit.STORE, columns, slot, tensor, first, words)
        for slot, tensor in ((Slot.WEIGHT, weight), (Slot.BIAS, bias)):
            work.column(Unit.LOAD, columns, slot, tensor, first, words)
        _trip(work, VectorOpcode.NORMALISE, columns, (y, x), _blocks(work, rows, first, words))


def batch_norm_backward(work: Work, node: Node) -> None:
    """The gradients of scale and bias, then that of x."""
    dy, x, weight, mean, deviation = node.reads
    dx, of_weight, of_bias = node.makes
    rows, channels, count = _rows(work, node, (dx, dy, x))
    both = [(n, steps[1:]) for n, steps in rows]
    for first, words in column_chunks(work, channels):
        columns, beats = work.half(Space.COLUMNS), ceil_div(words, work.lanes)
        for slot, tensor in ((Slot.MEAN, mean), (Slot.DEVIATION, deviation), (Slot.WEIGHT, weight)):
            work.column(Unit.LOAD, columns, slot, tensor, first, words)
        add_up(work, VectorOpcode.PRODUCTS, columns, (dy, x), both, (first, first), words)
        for slot, tensor in ((Slot.DOT, of_weight), (Slot.SUM, of_bias)):
            work.column(Unit.STORE, columns, slot, tensor, first, words)
        work.vector(VectorOpcode.MEANS, beats, columns_half=columns, factor=fp32_bits(1 / count))
        _trip(work, VectorOpcode.NORMALISE_BACKWARD, columns, (dx, dy, x), _blocks(work, rows, first, words))


def _trip(work: Work, operation: VectorOpcode, columns: int, tensors: Sequence[int], blocks: Iterator[Block]) -> None:
    """A result for every position, the first of ``tensors``, of the others."""
    for block in blocks:
        operands, results = work.half(Space.OPERANDS), work.half(Space.RESULTS)
        for number, tensor in enumerate(tensors[1:]):
            load_block(work, operands, number, tensor, block, 1 + number)
        work.vector(
            operation,
            ceil_div(block.words, work.lanes),
            rows=block.rows,
            operands_half=operands,
            columns_half=columns,
            results_half=results,
        )
        store_block(work, results, tensors[0], block, 0)


def _blocks(work: Work, rows: Sequence[Dim], first: int, words: int) -> Iterator[Block]:
    room = VECTOR_DEPTH // ceil_div(words, work.lanes)
    return blocks_of((first,) * len(rows[0][1]), words, rows, room)


def _rows(work: Work, node: Node, tensors: Sequence[int]) -> tuple[list[Dim], int, int]:
    """An iteration over the positions of tensors [n, channels, ...], channels, and how many positions there are."""
    views = [work.placement.views[tensor] for tensor in tensors]
    if any(len(view.axes[1]) != 1 or view.axes[1][0].stride != 1 < view.axes[1][0].length for view in views):
        refuse(node, "works on images that do not lie channels-last")
    atoms = refined([[a for axis, own in enumerate(view.axes) if axis != 1 for a in own] for view in views])
    if atoms is None:
        refuse(node, "works on tensors that lie in pieces of other sizes")
    rows = merged(atoms)
    count = 1
    for n, _ in rows:
        count *= n
    return rows, views[0].axes[1][0].length, count
