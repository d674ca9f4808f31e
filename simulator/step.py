"""The step level: all ops of a schedule in order, with double-buffered transfers, SORE, WUVE and vector work."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, assert_never

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
from .kernels.phases import MacroTiles, step_phases
from .phases import phase_count
from .result import OpResult, SimResult

__all__ = ["MOST_STEPPED", "Stepped", "macro_tiles", "simulate", "stepped"]

MOST_STEPPED = 2**22
"""Phases of an op that the witness steps: some 30 ms of them."""


def simulate(
    schedule: Schedule, progress: Callable[[int, int], None] | None = None, *, witness: bool = False
) -> SimResult:
    """Run a schedule op after op: the sum of what its placements take, and of the work beside the array.

    ``witness``: the phases of every product are stepped as well, up to `MOST_STEPPED` an op, and AssertionError is
    raised where they do not come to the placement. ``progress`` is called with the ops done and all ops.
    """
    spec, workload = schedule.spec, schedule.workload
    results = []
    for done, (op, placement) in enumerate(zip(schedule.as_run.ops, schedule.placements, strict=True), start=1):
        results.append(_run(op, placement, spec, workload.optimizer))
        if witness and placement is not None:
            assert isinstance(op, MatrixOp), "only products are placed"
            _require_stepped(op, placement, spec)
        if progress is not None:
            progress(done, len(workload.ops))
    return SimResult(
        workload=workload, spec=spec, objective=schedule.objective, ops=tuple(results), mapping=schedule.mapping
    )


def _run(op: Op, placement: Placement | None, spec: AcceleratorSpec, optimizer: str) -> OpResult:
    match op:
        case MatrixOp():
            assert placement is not None, "a schedule places every matrix op"
            return OpResult(
                op=op,
                mapping=placement.mapping,
                cycles=placement.cycles,
                counts=placement.counts,
                bound_cycles=placement.bound_cycles,
                constrained=placement.constrained,
            )
        case VectorOp():
            cycles, counts = vector_cost(vector_work(op, spec), op.elements, spec)
        case UpdateOp():
            cycles, counts = update_cost(op, spec, optimizer)
        case _:
            assert_never(op)
    return OpResult(op=op, mapping=None, cycles=cycles, counts=counts)


class Stepped(NamedTuple):
    """What the phases of a product come to, one after the other, in whole cycles without the ramp, and bytes."""

    array: int
    memory: int
    every: int
    read: int
    written: int


def stepped(op: MatrixOp, mapping: Mapping, spec: AcceleratorSpec) -> Stepped | None:
    """The phases of a product, stepped; ``None`` for more than `MOST_STEPPED` of them."""
    rate = memory_machine(spec).rate
    tiles, lead, _ = macro_tiles(problem_of(op, mapping.n2s, spec.wuve.pregenerate), mapping, spec)
    if phase_count(tiles) > MOST_STEPPED:
        return None
    alone, memory, every, read, written = step_phases(tiles)
    lead *= RATE
    return Stepped(alone // rate, ceil_div(memory + lead, rate), ceil_div(every + lead, rate), read, written)


def _require_stepped(op: MatrixOp, placement: Placement, spec: AcceleratorSpec) -> None:
    found, cycles, counts = stepped(op, placement.mapping, spec), placement.cycles, placement.counts
    array = cycles.compute + cycles.interleave_stall + cycles.port_stall
    memory = array + cycles.dram_stall
    claimed = Stepped(array, memory, memory + cycles.sore, counts.dram_read_bytes, counts.dram_write_bytes)
    if found is not None and found != claimed:
        raise AssertionError(f"{op.name}: the stepped phases come to {found}, its placement to {claimed}")


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
