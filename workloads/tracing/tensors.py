"""The tensors of a recorded step, from the storages that its ops read and write."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import prod

import torch

from ..operand import DTYPE_BYTES
from ..step import VectorOp
from ..tensors import StepTensor
from .passes import Record
from .provenance import Provenance
from .traffic import dtype_name

__all__ = ["tensors_of"]

_Held = tuple[int, list[int], int | None]
"""Who made it, who reads it, and what it replaces."""


def tensors_of(records: Sequence[Record], gradients: Iterable[Provenance]) -> tuple[StepTensor, ...]:
    """Every tensor in the order in which they are first met; ``gradients`` are what the updates behind the ops read,
    one each."""
    held: dict[Provenance, _Held] = {}
    found: list[tuple[Provenance, _Held]] = []
    latest: dict[Provenance, int] = {}
    """What a storage holds now, by its place among those found."""

    def note(storage: Provenance, made: int) -> None:
        held[storage] = made, [], latest.get(storage)
        latest[storage] = len(found)
        found.append((storage, held[storage]))

    def read(storage: Provenance, i: int) -> None:
        if storage not in held:
            note(storage, -1)
        readers = held[storage][1]
        if not readers or readers[-1] != i:
            readers.append(i)

    for i, record in enumerate(records):
        for storage in record.reads:
            read(storage, i)
        writes = dict.fromkeys(record.writes)
        op = record.op
        size = sum(map(_bytes, writes)) if isinstance(op, VectorOp) else 0
        for storage in writes:
            if isinstance(op, VectorOp) and size != op.write_bytes and storage in held:
                read(storage, i)
            note(storage, i)
    for i, storage in enumerate(gradients, start=len(records)):
        read(storage, i)
    return tuple(_tensor(storage, *of) for storage, of in found)


def _tensor(storage: Provenance, made: int, read: Sequence[int], replaces: int | None) -> StepTensor:
    dtype, shape = dtype_name(_dtype(storage)), storage.shape
    if DTYPE_BYTES.get(dtype) != _dtype(storage).itemsize:
        # Pairs of numbers, and formats that a workload has no name for.
        dtype, shape = "uint8", (_bytes(storage),)
    return StepTensor(dtype=dtype, shape=shape, made=made, read=tuple(read), replaces=replaces)


def _dtype(storage: Provenance) -> torch.dtype:
    assert storage.dtype is not None, "an op has seen it"
    return storage.dtype


def _bytes(storage: Provenance) -> int:
    return prod(storage.shape) * _dtype(storage).itemsize
