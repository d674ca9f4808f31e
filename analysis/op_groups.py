"""Ops of a step that are alike, as one: the same work of layers of equal shape, placed the same way."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable
from dataclasses import dataclass
from fractions import Fraction

from ..dataflow.account import Counts, Cycles, total
from ..simulator.result import OpResult, SimResult
from ..workloads.gemm import Pass
from ..workloads.step import MatrixOp, UpdateOp
from .layer_groups import equal_layers
from .records import layer_of

__all__ = ["OpGroup", "op_groups", "op_word"]


@dataclass(frozen=True, slots=True, kw_only=True)
class OpGroup:
    """``ops`` that are alike, of layers that `equal_layers` calls ``layer``, by their numbers in the step.

    ``lost``: cycles beyond those of their multiply-accumulates at peak; all of work that is no product.
    """

    layer: str
    layers: int
    numbers: tuple[int, ...]
    ops: tuple[OpResult, ...]
    cycles: Cycles
    counts: Counts
    lost: Fraction

    @property
    def first(self) -> OpResult:
        """One that stands for all."""
        return self.ops[0]

    @property
    def pass_(self) -> Pass:
        return Pass(self.first.op.pass_)

    @property
    def is_matrix(self) -> bool:
        return isinstance(self.first.op, MatrixOp)

    @property
    def label(self) -> str:
        """The layer, and how many it stands for."""
        return self.layer + (f" ×{self.layers}" if self.layers > 1 else "")


def op_groups(result: SimResult) -> tuple[OpGroup, ...]:
    """Every op in one group: matrix products first, and the groups that lose most cycles first."""
    equal, alike = equal_layers(result), defaultdict[Hashable, list[int]](list)
    for number, r in enumerate(result.ops):
        alike[equal[layer_of(r)], *_work(r)].append(number)
    made = [_group(result, equal, numbers) for numbers in alike.values()]
    return tuple(sorted(made, key=lambda group: (not group.is_matrix, -group.lost, group.numbers)))


def _work(r: OpResult) -> tuple[Hashable, ...]:
    shape = (r.op.gemm, r.op.sparse) if isinstance(r.op, MatrixOp) else (r.op.elements,)
    return r.op.pass_, op_word(r), *shape, r.mapping


def _group(result: SimResult, equal: dict[str, str], numbers: list[int]) -> OpGroup:
    ops = tuple(result.ops[number] for number in numbers)
    cycles, counts = total(Cycles, (r.cycles for r in ops)), total(Counts, (r.counts for r in ops))
    return OpGroup(
        layer=equal[layer_of(ops[0])],
        layers=len({layer_of(r) for r in ops}),
        numbers=tuple(numbers),
        ops=ops,
        cycles=cycles,
        counts=counts,
        lost=cycles.total - sum((Fraction(r.counts.macs, result.peak(r)) for r in ops), Fraction(0)),
    )


def op_word(r: OpResult) -> str:
    """Operator of an op, without PyTorch's prefix."""
    word = r.op.kind if isinstance(r.op, UpdateOp) else r.op.op
    return word.removeprefix("aten.").removesuffix(".default")
