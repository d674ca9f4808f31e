"""Layers that N:M does not help: which passes of a layer run dense, by the exact cost of layer and update together.

A sparse operand must flow N2S and keeps its groups; a dense product may exchange the roles, take another dataflow and
needs no compression. So a product with a narrow output, or one that waits for its accumulators, can be faster dense.
Taken is, layer by layer, the set of dense passes whose products and update cost the least; of equals the one with the
fewest dense passes. Since all passes dense is one of the sets, a step under N:M is never slower than the same step
dense.

An operand without a pattern is one more such choice: where no engine gathers it, or none gains by it, it runs dense.

A pass that runs dense reads the layer's dense copy, with its zeros where the training prunes it: the same bytes and the
same sums.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator
from dataclasses import replace
from functools import reduce
from itertools import combinations
from math import inf
from operator import add

from ..workloads.errors import InputError
from ..workloads.gemm import Pass
from ..workloads.operand import Gathered
from ..workloads.schemes.annotate import unstructured, weight_copies
from ..workloads.step import MatrixOp, Op, UpdateOp, Workload
from ..workloads.update_rule import UpdateRule
from .accelerator import AcceleratorSpec
from .account import declared_causes, items
from .beside import update_cost
from .engines import engines_of, peak_of
from .integers import ceil_div
from .placement import Placement

__all__ = ["DOES_NOT_HELP", "Layer", "layers_of", "ungathered", "with_fallback"]

DOES_NOT_HELP = "N:M does not help"
"""How the reason begins that an op is left dense for; the rest says what a sparse operand would meet."""

Place = Callable[[MatrixOp], Placement]
Cost = Callable[[Placement], float]


def with_fallback(
    workload: Workload, spec: AcceleratorSpec, place: Place, cost: Cost | None, fixed: Container[int]
) -> Workload:
    """``workload`` with the passes dense that N:M does not help; ops in ``fixed`` stay as they are.

    ``place`` gives the best placement of an op, ``cost`` what of it is minimised: cycles, with those of the update, if
    none is given.
    """
    ops: list[Op] = list(workload.ops)
    for layer in layers_of(workload, fixed):
        for i, op in _Choice(layer, spec, workload.rule, place, cost).cheapest():
            ops[i] = op
    return workload if ops == list(workload.ops) else replace(workload, ops=tuple(ops))


def ungathered(workload: Workload, spec: AcceleratorSpec) -> Workload:
    """``workload`` with the operands dense that have no pattern and that no engine of ``spec`` takes so."""

    def made(op: Op) -> Op:
        if not isinstance(op, MatrixOp) or not isinstance(op.sparse, Gathered):
            return op
        if any(engine.takes(op) for engine in engines_of(spec)):
            return op
        return replace(op, sparse=None, kept_dense=_patternless(op))

    ops = tuple(map(made, workload.ops))
    return workload if ops == workload.ops else replace(workload, ops=ops)


def _patternless(op: MatrixOp) -> str:
    assert op.sparse is not None
    return unstructured((op.b if op.sparse.operand == "b" else op.a).role)


class Layer:
    """The products of one weight, by index, and its update."""

    def __init__(self, workload: Workload, own: list[int]) -> None:
        given = [(i, workload.ops[i]) for i in own]
        self.products = {i: op for i, op in given if isinstance(op, MatrixOp)}
        self.update = next(((i, op) for i, op in given if isinstance(op, UpdateOp)), None)

    @property
    def sparse(self) -> list[MatrixOp]:
        """Products under N:M."""
        return [op for op in self.products.values() if op.sparse is not None]

    @property
    def choices(self) -> list[tuple[Pass, ...]]:
        """Every set of passes that could run dense; of equals the first is taken."""
        passes = list(dict.fromkeys(op.pass_ for op in self.sparse))
        return [dense for size in range(len(passes) + 1) for dense in combinations(passes, size)]

    def products_with(self, dense: tuple[Pass, ...]) -> Iterator[MatrixOp]:
        """The products with these passes dense."""
        return (replace(op, sparse=None) if op.pass_ in dense else op for op in self.products.values())

    def updated(self, dense: tuple[Pass, ...]) -> UpdateOp:
        """The update, of a layer that has one, with the copies that are still read."""
        assert self.update is not None
        made = weight_copies(self.products_with(dense)).get(self.update[1].name)
        if made is None:
            return self.update[1]
        return replace(self.update[1], dense_copy=made[0], copies=made[1])


def layers_of(workload: Workload, fixed: Container[int] = ()) -> Iterator[Layer]:
    """The layers that have products under N:M, in the order of the step, without those that have one in ``fixed``."""
    layers: dict[str, list[int]] = {}
    updates: dict[str, int] = {}
    for i, op in enumerate(workload.ops):
        if isinstance(op, UpdateOp):
            updates[op.name] = i
        elif isinstance(op, MatrixOp) and op.parameter is not None:
            layers.setdefault(op.parameter, []).append(i)
    for parameter, own in layers.items():
        layer = Layer(workload, [i for i in (*own, updates.get(parameter, -1)) if i >= 0])
        if layer.sparse and not any(i in fixed for i in own):
            yield layer


class _Choice:
    """Which passes of a layer run dense."""

    def __init__(self, layer: Layer, spec: AcceleratorSpec, rule: UpdateRule, place: Place, cost: Cost | None) -> None:
        self._layer, self._spec, self._rule = layer, spec, rule
        self._place, self._cost = place, cost

    def cheapest(self) -> Iterator[tuple[int, Op]]:
        """What changes of it."""
        layer = self._layer
        if not any(self._refused(op) for op in layer.sparse) and not self._may_gain(layer.sparse):
            return
        chosen = min(layer.choices, key=lambda dense: (self._total(dense), len(dense)))
        if not chosen:
            return
        for i, op in layer.products.items():
            if op.sparse is not None and op.pass_ in chosen:
                yield i, self._dense(op)
        if layer.update is not None:
            yield layer.update[0], layer.updated(chosen)

    def _refused(self, op: MatrixOp) -> str:
        """Why no engine runs an operand without a pattern, which any may have dense; "" where one does."""
        if not isinstance(op.sparse, Gathered):
            return ""
        try:
            self._place(op)
        except InputError as error:
            return str(error)
        return ""

    def _may_gain(self, sparse: list[MatrixOp]) -> bool:
        """Whether a dense pass can cost less at all: not where every product is slower even on a dense array with
        nothing to wait for, by as much as all of the update takes or more."""
        if self._cost is not None:
            return True
        update = self._layer.update
        most = 0 if update is None else update_cost(update[1], self._spec, self._rule)[0].total
        return any(self._least_dense(op) - self._place(op).cycles.total < most for op in sparse)

    def _least_dense(self, op: MatrixOp) -> int:
        return ceil_div(op.gemm.macs, peak_of(self._spec))

    def _total(self, dense: tuple[Pass, ...]) -> float:
        """Of the layer with these passes dense."""
        try:
            placed = [self._place(op) for op in self._layer.products_with(dense)]
        except InputError:
            if not dense and not any(self._refused(op) for op in self._layer.sparse):
                raise
            return inf  # its dense operands do not fit the buffers, or nobody gathers
        if self._cost is not None:
            # Term by term, as `sum` adds floats before Python 3.12 alone.
            return reduce(add, map(self._cost, placed))
        spent = sum(placement.cycles.total for placement in placed)
        if self._layer.update is not None:
            spent += update_cost(self._layer.updated(dense), self._spec, self._rule)[0].total
        return spent

    def _dense(self, op: MatrixOp) -> MatrixOp:
        left = replace(op, sparse=None)
        if isinstance(op.sparse, Gathered):
            why = self._refused(op) or f"gathered in {self._place(op).cycles.total:,} cycles"
            other = self._place(left)
            found = f"dense on the {other.engine} in {other.cycles.total:,}, {why}"
            return replace(left, kept_dense=f"{_patternless(op)}: {found}")
        reason = f"{DOES_NOT_HELP}: {_obstacle(op, self._place(op), self._place(left), self._spec)}"
        return replace(left, kept_dense=reason)


def _obstacle(op: MatrixOp, sparse: Placement, dense: Placement, spec: AcceleratorSpec) -> str:
    """What a sparse operand meets that the dense product does not."""
    if sparse.cycles.total <= dense.cycles.total:
        return "its compact copy costs the update more than it saves"
    columns = sparse.mapping.gemm.n
    if columns < spec.array.cols and dense.mapping.n2s != sparse.mapping.n2s:
        return f"narrow output, {columns} columns on {spec.array.cols}"
    without = items(dense.cycles)
    more = {name: cycles - without.get(name, 0) for name, cycles in items(sparse.cycles).items()}
    worst = declared_causes(type(sparse.cycles))[max(more, key=lambda name: more[name])]
    return worst.loss or "ragged edges"
