"""What describes an STCE, the systolic array of N:M sparse PEs: its size and its PE."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from ...workloads.errors import require_int
from ...workloads.sparsity import MAX_GROUP
from ..operand import OPERAND_FORMATS, FormatName, OperandFormat
from ..ranges import Range, require_ranges

__all__ = ["MAX_ACCUMULATORS", "ArraySpec", "PESpec", "StceSpec"]

MAX_ACCUMULATORS = 64
"""Partial sums of a PE, and so its interleave."""

_STRICT = {"extra": "forbid"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ArraySpec:
    """``rows`` x ``cols`` PEs; each row receives ``w2e_words`` dense words a cycle at its western edge.

    A bank of a buffer answers an ask of the array ``read_latency`` cycles later.
    """

    __pydantic_config__ = _STRICT
    rows: Annotated[int, Range(1, 1024, "PEs")]
    cols: Annotated[int, Range(1, 1024, "PEs")]
    w2e_words: Annotated[int, Range(1, 64, "words a cycle a row")] = 1
    read_latency: Annotated[int, Range(1, 4, "cycles")] = 1

    def __post_init__(self) -> None:
        require_ranges(self, "array")

    @property
    def pes(self) -> int:
        """PEs, and so multiply-accumulates a cycle."""
        return self.rows * self.cols


@dataclass(frozen=True, slots=True, kw_only=True)
class PESpec:
    """One multiplier, one adder, and the registers around them.

    ``accumulators`` bounds the interleave; ``dense_words`` the resident part of the dense operand (a group in OS,
    interleave x group in WS; the prefetched next part is held beside it); ``weight_pairs`` what WS holds stationary;
    ``format`` is that of the operands, sums are FP32.
    """

    __pydantic_config__ = _STRICT
    max_group: Annotated[int, Range(1, MAX_GROUP, "values")] = 16
    accumulators: Annotated[int, Range(1, MAX_ACCUMULATORS, "partial sums")] = 8
    dense_words: Annotated[int, Range(1, 4096, "words")] = 32
    weight_pairs: Annotated[int, Range(1, MAX_GROUP, "pairs")] = 4
    multiply_latency: Annotated[int, Range(1, 32, "cycles")] = 2
    add_latency: Annotated[int, Range(1, 32, "cycles")] = 4
    format: FormatName = "fp16"

    def __post_init__(self) -> None:
        require_ranges(self, "pe")
        require_int("pe.dense_words", self.dense_words, self.max_group, 4096)

    @property
    def operand(self) -> OperandFormat:
        """Layout of an operand."""
        return OPERAND_FORMATS[self.format]


@dataclass(frozen=True, slots=True, kw_only=True)
class StceSpec:
    """An array and its PE."""

    kind: ClassVar[Literal["stce"]] = "stce"
    array: ArraySpec
    pe: PESpec

    @property
    def peak(self) -> int:
        """Multiply-accumulates a cycle: one a PE."""
        return self.array.pes
