"""Number formats: what the PEs multiply, SORE ranks and WUVE makes, and what they add up in. Widths stand here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

__all__ = [
    "BF16",
    "BYTE",
    "E5M2",
    "FP16",
    "FP32",
    "FP8",
    "INDEX_BITS",
    "INT32",
    "INT8",
    "OPERAND_FORMATS",
    "FormatName",
    "NumberFormat",
    "OperandFormat",
]

FormatName = Literal["fp16", "bf16", "fp8", "int8"]
"""The keys of `OPERAND_FORMATS`, for type checkers and for what reads files."""

BYTE = 8
"""Bits."""
INDEX_BITS = 8
"""Room for the index of a pair that streams through the N2S buffer; a copy in memory has as many as its group needs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberFormat:
    """In the layout of IEEE 754: a sign, then ``exponent`` bits, then ``fraction`` bits.

    ``finite``: it has no infinity, and of its highest exponent only all ones of fraction are a NaN (OCP OFP8, E4M3).
    Without a bit of exponent it is an integer in two's complement.
    """

    name: str
    exponent: int
    fraction: int
    finite: bool = False

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
    def integer(self) -> bool:
        """Whether it is an integer in two's complement."""
        return self.exponent == 0

    @property
    def infinity(self) -> int:
        """Bits of +Inf; a magnitude above it is a NaN."""
        assert not self.finite and not self.integer, f"{self.name} has no infinity"
        return ((1 << self.exponent) - 1) << self.fraction

    @property
    def highest(self) -> int:
        """The largest magnitude that is no NaN, as it is ranked: its bits below the sign, of an integer its value."""
        if self.integer:
            return self.most
        return (1 << (self.exponent + self.fraction)) - 2 if self.finite else self.infinity

    @property
    def largest(self) -> int:
        """Bits of the largest finite number."""
        return (1 << self.fraction) - 1 if self.integer else self.highest - (not self.finite)

    @property
    def nan(self) -> int:
        """Bits of the one NaN that the machine makes."""
        return self.highest + 1 if self.finite else self.infinity | 1 << (self.fraction - 1)

    @property
    def least(self) -> int:
        """Binary logarithm of the smallest subnormal, or of an integer's 1."""
        return 0 if self.integer else 2 - (1 << (self.exponent - 1)) - self.fraction

    @property
    def most(self) -> int:
        """The largest finite magnitude, in units of the smallest subnormal."""
        if self.integer:
            return 1 << self.fraction
        above = self.largest >> self.fraction
        return ((1 << self.fraction) | self.largest & ((1 << self.fraction) - 1)) << (above - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class OperandFormat(NumberFormat):
    """A format whose products are made, and added up, in ``accumulator``.

    ``gradient``: the other encoding of as many bits that an operand may have, which gradients take; the two may meet.
    """

    name: FormatName
    accumulator: NumberFormat
    gradient: NumberFormat | None = None

    @property
    def encodings(self) -> tuple[NumberFormat, ...]:
        """What an operand may be encoded as; activations and weights as the first, gradients as the last."""
        return (self,) if self.gradient is None else (self, self.gradient)

    @property
    def exact_products(self) -> bool:
        """Whether every product of finite operands is a number of the accumulator; where not, it is rounded to one."""
        to = self.accumulator
        return all(
            x.fraction + y.fraction + 2 <= to.fraction + 1
            and to.least <= x.least + y.least
            and x.most * y.most << (x.least + y.least - to.least) <= to.most
            for x in self.encodings
            for y in self.encodings
        )

    @property
    def exact_sums(self) -> int:
        """Products that add up without rounding in any order, whatever they are; of more, the order is part of the
        result. Of integers none is rounded: of more than these the sum may wrap around, in any order to the same."""
        if not self.exact_products:
            return 0
        to, most = self.accumulator, max(x.most << (x.least - self._unit) for x in self.encodings)
        return (to.largest if to.integer else 2 << to.fraction) // most**2

    @property
    def _unit(self) -> int:
        return min(x.least for x in self.encodings)

    def compact_size(self, pairs: int, index_bits: int) -> int:
        """Bytes of so many (value, index) pairs side by side, whole ones."""
        return -(-pairs * (self.bits + index_bits) // BYTE)


FP32 = NumberFormat(name="fp32", exponent=8, fraction=23)
"""Of partial sums, and of master weights and optimizer state."""
FP16 = OperandFormat(name="fp16", exponent=5, fraction=10, accumulator=FP32)
BF16 = OperandFormat(name="bf16", exponent=8, fraction=7, accumulator=FP32)
E5M2 = NumberFormat(name="e5m2", exponent=5, fraction=2)
FP8 = OperandFormat(name="fp8", exponent=4, fraction=3, finite=True, accumulator=FP32, gradient=E5M2)
"""E4M3, and E5M2 for gradients (OCP 8-bit Floating Point Specification, revision 1.0)."""
INT32 = NumberFormat(name="int32", exponent=0, fraction=31)
"""Of sums of integers, which wrap around."""
INT8 = OperandFormat(name="int8", exponent=0, fraction=7, accumulator=INT32)
OPERAND_FORMATS = {f.name: f for f in (FP16, BF16, FP8, INT8)}
if tuple(OPERAND_FORMATS) != get_args(FormatName):
    raise TypeError(f"the table of operand formats has {list(OPERAND_FORMATS)}, `FormatName` {get_args(FormatName)}")
