"""What a step writes of a tensor besides itself: N:M copies of a weight, and packed ones of few values."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Final, Literal, assert_never

from pydantic import Discriminator, Field, Tag

from .errors import InputError, require_int
from .gemm import GEMM_PASSES, Gemm, Pass
from .groups import Groups
from .levels import Levels
from .operand import MAX_BYTES, NMOperand, Role, SparseOperand
from .sparsity import NMPattern
from .unstructured import Unstructured

__all__ = ["MAX_MOVED", "CompactCopy", "PackedCopy", "WeightCopy", "as_read", "compact_copy", "in_words"]

MAX_MOVED: Final = 2**50
"""Bytes that an op without a product moves, each way, and elements; of a step, eight times that. Times are kept in
1/256 of what a byte takes and added up over a step, in 64 bits."""

_BYTE = 8
_MOST_WORD_BITS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedCopy:
    """The packed form of a weight or an activation that the products of ``pass_`` read.

    ``elements`` of the tensor, before any im2col; ``run`` of its contraction lie side by side. ``word_bits``: runs are
    padded to whole words of so many bits, as an XNOR engine reads them along the contraction; 0: there is no padding,
    and all passes read the one form. A schedule says which: before it, it is 0 everywhere. ``plane``: of a weight that
    is a sum of several, which.
    """

    __pydantic_config__ = {"extra": "forbid", "alias_generator": lambda name: name.rstrip("_")}

    kind: Literal["packed"] = "packed"
    role: Role
    levels: Levels
    pass_: Pass
    elements: int
    run: int
    word_bits: int = 0
    plane: Annotated[int, Field(exclude_if=lambda plane: not plane)] = 0

    def __post_init__(self) -> None:
        if self.pass_ not in GEMM_PASSES:
            raise InputError(f"a packed copy is read in FF, BP or WU, not in {self.pass_}")
        require_int("elements of a packed copy", self.elements, 1, MAX_BYTES // _BYTE)
        require_int("run of a packed copy", self.run, 1, MAX_BYTES)
        require_int("word_bits of a packed copy", self.word_bits, 0, _MOST_WORD_BITS)

    @property
    def bytes(self) -> int:
        """Of memory that it takes, whole ones: those that the engine's own `dataflow/problem.py:Packing` says."""
        bits = self.elements * self.levels.bits
        if self.word_bits:
            words = -(-self.elements // self.run) * -(-self.run // self.word_bits)
            bits = words * self.word_bits * self.levels.bits
        return -(-bits // _BYTE)

    @property
    def form(self) -> tuple[object, ...]:
        """What two copies of one tensor have in common if they are the same bits."""
        along = (self.pass_, self.run) if self.word_bits else ()
        return self.role, self.levels, self.plane, self.elements, self.word_bits, *along


@dataclass(frozen=True, slots=True, kw_only=True)
class CompactCopy:
    """One pre-generated N:M copy of a weight: ``groups`` are reduced to ``kept`` (value, index) pairs in all."""

    __pydantic_config__ = {"extra": "forbid"}

    kind: Annotated[Literal["compact"], Field(exclude_if=lambda _: True)] = "compact"
    pattern: NMPattern
    groups: int
    kept: int

    def __post_init__(self) -> None:
        require_int("groups of a compact copy", self.groups, 1, MAX_MOVED)
        require_int("kept of a compact copy", self.kept, self.groups, self.groups * self.pattern.keep)


def _kind(copy: object) -> object:
    """Files call packed copies so; there were compact ones before there was another kind."""
    return copy.get("kind", "compact") if isinstance(copy, dict) else getattr(copy, "kind", "compact")


WeightCopy = Annotated[
    Annotated[PackedCopy, Tag("packed")] | Annotated[CompactCopy, Tag("compact")], Discriminator(_kind)
]
"""A copy of a weight that its update writes: what branches on it ends in `assert_never`."""


def compact_copy(sparse: SparseOperand, gemm: Gemm) -> CompactCopy | None:
    """The copy that an update writes of a sparse weight; None where it is made in the product, or was in advance."""
    match sparse:
        case NMOperand(pattern=pattern):
            if sparse.online:
                return None
            columns = gemm.groups * (gemm.n if sparse.operand == "b" else gemm.m)
            groups = columns * (gemm.k // gemm.run) * -(-gemm.run // pattern.group)
            return CompactCopy(pattern=pattern, groups=groups, kept=columns * pattern.kept(gemm.k, gemm.run))
        case Unstructured() | Groups():
            return None
        case _:
            assert_never(sparse)


def as_read(copy: WeightCopy) -> WeightCopy:
    """As a product names it, which does not know the engine that it runs on."""
    return replace(copy, word_bits=0) if isinstance(copy, PackedCopy) else copy


def in_words(copy: WeightCopy) -> str:
    match copy:
        case PackedCopy():
            return f"{copy.elements} values of {copy.levels} for {copy.pass_}"
        case CompactCopy():
            return f"{copy.kept} of {copy.groups} groups"
        case _:
            assert_never(copy)
