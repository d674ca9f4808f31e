"""How the array runs a product: which dataflow, which pattern, which interleave, and what its PEs hold by that."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar, Literal, NamedTuple, assert_never

from ...workloads.errors import InputError, require_choice, require_int
from ...workloads.groups import Groups
from ...workloads.operand import NMOperand
from ...workloads.sparsity import NMPattern
from ...workloads.step import MatrixOp
from ...workloads.unstructured import Unstructured
from ..accelerator import AcceleratorSpec
from .spec import MAX_ACCUMULATORS

__all__ = [
    "DENSE",
    "REGISTERS",
    "ArrayMapping",
    "Dataflow",
    "Registers",
    "holds_pairs",
    "output_stationary",
    "weight_stationary",
]

DENSE = NMPattern(keep=1, group=1)
"""How the array runs a dense product in OS."""


class Dataflow(StrEnum):
    """What stays in the PEs."""

    OS = "os"
    """Output-stationary: accumulators stay."""
    WS = "ws"
    """Weight-stationary: the N2S operand's pairs stay."""
    OS1 = "os1"
    """Output-stationary without drain registers: accumulators stay until their results have left."""


class Registers(NamedTuple):
    """What a PE holds at a time."""

    dense_words: int
    """Of the W2E operand."""
    pairs: int
    """Of the N2S operand; 0: none beyond the one that passes."""


def output_stationary(keep: int, group: int, interleave: int) -> Registers:
    """A group of dense words, from which the passing pairs pick."""
    return Registers(group, 0)


def weight_stationary(keep: int, group: int, interleave: int) -> Registers:
    """A group of every interleaved row, and the pairs that stay."""
    return Registers(group * interleave, keep)


REGISTERS: dict[Dataflow, Callable[[int, int, int], Registers]] = {
    Dataflow.OS: output_stationary,
    Dataflow.WS: weight_stationary,
    Dataflow.OS1: output_stationary,
}
"""By (keep, group, interleave)."""


def holds_pairs(dataflow: Dataflow) -> bool:
    """Whether the PEs hold pairs, so that a dense operand runs as D:D."""
    return REGISTERS[dataflow](1, 1, 1).pairs > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrayMapping:
    """How the array runs C = A B with A flowing W2E and B N2S; ``pattern`` is the executed one (dense is ``D:D``)."""

    kind: ClassVar[Literal["stce"]] = "stce"
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
        held = REGISTERS[self.dataflow](keep, group, self.interleave)
        if held.dense_words > pe.dense_words:
            most = max(pe.dense_words // group, 1)
            raise InputError(
                f"{self.dataflow} with pattern {self.pattern} and interleave {self.interleave} holds "
                f"{held.dense_words} dense words a PE, but pe.dense_words is {pe.dense_words}; use an interleave of at "
                f"most {most}"
            )
        if held.pairs > pe.weight_pairs:
            raise InputError(
                f"{self.dataflow} with pattern {self.pattern} holds {held.pairs} pairs a PE, "
                f"but pe.weight_pairs is {pe.weight_pairs}; use {Dataflow.OS}"
            )

    def check_op(self, op: MatrixOp, n2s: str) -> None:
        """Refuse to run ``op`` with operand ``n2s`` flowing N2S."""
        pattern = self.pattern
        match op.sparse:
            case None | Groups(expanded=True):
                if pattern.keep != pattern.group or (not holds_pairs(self.dataflow) and pattern != DENSE):
                    raise InputError(f"{op.name!r} is dense, so it runs as 1:1 (os) or D:D (ws), not as {pattern}")
            case NMOperand(operand=side, pattern=asked):
                if (n2s, pattern) != (side, asked):
                    raise InputError(
                        f"operand {side} of {op.name!r} is {asked} and flows N2S, but the mapping has {pattern} with "
                        f"operand {n2s} N2S"
                    )
            case Unstructured() | Groups():
                raise InputError(f"operand {op.sparse.operand} of {op.name!r} is {op.sparse}; the STCE skips N:M alone")
            case _:
                assert_never(op.sparse)
