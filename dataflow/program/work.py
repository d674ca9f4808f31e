"""What every node writes into a program: transfers between memory and spaces, halves that take turns."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NoReturn

from ...workloads.errors import InputError
from ...workloads.graph import Node
from ..integers import ceil_div
from .emitter import Emitter
from .isa import Unit
from .moves import BANK, Level, Moves
from .placement import Placement
from .spaces import COLUMN_BEATS, VECTOR_OPERANDS, Form, Space, place
from .vector_operations import VectorOpcode

__all__ = ["BANK", "Images", "Level", "Work", "fp32_bits", "refuse"]


class Images:
    """A tensor [n, channels, h, w] as it lies: strides in elements; channels are side by side."""

    def __init__(self, work: Work, node: Node, tensor: int) -> None:
        axes = work.placement.views[tensor].axes
        if len(axes) != 4 or any(len(axis) != 1 for axis in axes) or axes[1][0].stride != 1 < axes[1][0].length:
            refuse(node, "works on images that do not lie channels-last")
        (self.n, self.step_n), (self.channels, _), (self.h, self.step_h), (self.w, self.step_w) = (a[0] for a in axes)
        self.tensor = tensor

    @property
    def strides(self) -> tuple[int, int, int]:
        """Of n, h, w."""
        return self.step_n, self.step_h, self.step_w

    def element(self, n: int, h: int, w: int, channel: int) -> int:
        """How far an element is from the first one."""
        return n * self.step_n + h * self.step_h + w * self.step_w + channel


class Work(Moves):
    """Commands of nodes for the ``placement`` of their tensors, by ``emitter``."""

    def __init__(self, placement: Placement) -> None:
        self.placement, self.graph, self.target = placement, placement.graph, placement.target
        self.spec = self.target.spec
        self.lanes = self.spec.vector.lanes
        self.has_ones = False
        super().__init__(Emitter(self.target, placement.window))

    def begin(self) -> None:
        """Go on in a new program."""
        self.emitter = Emitter(self.target, self.placement.window)

    def vector(self, operation: VectorOpcode, beats: int, **registers: int) -> None:
        """A trip of the vector unit."""
        self.emitter.command(Unit.VECTOR, operation=operation, beats=beats, **registers)

    def rows(
        self,
        unit: Unit,
        space: Space,
        half: int,
        tensor: int,
        *,
        element: int,
        words: int,
        lines: Sequence[Level],
        operand: int = 0,
        which: int | None = None,
        at: int = 0,
        outer: Sequence[Level] | None = None,
    ) -> None:
        """Rows of a tensor between memory and the vector unit; ``lines``: counts and strides in elements.

        They lie beats behind beats in a bank, from ``at`` on, or as ``outer`` says.
        """
        of = self.placement
        self.move(
            unit,
            space,
            half,
            form=of.element(tensor),
            address=of.address(tensor, element),
            which=operand % 2 if which is None else which,
            words=words,
            lines=[(count, of.bytes(tensor) * stride) for count, stride in lines],
            at=place(operand * self.lanes, at),
            inner=self.beats,
            outer=[(0, ceil_div(words, self.lanes))] if outer is None else outer,
            **({"watch": int(of.is_gradient(tensor))} if unit == Unit.STORE else {}),
        )

    @property
    def beats(self) -> Sequence[Level]:
        """How the words of a line go to the lanes."""
        return (0, 1), (self.lanes, BANK)

    def blank(self, half: int, operand: int, words: int) -> None:
        """-0.0 into the first ``words`` words of each bank of an operand of the vector unit."""
        assert operand < VECTOR_OPERANDS
        self.move(
            Unit.LOAD,
            Space.OPERANDS,
            half,
            form=Form.BLANK,
            words=words * self.lanes,
            at=place(operand * self.lanes),
            inner=self.beats,
        )

    def slot(self, unit: Unit, half: int, slot: int, *, form: Form, address: int = 0, words: int) -> None:
        """The first ``words`` words of a slot of COLUMNS between it and what lies together at ``address``."""
        self.move(
            unit, Space.COLUMNS, half, form=form, address=address, words=words, at=COLUMN_BEATS * slot, inner=self.beats
        )

    def column(self, unit: Unit, half: int, slot: int, tensor: int, first: int, words: int) -> None:
        """Columns from ``first`` on between a vector in memory and a slot."""
        self.rows(
            unit, Space.COLUMNS, half, tensor, element=first, words=words, lines=(), at=COLUMN_BEATS * slot, outer=()
        )


def refuse(node: Node, why: str) -> NoReturn:
    """Say that a node is not compiled yet."""
    raise InputError(f"{node.op} of {node.module!r} {why}, which is not compiled yet")


def fp32_bits(value: float) -> int:
    """The bits of ``value`` rounded to FP32."""
    return int.from_bytes(struct.pack("<f", value), "little")
