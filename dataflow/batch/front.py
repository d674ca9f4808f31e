"""The best of many machines for a step, of which only those are scheduled that could be among them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ...workloads.errors import InputError
from ...workloads.step import Workload
from ..accelerator import AcceleratorSpec
from ..objective import Objective
from .bound import Alike, Best, bound_rows, decide_rows
from .evaluate import Status, asked_of, depths, points_from, steps_of
from .points import SHARED, Points, PricesOf, alike_together
from .step import Step
from .xnor import engines_of_rows, in_parts

__all__ = ["Front", "front", "lower_bounds"]


class Front(NamedTuple):
    """Machines decided for a front.

    ``best``: int64 [best], numbers of the machines that no other is better than, in ascending order; of equal ones all.
    ``status``, ``cycles`` and ``dram_bytes``: int64 [points], as `Evaluated`, with `Status.LEFT_OUT` for machines that
    another one is better than already by ``bound``, int64 [points]: the cycles that a machine takes at least, 0 where
    only a schedule can say. One that is left out may not be able to run at all.
    """

    best: NDArray[np.int64]
    status: NDArray[np.int64]
    cycles: NDArray[np.int64]
    dram_bytes: NDArray[np.int64]
    bound: NDArray[np.int64]


def front(
    workload: Workload,
    machines: Iterable[AcceleratorSpec] | Points,
    others: ArrayLike,
    objective: Objective | str = Objective.CYCLES,
    prices: PricesOf | None = None,
    known: ArrayLike = (),
) -> Front:
    """The machines on which the step of ``workload`` has the fewest cycles and the least of ``others``, float64
    [points, costs], numbers of each machine such as its PEs: all that no other machine is better than, which is to be
    nowhere worse and somewhere better.

    ``known``: [machines, 1 + costs], cycles and costs of machines from elsewhere, which rule out as any other does.
    Machines are scheduled under ``objective``, and refused, as by `evaluate`.
    """
    points, asked = points_from(machines, objective, prices), asked_of(objective)
    costs = _costs(others, len(points))
    earlier = np.asarray(known, np.float64).reshape(-1, 1 + costs.shape[1])
    n, m, depth = len(points), len(earlier), depths(points, workload.rule)
    done = np.zeros((n, 3), np.int64)
    best = Best(
        np.full(1, m, np.int64),
        np.concatenate([np.ceil(earlier[:, 0]).astype(np.int64), np.zeros(n, np.int64)]),
        np.full(m + n, -1, np.int64),
        np.concatenate([earlier[:, 1:], np.zeros_like(costs)]),
    )
    steps = list(steps_of(workload, points, objective))
    bounds = _bounds(steps, points, depth)
    # Whatever rules a machine out has no more of the first cost, so it comes before.
    order = np.lexsort((bounds, *costs.T[::-1]))
    for number, step in enumerate(steps):
        own = order[points.family[order] == number]
        if step is None:
            done[own, 0] = Status.UNPRICED
            continue
        for some in in_parts(step, own):
            engines, alike = engines_of_rows(step, points.rows, some, 0), _alike(points.rows, some)
            decide_rows(step, points.rows, depth, engines, asked, some, alike, bounds, costs, best, done)
    status, cycles, moved = np.ascontiguousarray(done.T)
    found = best.point[: best.size[0]]
    return Front(np.sort(found[found >= 0]), status, cycles, moved, bounds)


def _alike(rows: NDArray[np.int64], own: NDArray[np.int64]) -> Alike:
    """The machines ``own``, int64 [own], row numbers, by what they have in common."""
    order = own[alike_together(rows[own])]
    same = rows[order][:, list(SHARED)]
    starts = np.flatnonzero(np.append(True, (same[1:] != same[:-1]).any(1)))
    sizes = np.diff(np.append(starts, len(order)))
    begin, end = np.zeros((2, len(rows)), np.int64)
    begin[order], end[order] = np.repeat(starts, sizes), np.repeat(starts + sizes, sizes)
    return Alike(order, begin, end)


def lower_bounds(workload: Workload, machines: Iterable[AcceleratorSpec] | Points) -> NDArray[np.int64]:
    """Cycles that the step of ``workload`` takes at least on each machine, int64 [points]; 0 where only a schedule can
    say. Refuses what `evaluate` does."""
    points = points_from(machines, Objective.CYCLES, None)
    steps = list(steps_of(workload, points, Objective.CYCLES))
    return _bounds(steps, points, depths(points, workload.rule))


def _bounds(steps: list[Step | None], points: Points, depth: NDArray[np.int64]) -> NDArray[np.int64]:
    bounds = np.zeros(len(points), np.int64)
    for number, step in enumerate(steps):
        if step is None:
            continue
        own = np.flatnonzero(points.family == number)
        found = np.zeros(len(own), np.int64)
        bound_rows(step, points.rows[own], depth[own], found)
        bounds[own] = found
    return bounds


def _costs(others: ArrayLike, points: int) -> NDArray[np.float64]:
    costs = np.ascontiguousarray(others, np.float64)
    if costs.ndim == 1:
        costs = costs[:, None]
    if costs.ndim != 2 or len(costs) != points or not np.isfinite(costs).all():
        raise InputError(
            f"others must be finite numbers of shape [{points}, costs], a row for each machine, not {costs.shape}"
            if costs.shape[:1] != (points,)
            else "others must be finite numbers, a row of costs for each machine"
        )
    return costs
