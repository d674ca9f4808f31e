"""Ops of a step with less in them: products of another size, vector work on a share of what it worked on."""

from __future__ import annotations

from dataclasses import replace

from .gemm import Gemm
from .step import MatrixOp, VectorOp

__all__ = ["resized", "thinned"]


def resized(op: MatrixOp, gemm: Gemm) -> MatrixOp:
    """``op`` as a product of another size, whose operands and result are stored as they are multiplied."""
    g = gemm
    a, b, c = g.groups * g.m * g.k, g.groups * g.k * g.n, g.groups * g.m * g.n
    return replace(op, gemm=g, a=op.a.sized(a), b=op.b.sized(b), c=op.c.sized(c))


def thinned(op: VectorOp, kept: int, of: int) -> VectorOp:
    """``op`` on ``kept`` of ``of`` of its elements and bytes, rounded down."""
    return replace(
        op,
        elements=op.elements * kept // of,
        read_bytes=op.read_bytes * kept // of,
        write_bytes=op.write_bytes * kept // of,
    )
