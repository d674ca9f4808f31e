"""One op on the machine: which dataflow, which operand flows where, which interleave, which tiles."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, get_args

from ..workloads.errors import InputError, require_choice, require_int
from ..workloads.gemm import Gemm
from ..workloads.sparsity import NMPattern
from ..workloads.step import MatrixOp
from .accelerator import MAX_ACCUMULATORS, AcceleratorSpec

__all__ = ["COMPACT", "DENSE", "ArrayMapping", "Compact", "Dataflow", "Mapping"]

Compact = Literal["remade", "buffer", "memory"]
COMPACT: tuple[Compact, ...] = get_args(Compact)
"""In the order of `cost.REMADE`, `cost.BUFFER`, `cost.MEMORY`."""

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

    def __post_init__(self) -> None:
        object.__setattr__(self, "dataflow", Dataflow(require_choice("dataflow", self.dataflow, tuple(Dataflow))))
        if not isinstance(self.pattern, NMPattern):
            raise InputError(f"pattern of a mapping must be an NMPattern, not {self.pattern!r}")
        require_int("interleave", self.interleave, 1, MAX_ACCUMULATORS)

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
    (``nm``). ``compact`` says how columns that SORE reduces are had when they are used again: reduced once more
    (``remade``), or kept compact in the N2S ``buffer`` (streamed, ``nm``) or in ``memory``.
    """

    array: ArrayMapping
    gemm: Gemm
    n2s: Literal["a", "b"]
    tile_rows: int
    tile_cols: int
    resident: bool
    order: Literal["mn", "nm"]
    compact: Compact = "remade"

    def __post_init__(self) -> None:
        require_int("tile_rows of a mapping", self.tile_rows, 1, self.gemm.m)
        require_int("tile_cols of a mapping", self.tile_cols, 1, self.gemm.n)
        require_choice("n2s of a mapping", self.n2s, ("a", "b"))
        require_choice("order of a mapping", self.order, ("mn", "nm"))
        require_choice("compact of a mapping", self.compact, COMPACT)
        if not isinstance(self.resident, bool):
            raise InputError(f"resident of a mapping must be True or False, not {self.resident!r}")
        if self.compact == "buffer" and (self.resident or self.order != "nm"):
            raise InputError(
                "a compact copy stays in the N2S buffer while the other operand streams past it: "
                "compact = 'buffer' needs resident = False and order = 'nm'"
            )

    def check(self, op: MatrixOp, online: bool) -> None:
        """Refuse a mapping that is not one of ``op``; ``online``: SORE reduces its sparse operand on the way in."""
        gemm = op.gemm if self.n2s == "b" else op.gemm.transposed
        if self.gemm != gemm:
            raise InputError(f"the mapping is of {self.gemm}, but {op.name!r} is {gemm} with operand {self.n2s} N2S")
        pattern = self.array.pattern
        if op.sparse is None:
            if pattern.keep != pattern.group or (self.array.dataflow is Dataflow.OS and pattern != DENSE):
                raise InputError(f"{op.name!r} is dense, so it runs as 1:1 (os) or D:D (ws), not as {pattern}")
        elif (self.n2s, pattern) != (op.sparse.operand, op.sparse.pattern):
            raise InputError(
                f"operand {op.sparse.operand} of {op.name!r} is {op.sparse.pattern} and flows N2S, "
                f"but the mapping has {pattern} with operand {self.n2s} N2S"
            )
        if self.compact != "remade" and not online:
            raise InputError(
                f"SORE reduces no operand of {op.name!r}, so compact must be 'remade', not {self.compact!r}"
            )
