"""Work beside the array: vector work and weight updates, as slow as their lanes, their traffic, or SORE behind them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple, TypeVar, assert_never

import numpy as np
from numpy.typing import NDArray

from ..workloads.copies import CompactCopy, PackedCopy, WeightCopy
from ..workloads.operand import DTYPE_BYTES
from ..workloads.step import MatrixOp, Op, UpdateOp, VectorOp
from ..workloads.update_rule import UpdateRule
from .accelerator import AcceleratorSpec
from .account import Counts, Cycles
from .engine_time import compares_per_group, wuve_latency
from .integers import ceil_div
from .on_chip import with_on_chip
from .operand import BYTE, FP32, OperandFormat
from .placement import Placement
from .pregenerate import copies_cycles
from .problem import RATE, memory_machine

__all__ = [
    "Work",
    "copies_made",
    "copy_bytes",
    "Behind",
    "alone_of",
    "dense_bytes",
    "joined_lanes",
    "joined_products",
    "machine_bytes",
    "update_cost",
    "update_bytes",
    "update_traffic",
    "update_work",
    "vector_bytes",
    "vector_cost",
    "vector_work",
]


class Work(NamedTuple):
    """Work beside the array: cycles of its lanes and of SORE, bytes read and written, at the same time."""

    lanes: int
    sore: int
    read: int
    write: int


Size = TypeVar("Size", int, NDArray[np.int64])


def machine_bytes(dtype: str, size: Size, operand: OperandFormat) -> Size:
    """Bytes on the machine: floating tensors are of its operands' format, whatever the model was traced in."""
    return size * operand.bits // (BYTE * DTYPE_BYTES[dtype]) if "float" in dtype else size


def copy_bytes(copy: WeightCopy, operand: OperandFormat) -> int:
    """Bytes of a copy on the machine: values and their indices, or packed ones."""
    match copy:
        case CompactCopy():
            return operand.compact_size(copy.kept, copy.pattern.index_bits)
        case PackedCopy():
            return copy.bytes
        case _:
            assert_never(copy)


def vector_work(op: VectorOp, spec: AcceleratorSpec, lanes: int | None = None) -> Work:
    """Lanes and traffic of element-wise work; ``lanes``: cycles of those, where it is joined to a product."""
    read, write = vector_bytes(op, op.read_bytes, op.write_bytes, op.wide_read, op.wide_write, spec)
    return Work(ceil_div(op.lanes, spec.vector.lanes) if lanes is None else lanes, 0, read, write)


def vector_bytes(
    op: VectorOp, read: Size, write: Size, wide_read: Size, wide_write: Size, spec: AcceleratorSpec
) -> tuple[Size, Size]:
    """Machine bytes that vector work like ``op`` reads and writes, of tensors of these sizes."""
    operand, packed = spec.pe.operand, sum(copy.bytes for copy in op.packs) if op.packs else 0
    read, write = machine_bytes(op.dtype, read, operand), machine_bytes(op.dtype, write, operand)
    return read + wide_read - op.chip_read, write + wide_write + packed - op.chip_write


class Behind(NamedTuple):
    """The product that vector work is joined to, by its place in the step; elements that the lanes took of what
    joined it before."""

    product: int
    before: int


def joined_products(ops: Sequence[Op]) -> dict[int, Behind]:
    """By op, what joined vector work is done behind; not what is joined to other vector work."""
    latest: dict[tuple[str, str, str], int] = {}
    taken: dict[int, int] = {}
    found: dict[int, Behind] = {}
    for i, op in enumerate(ops):
        if isinstance(op, MatrixOp):
            latest[op.name, op.op, op.pass_] = i
        elif isinstance(op, VectorOp) and op.joined is not None:
            product = latest.get((op.joined.name, op.joined.op, op.joined.pass_))
            if product is not None:
                found[i] = Behind(product, taken.get(product, 0))
                taken[product] = found[i].before + op.lanes
    return found


def joined_lanes(ops: Sequence[Op], placements: Sequence[Placement | None], spec: AcceleratorSpec) -> dict[int, int]:
    """By op, cycles that the lanes of joined vector work add to a product: they work on one macro-tile of results while
    the array works on the next, so their first or last tile, at most half an output buffer of FP32, stands alone."""
    lanes, alone = spec.vector.lanes, alone_of(spec)
    found = {}
    for i, (product, before) in joined_products(ops).items():
        placement, op = placements[product], ops[i]
        assert placement is not None and isinstance(op, VectorOp), "vector work is joined to what is placed"
        cycles = placement.cycles.total
        first, last = ceil_div(before, lanes), ceil_div(before + op.lanes, lanes)
        found[i] = _beyond(last, cycles, alone) - _beyond(first, cycles, alone)
    return found


def alone_of(spec: AcceleratorSpec) -> int:
    """Cycles that lanes take at most of a macro-tile of results, behind or before all the array's work."""
    return ceil_div(spec.buffers.output_bytes // 2, FP32.size(1) * spec.vector.lanes)


def _beyond(lanes: int, product: int, alone: int) -> int:
    """Cycles that ``lanes`` of work add to a product that takes ``product``."""
    return max(lanes - product, 0) + min(lanes, product, alone)


@lru_cache(maxsize=16384)
def vector_cost(work: Work, elements: int, spec: AcceleratorSpec) -> tuple[Cycles, Counts]:
    """Element-wise work: as slow as its lanes or its traffic."""
    return (
        Cycles(vector=max(work.lanes, _transfer(work, spec))),
        Counts(dram_read_bytes=work.read, dram_write_bytes=work.write, vector_elements=elements),
    )


def _transfer(work: Work, spec: AcceleratorSpec) -> int:
    return ceil_div((work.read + work.write) * RATE, memory_machine(spec).rate)


def copies_made(op: UpdateOp, spec: AcceleratorSpec) -> tuple[WeightCopy, ...]:
    """Copies that are written behind the update: packed ones, and compact ones where SORE stands there."""
    return tuple(copy for copy in op.copies if spec.wuve.pregenerate or isinstance(copy, PackedCopy))


def _compact_copies(op: UpdateOp, spec: AcceleratorSpec) -> tuple[CompactCopy, ...]:
    return tuple(copy for copy in copies_made(op, spec) if isinstance(copy, CompactCopy))


def dense_bytes(op: UpdateOp, spec: AcceleratorSpec) -> int:
    """Bytes of the updated weight in operands; 0 where no product reads it so, nor who makes the copies."""
    wanted = op.dense_copy or op.looks or len(copies_made(op, spec)) < len(op.copies)
    return spec.pe.operand.size(op.elements) if wanted else 0


class UpdateBytes(NamedTuple):
    """Of a weight update. ``held``: master and state, read and written. ``gradient``: read, as is the weight as often
    as it is looked at (``looked``). ``dense``, ``copies``, ``scales``: what is written for the products."""

    held: int
    gradient: int
    looked: int
    dense: int
    copies: int
    scales: int


def update_bytes(op: UpdateOp, spec: AcceleratorSpec, rule: UpdateRule) -> UpdateBytes:
    """What a weight update moves of each tensor; nothing of those that stay on chip."""
    n, operand, weight = op.elements, spec.pe.operand, "weight" not in op.on_chip
    return UpdateBytes(
        held=FP32.size(n * len(rule.held)) if "state" not in op.on_chip else 0,
        gradient=operand.size(n) if "gradient" not in op.on_chip else 0,
        looked=operand.size(n) * op.looks,
        dense=dense_bytes(op, spec) if weight else 0,
        copies=sum(copy_bytes(copy, operand) for copy in copies_made(op, spec)) if weight else 0,
        scales=FP32.size(op.scales),
    )


def update_traffic(op: UpdateOp, spec: AcceleratorSpec, rule: UpdateRule) -> tuple[int, int]:
    """DRAM bytes that a weight update reads and writes."""
    b = update_bytes(op, spec, rule)
    return b.held + b.gradient + b.looked, b.held + b.dense + b.copies + b.scales


def update_work(op: UpdateOp, spec: AcceleratorSpec, rule: UpdateRule) -> Work:
    """Lanes, SORE and traffic of a weight update.

    WUVE packs a weight as it leaves, and adds up what its scales are made of. Where weights must all have been seen
    before (``looks``), it goes over them again: the first look is the update itself, the last trip packs.
    """
    n = op.elements
    read, write = update_traffic(op, spec, rule)
    return Work(
        lanes=(ceil_div(n, spec.wuve.lanes) + wuve_latency(rule, spec.pe)) * (1 + op.looks),
        sore=copies_cycles(spec, rule, n, _compact_copies(op, spec)),
        read=read,
        write=write,
    )


def update_cost(op: UpdateOp, spec: AcceleratorSpec, rule: UpdateRule) -> tuple[Cycles, Counts]:
    """Weight update, with SORE right behind it where copies are pre-generated; ``sore`` is what that lets it wait."""
    return _update_cost(replace(op, name=""), spec, rule)


@lru_cache(maxsize=16384)
def _update_cost(op: UpdateOp, spec: AcceleratorSpec, rule: UpdateRule) -> tuple[Cycles, Counts]:
    work = update_work(op, spec, rule)
    wuve = max(work.lanes, _transfer(work, spec))
    compares = sum(c.groups * compares_per_group(c.pattern, spec) for c in _compact_copies(op, spec))
    read, write = update_traffic(replace(op, on_chip=()), spec, rule)
    counts = Counts(dram_read_bytes=work.read, dram_write_bytes=work.write, sore_compares=compares, updates=op.elements)
    return (
        Cycles(wuve=wuve, sore=max(work.sore - wuve, 0)),
        with_on_chip(counts, read - work.read, write - work.write),
    )
