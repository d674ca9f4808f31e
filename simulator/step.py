"""The step level: all ops of a schedule in order, with double-buffered transfers, SORE, WUVE and vector work."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, assert_never

import numpy as np

from ..dataflow.accelerator import AcceleratorSpec
from ..dataflow.beside import joined_lanes, update_cost, vector_cost, vector_work
from ..dataflow.engines import tiled
from ..dataflow.integers import ceil_div
from ..dataflow.macro_tiles import BUFFER, MEMORY, Tiled, moves, sore_cycles, stored
from ..dataflow.mapping import Mapping
from ..dataflow.on_chip import with_on_chip
from ..dataflow.placement import Placement
from ..dataflow.problem import RATE, memory_machine, share
from ..dataflow.schedule import Schedule
from ..workloads.errors import InputError
from ..workloads.step import MatrixOp, Op, UpdateOp, VectorOp
from ..workloads.update_rule import UpdateRule
from .kernels.phases import MacroTiles, step_phases
from .phases import phase_count
from .result import OpResult, SimResult

__all__ = ["MOST_STEPPED", "Stepped", "macro_tiles", "op_result", "simulate", "stepped"]

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
    results, lanes = [], joined_lanes(schedule.as_run.ops, schedule.placements, spec)
    for done, (op, placement) in enumerate(zip(schedule.as_run.ops, schedule.placements, strict=True), start=1):
        results.append(op_result(op, placement, spec, workload.rule, lanes.get(done - 1)))
        if witness and placement is not None:
            assert isinstance(op, MatrixOp), "only products are placed"
            _require_stepped(op, placement, spec)
        if progress is not None:
            progress(done, len(workload.ops))
    return SimResult(
        workload=workload,
        spec=spec,
        objective=schedule.objective,
        ops=tuple(results),
        mapping=schedule.mapping,
        residency=schedule.residency,
    )


def op_result(
    op: Op, placement: Placement | None, spec: AcceleratorSpec, rule: UpdateRule, lanes: int | None
) -> OpResult:
    """One op of a step by its placement; ``lanes``: cycles of those, where it is joined to a product."""
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
            cycles, counts = vector_cost(vector_work(op, spec, lanes), op.elements, spec)
            counts = with_on_chip(counts, op.chip_read, op.chip_write)
        case UpdateOp():
            cycles, counts = update_cost(op, spec, rule)
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
    tiles, lead, _ = macro_tiles(tiled(op, spec, mapping), spec)
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


def macro_tiles(product: Tiled, spec: AcceleratorSpec) -> tuple[MacroTiles, int, int]:
    """Macro-tiles of a product, times in 1/rate cycles, DRAM at its one rate; bytes of the k-chunk that a streamed one
    exposes; cycles of ramp."""
    p, r, c, tile, issue, demand = product
    y, q = memory_machine(spec), share(p)
    m = moves(p, y, demand, q, r, c, tile)
    if not m.fits:
        raise InputError(f"a macro-tile of {r.full} x {c.full} does not fit the buffers of {spec.name!r}")
    rows, cols = (r.full, r.last), (c.full, c.last)
    in_memory = tile.compact == MEMORY
    west, copies = np.array([size * m.row for size in rows]), np.array([size * m.again for size in cols])
    north = np.array([[size * m.col for size in cols]] * 2)
    sore = np.array([[sore_cycles(q, y, p.group, size) * y.rate for size in cols]] * 2)
    if in_memory:
        north[1], sore[1] = copies, 0
    store = np.array([[stored(p, m, rs, cs) for cs in cols] for rs in rows])
    copy = copies * in_memory
    tiles = MacroTiles(
        groups=p.groups,
        row_tiles=r.tiles,
        col_tiles=c.tiles,
        rows_slow=tile.rows_slow,
        resident=tile.resident,
        north_held=int(tile.compact == BUFFER),
        issue=np.array(issue.busy) * y.rate,
        west=west,
        north=north,
        sore=sore,
        store=store,
        copy=copy,
        added=m.added,
        west_time=west * RATE,
        north_time=north * RATE,
        store_time=store * (1 + m.added) * RATE,
        copy_time=copy * RATE,
        turn=0,
    )
    return tiles, 0 if tile.resident else m.lead, issue.ramp
