"""Tensors made of others side by side: joins, and zeros around one."""

from __future__ import annotations

from ...workloads.graph import Node
from ..integers import ceil_div
from .elementwise import blocks_of_views, by_place, places_of
from .isa import Unit
from .layout import View
from .spaces import VECTOR_DEPTH, Space
from .vector_operations import VectorOpcode
from .work import Work, fp32_bits

__all__ = ["joined", "padded"]


def joined(work: Work, node: Node) -> None:
    """Each tensor copied to its part of a side."""
    dim, whole = _dim(node), work.placement.views[node.makes[0]]
    first = 0
    for read in node.reads:
        seen = work.placement.views[read]
        part = whole.sliced(dim, first, first + seen.shape[dim], node)
        by_place(work, node, VectorOpcode.COPY, [part, seen], (read,))
        first += seen.shape[dim]


def padded(work: Work, node: Node) -> None:
    """A tensor copied, and +0.0 before and after it along a side."""
    dim, whole, seen = _dim(node), work.placement.views[node.makes[0]], work.placement.views[node.reads[0]]
    before = node.settings["before"]
    assert isinstance(before, int)
    end = before + seen.shape[dim]
    by_place(work, node, VectorOpcode.COPY, [whole.sliced(dim, before, end, node), seen], node.reads)
    for first, last in ((0, before), (end, whole.shape[dim])):
        if first < last:
            _zeros(work, node, whole.sliced(dim, first, last, node))


def _zeros(work: Work, node: Node, part: View) -> None:
    """A row of +0.0, -1 times what is blank, to every place of a part of what a node makes."""
    (made,) = node.makes
    for block in blocks_of_views(work, places_of(node, [part]), (_apart(work, made, part),)):
        operands, results, beats = (
            work.half(Space.OPERANDS),
            work.half(Space.RESULTS),
            ceil_div(block.words, work.lanes),
        )
        assert beats <= VECTOR_DEPTH
        work.blank(operands, 0, beats)
        work.vector(VectorOpcode.SCALE, beats, operands_half=operands, results_half=results, factor=fp32_bits(-1))
        work.rows(
            Unit.STORE,
            Space.RESULTS,
            results,
            made,
            element=block.at[0],
            words=block.words,
            lines=[(n, s[0]) for n, s in zip(block.counts, block.strides, strict=True)],
            outer=[(0, 0)],
        )


def _apart(work: Work, tensor: int, part: View) -> int:
    return part.offset - work.placement.views[tensor].offset


def _dim(node: Node) -> int:
    dim = node.settings["dim"]
    assert isinstance(dim, int)
    return dim
