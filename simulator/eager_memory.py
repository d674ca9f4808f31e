"""What a step without the tensors of a trace keeps in DRAM, at most: all that eager training would."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from ..dataflow.accelerator import AcceleratorSpec
from ..dataflow.beside import Work, vector_work
from ..workloads.gemm import Pass
from ..workloads.operand import Role
from ..workloads.step import MatrixOp, Op, UpdateOp, VectorOp

__all__ = ["Eager", "eager_bound"]


class Eager(NamedTuple):
    """Bytes at most. ``kept``: the input and every result of FF until the end, but what checkpointing makes again, and
    the largest part that it makes again at a time. ``working``: the most that one op of the backward pass reads of
    gradients and writes."""

    kept: int
    working: int


def eager_bound(ops: Sequence[Op], spec: AcceleratorSpec) -> Eager:
    """Of the ops of a step, in the formats of ``spec``."""
    kept, again = _kept(ops, spec)
    working = max((_working(op, spec) for op in ops if op.pass_ in (Pass.BP, Pass.WU)), default=0)
    return Eager(_input(ops, spec) + kept + again, working)


def _beside(op: VectorOp, spec: AcceleratorSpec) -> Work:
    """What vector work moves, on chip or off."""
    return vector_work(replace(op, chip_read=0, chip_write=0) if op.chip_read or op.chip_write else op, spec)


def _result(op: Op, spec: AcceleratorSpec) -> int:
    match op:
        case MatrixOp():
            return spec.pe.operand.size(op.c.elements)
        case VectorOp():
            return _beside(op, spec).write
        case UpdateOp():
            return 0


def _input(ops: Sequence[Op], spec: AcceleratorSpec) -> int:
    """What the first op reads besides a weight."""
    match ops[0]:
        case MatrixOp(a=a, b=b):
            return sum(spec.pe.operand.size(x.elements) for x in (a, b) if x.role is Role.ACTIVATION)
        case VectorOp():
            return _beside(ops[0], spec).read
        case UpdateOp():
            return 0


def _working(op: Op, spec: AcceleratorSpec) -> int:
    match op:
        case MatrixOp(a=a, b=b):
            read = sum(spec.pe.operand.size(x.elements) for x in (a, b) if x.role is Role.GRADIENT)
            return read + _result(op, spec)
        case VectorOp():
            return _beside(op, spec).read + _beside(op, spec).write
        case UpdateOp():
            return 0


def _kept(ops: Sequence[Op], spec: AcceleratorSpec) -> tuple[int, int]:
    """Bytes of FF results kept for the backward pass, and of the largest part that is made again in it.

    What is made again is known by module, operator and size; of each part its input, the result before it, is kept.
    """
    forward = [op for op in ops if op.pass_ is Pass.FF and not op.recompute]  # type: ignore[union-attr]
    again = list(_parts(ops))
    dropped: set[int] = set()
    inputs: set[int] = set()
    for part in again:
        wanted = Counter(_key(op, spec) for op in part)
        first = -1
        for i, op in enumerate(forward):
            if i not in dropped and wanted[_key(op, spec)] > 0:
                wanted[_key(op, spec)] -= 1
                dropped.add(i)
                first = i if first < 0 else first
        if first > 0:
            inputs.add(first - 1)
    kept = sum(_result(op, spec) for i, op in enumerate(forward) if i not in dropped or i in inputs)
    return kept, max((sum(_result(op, spec) for op in part) for part in again), default=0)


def _key(op: Op, spec: AcceleratorSpec) -> tuple[str, str, int]:
    if isinstance(op, VectorOp) and op.packs:
        # What FF packs for itself alone, it packs for WU too where it is done again.
        return op.name, op.op, op.elements
    if isinstance(op, VectorOp) and op.joined is not None:
        # What is written no more may still be what is made again.
        op = replace(op, write_bytes=op.write_bytes + op.joined.write)
    return op.name, op.kind, _result(op, spec)


def _parts(ops: Sequence[Op]) -> Iterator[list[Op]]:
    """Runs of ops that checkpointing computes again, one after the other."""
    part: list[Op] = []
    for op in ops:
        if not isinstance(op, UpdateOp) and op.recompute:
            part.append(op)
        elif part:
            yield part
            part = []
    if part:
        yield part
