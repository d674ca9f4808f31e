"""N:M training schemes as annotations: which operand of which pass is sparse, and which copies the update makes.

N:M helps only along the contraction of the pass that uses it, so a mask made for FF (input channels) is dense work in
BP (output channels) unless BP has its own.

- SR-STE (Zhou et al., ICLR 2021, arXiv 2102.04010): weights in FF. BP reads the FF-masked weights, which are not N:M
  along output channels, so it costs as dense.
- SDGP (McDanel et al., repository BradMcDanel/sdgp): gradients of the output in BP, along output channels; made from
  data, so never ahead of time.
- SDWP: weights in BP only; the baseline of that name in the BDWP paper, from memory of it.
- BDWP (Fang et al., IEEE TCAD, arXiv 2309.13015): weights in FF along input channels and in BP along output channels,
  two masks from one dense master; WU dense.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from ..errors import InputError, nearest
from ..gemm import Pass
from ..sparsity import NMPattern
from ..step import CompactCopy, MatrixOp, Op, Role, SparseOperand, UpdateOp, Workload

__all__ = ["SCHEMES", "Scheme", "annotate", "scheme"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheme:
    """A training technique as the machine sees it: the role of the sparse operand in each pass that has one."""

    name: str
    title: str
    sparse: dict[Pass, Role]


SCHEMES: dict[str, Scheme] = {
    s.name: s
    for s in (
        Scheme(name="dense", title="no sparsity", sparse={}),
        Scheme(name="srste", title="SR-STE: N:M weights in FF", sparse={Pass.FF: Role.WEIGHT}),
        Scheme(name="sdgp", title="SDGP: N:M output gradients in BP", sparse={Pass.BP: Role.GRADIENT}),
        Scheme(name="sdwp", title="SDWP: N:M weights in BP", sparse={Pass.BP: Role.WEIGHT}),
        Scheme(
            name="bdwp",
            title="BDWP: N:M weights in FF and, with a second mask, in BP",
            sparse={Pass.FF: Role.WEIGHT, Pass.BP: Role.WEIGHT},
        ),
    )
}


def scheme(name: str) -> Scheme:
    """Scheme of that name."""
    try:
        return SCHEMES[name]
    except KeyError:
        raise InputError(f"scheme {name!r} is unknown: {nearest(name, SCHEMES)}") from None


def annotate(workload: Workload, name: str, pattern: NMPattern | None) -> Workload:
    """``workload`` under a scheme; a workload that already carries one is annotated anew.

    Left dense, with the reason in ``kept_dense``: ops without a weight, the first convolution in every pass, and ops
    whose runs of channels are shorter than one group.
    """
    chosen = scheme(name)
    if chosen.sparse and pattern is None:
        raise InputError(f"scheme {name!r} needs an N:M pattern, for example 2:8")
    if not chosen.sparse:
        pattern = None
    first = next((op.parameter for op in workload.matrix_ops if op.convolution and op.parameter), None)
    ops = tuple(_annotate_op(op, chosen, pattern, first) if isinstance(op, MatrixOp) else op for op in workload.ops)
    copies = _copies(op for op in ops if isinstance(op, MatrixOp))
    return replace(workload, scheme=name, pattern=pattern, ops=tuple(_with_copies(op, copies) for op in ops))


def _annotate_op(op: MatrixOp, chosen: Scheme, pattern: NMPattern | None, first: str | None) -> MatrixOp:
    role = chosen.sparse.get(op.pass_)
    if role is None or pattern is None:
        return replace(op, sparse=None, kept_dense="")
    reason = _reason(op, pattern, first)
    side = _side(op, role)
    if reason or side is None:
        return replace(op, sparse=None, kept_dense=reason or f"no {role} operand")
    return replace(op, kept_dense="", sparse=SparseOperand(operand=side, pattern=pattern, online=role != Role.WEIGHT))


def _reason(op: MatrixOp, pattern: NMPattern, first: str | None) -> str:
    if op.parameter is None:
        return "no weight operand"
    if op.parameter == first:
        return "first convolution"
    if op.gemm.run < pattern.group:
        return f"contraction runs of {op.gemm.run} are shorter than a group of {pattern.group}"
    return ""


def _side(op: MatrixOp, role: Role) -> Literal["a", "b"] | None:
    if op.b.role == role:
        return "b"
    return "a" if op.a.role == role else None


def _copies(ops: Iterable[MatrixOp]) -> dict[str, tuple[bool, tuple[CompactCopy, ...]]]:
    """Per parameter: whether some pass reads it dense, and the distinct compact copies that the others read."""
    dense: dict[str, bool] = {}
    copies: dict[str, dict[tuple[object, ...], CompactCopy]] = {}
    for op in ops:
        if op.parameter is None or op.pass_ == Pass.WU:
            continue
        dense.setdefault(op.parameter, False)
        made = copies.setdefault(op.parameter, {})
        weight_is_sparse = op.sparse is not None and not op.sparse.online
        if op.sparse is None or not weight_is_sparse:
            dense[op.parameter] = True
            continue
        g, pattern = op.gemm, op.sparse.pattern
        columns = g.groups * (g.n if op.sparse.operand == "b" else g.m)
        made[(g.k, g.run, columns)] = CompactCopy(
            pattern=pattern,
            groups=columns * (g.k // g.run) * -(-g.run // pattern.group),
            kept=columns * pattern.kept(g.k, g.run),
        )
    return {name: (dense[name], tuple(copies[name].values())) for name in dense}


def _with_copies(op: Op, copies: dict[str, tuple[bool, tuple[CompactCopy, ...]]]) -> Op:
    if not isinstance(op, UpdateOp):
        return op
    dense, made = copies.get(op.name, (True, ()))
    return replace(op, dense_copy=dense, copies=made)
