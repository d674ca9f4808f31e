"""One op on the machine: which dataflow, which operand flows where, which interleave, which tiles."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from ..workloads.errors import InputError, require_int
from ..workloads.gemm import Gemm
from ..workloads.sparsity import NMPattern
from .accelerator import AcceleratorSpec

__all__ = ["DENSE", "ArrayMapping", "Dataflow", "Mapping"]

DENSE = NMPattern(keep=1, group=1)
"""How the array runs a dense product in OS."""


class Dataflow(StrEnum):
    """What stays in the PEs."""

    OS = "os"
    """Output-stationary: accumulators stay."""
    WS = "ws"
    """Weight-stationary: the N2S operand's pairs stay."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrayMapping:
    """How the array runs C = A B with A flowing W2E and B N2S; ``pattern`` is the executed one (dense is ``D:D``)."""

    dataflow: Dataflow
    pattern: NMPattern
    interleave: int

    def check(self, spec: AcceleratorSpec) -> None:
        """Refuse what the registers of a PE cannot hold."""
        pe, keep, group = spec.pe, self.pattern.keep, self.pattern.group
        spec.check_pattern(self.pattern)
        require_int("interleave", self.interleave, 1, pe.accumulators)
        words = group * (self.interleave if self.dataflow == Dataflow.WS else 1)
        if words > pe.dense_words:
            most = max(pe.dense_words // group, 1)
            raise InputError(
                f"{self.dataflow} with pattern {self.pattern} and interleave {self.interleave} holds {words} dense "
                f"words a PE, but pe.dense_words is {pe.dense_words}; use an interleave of at most {most}"
            )
        if self.dataflow == Dataflow.WS and keep > pe.weight_pairs:
            raise InputError(
                f"ws with pattern {self.pattern} holds {keep} pairs a PE, "
                f"but pe.weight_pairs is {pe.weight_pairs}; use os"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Mapping:
    """Placement of one op: the array mapping, the operand that flows N2S, and the macro-tiles in the buffers.

    With ``n2s = "a"`` the machine computes the transposed product, so the rows of a tile are columns of C. ``gemm`` is
    the product as the array sees it. ``tile_rows`` x ``tile_cols`` outputs make a macro-tile; ``resident`` says that it
    holds its operands for the whole contraction. ``order`` names the slow macro loop first: rows (``mn``) or columns
    (``nm``).
    """

    array: ArrayMapping
    gemm: Gemm
    n2s: Literal["a", "b"]
    tile_rows: int
    tile_cols: int
    resident: bool
    order: Literal["mn", "nm"]
