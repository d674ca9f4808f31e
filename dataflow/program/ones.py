"""A vector of ones in memory, which the forward program makes where a node asks for it."""

from __future__ import annotations

from .isa import Unit
from .spaces import COLUMN_BEATS, Form, Space
from .vector_operations import Slot, VectorOpcode
from .work import Work, fp32_bits

__all__ = ["ones"]


def ones(work: Work) -> int:
    """The byte where as many ones in FP32 as a slot has words begin; the first who asks has them written."""
    address = work.placement.ones
    if not work.has_ones:
        work.has_ones = True
        columns, words = work.half(Space.COLUMNS), COLUMN_BEATS * work.lanes
        work.move(
            Unit.LOAD,
            Space.COLUMNS,
            columns,
            form=Form.BLANK,
            words=words,
            at=COLUMN_BEATS * Slot.SUM,
            inner=work.beats,
        )
        # 1 / sqrt(-0.0 + 1)
        work.vector(VectorOpcode.DEVIATION, COLUMN_BEATS, columns_half=columns, epsilon=fp32_bits(1))
        work.move(
            Unit.STORE,
            Space.COLUMNS,
            columns,
            form=Form.FP32,
            address=address,
            words=words,
            at=COLUMN_BEATS * Slot.DEVIATION,
            inner=work.beats,
        )
    return address
