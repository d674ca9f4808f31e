"""What describes an XNOR engine, the systolic array of elements that compare and count words of bits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from ...workloads.errors import InputError
from ...workloads.sparsity import MAX_GROUP
from ..operand import BYTE
from ..ranges import Range, require_ranges
from ..stce.spec import MAX_ACCUMULATORS

__all__ = ["ADD_LATENCY", "SUM_BITS", "XnorSpec"]

SUM_BITS = 32
"""Of an accumulator, two's complement."""
ADD_LATENCY = 1
"""Cycles of an integer addition of that width."""

_STRICT = {"extra": "forbid"}


@dataclass(frozen=True, slots=True, kw_only=True)
class XnorSpec:
    """``rows`` x ``cols`` elements, each of which takes a pair of words of ``word_bits`` a cycle.

    ``word_bits`` is whole bytes, so that a word begins at an address. ``accumulators`` bounds the interleave;
    ``dense_words`` what an element holds of the operand that flows W2E (a word in OS, interleave x group in WS; the
    next part is held beside it), ``weight_words`` what WS holds stationary.
    """

    __pydantic_config__ = _STRICT
    kind: ClassVar[Literal["xnor"]] = "xnor"
    rows: Annotated[int, Range(1, 1024, "elements")]
    cols: Annotated[int, Range(1, 1024, "elements")]
    word_bits: Annotated[int, Range(8, 256, "bits, whole bytes")] = 64
    accumulators: Annotated[int, Range(1, MAX_ACCUMULATORS, "sums")] = 8
    dense_words: Annotated[int, Range(1, 4096, "words")] = 8
    weight_words: Annotated[int, Range(1, MAX_GROUP, "words")] = 4
    popcount_latency: Annotated[int, Range(1, 32, "cycles")] = 2

    def __post_init__(self) -> None:
        require_ranges(self, "xnor")
        if self.word_bits % BYTE:
            raise InputError(
                f"xnor.word_bits must be whole bytes, not {self.word_bits}; the nearest valid value is "
                f"{self.word_bits // BYTE * BYTE}"
            )

    @property
    def elements(self) -> int:
        """Pairs of words a cycle."""
        return self.rows * self.cols

    @property
    def peak(self) -> int:
        """Multiply-accumulates a cycle, of two binary operands."""
        return self.elements * self.word_bits
