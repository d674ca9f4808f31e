"""The step level: all ops of a schedule in order, with double-buffered transfers, SORE, WUVE and vector work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ..dataflow.accelerator import OPERAND_BYTES, AcceleratorSpec
from ..dataflow.account import Counts, Cycles
from ..dataflow.array_time import array_machine, ceil_div, issue_cycles, mapped_tiling, ramp_cycles
from ..dataflow.cost import (
    RATE,
    Problem,
    col_axis,
    memory_machine,
    moves,
    problem_of,
    row_axis,
    share,
    sore_cycles,
    stored,
)
from ..dataflow.engine_time import compares_per_group, wuve_latency
from ..dataflow.mapping import Mapping
from ..dataflow.placement import Placement, tile_of
from ..dataflow.pregenerate import copies_cycles
from ..dataflow.schedule import Schedule
from ..workloads.errors import InputError
from ..workloads.step import DTYPE_BYTES, CompactCopy, MatrixOp, Op, UpdateOp, VectorOp
from .kernels.phases import MacroTiles, step_phases
from .result import OpResult, SimResult

__all__ = [
    "MOST_STEPPED", "STATE_BYTES", "Work", "machine_bytes", "macro_tiles", "simulate", "update_work", "vector_work",
]  # fmt: skip

MOST_STEPPED = 2**22
"""Phases of an op that are stepped: some 30 ms of them."""

STATE_BYTES = {"sgd": 4, "adam": 8}
"""FP32 optimizer state a parameter: momentum; first and second moment."""


class Work(NamedTuple):
    """Work beside the array: cycles of its lanes and of SORE, bytes read and written, at the same time."""

    lanes: int
    sore: int
    read: int
    write: int


def simulate(schedule: Schedule, progress: Callable[[int, int], None] | None = None) -> SimResult:
    """Run a schedule op after op; ``progress`` is called with the ops done and all ops."""
    spec, workload = schedule.spec, schedule.workload
    results = []
    for done, (op, placement) in enumerate(zip(workload.ops, schedule.placements, strict=True), start=1):
        results.append(_run(op, placement, spec, workload.optimizer))
        if progress is not None:
            progress(done, len(workload.ops))
    return SimResult(
        workload=workload, spec=spec, objective=schedule.objective, ops=tuple(results), mapping=schedule.mapping
    )


def _run(op: Op, placement: Placement | None, spec: AcceleratorSpec, optimizer: str) -> OpResult:
    match op:
        case MatrixOp():
            assert placement is not None, "a schedule places every matrix op"
            return _run_matrix(op, placement, spec)
        case VectorOp():
            cycles, counts = _vector(vector_work(op, spec), op.elements, spec)
        case UpdateOp():
            cycles, counts = _update(replace(op, name=""), spec, optimizer)
    return OpResult(op=op, mapping=None, cycles=cycles, counts=counts)


def _run_matrix(op: MatrixOp, placement: Placement, spec: AcceleratorSpec) -> OpResult:
    """The op as its phases, stepped, have it: equal to the closed form of its placement.

    Beyond `MOST_STEPPED` phases the closed form stands alone, so that no op takes time by its size.
    """
    problem = problem_of(op, placement.mapping.n2s, spec.wuve.pregenerate)
    cycles, counts = placement.cycles, placement.counts
    stepped = _phases(problem, placement.mapping, spec)
    if stepped is not None:
        array, memory, every, read, written = stepped
        if array != cycles.compute + cycles.interleave_stall + cycles.port_stall:
            raise AssertionError(f"{op.name}: stepping and closed form of the array disagree")
        cycles = replace(cycles, dram_stall=memory - array, sore=every - memory)
        counts = replace(counts, dram_read_bytes=read, dram_write_bytes=written, buffer_bytes=read + written)
    return OpResult(
        op=op, mapping=placement.mapping, cycles=cycles, counts=counts, bound_cycles=placement.bound_cycles,
        constrained=placement.constrained,
    )  # fmt: skip


@lru_cache(maxsize=16384)
def _phases(p: Problem, mapping: Mapping, spec: AcceleratorSpec) -> tuple[int, int, int, int, int] | None:
    """Whole cycles of the array, with memory and with SORE, without the ramp; bytes read and written."""
    rate = memory_machine(spec).rate
    tiles, lead, _ = macro_tiles(p, mapping, spec)
    if tiles.groups * tiles.row_tiles * tiles.col_tiles > MOST_STEPPED:
        return None
    alone, memory, every, read, written = step_phases(tiles)
    lead *= RATE
    return alone // rate, ceil_div(memory + lead, rate), ceil_div(every + lead, rate), read, written


def macro_tiles(p: Problem, mapping: Mapping, spec: AcceleratorSpec) -> tuple[MacroTiles, int, int]:
    """Macro-tiles of an op, times in 1/rate cycles, DRAM at its one rate; bytes of the k-chunk that a streamed op
    exposes; cycles of ramp."""
    x, y = array_machine(spec), memory_machine(spec)
    t = mapped_tiling(x, mapping.array, p.rows, p.k, p.run)
    r, c = row_axis(p, x, t, mapping.tile_rows), col_axis(p, x, t, mapping.tile_cols)
    q = share(p)
    m = moves(p, x, y, t, q, r, c, tile_of(mapping))
    if not m.fits:
        raise InputError(f"a macro-tile of {r.full} x {c.full} does not fit the buffers of {spec.name!r}")
    rows, cols = ((r.full, r.work), (r.last, r.work_last)), ((c.full, c.work), (c.last, c.work_last))
    in_memory = mapping.compact == "memory"
    west, copies = np.array([size * m.row for size, _ in rows]), np.array([size * m.again for size, _ in cols])
    north = np.array([[size * m.col for size, _ in cols]] * 2)
    sore = np.array([[sore_cycles(q, y, p.group, size) * y.rate for size, _ in cols]] * 2)
    if in_memory:
        north[1], sore[1] = copies, 0
    store = np.array([[stored(p, m, rs, cs) for cs, _ in cols] for rs, _ in rows])
    copy = copies * in_memory
    tiles = MacroTiles(
        p.groups, r.tiles, c.tiles, int(mapping.order == "mn"), int(mapping.resident), int(mapping.compact == "buffer"),
        np.array([[issue_cycles(x, t, rw, cw) * y.rate for _, cw in cols] for _, rw in rows]),
        west, north, sore, store, copy, m.added,
        west * RATE, north * RATE, store * (1 + m.added) * RATE, copy * RATE, 0,
    )  # fmt: skip
    return tiles, 0 if mapping.resident else m.lead, ramp_cycles(x, t, r.last, c.last)


def machine_bytes(dtype: str, size: int) -> int:
    """Bytes in the machine's format: floating tensors have 16 bits here, whatever the model was traced in."""
    return size * OPERAND_BYTES // DTYPE_BYTES[dtype] if "float" in dtype else size


def vector_work(op: VectorOp, spec: AcceleratorSpec) -> Work:
    """Lanes and traffic of element-wise work."""
    read, write = machine_bytes(op.dtype, op.read_bytes), machine_bytes(op.dtype, op.write_bytes)
    return Work(ceil_div(op.elements, spec.vector.lanes), 0, read, write)


@lru_cache(maxsize=16384)
def _vector(work: Work, elements: int, spec: AcceleratorSpec) -> tuple[Cycles, Counts]:
    """Element-wise work: as slow as its lanes or its traffic."""
    return (
        Cycles(vector=max(work.lanes, _transfer(work, spec))),
        Counts(dram_read_bytes=work.read, dram_write_bytes=work.write, vector_elements=elements),
    )


def _transfer(work: Work, spec: AcceleratorSpec) -> int:
    return ceil_div((work.read + work.write) * RATE, memory_machine(spec).rate)


def _copies(op: UpdateOp, spec: AcceleratorSpec) -> tuple[CompactCopy, ...]:
    """Compact copies made behind the update."""
    return op.copies if spec.wuve.pregenerate else ()


def update_work(op: UpdateOp, spec: AcceleratorSpec, optimizer: str) -> Work:
    """Lanes, SORE and traffic of a weight update."""
    n, state = op.elements, STATE_BYTES[optimizer]
    copies = _copies(op, spec)
    dense_copy = op.dense_copy or len(copies) < len(op.copies)
    return Work(
        lanes=ceil_div(n, spec.wuve.lanes) + wuve_latency(optimizer, spec.pe),
        sore=copies_cycles(spec, optimizer, n, copies),
        read=n * (4 + state + OPERAND_BYTES),
        write=n * (4 + state + OPERAND_BYTES * dense_copy) + sum(c.bytes for c in copies),
    )


@lru_cache(maxsize=4096)
def _update(op: UpdateOp, spec: AcceleratorSpec, optimizer: str) -> tuple[Cycles, Counts]:
    """Weight update, with SORE right behind it where copies are pre-generated; ``sore`` is what that lets it wait."""
    work = update_work(op, spec, optimizer)
    wuve = max(work.lanes, _transfer(work, spec))
    compares = sum(c.groups * compares_per_group(c.pattern, spec) for c in _copies(op, spec))
    return (
        Cycles(wuve=wuve, sore=max(work.sore - wuve, 0)),
        Counts(dram_read_bytes=work.read, dram_write_bytes=work.write, sore_compares=compares, updates=op.elements),
    )
