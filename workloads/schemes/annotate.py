"""A workload under a scheme: which operand of which op is N:M, why others stay dense, which copies the update makes.

N:M helps only along the contraction of the pass that uses it, so a mask made for FF (input channels) is dense work in
BP (output channels) unless BP has its own, and in WU the contraction is the batch and the positions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Literal

from ..errors import InputError
from ..gemm import Pass
from ..sparsity import NMPattern
from ..step import CompactCopy, MatrixOp, Measured, Op, Role, SparseOperand, UpdateOp, Workload
from .scheme import Scheme, scheme

__all__ = ["EXPANDED", "FIRST_CONVOLUTION", "annotate", "short_run", "unstructured", "weight_copies"]

FIRST_CONVOLUTION = "first convolution"
EXPANDED = "gradient is the expanded operand of a transposed convolution"


def short_run(run: int, group: int) -> str:
    """Why a contraction whose runs are shorter than one group stays dense."""
    return f"contraction runs of {run} are shorter than a group of {group}"


def unstructured(role: Role) -> str:
    """Why an operand whose zeros follow no pattern runs as dense."""
    return f"zeros of the {role} follow no N:M pattern"


def annotate(workload: Workload, name: str, pattern: NMPattern | None, measured: Sequence[Measured] = ()) -> Workload:
    """``workload`` under a scheme; a workload that already carries one is annotated anew.

    Left dense, with the reason in ``kept_dense``: ops without a weight, the first convolution in every pass, and ops
    whose runs of channels are shorter than one group. A scheme whose training has phases is annotated as its own phase;
    :func:`.scheme.phases` names the scheme and pattern of each of the others.

    ``measured`` is what a training found. It is kept with the workload, and a layer that the training could not make
    sparse stays dense here too, for the training's reason: modules that multiply on their own do not show in the ops.
    """
    chosen = scheme(name)
    if chosen.sparse and pattern is None:
        raise InputError(f"scheme {name!r} needs an N:M pattern, for example 2:8")
    if not chosen.sparse:
        pattern = None
    if measured and not any(layer.names(op) for layer in measured for op in workload.matrix_ops):
        raise InputError(
            f"no layer that was measured ({', '.join(layer.layer for layer in measured[:3])}, ...) is in workload "
            f"{workload.model!r}: the measurements are of another model"
        )
    first = next((op.parameter for op in workload.matrix_ops if op.convolution and op.parameter), None)
    ops = tuple(
        _annotate_op(op, chosen, pattern, first, measured) if isinstance(op, MatrixOp) else op for op in workload.ops
    )
    copies = weight_copies(op for op in ops if isinstance(op, MatrixOp))
    return replace(
        workload, scheme=name, pattern=pattern, ops=tuple(_with_copies(op, copies) for op in ops),
        measured=tuple(measured),
    )  # fmt: skip


def _annotate_op(
    op: MatrixOp, chosen: Scheme, pattern: NMPattern | None, first: str | None, measured: Sequence[Measured]
) -> MatrixOp:
    if op.parameter is not None and op.pass_ in chosen.unstructured:
        return replace(op, sparse=None, kept_dense=unstructured(chosen.unstructured[op.pass_]))
    role = chosen.sparse.get(op.pass_)
    if role is None or pattern is None:
        return replace(op, sparse=None, kept_dense="")
    found = (layer.kept_dense.get(op.pass_, "") for layer in measured if layer.names(op))
    reason = _reason(op, role, pattern, first) or next(filter(None, found), "")
    side = _side(op, role)
    if reason or side is None:
        return replace(op, sparse=None, kept_dense=reason or f"no {role} operand")
    online = op.pass_ in chosen.online
    return replace(op, kept_dense="", sparse=SparseOperand(operand=side, pattern=pattern, online=online))


def _reason(op: MatrixOp, role: Role, pattern: NMPattern, first: str | None) -> str:
    if op.parameter is None:
        return "no weight operand"
    if op.parameter == first:
        return FIRST_CONVOLUTION
    if op.gemm.run < pattern.group:
        return short_run(op.gemm.run, pattern.group)
    if op.pass_ == Pass.WU and op.convolution and _side(op, role) == "b":
        # The tracer puts the operand that im2col expands on side b. An N:M tensor is no longer N:M once expanded.
        return EXPANDED
    return ""


def _side(op: MatrixOp, role: Role) -> Literal["a", "b"] | None:
    if op.b.role == role:
        return "b"
    return "a" if op.a.role == role else None


def weight_copies(ops: Iterable[MatrixOp]) -> dict[str, tuple[bool, tuple[CompactCopy, ...]]]:
    """Per parameter: whether some pass reads it dense, and the distinct compact copies that the others read."""
    dense: dict[str, bool] = {}
    copies: dict[str, dict[tuple[object, ...], CompactCopy]] = {}
    for op in ops:
        if op.parameter is None or op.pass_ == Pass.WU:
            continue
        dense.setdefault(op.parameter, False)
        made = copies.setdefault(op.parameter, {})
        copy, g = op.copy, op.gemm
        if copy is None or op.sparse is None:
            dense[op.parameter] = True
        else:
            made[(g.k, g.run, g.groups * (g.n if op.sparse.operand == "b" else g.m))] = copy
    return {name: (dense[name], tuple(copies[name].values())) for name in dense}


def _with_copies(op: Op, copies: dict[str, tuple[bool, tuple[CompactCopy, ...]]]) -> Op:
    if not isinstance(op, UpdateOp):
        return op
    dense, made = copies.get(op.name, (True, ()))
    return replace(op, dense_copy=dense, copies=made)
