"""Number formats of the operands: what the PEs multiply, SORE ranks, and WUVE reads and writes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["BF16", "FP16", "OPERAND_FORMATS", "FormatName", "OperandFormat"]

FormatName = Literal["fp16", "bf16"]


@dataclass(frozen=True, slots=True, kw_only=True)
class OperandFormat:
    """16 bits in the layout of IEEE 754: a sign, then ``exponent`` bits, then ``fraction`` bits."""

    name: FormatName
    exponent: int
    fraction: int

    @property
    def infinity(self) -> int:
        """Bits of +Inf; a magnitude above it is a NaN."""
        return ((1 << self.exponent) - 1) << self.fraction

    @property
    def nan(self) -> int:
        """Bits of the one NaN that the machine makes."""
        return self.infinity | 1 << (self.fraction - 1)


FP16 = OperandFormat(name="fp16", exponent=5, fraction=10)
BF16 = OperandFormat(name="bf16", exponent=8, fraction=7)
OPERAND_FORMATS = {f.name: f for f in (FP16, BF16)}
