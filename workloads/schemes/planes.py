"""A weight that is a sum of planes, as the machine multiplies by it: a product a plane, and the sum of their results.

Scales of planes are numbers of their own, so no shift of an integer makes one plane of them, and no array adds what two
scales have been multiplied to: every plane is an op with its levels, which reads the other operand again and writes its
scaled result, and an op of the vector unit adds these. Nothing is gained from zeros of a plane.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ..gemm import Pass
from ..levels import Levels
from ..operand import Operand, Role
from ..step import MatrixOp, Op, VectorOp, Workload

__all__ = ["SUM_OF_PLANES", "with_planes", "without_planes"]

SUM_OF_PLANES = "sum of planes"
"""The operator of the vector work that adds the results of planes."""


def with_planes(workload: Workload, planes: tuple[Levels, ...]) -> Workload:
    """``workload``, each FF op of a weight that its scheme brings to few values once a plane, then their sum.

    Bytes of the sum are those of its tensors as PyTorch stores them, as of all vector work: every result is read, one
    is written. Whatever waited for the op waits for the sum.
    """

    def expanded(op: Op) -> tuple[Op, ...]:
        if not isinstance(op, MatrixOp) or op.pass_ is not Pass.FF or op.parameter is None or op.kept_dense:
            return (op,)
        made = (
            replace(op, a=_of(op.a, levels), b=_of(op.b, levels), plane=number) for number, levels in enumerate(planes)
        )
        c = op.c
        added = VectorOp(
            name=op.name,
            op=SUM_OF_PLANES,
            pass_=op.pass_,
            dtype=c.dtype,
            elements=c.elements,
            read_bytes=len(planes) * c.bytes,
            write_bytes=c.bytes,
            recompute=op.recompute,
        )
        return *made, added

    return _exchanged(workload, expanded)


def without_planes(workload: Workload) -> Workload:
    """``workload`` with one FF op where :func:`with_planes` made several; its weight has the levels of the first."""
    if not any(op.plane for op in workload.matrix_ops):
        return workload

    def kept(op: Op) -> tuple[Op, ...]:
        match op:
            case MatrixOp(plane=plane) if plane:
                return ()
            case VectorOp(op=name) if name == SUM_OF_PLANES:
                return ()
            case _:
                return (op,)

    return _exchanged(workload, kept)


def _of(operand: Operand, levels: Levels) -> Operand:
    return replace(operand, levels=levels) if operand.role is Role.WEIGHT else operand


def _exchanged(workload: Workload, made: Callable[[Op], tuple[Op, ...]]) -> Workload:
    """Every op for those that are ``made`` of it. What depended on it depends on the last of them; what is made of
    none stands behind the op before it; the last of several waits for the others, which wait for what it waited for.
    """
    ops: list[Op] = []
    after: list[tuple[int, ...]] = []
    last: list[int] = []
    for i, op in enumerate(workload.ops):
        parts = made(op)
        before = tuple(dict.fromkeys(last[j] for j in workload.after[i])) if workload.after else ()
        first = len(ops)
        ops += parts
        last.append(len(ops) - 1)
        for number in range(len(parts)):
            ends = number and number == len(parts) - 1
            after.append(tuple(range(first, first + number)) if ends else before)
    return replace(workload, ops=tuple(ops), after=tuple(after) if workload.after else (), tensors=())
