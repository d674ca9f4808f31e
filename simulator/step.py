"""The step level: all ops of a schedule in order, with double-buffered transfers, SORE, WUVE and vector work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

import numpy as np

from ..dataflow.accelerator import AcceleratorSpec
from ..dataflow.array_time import array_machine, ceil_div, issue_cycles, mapped_tiling, ramp_cycles
from ..dataflow.beside import update_cost, vector_cost, vector_work
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
from ..dataflow.mapping import Mapping
from ..dataflow.placement import Placement, tile_of
from ..dataflow.schedule import Schedule
from ..workloads.errors import InputError
from ..workloads.step import MatrixOp, Op, UpdateOp, VectorOp
from ..workloads.update_rule import UpdateRule
from .kernels.phases import MacroTiles, step_phases
from .result import OpResult, SimResult

__all__ = ["MOST_STEPPED", "macro_tiles", "simulate"]

MOST_STEPPED = 2**22
"""Phases of an op that are stepped: some 30 ms of them."""


def simulate(schedule: Schedule, progress: Callable[[int, int], None] | None = None) -> SimResult:
    """Run a schedule op after op; ``progress`` is called with the ops done and all ops."""
    spec, workload = schedule.spec, schedule.workload
    results = []
    for done, (op, placement) in enumerate(zip(schedule.as_run.ops, schedule.placements, strict=True), start=1):
        results.append(_run(op, placement, spec, workload.rule))
        if progress is not None:
            progress(done, len(workload.ops))
    return SimResult(
        workload=workload, spec=spec, objective=schedule.objective, ops=tuple(results), mapping=schedule.mapping
    )


def _run(op: Op, placement: Placement | None, spec: AcceleratorSpec, rule: UpdateRule) -> OpResult:
    match op:
        case MatrixOp():
            assert placement is not None, "a schedule places every matrix op"
            return _run_matrix(op, placement, spec)
        case VectorOp():
            cycles, counts = vector_cost(vector_work(op, spec), op.elements, spec)
        case UpdateOp():
            cycles, counts = update_cost(op, spec, rule)
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
