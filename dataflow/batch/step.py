"""What of a step does not depend on the numbers of a machine, as arrays: built once, asked for every machine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from ...workloads.copies import CompactCopy, PackedCopy
from ...workloads.errors import InputError
from ...workloads.gemm import GEMM_PASSES
from ...workloads.step import MatrixOp, UpdateOp, VectorOp, Workload
from ..accelerator import AcceleratorSpec
from ..actions import Where
from ..beside import copies_made, update_traffic, vector_work
from ..fallback import Layer, layers_of
from ..pregenerate import blocks_of
from ..prices import Prices, Pricing, unpriced
from ..problem import Problem, problem_of
from .amounts import Weights, weights_of

__all__ = ["Family", "Step", "require_bulk", "step_of"]

Table = NDArray[np.int64]
Row = tuple[int, ...]
_BIT = {pass_: 1 << number for number, pass_ in enumerate(GEMM_PASSES)}


class Step(NamedTuple):
    """A step under one family of machines; all tables int64, a row each.

    A place is a product of a shape: what is searched once. Those with a number below ``first_dense`` are of the step as
    it is annotated, in its order; those from there on are the same products dense.
    """

    problems: Table
    """[problems, 21]: `Problem`."""
    places: Table
    """[places, 3]: its problem by its first role; by its second, -1 where N:M leaves it none; multiply-accumulates of
    the whole product."""
    first_dense: int
    alone: Table
    """[places, 2]: place, and how often, of products of layers without N:M."""
    products: Table
    """[products, 3], layer by layer: place; place of it dense, -1 where it is dense anyway; bit of its pass."""
    choices: Table
    """[choices, 3], layer by layer, of equals the first is taken: bits of the passes that run dense; the update that it
    is costed with, -1 for none, and the one that is run."""
    layers: Table
    """[layers, 6]: its products, from and up to; its choices, from and up to; its update as annotated; how often."""
    updates: Table
    """[updates, 7]: elements, trips over them, bytes; its patterns, from and up to; bytes read; its class."""
    patterns: Table
    """[patterns, 5], update by update: keep, group, compact copies, blocks, groups of all copies."""
    updates_alone: Table
    """[updates, 2]: update, and how often, of layers without N:M."""
    vectors: Table
    """[vectors, 5]: elements, bytes, how often; bytes read; its class."""
    problem_class: Table
    """[problems]: the class of each."""
    classes: Table
    """[weights, 4]: class, and of what it does `amounts.Weights`."""
    prices: NDArray[np.float64]
    """[problems, 7]: `Prices` of each, zeros without."""


def require_bulk(workload: Workload) -> None:
    """Refuse a workload that machines cannot be evaluated for in bulk."""
    for op in workload.ops:
        if isinstance(op, MatrixOp):
            few = any(x.levels is not None for x in (op.a, op.b, op.c))
        elif isinstance(op, VectorOp):
            few = bool(op.packs) or op.edge
        else:
            few = any(isinstance(copy, PackedCopy) for copy in op.copies)
        if few:
            raise InputError(
                f"{op.name!r} of workload {workload.model!r} has operands of few values, and machines are evaluated in "
                "bulk for dense and N:M steps; use weft.schedule for each machine"
            )


def step_of(workload: Workload, machine: AcceleratorSpec, pricing: Pricing | None = None) -> Step:
    """``workload`` as ``machine`` sees it, and all that differ from it only in the numbers of a `Point`; ``pricing``:
    what it pays there.

    Refuses a workload with operands of few values.
    """
    if pricing is None:
        return _unpriced(workload, Family.of(machine))
    return _made(workload, machine, pricing)


@dataclass(frozen=True, slots=True)
class Family:
    """Machines to which a step looks the same but for the numbers of a `Point`; ``machine``: any of them."""

    format: str
    pregenerate: bool
    machine: AcceleratorSpec = field(compare=False)

    @classmethod
    def of(cls, machine: AcceleratorSpec) -> Family:
        """That of a machine."""
        return cls(machine.pe.format, machine.wuve.pregenerate, machine)


@lru_cache(maxsize=16)
def _unpriced(workload: Workload, family: Family) -> Step:
    """Made once: parts of a sweep ask for the same few steps again and again, and its bounds for those of its costs."""
    return _made(workload, family.machine, unpriced)


def _made(workload: Workload, machine: AcceleratorSpec, pricing: Pricing) -> Step:
    require_bulk(workload)
    return _Builder(workload, machine, pricing).made()


T = TypeVar("T")


class _Numbered(Generic[T]):
    """Things by their number, equal ones once."""

    def __init__(self) -> None:
        self._numbers: dict[T, int] = {}

    def number(self, thing: T) -> int:
        """That of ``thing``, a new one if it has none."""
        return self._numbers.setdefault(thing, len(self._numbers))

    def __iter__(self) -> Iterator[T]:
        return iter(self._numbers)

    def __len__(self) -> int:
        return len(self._numbers)


_Pattern = tuple[int, int, int, int, int]
_Update = tuple[int, int, int, int, int, tuple[_Pattern, ...]]
"""Elements, trips, bytes, those read, class, and its patterns."""
_Layer = tuple[tuple[tuple[int, int, int], ...], tuple[tuple[int, int, int], ...], int]
"""Products, choices, and the update as annotated."""


class _Builder:
    def __init__(self, workload: Workload, machine: AcceleratorSpec, pricing: Pricing) -> None:
        self._workload, self._spec, self._rule, self._pricing = workload, machine, workload.rule, pricing
        self._problems = _Numbered[Problem]()
        self._places = _Numbered[tuple[int, int, int]]()
        self._updates = _Numbered[_Update]()
        self._classes = _Numbered[Weights]()
        self._problem_class = dict[int, int]()
        self._prices = list[Prices]()

    def made(self) -> Step:
        """The tables."""
        ops = self._workload.ops
        matrix = {i: self._place(op) for i, op in enumerate(ops) if isinstance(op, MatrixOp)}
        first_dense = len(self._places)
        layers = list(layers_of(self._workload))
        chosen = {i for layer in layers for i in layer.products}
        chosen |= {layer.update[0] for layer in layers if layer.update is not None}
        counted = Counter(self._layer(layer) for layer in layers)
        alone = Counter(place for i, place in matrix.items() if i not in chosen)
        updates = Counter(self._update(op) for i, op in enumerate(ops) if isinstance(op, UpdateOp) and i not in chosen)
        products, choices, rows = self._layers(counted)
        vectors = Counter(self._vector(op) for op in ops if isinstance(op, VectorOp))
        update_rows, patterns = self._update_tables()
        return Step(
            problems=_table(self._problems, len(Problem._fields)),
            places=_table(self._places, 3),
            first_dense=first_dense,
            alone=_table(alone.items(), 2),
            products=_table(products, 3),
            choices=_table(choices, 3),
            layers=_table(rows, 6),
            updates=_table(update_rows, 7),
            patterns=_table(patterns, 5),
            updates_alone=_table(updates.items(), 2),
            vectors=_table(((n, size, times, *rest) for (n, size, *rest), times in vectors.items()), 5),
            problem_class=np.array([self._problem_class[n] for n in range(len(self._problems))], np.int64),
            classes=_table(((n, *weight) for n, one in enumerate(self._classes) for weight in one), 4),
            prices=np.array(self._prices, np.float64).reshape(-1, len(Prices._fields)),
        )

    def _place(self, op: MatrixOp) -> int:
        roles: tuple[str, ...] = ("b", "a") if op.sparse is None else (op.sparse.operand,)
        numbers = [self._problem(op, role) for role in roles]
        return self._places.number((numbers[0], numbers[1] if len(numbers) > 1 else -1, op.gemm.macs))

    def _problem(self, op: MatrixOp, role: str) -> int:
        number = self._problems.number(problem_of(op, role, self._spec))
        of = self._class(Where(op, self._rule, self._spec, n2s=role))
        if self._problem_class.setdefault(number, of) != of:
            raise TypeError(f"{op.name!r} does other actions than a product that looks the same to an array")
        if number == len(self._prices):
            self._prices.append(self._pricing(op, "stce", role))
        return number

    def _class(self, where: Where) -> int:
        return self._classes.number(weights_of(where))

    def _update(self, op: UpdateOp) -> int:
        copies = [copy for copy in copies_made(op, self._spec) if isinstance(copy, CompactCopy)]
        patterns = list[_Pattern]()
        for pattern in dict.fromkeys(copy.pattern for copy in copies):
            groups = [copy.groups for copy in copies if copy.pattern == pattern]
            blocks = blocks_of(op.elements, groups, pattern)
            patterns.append((pattern.keep, pattern.group, len(groups), blocks, sum(groups)))
        read, write = update_traffic(op, self._spec, self._rule)
        of = self._class(Where(op, self._rule, self._spec))
        return self._updates.number((op.elements, 1 + op.looks, read + write, read, of, tuple(patterns)))

    def _vector(self, op: VectorOp) -> tuple[int, int, int, int]:
        work = vector_work(op, self._spec)
        return op.elements, work.read + work.write, work.read, self._class(Where(op, self._rule, self._spec))

    def _layer(self, layer: Layer) -> _Layer:
        products = tuple(
            (self._place(op), -1, 0)
            if op.sparse is None
            else (self._place(op), self._place(replace(op, sparse=None)), _BIT[op.pass_])
            for op in layer.products.values()
        )
        given = -1 if layer.update is None else self._update(layer.update[1])
        choices = list[tuple[int, int, int]]()
        for dense in layer.choices:
            costed = -1 if layer.update is None else self._update(layer.updated(dense))
            choices.append((sum(_BIT[p] for p in dense), costed, costed if dense else given))
        return products, tuple(choices), given

    def _layers(self, counted: Counter[_Layer]) -> tuple[list[Row], list[Row], list[Row]]:
        """Rows of products, choices and layers."""
        products, choices, rows = list[Row](), list[Row](), list[Row]()
        for (of_layer, ways, given), times in counted.items():
            begin = len(products), len(choices)
            products.extend(of_layer)
            choices.extend(ways)
            rows.append((begin[0], len(products), begin[1], len(choices), given, times))
        return products, choices, rows

    def _update_tables(self) -> tuple[list[Row], list[Row]]:
        rows, patterns = list[Row](), list[Row]()
        for elements, trips, moved, read, of, own in self._updates:
            rows.append((elements, trips, moved, len(patterns), len(patterns) + len(own), read, of))
            patterns.extend(own)
        return rows, patterns


def _table(rows: Iterable[Sequence[int]], columns: int) -> Table:
    return np.array([tuple(row) for row in rows], np.int64).reshape(-1, columns)
