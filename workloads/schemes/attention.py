"""The products of attention, which have no weight: which of their operands is the query, the key, the map, the value.

S = Q K^T, A = softmax(S), O = A V; backward dA = dO V^T, dV = A^T dO, dQ = dS K, dK = dS^T Q. Importing this must not
import torch, so that saved workloads open quickly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from ..gemm import Gemm, Pass
from ..operand import Role
from ..step import MatrixOp, Op, VectorOp, Workload

__all__ = ["Part", "attention_parts"]


class Part(StrEnum):
    """What an operand of attention is."""

    QUERY = "query"
    KEY = "key"
    MAP = "map"
    """A: what the softmax made of the scores."""
    VALUE = "value"


@dataclass(frozen=True, slots=True)
class _Call:
    """The two products of one attention, by their places among the ops."""

    scores: int
    mix: int
    first: Gemm
    second: Gemm

    @property
    def gradients(self) -> tuple[tuple[Part, Gemm], ...]:
        """The products of its backward that read each part, in the order in which autograd makes them."""
        g, queries, keys = self.first.groups, self.first.m, self.first.n
        width, out = self.first.k, self.second.n
        return (
            (Part.VALUE, Gemm(m=queries, k=out, n=keys, groups=g)),
            (Part.MAP, Gemm(m=keys, k=queries, n=out, groups=g)),
            (Part.KEY, Gemm(m=queries, k=keys, n=width, groups=g)),
            (Part.QUERY, Gemm(m=width, k=queries, n=keys, groups=g)),
        )


Parts = tuple[Part | None, Part | None]

_RIGHT = (Part.KEY, Part.VALUE)
"""The parts that stand on side b of their products, there and in backward."""


def attention_parts(workload: Workload) -> dict[int, Parts]:
    """By the place of an op in ``workload.ops``: which parts its operands ``a`` and ``b`` are, None for a gradient.

    An attention is a product without a weight, a softmax of what it makes and a product of that without a weight, with
    nothing but vector work between. Its gradients are the products of the same module that have their shapes, those of
    the last attention first.
    """
    ops = workload.ops
    found: dict[int, Parts] = {}
    calls = list(_calls(ops, workload.after))
    for call in calls:
        found[call.scores] = (Part.QUERY, Part.KEY)
        found[call.mix] = (Part.MAP, Part.VALUE)
    backward: dict[str, list[tuple[int, MatrixOp]]] = {}
    for i, op in enumerate(ops):
        if isinstance(op, MatrixOp) and op.parameter is None and op.pass_ is not Pass.FF:
            backward.setdefault(op.name, []).append((i, op))
    for call in reversed(calls):
        for part, gemm in call.gradients:
            open_ = ((i, op) for i, op in backward.get(ops[call.mix].name, ()) if i not in found)
            at = next((i for i, op in open_ if _is_gradient(op, part, gemm)), None)
            if at is not None:
                found[at] = (None, part) if part in _RIGHT else (part, None)
    return found


def _calls(ops: Sequence[Op], after: Sequence[Sequence[int]]) -> Iterator[_Call]:
    for i, op in enumerate(ops):
        if not _is_product(op):
            continue
        for softmax in _behind(ops, after, i, _is_softmax):
            for scores in _behind(ops, after, softmax, _is_product):
                first = ops[scores]
                assert isinstance(op, MatrixOp) and isinstance(first, MatrixOp), "both are products"
                a, b = first.gemm, op.gemm
                if (a.groups, a.m, a.n) == (b.groups, b.m, b.k):
                    yield _Call(scores, i, a, b)


def _behind(ops: Sequence[Op], after: Sequence[Sequence[int]], start: int, wanted: Callable[[Op], bool]) -> list[int]:
    """The nearest ops that ``start`` is made from, through vector work alone; those before it where no trace says."""
    open_, seen, found = [start], {start}, []
    while open_:
        i = open_.pop()
        for before in after[i] if after else range(max(i - 1, 0), i):
            if before in seen:
                continue
            seen.add(before)
            if wanted(ops[before]):
                found.append(before)
            elif isinstance(ops[before], VectorOp):
                open_.append(before)
    return found


def _is_product(op: Op) -> bool:
    """Whether it is a product of the forward pass without a weight."""
    return isinstance(op, MatrixOp) and op.pass_ is Pass.FF and op.parameter is None and not op.convolution


def _is_softmax(op: Op) -> bool:
    return (
        isinstance(op, VectorOp) and op.pass_ is Pass.FF and "softmax" in op.op.lower() and "log" not in op.op.lower()
    )


def _is_gradient(op: MatrixOp, part: Part, gemm: Gemm) -> bool:
    gradient, other = (op.a, op.b) if part in _RIGHT else (op.b, op.a)
    same = (op.gemm.groups, op.gemm.m, op.gemm.k, op.gemm.n) == (gemm.groups, gemm.m, gemm.k, gemm.n)
    return same and gradient.role is Role.GRADIENT and other.role is Role.ACTIVATION
