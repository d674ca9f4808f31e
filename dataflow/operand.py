"""Number formats: what the PEs multiply, SORE ranks and WUVE makes, and what they add up in. Widths stand here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

__all__ = [
    "BF16",
    "BYTE",
    "FP16",
    "FP32",
    "INDEX_BITS",
    "OPERAND_FORMATS",
    "FormatName",
    "NumberFormat",
    "OperandFormat",
]

FormatName = Literal["fp16", "bf16"]
"""The keys of `OPERAND_FORMATS`, for type checkers and for what reads files."""

BYTE = 8
"""Bits."""
INDEX_BITS = 8
"""Room for the index of a pair that streams through the N2S buffer; a copy in memory has as many as its group needs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberFormat:
    """In the layout of IEEE 754: a sign, then ``exponent`` bits, then ``fraction`` bits."""

    name: str
    exponent: int
    fraction: int

    @property
    def bits(self) -> int:
        """Of one number."""
        return 1 + self.exponent + self.fraction

    @property
    def bytes(self) -> int:
        """Of one number, whole ones."""
        return self.size(1)

    def size(self, numbers: int) -> int:
        """Bytes of so many side by side, whole ones."""
        return -(-numbers * self.bits // BYTE)

    @property
    def infinity(self) -> int:
        """Bits of +Inf; a magnitude above it is a NaN."""
        return ((1 << self.exponent) - 1) << self.fraction

    @property
    def nan(self) -> int:
        """Bits of the one NaN that the machine makes."""
        return self.infinity | 1 << (self.fraction - 1)

    @property
    def least(self) -> int:
        """Binary logarithm of the smallest subnormal."""
        return 2 - (1 << (self.exponent - 1)) - self.fraction

    @property
    def most(self) -> int:
        """The largest finite number, in units of the smallest subnormal."""
        return ((2 << self.fraction) - 1) << ((1 << self.exponent) - 3)


@dataclass(frozen=True, slots=True, kw_only=True)
class OperandFormat(NumberFormat):
    """A format whose products are made, and added up, in ``accumulator``."""

    name: FormatName
    accumulator: NumberFormat

    @property
    def exact_products(self) -> bool:
        """Whether every product of finite operands is a number of the accumulator; where not, it is rounded to one."""
        to = self.accumulator
        significand = 2 * (self.fraction + 1) <= to.fraction + 1
        return significand and to.least <= 2 * self.least and self._largest_product <= to.most

    @property
    def exact_sums(self) -> int:
        """Products that add up without rounding in any order, whatever they are; of more, the order is part of the
        result."""
        if not self.exact_products:
            return 0
        return (2 << self.accumulator.fraction) // self.most**2

    @property
    def _largest_product(self) -> int:
        """In units of the accumulator's smallest subnormal."""
        return self.most**2 << (2 * self.least - self.accumulator.least)

    def compact_size(self, pairs: int, index_bits: int) -> int:
        """Bytes of so many (value, index) pairs side by side, whole ones."""
        return -(-pairs * (self.bits + index_bits) // BYTE)


FP32 = NumberFormat(name="fp32", exponent=8, fraction=23)
"""Of partial sums, and of master weights and optimizer state."""
FP16 = OperandFormat(name="fp16", exponent=5, fraction=10, accumulator=FP32)
BF16 = OperandFormat(name="bf16", exponent=8, fraction=7, accumulator=FP32)
OPERAND_FORMATS = {f.name: f for f in (FP16, BF16)}
if tuple(OPERAND_FORMATS) != get_args(FormatName):
    raise TypeError(f"the table of operand formats has {list(OPERAND_FORMATS)}, `FormatName` {get_args(FormatName)}")
