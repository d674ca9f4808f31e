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
        work.slot(Unit.LOAD, columns, Slot.SUM, form=Form.BLANK, words=words)
        # 1 / sqrt(-0.0 + 1)
        work.vector(VectorOpcode.DEVIATION, COLUMN_BEATS, columns_half=columns, epsilon=fp32_bits(1))
        work.slot(Unit.STORE, columns, Slot.DEVIATION, form=Form.FP32, address=address, words=words)
    return address
