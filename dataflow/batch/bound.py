"""What a step takes at least on a machine, in tens of microseconds, and which machines that rules out for a front."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..integers import ceil_div
from ..jit import inlined, kernel
from ..macro_tiles import FITS
from ..problem import LONGEST, RATE, Problem, pairs, share
from ..stce.bounds import least_bytes, once_of
from ..stce.space import Only, branches_of
from .kernels import Asked, known_of, point, problem_at, runs, update_cycles, vector_cycles
from .points import array_of, limits_of, memory_of
from .step import Step

__all__ = ["LEFT_OUT", "Best", "bound_rows", "decide_rows"]

EXACT = 2**53
LEFT_OUT = 6
"""Status of a point that its bound rules out."""


@kernel
def _least_units(p: Problem, v: NDArray[np.int64], only: Only, close: bool) -> int:
    """Time in 1/rate cycles that no mapping of a problem undercuts; `LONGEST` where none can be timed.

    Every operand is moved once, while the array works at its peak; ``close``: as the branch of the search does at best.
    """
    x, y, limits = array_of(v), memory_of(v), limits_of(v)
    if p.keep and p.group > limits.max_group:
        return LONGEST
    moved = least_bytes(once_of(p, share(p)), (False, False, False), 1, 1)
    if not close:
        kept = pairs(p.k, p.run, p.keep, p.group) if p.keep else p.k
        array = ceil_div(p.groups * p.rows * p.cols * kept, x.R * x.C)
        long = max(float(array) * y.rate, float(moved) * RATE)
        return max(array * y.rate, moved * RATE) if long < LONGEST else LONGEST
    branches, least = branches_of(p, x, limits, only), LONGEST
    for b in range(len(branches)):
        array, ramp = branches[b, 4], branches[b, 5]
        if max((float(array) + float(ramp)) * y.rate, float(moved) * RATE) < LONGEST:
            least = min(least, ramp * y.rate + max(array * y.rate, moved * RATE))
    return least


@kernel
def _least(step: Step, place: int, v: NDArray[np.int64], only: Only, known: NDArray[np.int64], close: bool) -> int:
    """Cycles that no mapping of a product undercuts, whatever its roles; `LONGEST` where it cannot run."""
    if known[place] < 0:
        least = _least_units(problem_at(step.problems[step.places[place, 0]]), v, only, close)
        if step.places[place, 1] >= 0:
            least = min(least, _least_units(problem_at(step.problems[step.places[place, 1]]), v, only, close))
        known[place] = LONGEST if least == LONGEST else ceil_div(least, v[11])
    return int(known[place])


@kernel
def _least_of_layer(
    step: Step,
    v: NDArray[np.int64],
    depth: int,
    layer: NDArray[np.int64],
    only: Only,
    known: NDArray[np.int64],
    close: bool,
) -> float:
    """Cycles of a layer at least, whichever of its passes run dense."""
    y, peak = memory_of(v), v[0] * v[1]
    least = np.inf
    for way in range(layer[2], layer[3]):
        total = float(update_cycles(step, step.choices[way, 2], y, v[18], depth))
        for i in range(layer[0], layer[1]):
            given, place = step.products[i, 0], runs(step, way, i)
            one = _least(step, given, v, only, known, close)
            if place != given:
                alone = ceil_div(step.places[place, 2], peak)
                # All of a dense product's bound is worth its time only where it may be below the sparse one's.
                one = alone if alone >= one else _least(step, place, v, only, known, close)
            total += float(one)
        least = min(least, total)
    return least


@kernel
def _bound(step: Step, v: NDArray[np.int64], depth: int, only: Only, known: NDArray[np.int64], close: bool) -> int:
    """Cycles of a step at least; 0 where that takes a schedule to say."""
    y = memory_of(v)
    if y.rate < 1:
        return 0
    known[:] = -1
    total = float(vector_cycles(step, y, v[19])[0])
    for place, times in step.alone:
        total += float(times) * _least(step, place, v, only, known, close)
    for update, times in step.updates_alone:
        total += float(times) * update_cycles(step, update, y, v[18], depth)
    for n in range(len(step.layers)):
        total += float(step.layers[n, 5]) * _least_of_layer(step, v, depth, step.layers[n], only, known, close)
    # Sums of whole numbers below that are exact.
    return int(total) if total < EXACT else 0


@kernel
def bound_rows(
    step: Step, rows: NDArray[np.int64], depth: NDArray[np.int64], only: Only, close: bool, bounds: NDArray[np.int64]
) -> None:
    """Cycles that a step takes at least on every machine of ``rows``, int64 [points, 20], into ``bounds``, int64
    [points]; ``close``: by some 50 times the work, mostly within a few percent."""
    known = np.empty(len(step.places), np.int64)
    for n in range(len(rows)):
        bounds[n] = _bound(step, rows[n], depth[n], only, known, close)


class Best(NamedTuple):
    """Machines that no other one is better than, the first ``size[0]`` of each: ``cycles`` and ``point`` int64
    [points], ``others`` float64 [points, costs]."""

    size: NDArray[np.int64]
    cycles: NDArray[np.int64]
    point: NDArray[np.int64]
    others: NDArray[np.float64]


@inlined
def _below(cycles: int, others: NDArray[np.float64], than: int, and_than: NDArray[np.float64]) -> bool:
    """Whether the first is nowhere worse than the second, and somewhere better."""
    if cycles > than:
        return False
    better = cycles < than
    for k in range(len(others)):
        if others[k] > and_than[k]:
            return False
        better |= others[k] < and_than[k]
    return better


@kernel
def _ruled_out(best: Best, cycles: int, others: NDArray[np.float64]) -> bool:
    out, i = False, 0
    while not out and i < best.size[0]:
        out, i = _below(best.cycles[i], best.others[i], cycles, others), i + 1
    return out


@kernel
def _enter(best: Best, point: int, cycles: int, others: NDArray[np.float64]) -> None:
    """Take a machine in that nothing rules out, and put out those that it does."""
    kept = 0
    for i in range(best.size[0]):
        if not _below(cycles, others, best.cycles[i], best.others[i]):
            best.cycles[kept], best.point[kept] = best.cycles[i], best.point[i]
            best.others[kept] = best.others[i]
            kept += 1
    best.cycles[kept], best.point[kept] = cycles, point
    best.others[kept] = others
    best.size[0] = kept + 1


@kernel
def decide_rows(
    step: Step,
    rows: NDArray[np.int64],
    depth: NDArray[np.int64],
    asked: Asked,
    order: NDArray[np.int64],
    bounds: NDArray[np.int64],
    others: NDArray[np.float64],
    best: Best,
    done: NDArray[np.int64],
) -> None:
    """Schedule, in ``order`` (int64, row numbers), the machines that their bound does not rule out.

    ``done``: int64 [points, 3], status, cycles and bytes.
    """
    known, least = known_of(step), np.empty(len(step.places), np.int64)
    for n in order:
        out = _ruled_out(best, bounds[n], others[n])
        if not out:
            bounds[n] = max(bounds[n], _bound(step, rows[n], depth[n], asked.only, least, True))
            out = _ruled_out(best, bounds[n], others[n])
        if out:
            done[n, 0] = LEFT_OUT
            continue
        done[n, 0], done[n, 1], done[n, 2] = found = point(step, rows[n], depth[n], asked, known)
        if found.status == FITS and not _ruled_out(best, found.cycles, others[n]):
            _enter(best, n, found.cycles, others[n])
