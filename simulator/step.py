"""The step level: all ops of a schedule in order, with double-buffered transfers, SORE, WUVE and vector work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

import numpy as np

from ..dataflow.accelerator import OPERAND_BYTES, AcceleratorSpec
from ..dataflow.account import Counts, Cycles
from ..dataflow.array_time import array_machine, ceil_div, issue_cycles, mapped_tiling
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
from ..dataflow.engine_time import compares_per_group, sore_issue, sore_latency, wuve_latency
from ..dataflow.mapping import Mapping
from ..dataflow.placement import Placement
from ..dataflow.schedule import Schedule
from ..workloads.errors import InputError
from ..workloads.step import DTYPE_BYTES, MatrixOp, Op, UpdateOp, VectorOp
from .kernels.phases import step_phases
from .result import OpResult, SimResult

__all__ = ["simulate"]

_STATE_BYTES = {"sgd": 4, "adam": 8}
"""FP32 optimizer state a parameter: momentum; first and second moment."""


def simulate(schedule: Schedule, progress: Callable[[int, int], None] | None = None) -> SimResult:
    """Run a schedule op after op; ``progress`` is called with the ops done and all ops."""
    spec, workload = schedule.spec, schedule.workload
    results = []
    for done, (op, placement) in enumerate(zip(workload.ops, schedule.placements, strict=True), start=1):
        results.append(_run(op, placement, spec, workload.optimizer))
        if progress is not None:
            progress(done, len(workload.ops))
    return SimResult(workload=workload, spec=spec, objective=schedule.objective, ops=tuple(results))


def _run(op: Op, placement: Placement | None, spec: AcceleratorSpec, optimizer: str) -> OpResult:
    match op:
        case MatrixOp():
            assert placement is not None, "a schedule places every matrix op"
            return _run_matrix(op, placement, spec)
        case VectorOp():
            cycles, counts = _vector(
                _moved(op.dtype, op.read_bytes), _moved(op.dtype, op.write_bytes), op.elements, spec
            )
        case UpdateOp():
            cycles, counts = _update(replace(op, name=""), spec, optimizer)
    return OpResult(op=op, mapping=None, cycles=cycles, counts=counts)


def _run_matrix(op: MatrixOp, placement: Placement, spec: AcceleratorSpec) -> OpResult:
    """The op's phases, stepped; the array's own causes and actions are those of its placement."""
    problem = problem_of(op, placement.mapping.n2s, spec.wuve.pregenerate)
    array, memory, every, read, written = _phases(problem, placement.mapping, spec)
    planned = placement.cycles
    if array != planned.compute + planned.interleave_stall + planned.port_stall:
        raise AssertionError(f"{op.name}: stepping and closed form of the array disagree")
    cycles = replace(planned, dram_stall=memory - array, sore=every - memory)
    counts = replace(placement.counts, dram_read_bytes=read, dram_write_bytes=written, buffer_bytes=read + written)
    return OpResult(op=op, mapping=placement.mapping, cycles=cycles, counts=counts, bound_cycles=placement.bound_cycles)


@lru_cache(maxsize=16384)
def _phases(p: Problem, mapping: Mapping, spec: AcceleratorSpec) -> tuple[int, int, int, int, int]:
    """Whole cycles of the array, with memory and with SORE, without the ramp; bytes read and written."""
    x, y = array_machine(spec), memory_machine(spec)
    t = mapped_tiling(x, mapping.array, p.rows, p.k, p.run)
    r, c = row_axis(p, x, t, mapping.tile_rows), col_axis(p, x, t, mapping.tile_cols)
    q = share(p)
    m = moves(p, x, y, t, q, r, c, int(mapping.resident), mapping.array.pattern.group)
    if not m.fits:
        raise InputError(f"a macro-tile of {r.full} x {c.full} does not fit the buffers of {spec.name!r}")
    rows, cols = ((r.full, r.work), (r.last, r.work_last)), ((c.full, c.work), (c.last, c.work_last))
    alone, memory, every, read, written = step_phases(
        p.groups, r.tiles, c.tiles, int(mapping.order == "mn"), int(mapping.resident),
        np.array([[issue_cycles(x, t, rw, cw) * y.rate for _, cw in cols] for _, rw in rows]),
        np.array([size * m.row for size, _ in rows]),
        np.array([size * m.col for size, _ in cols]),
        np.array([sore_cycles(q, y, p.group, size) * y.rate for size, _ in cols]),
        np.array([[stored(p, m, rs, cs) for cs, _ in cols] for rs, _ in rows]),
        RATE,
    )  # fmt: skip
    # A streamed op exposes its first k-chunk.
    lead = 0 if mapping.resident else m.lead * RATE
    return alone // y.rate, ceil_div(memory + lead, y.rate), ceil_div(every + lead, y.rate), read, written


def _moved(dtype: str, size: int) -> int:
    """Bytes in the machine's format: floating tensors are FP16 here, whatever the model was traced in."""
    return size * OPERAND_BYTES // DTYPE_BYTES[dtype] if "float" in dtype else size


@lru_cache(maxsize=16384)
def _vector(read: int, write: int, elements: int, spec: AcceleratorSpec) -> tuple[Cycles, Counts]:
    """Element-wise work: as slow as its lanes or its traffic."""
    cycles = max(ceil_div(elements, spec.vector.lanes), _transfer(read + write, spec))
    return (
        Cycles(vector=cycles),
        Counts(dram_read_bytes=read, dram_write_bytes=write, vector_elements=elements),
    )


def _transfer(size: int, spec: AcceleratorSpec) -> int:
    return ceil_div(size * RATE, memory_machine(spec).rate)


@lru_cache(maxsize=4096)
def _update(op: UpdateOp, spec: AcceleratorSpec, optimizer: str) -> tuple[Cycles, Counts]:
    """Weight update, with SORE right behind it where copies are pre-generated."""
    n, state = op.elements, _STATE_BYTES[optimizer]
    copies = op.copies if spec.wuve.pregenerate else ()
    dense_copy = op.dense_copy or len(copies) < len(op.copies)
    read = n * (4 + state + OPERAND_BYTES)
    write = n * (4 + state + OPERAND_BYTES * dense_copy) + sum(c.bytes for c in copies)
    wuve = max(ceil_div(n, spec.wuve.lanes) + wuve_latency(optimizer, spec.pe), _transfer(read + write, spec))
    sore = sum(sore_issue(c.groups, c.pattern, spec) + sore_latency(c.pattern, spec) for c in copies)
    compares = sum(c.groups * compares_per_group(c.pattern, spec) for c in copies)
    return (
        Cycles(wuve=wuve, sore=max(sore - wuve, 0)),
        Counts(dram_read_bytes=read, dram_write_bytes=write, sore_compares=compares, updates=n),
    )
