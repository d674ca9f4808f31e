"""Frozen weights that lie in DRAM in the order in which the schedule reads them: they are written once, offline.

Macro-tile after macro-tile of a weight's lines, inside a tile k after k, for each k its lines. So whatever is loaded of
a tile, whole or in chunks of k, is one piece, in any loop order and as often as it comes. A tensor has one layout: all
that read it must cut it into the same tiles, else it stays as PyTorch keeps it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Literal, NamedTuple

from ..dataflow.mapping import Mapping
from ..dataflow.placement import Placement
from ..dataflow.stce.mapping import ArrayMapping
from ..workloads.gemm import Gemm, Pass
from ..workloads.operand import Role
from ..workloads.step import MatrixOp, UpdateOp, Workload
from .model_memory import read_beside
from .order import order_of

__all__ = ["read_in_order"]


class _Cut(NamedTuple):
    """What two products that read one weight must have in common to read one layout in one piece."""

    pass_: Pass
    gemm: Gemm
    side: Literal["a", "b"]
    lines: int
    """Of a macro-tile."""


def read_in_order(workload: Workload, placements: Sequence[Placement | None]) -> frozenset[int]:
    """Numbers of the ops whose dense weight lies in the order in which they read it.

    Such a weight is frozen and in memory from the start, as nothing in the step makes it; no embedding looks its rows
    up, and products read all of it, each in the same tiles.
    """
    trained = {op.name for op in workload.ops if isinstance(op, UpdateOp)}
    frozen = {tensor.name: tensor.elements for tensor in workload.frozen if tensor.name not in trained}
    ready = order_of(workload).weight_ready
    cuts: dict[str, dict[int, _Cut | None]] = defaultdict(dict)
    for i, (op, placement) in enumerate(zip(workload.ops, placements, strict=True)):
        if isinstance(op, MatrixOp) and op.parameter in frozen and op.copy is None:
            assert placement is not None, "a schedule places every matrix op"
            known = ready[i] and "+" not in op.parameter
            cuts[op.parameter][i] = _cut(op, placement.mapping, frozen[op.parameter]) if known else None
    rows = read_beside(workload, cuts)
    return frozenset(
        i
        for name, readers in cuts.items()
        if name not in rows and None not in readers.values() and len(set(readers.values())) == 1
        for i in readers
    )


def _cut(op: MatrixOp, mapping: Mapping, elements: int) -> _Cut | None:
    """How a product reads a weight of so many ``elements``; None where it does not read all of it as it lies."""
    side: Literal["a", "b"] = "a" if op.a.role is Role.WEIGHT else "b"
    weight, g = (
        (op.a, op.gemm.groups * op.gemm.m * op.gemm.k)
        if side == "a"
        else (op.b, op.gemm.groups * op.gemm.k * op.gemm.n)
    )
    if (
        weight.role is not Role.WEIGHT
        or not weight.elements == g == elements
        or not isinstance(mapping.array, ArrayMapping)
    ):
        return None
    return _Cut(op.pass_, op.gemm, side, mapping.tile_cols if mapping.n2s == side else mapping.tile_rows)
