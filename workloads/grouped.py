"""A step of use whose weights come in groups that are put back whole on the way into the array, 4 bits a value or more.

Every product is as large as before; memory holds and moves the groups alone. What turns them into numbers is vector
work joined to the product, a value a lane a cycle: it takes them as they come and hands them on, both on chip.
"""

from __future__ import annotations

from dataclasses import replace

from .errors import InputError
from .gemm import Pass
from .groups import Groups, GroupShape
from .joined import Joined
from .operand import DTYPE_BYTES, Role
from .step import MatrixOp, Op, VectorOp, Workload
from .unstructured import Drawn

__all__ = ["DEQUANTISE", "grouped"]

DEQUANTISE = "groups.dequantise"


def grouped(workload: Workload, shape: str, density: float, bits: int = 0) -> Workload:
    """``workload``, a dense step of use, with ``density`` of the groups of its weights kept, but for its last layer.

    ``shape``: as 1x16. ``bits``: of a value, with a scale a group, which dequantising multiplies by; 0: those of the
    machine, which need none. Nobody's mask: each row keeps its share. Layers without whole groups stay dense.
    """
    if workload.phase.trains:
        raise InputError("weights in groups that are put back are for use: trace a step with use infer or decode")
    kept = Drawn(density=density, distribution="balanced")
    layers = [i for i, op in enumerate(workload.ops) if isinstance(op, MatrixOp) and _free(op)]
    ops, after, place = list[Op](), list[tuple[int, ...]](), dict[int, int]()
    made = 0

    def add(op: Op, before: tuple[int, ...]) -> int:
        ops.append(op)
        after.append(before)
        return len(ops) - 1

    for i, op in enumerate(workload.ops):
        before = tuple(place[j] for j in workload.after[i]) if workload.after else ()
        sparse = Groups(operand="b", shape=GroupShape.parse(shape), kept=kept, bits=bits, expanded=True)
        if not isinstance(op, MatrixOp) or i not in layers[:-1] or sparse.misfit(op.gemm):
            place[i] = add(op, before)
            continue
        made += 1
        place[i] = add(replace(op, sparse=sparse, kept_dense=""), before)
        if bits:
            place[i] = add(_dequantise(op, sparse), (place[i],))
    if not made:
        raise InputError(f"no layer of {workload.model!r} but its last has whole groups of {shape}")
    return replace(workload, ops=tuple(ops), after=tuple(after) if workload.after else (), tensors=())


def _free(op: MatrixOp) -> bool:
    weight = op.b.role is Role.WEIGHT and op.parameter is not None and "+" not in op.parameter
    free = op.sparse is None and op.a.levels is None and op.b.levels is None and op.rows is None
    return weight and free and op.pass_ is Pass.FF


def _dequantise(op: MatrixOp, sparse: Groups) -> VectorOp:
    """Vector work on a macro-tile of the weight while the array works on another."""
    size, values = DTYPE_BYTES[op.b.dtype], sparse.histogram(op.gemm).total
    return VectorOp(
        name=op.name,
        op=DEQUANTISE,
        pass_=Pass.FF,
        dtype=op.b.dtype,
        elements=values,
        read_bytes=0,
        write_bytes=0,
        joined=Joined(
            name=op.name,
            op=op.op,
            pass_=Pass.FF,
            read=sparse.bytes(op.gemm, 8 * size),
            write=size * values,
            lanes=values,
        ),
    )
