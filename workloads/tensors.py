"""The tensors of a traced step: who makes each, who reads it, and for how long it is wanted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Annotated

from pydantic import Field

from .errors import InputError, require_int
from .operand import DTYPE_BYTES, MAX_BYTES, require_dtype

__all__ = ["StepTensor", "require_replaced"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTensor:
    """What one storage holds from one op that writes it to the next; ops go by their place in the step.

    ``shape`` and ``dtype`` are those of the storage as it was made, ``made`` is the op that writes it, -1 of what was
    there before the step. ``read``: the ops that read it, in order, in whole or in part. An op that writes a part of a
    storage reads what the storage held before. ``replaces``: the tensor that the storage held before, by its place
    among those of the step; files of older versions do not tell.
    """

    __pydantic_config__ = {"extra": "forbid"}

    dtype: str
    shape: tuple[int, ...]
    made: int
    read: tuple[int, ...]
    replaces: Annotated[int | None, Field(exclude_if=lambda replaces: replaces is None)] = None

    def __post_init__(self) -> None:
        require_dtype("tensor of the step", self.dtype)
        require_int("elements of a tensor of the step", self.elements, 0, MAX_BYTES)

    @property
    def elements(self) -> int:
        """Elements that the storage holds."""
        return prod(self.shape)

    @property
    def bytes(self) -> int:
        """Bytes of the storage, as PyTorch has it."""
        return self.elements * DTYPE_BYTES[self.dtype]

    @property
    def last(self) -> int:
        """The last op that wants it: with ``made``, its lifetime."""
        return max((self.made, *self.read))


def require_replaced(model: str, tensors: Sequence[StepTensor]) -> None:
    """Refuse a tensor that replaces none before it."""
    for number, tensor in enumerate(tensors):
        if tensor.replaces is not None and not 0 <= tensor.replaces < number:
            raise InputError(f"tensor {number} of workload {model!r} replaces {tensor.replaces}: it must be before it")
