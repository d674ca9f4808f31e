"""Mappings chosen again by what the shapes of their transfers cost: the search prices bytes alone.

Only of products that shapes make slower than the step level has them, by more than 1/`TIE` of their time. What else may
be chosen is one mapping for every height, and for every width, of a macro-tile and either choice of roles: the best
that the search finds of those.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

from ..dataflow.accelerator import AcceleratorSpec
from ..dataflow.constraint import Constraint
from ..dataflow.engines import placed_on
from ..dataflow.objective import TIE, Objective
from ..dataflow.placement import Placement
from ..dataflow.problem import RATE, memory_machine
from ..dataflow.schedule import Schedule
from ..dataflow.stce.mapping import ArrayMapping
from ..workloads.errors import InputError
from ..workloads.operand import whole
from ..workloads.step import MatrixOp
from .kernels.phases import step_phases
from .phases import phase_count
from .reading_order import read_in_order
from .step import MOST_STEPPED, macro_tiles
from .transfers import Transfers, by_shape, layout_of, timed

__all__ = ["chosen_by_shape", "time_by_shape"]


def chosen_by_shape(schedule: Schedule, transfers: Transfers | None = None) -> Schedule:
    """``schedule`` with the mappings that are best where a transfer takes as long as its shape makes it.

    Under cycles the fastest, under thrift of those within 1/`TIE` of it the one that moves the fewest bytes. As it is
    under the objectives with prices, where tensors stay on chip, and of products under a mapping rule.
    """
    if schedule.objective.priced or schedule.residency is not None:
        return replace(schedule, by_shape=True)
    by, workload, spec = transfers or by_shape(schedule.spec), schedule.as_run, schedule.spec
    laid = read_in_order(workload, schedule.placements)
    known: dict[tuple[object, ...], Placement] = {}
    placements = list[Placement | None]()
    for i, (op, placement) in enumerate(zip(workload.ops, schedule.placements, strict=True)):
        if isinstance(op, MatrixOp) and placement is not None and _free(placement):
            key = (id(placement), op.pass_, op.a.role, op.b.role, op.rows, i in laid)
            if key not in known:
                known[key] = _chosen(op, placement, spec, schedule.objective, by, in_order=i in laid)
            placement = known[key]
        placements.append(placement)
    return replace(schedule, placements=tuple(placements), by_shape=True)


def time_by_shape(
    op: MatrixOp, placement: Placement, spec: AcceleratorSpec, transfers: Transfers, *, in_order: bool
) -> int | None:
    """What a product takes by itself, in 1/rate cycles; None if it has more than `MOST_STEPPED` phases."""
    mapping, memory = placement.mapping, memory_machine(spec)
    product = placed_on(placement, spec).tiled(op, mapping)
    tiles, lead, ramp = macro_tiles(product, spec)
    if phase_count(tiles) > MOST_STEPPED:
        return None
    layout = layout_of(op, mapping, in_order=in_order)
    tiles = timed(tiles, product.problem, mapping, layout, memory.west_half, transfers)
    return int(step_phases(tiles)[2]) + lead * RATE + ramp * memory.rate


def _free(placement: Placement) -> bool:
    return placement.constrained is None and isinstance(placement.mapping.array, ArrayMapping)


def _chosen(
    op: MatrixOp, first: Placement, spec: AcceleratorSpec, objective: Objective, transfers: Transfers, *, in_order: bool
) -> Placement:
    own = time_by_shape(op, first, spec, transfers, in_order=in_order)
    if own is None or own * TIE <= first.cycles.total * memory_machine(spec).rate * (TIE + 1):
        return first
    found = [(own, first)]
    for other in _others(op, first, spec, objective):
        time = time_by_shape(op, other, spec, transfers, in_order=in_order)
        if time is not None:
            found.append((time, other))
    least = min(time for time, _ in found)
    allowed = least + least // TIE if objective is Objective.THRIFT else least
    return min(
        ((time, each) for time, each in found if time <= allowed), key=lambda of: (of[1].counts.dram_bytes, of[0])
    )[1]


def _others(op: MatrixOp, first: Placement, spec: AcceleratorSpec, objective: Objective) -> Iterator[Placement]:
    """The best of every height and width, in the search's steps of the array's rows and columns."""
    engine = placed_on(first, spec)
    for n2s in ("a", "b") if whole(op.sparse) else (first.mapping.n2s,):
        gemm = op.gemm if n2s == "b" else op.gemm.transposed
        wanted = [Constraint(n2s=n2s, tile_rows=rows) for rows in _extents(spec.array.rows, gemm.m)]
        wanted += [Constraint(n2s=n2s, tile_cols=cols) for cols in _extents(spec.array.cols, gemm.n)]
        for each in wanted:
            with suppress(InputError):  # no mapping of that extent fits
                yield engine.place(op, objective, wanted=each)


def _extents(unit: int, size: int) -> list[int]:
    """1, 2, 3, 4, 6, 8, 12, ... units while below ``size``, then ``size``."""
    found, power = list[int](), 1
    while power * unit < size:
        found += [n * unit // 2 for n in ((2 * power, 3 * power) if power > 1 else (2,)) if n * unit // 2 < size]
        power *= 2
    return [*found, size]
