"""The operands of a product: what they are, how they are stored, and which form a sparse one has."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag

from .errors import InputError, nearest, require_int
from .gemm import Gemm
from .groups import Groups
from .levels import Levels
from .sparsity import NMPattern
from .unstructured import Unstructured

__all__ = [
    "DTYPE_BYTES",
    "Gathered",
    "MAX_BYTES",
    "NMOperand",
    "Operand",
    "Role",
    "STORED_AS",
    "SparseOperand",
    "require_dtype",
    "whole",
]

DTYPE_BYTES = {
    "float64": 8,
    "float32": 4,
    "float16": 2,
    "bfloat16": 2,
    "float8_e4m3fn": 1,
    "float8_e5m2": 1,
    "int64": 8,
    "int32": 4,
    "int16": 2,
    "int8": 1,
    "uint8": 1,
    "bool": 1,
}

STORED_AS = {
    "complex64": "float32",
    "complex128": "float64",
    "complex32": "float16",
    "uint16": "int16",
    "uint32": "int32",
    "uint64": "int64",
    "float8_e4m3fnuz": "float8_e4m3fn",
    "float8_e5m2fnuz": "float8_e5m2",
}
"""Formats that a workload has no name for, as the named one of the same width (a complex number is a pair)."""

_STRICT = {"extra": "forbid"}
MAX_BYTES = 2**60
"""Of a tensor."""


class Role(StrEnum):
    """What an operand is in training, whatever side of the product it stands on."""

    WEIGHT = "weight"
    ACTIVATION = "activation"
    GRADIENT = "gradient"


def require_dtype(where: str, dtype: str) -> None:
    if dtype not in DTYPE_BYTES:
        raise InputError(f"dtype of {where} is {dtype!r}: {nearest(dtype, DTYPE_BYTES)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Operand:
    """One operand over all groups; ``bytes`` are those of the tensor as PyTorch stores it, before any im2col.

    ``levels``: the few values that its elements take, None where they are numbers of the machine's format.
    """

    __pydantic_config__ = _STRICT

    role: Role
    dtype: str
    bytes: int
    levels: Annotated[Levels | None, Field(exclude_if=lambda levels: levels is None)] = None

    def __post_init__(self) -> None:
        require_dtype("an operand", self.dtype)
        size = DTYPE_BYTES[self.dtype]
        require_int("bytes of an operand", self.bytes, size, MAX_BYTES)
        if self.bytes % size:
            raise InputError(
                f"bytes of an operand must be whole elements of {self.dtype}, {size} bytes each, not {self.bytes}; the "
                f"nearest valid value is {self.bytes // size * size}"
            )

    @property
    def elements(self) -> int:
        """Elements of the stored tensor."""
        return self.bytes // DTYPE_BYTES[self.dtype]

    def sized(self, elements: int) -> Operand:
        """The same of so many elements."""
        return replace(self, bytes=elements * DTYPE_BYTES[self.dtype])


@dataclass(frozen=True, slots=True, kw_only=True)
class NMOperand:
    """An operand that keeps N of every M elements, which the machine decodes.

    ``online`` operands depend on data of this very step, so the reduction engine always stands in front of the array;
    the others (weights) can be pre-generated behind the weight update.
    """

    __pydantic_config__ = _STRICT

    kind: Literal["nm"] = "nm"
    operand: Literal["a", "b"]
    pattern: NMPattern
    online: bool

    def macs(self, gemm: Gemm) -> int:
        """Multiply-accumulates of kept elements."""
        return gemm.groups * gemm.m * gemm.n * self.pattern.kept(gemm.k, gemm.run)

    def __str__(self) -> str:
        return str(self.pattern)


def _form(operand: object) -> object:
    """Files of schema 1 do not say that it is N:M."""
    return operand.get("kind", "nm") if isinstance(operand, dict) else getattr(operand, "kind", "nm")


Gathered = Unstructured | Groups
"""Operands without an N:M pattern: what an engine that gathers takes, and no other."""

SparseOperand = Annotated[
    Annotated[NMOperand, Tag("nm")] | Annotated[Unstructured, Tag("unstructured")] | Annotated[Groups, Tag("groups")],
    Discriminator(_form),
]
"""The one operand of an op that is not dense, by the ``kind`` of its form: another form is another class in this union,
and what branches on the form ends in `assert_never`."""


def whole(sparse: SparseOperand | None) -> bool:
    """Whether all of a product is multiplied: a dense one, or one whose zeros are put back on the way in."""
    return sparse is None or (isinstance(sparse, Groups) and sparse.expanded)
