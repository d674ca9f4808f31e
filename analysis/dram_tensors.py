"""DRAM traffic of a step by kind of tensor: weights, masters, copies, keys and values, activations, gradients.

Of products and updates exact, by operand. Of vector work by the tensors of the trace, whose sizes share out what an op
moves: exact where it moves each once and whole. The parts of every op add up to its bytes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, assert_never

from ..dataflow.accelerator import AcceleratorSpec
from ..dataflow.actions import Actions, Component
from ..dataflow.beside import machine_bytes, update_bytes
from ..dataflow.engines import engine_of
from ..dataflow.operand import BYTE
from ..dataflow.operand_bytes import operand_bytes
from ..simulator.result import OpResult, SimResult
from ..workloads.copies import PackedCopy
from ..workloads.gemm import Pass
from ..workloads.operand import Operand, Role
from ..workloads.step import MatrixOp, UpdateOp, VectorOp, Workload
from ..workloads.tensors import StepTensor
from ..workloads.update_rule import UpdateRule
from .bands import Joules, banded
from .energy import EnergyReport
from .level import AnyResult, step_of
from .words import apportion

__all__ = ["Moved", "TensorKind", "TensorRow", "dram_tensors", "moved_by_op", "tensor_records"]


class TensorKind(StrEnum):
    """What a tensor is to a training step. ``UNTOLD``: no trace says of which the bytes are."""

    WEIGHT = "weights"
    MASTER = "masters and state"
    COPY = "copies of weights"
    CACHE = "keys and values"
    ACTIVATION = "activations"
    GRADIENT = "gradients of activations"
    WEIGHT_GRADIENT = "gradients of weights"
    UNTOLD = "not told apart"


Moved = dict[TensorKind, tuple[int, int]]
"""Bytes read and written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorRow:
    """Bytes that a pass moves of one kind of tensor."""

    pass_: Pass
    kind: TensorKind
    read_bytes: int
    write_bytes: int


def dram_tensors(result: AnyResult) -> tuple[TensorRow, ...]:
    """By pass and kind of tensor, without what is not moved; the rows add up to the step's DRAM bytes."""
    step = step_of(result)
    sums: dict[tuple[Pass, TensorKind], list[int]] = defaultdict(lambda: [0, 0])
    for r, moved in zip(step.ops, moved_by_op(step), strict=True):
        for kind, (read, write) in moved.items():
            found = sums[Pass(r.op.pass_), kind]
            found[0] += read
            found[1] += write
    return tuple(
        TensorRow(pass_=p, kind=kind, read_bytes=read, write_bytes=write)
        for p in Pass
        for kind in TensorKind
        for read, write in [sums.get((p, kind), (0, 0))]
        if read or write
    )


def tensor_records(result: AnyResult, report: EnergyReport) -> list[dict[str, Any]]:
    """The rows as JSON has them, with the joules of ``report``, of all ops: they add up to those of its DRAM. What rows
    and lines beyond streams cost is shared out by the joules of each."""
    each = {row.action: [spent / row.count * BYTE for spent in row.band] for row in report.rows}
    none = [0.0, 0.0, 0.0]
    read, write = (each.get(action, none) for action in (Actions.DRAM_READ, Actions.DRAM_WRITE))
    whole = [sum(of) for of in zip(*(row.band for row in report.rows if row.component == Component.DRAM), strict=True)]
    own = [row.band for row in report.rows if row.action in (Actions.DRAM_READ, Actions.DRAM_WRITE)]
    more = [w / o if o else 1.0 for w, o in zip(whole, map(sum, zip(*own, strict=True)), strict=True)] or [1.0] * 3
    return [
        {
            "pass": str(row.pass_),
            "tensor": str(row.kind),
            "read_bytes": row.read_bytes,
            "write_bytes": row.write_bytes,
            **banded(
                Joules(
                    *(f * (row.read_bytes * r + row.write_bytes * w) for f, r, w in zip(more, read, write, strict=True))
                )
            ),
        }
        for row in dram_tensors(result)
    ]


def moved_by_op(step: SimResult) -> list[Moved]:
    """By kind, what every op of a step moves, in order."""
    told = _Told(step.workload)
    found = []
    for i, r in enumerate(step.ops):
        match r.op:
            case MatrixOp():
                moved = _of_product(r, r.op, step.spec, told.cached_operand(i, r.op))
            case UpdateOp():
                moved = _of_update(r.op, step.spec, step.workload.rule)
            case VectorOp():
                moved = told.of_vector(i, r, r.op, step.spec)
            case _:
                assert_never(r.op)
        found.append({kind: both for kind, both in moved.items() if any(both)})
    return found


def _sum(parts: Sequence[tuple[TensorKind, int, int]]) -> Moved:
    sums: Moved = {}
    for kind, read, write in parts:
        before = sums.get(kind, (0, 0))
        sums[kind] = before[0] + read, before[1] + write
    return sums


def _kind(operand: Operand, pass_: Pass, result: bool) -> TensorKind:
    match operand.role:
        case Role.WEIGHT:
            return TensorKind.WEIGHT
        case Role.ACTIVATION:
            return TensorKind.ACTIVATION
        case Role.GRADIENT:
            return TensorKind.WEIGHT_GRADIENT if result and pass_ is Pass.WU else TensorKind.GRADIENT
        case _:
            assert_never(operand.role)


def _of_product(r: OpResult, op: MatrixOp, spec: AcceleratorSpec, cached: Operand | None) -> Moved:
    counts, mapping = r.counts, r.mapping
    whole: Moved = {TensorKind.UNTOLD: (counts.dram_read_bytes, counts.dram_write_bytes)}
    if mapping is None or mapping.array.kind == "outside":
        return whole
    b = operand_bytes(engine_of(mapping, spec).tiled(op, mapping), spec)
    north, west = (op.b, op.a) if mapping.n2s == "b" else (op.a, op.b)
    copied = op.copy is not None

    def read(operand: Operand) -> TensorKind:
        if operand is cached:
            return TensorKind.CACHE
        return TensorKind.COPY if copied and operand.role is Role.WEIGHT else _kind(operand, op.pass_, False)

    made = _kind(op.c, op.pass_, True)
    # A compact form that SORE leaves in memory is a copy of a weight, or of what it was made from.
    again = TensorKind.COPY if north.role is Role.WEIGHT else read(north)
    return _sum(
        [
            (read(west), b.west, 0),
            (read(north), b.north, 0),
            (again, b.copy_read, b.copy_write),
            (made, b.sum_read, b.results),
        ]
    )


def _of_update(op: UpdateOp, spec: AcceleratorSpec, rule: UpdateRule) -> Moved:
    b = update_bytes(op, spec, rule)
    return {
        TensorKind.MASTER: (b.held, b.held),
        TensorKind.WEIGHT_GRADIENT: (b.gradient, 0),
        TensorKind.WEIGHT: (b.looked, b.dense),
        TensorKind.COPY: (0, b.copies + b.scales),
    }


class _Told:
    """The tensors of a workload, by their place in it, and the ops that read and make them."""

    def __init__(self, workload: Workload) -> None:
        self._workload = workload
        self._reads: dict[int, list[int]] = defaultdict(list)
        self._makes: dict[int, list[int]] = defaultdict(list)
        self._met: dict[int, set[int]] = {}
        """By op that is joined, what its group has moved or made; one set a group."""
        trained = {op.elements for op in workload.ops if isinstance(op, UpdateOp)}
        self._weights = frozenset({*trained, *(frozen.elements for frozen in workload.frozen)})
        for number, tensor in enumerate(workload.tensors):
            for i in tensor.read:
                self._reads[i].append(number)
            self._makes[tensor.made].append(number)
        latest: dict[tuple[str, str, Pass], int] = {}
        for i, op in enumerate(workload.ops):
            if isinstance(op, VectorOp) and op.joined is not None:
                head = latest.get((op.joined.name, op.joined.op, op.joined.pass_), i)
                own = self._reads[head] if head != i and isinstance(workload.ops[head], VectorOp) else []
                met = {*own, *self._makes[head]} if head != i else set[int]()
                self._met[i] = self._met.setdefault(head, met)
            if not isinstance(op, UpdateOp):
                latest[op.name, op.op, op.pass_] = i
        self._caches = self._cached()

    def _cached(self) -> frozenset[int]:
        """Keys and values of a phase that keeps them: those that were there, with what the step adds, and what is made
        of nothing else, as heads are repeated."""
        workload, found = self._workload, set[int]()
        sizes = {(held.dtype, held.elements) for held in workload.phase.cached}
        for number, tensor in enumerate(workload.tensors) if sizes else ():
            if tensor.made < 0 and (tensor.dtype, tensor.elements) in sizes:
                grown = [t for i in tensor.read for t in self._makes[i] if workload.tensors[t].shape == tensor.shape]
                found.update((number, *grown) if grown else ())
        for i, op in enumerate(workload.ops) if found else ():
            if isinstance(op, VectorOp) and self._reads[i] and found.issuperset(self._reads[i]):
                found.update(self._makes[i])
        return frozenset(found)

    def cached_operand(self, i: int, op: MatrixOp) -> Operand | None:
        """The operand of a product that is keys or values; of two that are as large, the second."""
        sizes = {self._workload.tensors[t].bytes for t in self._reads[i] if t in self._caches}
        return next((x for x in (op.b, op.a) if x.role is Role.ACTIVATION and x.bytes in sizes), None)

    def of_vector(self, i: int, r: OpResult, op: VectorOp, spec: AcceleratorSpec) -> Moved:
        """What is joined moves nothing that its group has moved or made before."""
        packed = sum(copy.bytes for copy in op.packs)
        reads, makes = self._reads[i], self._makes[i]
        if op.joined is not None:
            met = self._met[i]
            reads = [t for t in reads if t not in met] or reads
            met.update((*reads, *makes))
        return _sum(
            [
                *((kind, n, 0) for kind, n in self._shared(reads, r.counts.dram_read_bytes, spec)),
                *((kind, 0, n) for kind, n in self._shared(makes, r.counts.dram_write_bytes - packed, spec)),
                *((_packed(copy), 0, copy.bytes) for copy in op.packs),
            ]
        )

    def _shared(self, tensors: Sequence[int], moved: int, spec: AcceleratorSpec) -> list[tuple[TensorKind, int]]:
        """``moved`` bytes by the sizes of ``tensors``, of which an op moves no more than all."""
        if not tensors:
            return [(TensorKind.UNTOLD, moved)]
        found = [self._workload.tensors[number] for number in tensors]
        sizes = [min(machine_bytes(t.dtype, t.bytes, spec.pe.operand), moved) for t in found]
        shares = apportion(moved, sizes if any(sizes) else [1] * len(sizes))
        return [(self._kind(number, t), n) for number, t, n in zip(tensors, found, shares, strict=True)]

    def _kind(self, number: int, tensor: StepTensor) -> TensorKind:
        """Of what was there before the step, a weight has as many elements as a parameter; the rest is the batch."""
        if number in self._caches:
            return TensorKind.CACHE
        if tensor.made < 0:
            return TensorKind.WEIGHT if tensor.elements in self._weights else TensorKind.ACTIVATION
        op = self._workload.ops[tensor.made]
        if isinstance(op, MatrixOp):
            return _kind(op.c, op.pass_, True)
        match op.pass_:
            case Pass.FF:
                return TensorKind.ACTIVATION
            case Pass.BP:
                updated = any(isinstance(self._workload.ops[i], UpdateOp) for i in tensor.read)
                return TensorKind.WEIGHT_GRADIENT if updated else TensorKind.GRADIENT
            case Pass.WU:
                return TensorKind.WEIGHT_GRADIENT
            case Pass.OPT:
                return TensorKind.MASTER
            case _:
                assert_never(op.pass_)


def _packed(copy: PackedCopy) -> TensorKind:
    return TensorKind.COPY if copy.role is Role.WEIGHT else TensorKind.ACTIVATION
