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

_Held = tuple[int, list[int]]
"""Who made it, and who reads it."""


def tensors_of(records: Sequence[Record], gradients: Iterable[Provenance]) -> tuple[StepTensor, ...]:
    """Every tensor in the order in which they are first met; ``gradients`` are what the updates behind the ops read,
    one each."""
    held: dict[Provenance, _Held] = {}
    found: list[tuple[Provenance, _Held]] = []

    def read(storage: Provenance, i: int) -> None:
        if storage not in held:
            held[storage] = -1, []
            found.append((storage, held[storage]))
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
            held[storage] = i, []
            found.append((storage, held[storage]))
    for i, storage in enumerate(gradients, start=len(records)):
        read(storage, i)
    return tuple(_tensor(storage, made, readers) for storage, (made, readers) in found)


def _tensor(storage: Provenance, made: int, read: Sequence[int]) -> StepTensor:
    dtype, shape = dtype_name(_dtype(storage)), storage.shape
    if DTYPE_BYTES.get(dtype) != _dtype(storage).itemsize:
        # Pairs of numbers, and formats that a workload has no name for.
        dtype, shape = "uint8", (_bytes(storage),)
    return StepTensor(dtype=dtype, shape=shape, made=made, read=tuple(read))


def _dtype(storage: Provenance) -> torch.dtype:
    assert storage.dtype is not None, "an op has seen it"
    return storage.dtype


def _bytes(storage: Provenance) -> int:
    return prod(storage.shape) * _dtype(storage).itemsize
