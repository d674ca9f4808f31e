"""Layer norms on the vector unit, whose sums run over rows: a position is a column where numbers belong to positions,
and a channel is one where they belong to channels. Between the two ways the normed numbers lie in memory in FP32."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod

from ...workloads.graph import Node
from ..integers import ceil_div
from ..operand import FP32
from .boxes import Block, Dim, blocks_of
from .elementwise import column_chunks
from .isa import Unit
from .layout import Atom, merged, refined
from .ones import ones
from .spaces import COLUMN_BEATS, VECTOR_DEPTH, WIDE, Element, Form, Space, place
from .vector_operations import Slot, VectorOpcode
from .work import BANK, Work, fp32_bits, refuse

__all__ = ["layer_norm", "layer_norm_backward"]


@dataclass(frozen=True, slots=True)
class _Rows:
    """Something [positions, width] in memory: the byte of its first element, and what an element is."""

    address: int
    element: Element
    atoms: Sequence[Atom]

    @property
    def each(self) -> int:
        return self.element.bytes


def layer_norm(work: Work, node: Node) -> None:
    """Mean, variance and normed numbers position by position, then scale and bias channel by channel."""
    x, weight, bias = node.reads
    y, mean, deviation = node.makes
    epsilon = node.settings["eps"]
    assert isinstance(epsilon, float)
    norm = _Norm(work, node, x)
    normed = norm.scratch(0)
    share = fp32_bits(1 / norm.width)
    for block in norm.positions((norm.of(x), normed)):
        columns, beats = work.half(Space.COLUMNS), ceil_div(block.rows, work.lanes)
        norm.add_up(VectorOpcode.SUM, columns, (norm.of(x),), block)
        work.vector(VectorOpcode.MEAN, beats, columns_half=columns, factor=share)
        norm.add_up(VectorOpcode.SQUARES, columns, (norm.of(x),), block)
        work.vector(VectorOpcode.DEVIATION, beats, columns_half=columns, factor=share, epsilon=fp32_bits(epsilon))
        for slot, tensor in ((Slot.MEAN, mean), (Slot.DEVIATION, deviation)):
            work.column(Unit.STORE, columns, slot, tensor, block.at[-1], block.rows)
        norm.normalise(columns, norm.of(x), normed, block)
    work.emitter.begin_stretch()
    for first, words in column_chunks(work, norm.width):
        columns = norm.plain_columns(words)
        for slot, tensor in ((Slot.WEIGHT, weight), (Slot.BIAS, bias)):
            work.column(Unit.LOAD, columns, slot, tensor, first, words)
        norm.scaled(columns, normed, norm.of(y), first, words)


def layer_norm_backward(work: Work, node: Node) -> None:
    """The gradients of scale and bias and ``h``, the gradient times the scale, by channel; then that of x."""
    dy, x, weight, mean, deviation = node.reads
    dx, of_weight, of_bias = node.makes
    norm = _Norm(work, node, x)
    normed, h = norm.scratch(0), norm.scratch(1)
    for block in norm.positions((norm.of(x), normed)):
        columns = norm.position_columns(mean, deviation, block)
        norm.normalise(columns, norm.of(x), normed, block)
    work.emitter.begin_stretch()
    for first, words in column_chunks(work, norm.width):
        columns, beats = norm.plain_columns(words), ceil_div(words, work.lanes)
        both = (norm.of(dy), normed)
        for number, block in enumerate(norm.channels(both, first, words)):
            operands = work.half(Space.OPERANDS)
            for operand, rows in enumerate(both):
                norm.move(Unit.LOAD, Space.OPERANDS, operands, rows, block, operand, operand)
            sums = {"rows": block.rows, "first": int(number == 0), "operands_half": operands, "columns_half": columns}
            work.vector(VectorOpcode.PRODUCTS, beats, **sums)
        for slot, tensor in ((Slot.DOT, of_weight), (Slot.SUM, of_bias)):
            work.column(Unit.STORE, columns, slot, tensor, first, words)
        work.column(Unit.LOAD, columns, Slot.WEIGHT, weight, first, words)
        norm.blank(columns, Slot.BIAS, words)
        norm.scaled(columns, norm.of(dy), h, first, words)
    work.emitter.begin_stretch()
    made = norm.of(dx)
    for block in norm.positions((h, norm.of(x), made)):
        columns, beats = norm.position_columns(mean, deviation, block), ceil_div(block.rows, work.lanes)
        norm.add_up(VectorOpcode.PRODUCTS, columns, (h, norm.of(x)), block)
        work.vector(VectorOpcode.MEANS, beats, columns_half=columns, factor=fp32_bits(1 / norm.width))
        norm.load_ones(columns, block.rows)
        norm.trip(VectorOpcode.NORMALISE_BACKWARD, columns, (h, norm.of(x)), made, block)


class _Norm:
    """Of a node over tensors in the shape of ``x`` [..., width]."""

    def __init__(self, work: Work, node: Node, x: int) -> None:
        self.work, self.node = work, node
        self.shape = work.graph.tensors[x].shape
        self.width = self.shape[-1]
        if node.settings["sides"] != 1:
            refuse(node, "norms more than the last side")
        self._positions = prod(self.shape[:-1])

    def of(self, tensor: int) -> _Rows:
        """A tensor as rows."""
        axes, of = self.work.placement.views[tensor].axes, self.work.placement
        if axes[-1] != (Atom(self.width, 1),) and self.width > 1:
            refuse(self.node, "norms a side that does not lie together")
        return _Rows(of.address(tensor), of.element(tensor), [a for axis in axes[:-1] for a in axis])

    def scratch(self, number: int) -> _Rows:
        """FP32 of the shape of x, the ``number``-th that a node has."""
        size = FP32.bytes * self._positions * self.width
        return _Rows(self.work.placement.scratch(self.node) + number * size, WIDE, self._plain(self.width))

    def positions(self, rows: Sequence[_Rows]) -> Iterator[Block]:
        """Positions, as many as a slot has words, of each of ``rows`` and, last, of a number a position."""
        dims = self._dims((*(r.atoms for r in rows), self._plain(1)))
        yield from blocks_of((0,) * (len(rows) + 1), self.width, dims, COLUMN_BEATS * self.work.lanes)

    def channels(self, rows: Sequence[_Rows], first: int, words: int) -> Iterator[Block]:
        """All positions, of channels from ``first`` on."""
        room = VECTOR_DEPTH // ceil_div(words, self.work.lanes)
        yield from blocks_of((first,) * len(rows), words, self._dims([r.atoms for r in rows]), room)

    def _plain(self, width: int) -> list[Atom]:
        """Positions one behind the other, ``width`` elements each."""
        return [Atom(self._positions, width)]

    def _dims(self, atoms: Sequence[Sequence[Atom]]) -> list[Dim]:
        cut = refined(atoms)
        if cut is None:
            refuse(self.node, "works on tensors that lie in pieces of other sizes")
        return merged(cut)

    def move(
        self, unit: Unit, space: Space, half: int, rows: _Rows, block: Block, number: int, operand: int = 0
    ) -> None:
        """A block between memory and the vector unit, channels as columns."""
        work = self.work
        work.move(
            unit,
            space,
            half,
            form=rows.element,
            address=rows.address + rows.each * block.at[number],
            which=operand,
            words=block.words,
            lines=[(n, rows.each * s[number]) for n, s in zip(block.counts, block.strides, strict=True)],
            at=place(operand * work.lanes),
            inner=work.beats,
            outer=[(0, ceil_div(block.words, work.lanes))],
        )

    def turned(
        self, unit: Unit, half: int, rows: _Rows, block: Block, number: int, part: range, operand: int = 0
    ) -> None:
        """The same of channels ``part``, positions as columns."""
        work = self.work
        work.move(
            unit,
            Space.OPERANDS if unit == Unit.LOAD else Space.RESULTS,
            half,
            form=rows.element,
            address=rows.address + rows.each * (block.at[number] + part.start),
            which=operand,
            words=len(part),
            lines=[(n, rows.each * s[number]) for n, s in zip(block.counts, block.strides, strict=True)],
            at=place(operand * work.lanes),
            inner=[(0, ceil_div(block.rows, work.lanes))],
            outer=[(0, 1), (work.lanes, BANK)],
        )

    def parts(self, block: Block) -> Iterator[range]:
        """Channels, as many as fit beside each other's positions."""
        room = VECTOR_DEPTH // ceil_div(block.rows, self.work.lanes)
        for first in range(0, self.width, room):
            yield range(first, min(first + room, self.width))

    def add_up(self, operation: VectorOpcode, columns: int, rows: Sequence[_Rows], block: Block) -> None:
        """Sums over channels, a column a position."""
        work, beats = self.work, ceil_div(block.rows, self.work.lanes)
        for part in self.parts(block):
            operands = work.half(Space.OPERANDS)
            for number, each in enumerate(rows):
                self.turned(Unit.LOAD, operands, each, block, number, part, number)
            first = int(part.start == 0)
            work.vector(operation, beats, rows=len(part), first=first, operands_half=operands, columns_half=columns)

    def trip(self, operation: VectorOpcode, columns: int, rows: Sequence[_Rows], made: _Rows, block: Block) -> None:
        """A result for every channel of positions that are columns; ``made`` is behind ``rows`` in the block."""
        work, beats = self.work, ceil_div(block.rows, self.work.lanes)
        for part in self.parts(block):
            operands, results = work.half(Space.OPERANDS), work.half(Space.RESULTS)
            for number, each in enumerate(rows):
                self.turned(Unit.LOAD, operands, each, block, number, part, number)
            halves = {"operands_half": operands, "columns_half": columns, "results_half": results}
            work.vector(operation, beats, rows=len(part), **halves)
            self.turned(Unit.STORE, results, made, block, len(rows), part)

    def normalise(self, columns: int, x: _Rows, normed: _Rows, block: Block) -> None:
        """(x - mean) / deviation of positions whose numbers are in the slots; times 1, and -0.0 more."""
        self.load_ones(columns, block.rows)
        self.blank(columns, Slot.BIAS, block.rows)
        self.trip(VectorOpcode.NORMALISE, columns, (x,), normed, block)

    def position_columns(self, mean: int, deviation: int, block: Block) -> int:
        """A half of COLUMNS with what belongs to positions."""
        columns = self.work.half(Space.COLUMNS)
        for slot, tensor in ((Slot.MEAN, mean), (Slot.DEVIATION, deviation)):
            self.work.column(Unit.LOAD, columns, slot, tensor, block.at[-1], block.rows)
        return columns

    def plain_columns(self, words: int) -> int:
        """A half of COLUMNS whose means are +0.0 and deviations 1, so that a norm takes numbers as they are."""
        work, beats = self.work, ceil_div(words, self.work.lanes)
        columns = work.half(Space.COLUMNS)
        self.blank(columns, Slot.SUM, words)
        # 1 / sqrt(0 (-0.0) + 1), and of the -0.0 that stays -1 times
        work.vector(VectorOpcode.DEVIATION, beats, columns_half=columns, epsilon=fp32_bits(1))
        work.vector(VectorOpcode.MEAN, beats, columns_half=columns, factor=fp32_bits(-1))
        return columns

    def scaled(self, columns: int, rows: _Rows, made: _Rows, first: int, words: int) -> None:
        """Numbers of all positions times the scale in the slots, and the bias, channels from ``first`` on."""
        work, beats = self.work, ceil_div(words, self.work.lanes)
        for block in self.channels((rows, made), first, words):
            operands, results = work.half(Space.OPERANDS), work.half(Space.RESULTS)
            self.move(Unit.LOAD, Space.OPERANDS, operands, rows, block, 0)
            halves = {"operands_half": operands, "columns_half": columns, "results_half": results}
            work.vector(VectorOpcode.NORMALISE, beats, rows=block.rows, **halves)
            self.move(Unit.STORE, Space.RESULTS, results, made, block, 1)

    def load_ones(self, columns: int, words: int) -> None:
        """1 in every word of WEIGHT."""
        self.work.slot(Unit.LOAD, columns, Slot.WEIGHT, form=Form.FP32, address=ones(self.work), words=words)

    def blank(self, columns: int, slot: Slot, words: int) -> None:
        """-0.0 in every word of a slot."""
        whole = ceil_div(words, self.work.lanes) * self.work.lanes
        self.work.slot(Unit.LOAD, columns, slot, form=Form.BLANK, words=whole)
