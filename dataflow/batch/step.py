"""What of a step does not depend on the numbers of a machine, as arrays: built once, asked for every machine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from ...workloads.copies import CompactCopy, PackedCopy, WeightCopy, as_read
from ...workloads.errors import InputError
from ...workloads.gemm import GEMM_PASSES
from ...workloads.operand import whole
from ...workloads.step import MatrixOp, UpdateOp, VectorOp, Workload
from ..accelerator import AcceleratorSpec, EngineKind
from ..actions import Where
from ..beside import copies_made, joined_products, update_traffic, vector_work
from ..fallback import Layer, layers_of, ungathered
from ..packing import read_as
from ..pregenerate import blocks_of
from ..prices import Prices, Pricing, unpriced
from ..problem import Problem, problem_of
from ..xnor.engine import Xnor
from ..xnor.mapping import require_xnor
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
    """[problems, 22]: `Problem`."""
    places: Table
    """[places, 5]: its problem by its first role, -1 where the prices of the STCE lack one; by its second, -1 where N:M
    leaves it none; multiply-accumulates of the whole product; its problems as the XNOR engine sees it, -1 where that
    does not take it."""
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
    """[updates, 9]: elements, trips over them, bytes; its patterns, from and up to; bytes read; its class; its
    ``forms``, from and up to."""
    patterns: Table
    """[patterns, 5], update by update: keep, group, compact copies, blocks, groups of all copies."""
    updates_alone: Table
    """[updates, 2]: update, and how often, of layers without N:M."""
    vectors: Table
    """[vectors, 15]: elements, bytes, how often; bytes read; its class; the place at whose edge an XNOR engine does
    the elements, -1 for none; bytes, and those read, that are left then; its ``forms``, from and up to; of work joined
    to a product the layer, and its row in ``products``, or -1 and its place, -1 for none; elements of the lanes
    that joined it before; its own; bytes of the rows that it holds."""
    forms: Table
    """[forms, 3]: bytes of a packed copy in one form; who reads it, from and up to."""
    readers: Table
    """[readers, 2]: a place that reads a form, and where it stands then: 1 on the XNOR engine, else 0."""
    problem_class: Table
    """[problems]: the class of each."""
    classes: Table
    """[weights, 4]: class, and of what it does `amounts.Weights`."""
    prices: NDArray[np.float64]
    """[problems, 7]: `Prices` of each, zeros without."""


def require_bulk(workload: Workload) -> None:
    """Refuse a workload that machines cannot be evaluated for in bulk: one layer both under N:M and of few values."""
    for layer in layers_of(workload):
        few = next((op for op in layer.products.values() if op.packed_operands), None)
        if few is not None:
            raise InputError(
                f"layer {few.parameter!r} of workload {workload.model!r} has products under N:M and {few.name!r} in "
                f"{few.pass_} of few values, and machines are evaluated in bulk for layers of one of them; use "
                "weft.schedule for each machine"
            )


def step_of(workload: Workload, machine: AcceleratorSpec, pricing: Pricing | None = None) -> Step:
    """``workload`` as ``machine`` sees it, and all that differ from it only in the numbers of a `Point`; ``pricing``:
    what it pays there.

    Refuses what `require_bulk` does.
    """
    if pricing is None:
        return _unpriced(workload, Family.of(machine))
    return _made(workload, machine, pricing)


@dataclass(frozen=True, slots=True)
class Family:
    """Machines to which a step looks the same but for the numbers of a `Point`; ``machine``: any of them."""

    format: str
    pregenerate: bool
    word_bits: int
    """Of the XNOR engine; 0 without one."""
    machine: AcceleratorSpec = field(compare=False)

    @classmethod
    def of(cls, machine: AcceleratorSpec) -> Family:
        """That of a machine."""
        return cls(machine.pe.format, machine.wuve.pregenerate, machine.xnor.word_bits if machine.xnor else 0, machine)


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
_Form = tuple[int, tuple[tuple[int, int], ...]]
"""Bytes, and who reads it: place, and whether it stands on the XNOR engine then."""
_Update = tuple[int, int, int, int, int, tuple[_Pattern, ...], tuple[_Form, ...]]
"""Elements, trips, bytes, those read, class, its patterns and its forms."""
_Vector = tuple[int, int, int, int, int, int, int, tuple[_Form, ...]]
"""Elements, bytes, those read, class; at the edge of which place, bytes then, those read; its forms."""
_Place = tuple[int, int, int, int, int]
_Layer = tuple[tuple[tuple[int, int, int], ...], tuple[tuple[int, int, int], ...], int]
"""Products, choices, and the update as annotated."""


class _Builder:
    def __init__(self, workload: Workload, machine: AcceleratorSpec, pricing: Pricing) -> None:
        self._workload, self._spec = ungathered(workload, machine), machine
        self._rule, self._pricing = workload.rule, pricing
        self._xnor = None if machine.xnor is None else Xnor(machine, machine.xnor)
        self._problems = _Numbered[tuple[Problem, EngineKind, int, Prices]]()
        self._places = _Numbered[_Place]()
        self._updates = _Numbered[_Update]()
        self._classes = _Numbered[Weights]()
        self._readers: dict[tuple[str, WeightCopy], set[int]] = {}
        self._forms, self._form_readers = list[Row](), list[tuple[int, int]]()

    def made(self) -> Step:
        """The tables."""
        ops = self._workload.ops
        matrix = {i: self._place(op) for i, op in enumerate(ops) if isinstance(op, MatrixOp)}
        first_dense = len(self._places)
        self._read(matrix)
        layers = list(layers_of(self._workload))
        chosen = {i for layer in layers for i in layer.products}
        chosen |= {layer.update[0] for layer in layers if layer.update is not None}
        of_layer = [self._layer(layer) for layer in layers]
        counted = Counter(of_layer)
        alone = Counter(place for i, place in matrix.items() if i not in chosen)
        updates = Counter(self._update(op) for i, op in enumerate(ops) if isinstance(op, UpdateOp) and i not in chosen)
        products, choices, rows = self._layers(counted)
        behind = self._behind(matrix, layers, of_layer, rows)
        vectors = Counter(
            (
                self._vector(op, matrix.get(i - 1, -1)),
                (*behind.get(i, (-1, -1, 0)), op.lanes, op.joined.row if op.joined else 0),
            )
            for i, op in enumerate(ops)
            if isinstance(op, VectorOp)
        )
        update_rows, patterns = self._update_tables()
        vector_rows = [
            (n, size, times, *rest, *self._formed(forms), *joined)
            for ((n, size, *rest, forms), joined), times in vectors.items()
        ]
        return Step(
            problems=_table((p for p, *_ in self._problems), len(Problem._fields)),
            places=_table(self._places, 5),
            first_dense=first_dense,
            alone=_table(alone.items(), 2),
            products=_table(products, 3),
            choices=_table(choices, 3),
            layers=_table(rows, 6),
            updates=_table(update_rows, 9),
            patterns=_table(patterns, 5),
            updates_alone=_table(updates.items(), 2),
            vectors=_table(vector_rows, 15),
            forms=_table(self._forms, 3),
            readers=_table(self._form_readers, 2),
            problem_class=np.array([of for _, _, of, _ in self._problems], np.int64),
            classes=_table(((n, *weight) for n, one in enumerate(self._classes) for weight in one), 4),
            prices=np.array([price for *_, price in self._problems], np.float64).reshape(-1, len(Prices._fields)),
        )

    def _place(self, op: MatrixOp) -> int:
        on_stce = self._on(op, "stce")
        takes = self._xnor is not None and self._xnor.takes(op)
        return self._places.number((*on_stce, op.gemm.macs, *(self._on(op, "xnor") if takes else (-1, -1))))

    def _on(self, op: MatrixOp, kind: EngineKind) -> tuple[int, int]:
        """Its problems on an engine, by role; -1 where there is none, and of both where the engine cannot be paid."""
        roles: tuple[str, ...] = ("b", "a") if op.sparse is None or whole(op.sparse) else (op.sparse.operand,)
        try:
            numbers = [self._problem(op, kind, role) for role in roles]
        except InputError:
            return -1, -1
        return numbers[0], numbers[1] if len(numbers) > 1 else -1

    def _problem(self, op: MatrixOp, kind: EngineKind, role: str) -> int:
        problem = (
            problem_of(op, role, self._spec) if self._xnor is None or kind == "stce" else self._xnor.problem(op, role)
        )
        price = self._pricing(op, kind, role)
        of = self._class(Where(op, self._rule, self._spec, kind, role))
        return self._problems.number((problem, kind, of, price))

    def _class(self, where: Where) -> int:
        return self._classes.number(weights_of(where))

    def _update(self, op: UpdateOp) -> int:
        packed = [copy for copy in op.copies if isinstance(copy, PackedCopy)]
        copies = [copy for copy in copies_made(op, self._spec) if isinstance(copy, CompactCopy)]
        patterns = list[_Pattern]()
        for pattern in dict.fromkeys(copy.pattern for copy in copies):
            groups = [copy.groups for copy in copies if copy.pattern == pattern]
            blocks = blocks_of(op.elements, groups, pattern)
            patterns.append((pattern.keep, pattern.group, len(groups), blocks, sum(groups)))
        read, write = update_traffic(op, self._spec, self._rule)
        always, forms = self._forms_of(op.name, packed)
        moved = read + write + always - sum(copy.bytes for copy in packed)
        of = self._class(Where(op, self._rule, self._spec))
        return self._updates.number((op.elements, 1 + op.looks, moved, read, of, tuple(patterns), forms))

    def _vector(self, op: VectorOp, before: int) -> _Vector:
        """``before``: the place of the product right before, -1 for none."""
        work = vector_work(op, self._spec)
        always, forms = self._forms_of(op.parameter or "", op.packs)
        of = self._class(Where(op, self._rule, self._spec))
        edge = before if op.edge and before >= 0 and list(self._places)[before][3] >= 0 else -1
        left = (op.wide_read + op.wide_write + always, op.wide_read) if edge >= 0 else (0, 0)
        moved = work.read + work.write + always - sum(copy.bytes for copy in op.packs)
        return op.elements, moved, work.read, of, edge, *left, forms

    def _behind(
        self, places: dict[int, int], layers: Sequence[Layer], of_layer: Sequence[_Layer], rows: Sequence[Row]
    ) -> dict[int, tuple[int, int, int]]:
        """By op, what joined vector work is done behind, as the last columns of ``Step.vectors``."""
        number = {layer: n for n, layer in enumerate(dict.fromkeys(of_layer))}
        found = {i: (-1, place) for i, place in places.items()}
        for layer, key in zip(layers, of_layer, strict=True):
            n = number[key]
            found |= {i: (n, rows[n][0] + row) for row, i in enumerate(layer.products)}
        return {i: (*found[product], before) for i, (product, before) in joined_products(self._workload.ops).items()}

    def _read(self, places: dict[int, int]) -> None:
        """Who reads which packed copies, as `packing.with_forms` has it; ``places``: of the products, by op."""
        for i, place in places.items():
            op = self._workload.ops[i]
            assert isinstance(op, MatrixOp)
            for key in read_as(op):
                self._readers.setdefault(key, set()).add(place)

    def _forms_of(self, parameter: str, copies: Sequence[PackedCopy]) -> tuple[int, tuple[_Form, ...]]:
        """Bytes of the forms of ``copies`` that are written wherever products stand, and those that depend on it."""
        sizes, readers = dict[tuple[object, ...], int](), dict[tuple[object, ...], set[tuple[int, int]]]()
        places = list(self._places)
        always = set[tuple[object, ...]]()
        for copy in copies:
            read = self._readers.get((parameter, as_read(copy)))
            for place in read or ():
                for on_xnor in (0, 1) if places[place][3] >= 0 else (0,):
                    one = replace(copy, word_bits=require_xnor(self._spec).word_bits if on_xnor else 0)
                    sizes[one.form] = one.bytes
                    readers.setdefault(one.form, set()).add((place, on_xnor))
                    if places[place][3] < 0:
                        always.add(one.form)
            if read is None:
                sizes[copy.form] = copy.bytes
                always.add(copy.form)
        depend = tuple((sizes[form], tuple(sorted(who))) for form, who in readers.items() if form not in always)
        return sum(sizes[form] for form in always), depend

    def _formed(self, forms: tuple[_Form, ...]) -> tuple[int, int]:
        """Where those forms stand in their table, from and up to."""
        begin = len(self._forms)
        for size, who in forms:
            self._forms.append((size, len(self._form_readers), len(self._form_readers) + len(who)))
            self._form_readers.extend(who)
        return begin, len(self._forms)

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
        for elements, trips, moved, read, of, own, forms in self._updates:
            begin = len(patterns)
            rows.append((elements, trips, moved, begin, begin + len(own), read, of, *self._formed(forms)))
            patterns.extend(own)
        return rows, patterns


def _table(rows: Iterable[Sequence[int]], columns: int) -> Table:
    return np.array([tuple(row) for row in rows], np.int64).reshape(-1, columns)
