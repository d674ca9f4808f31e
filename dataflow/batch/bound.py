"""What a step takes at least on a machine, in tens of microseconds, and which machines that rules out for a front."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..integers import ceil_div
from ..jit import inlined, kernel
from ..macro_tiles import FITS
from ..problem import LONGEST, RATE, pairs, share
from ..stce.bounds import least_bytes, once_of
from ..stce.space import Only, branches_of
from .beside import update_cycles, vector_cycles
from .kernels import known_of, point, runs
from .memory import Asked, memory_for, problem_at
from .points import array_of, limits_of, memory_of
from .step import Step

__all__ = ["LEFT_OUT", "Best", "bound_rows", "decide_rows"]

EXACT = 2**53
"""Below it floats are whole numbers."""
_AT_A_TIME = 6
"""Products whose bounds are made closer before the sum is looked at again."""
LEFT_OUT = 6
"""Status of a point that its bound rules out."""


class Least(NamedTuple):
    """Cycles at least of the products of a step, and cycles of its updates, int64 [places] and [updates]; ``close``,
    int64 [places]: 1 where the bound is that of the search's branches. Of every problem, int64 [problems] each, on any
    machine: ``work``, products that PEs make, and ``moved``, bytes if every operand is moved once."""

    places: NDArray[np.int64]
    updates: NDArray[np.int64]
    close: NDArray[np.int64]
    work: NDArray[np.int64]
    moved: NDArray[np.int64]


@kernel
def least_of(step: Step) -> Least:
    """Room for the bounds of a step, and what of them no machine changes."""
    places, problems = len(step.places), len(step.problems)
    work, moved = np.empty(problems, np.int64), np.empty(problems, np.int64)
    for n in range(problems):
        p = problem_at(step.problems[n])
        kept = pairs(p.k, p.run, p.keep, p.group) if p.keep else p.k
        work[n] = p.groups * p.rows * p.cols * kept
        moved[n] = least_bytes(once_of(p, share(p)), (False, False, False), 1, 1)
    updates = np.empty(len(step.updates), np.int64)
    return Least(np.empty(places, np.int64), updates, np.empty(places, np.int64), work, moved)


@inlined
def _peak_units(least: Least, problem: int, v: NDArray[np.int64]) -> int:
    """Time in 1/rate cycles in which the array works at its peak and every operand is moved once; `LONGEST` where that
    cannot be timed."""
    moved, rate = least.moved[problem], memory_of(v).rate
    array = ceil_div(least.work[problem], array_of(v).R * array_of(v).C)
    long = max(float(array) * rate, float(moved) * RATE)
    return int(max(array * rate, moved * RATE)) if long < LONGEST else LONGEST


@kernel
def _branch_units(step: Step, least: Least, problem: int, v: NDArray[np.int64], only: Only) -> int:
    """Time in 1/rate cycles that no branch of the search undercuts; `LONGEST` where none can be timed."""
    p, moved, found = problem_at(step.problems[problem]), least.moved[problem], LONGEST
    x, y, limits = array_of(v), memory_of(v), limits_of(v)
    if p.keep and p.group > limits.max_group:
        return found
    branches = branches_of(p, x, limits, only)
    for b in range(len(branches)):
        array, ramp = branches[b, 4], branches[b, 5]
        if max((float(array) + float(ramp)) * y.rate, float(moved) * RATE) < LONGEST:
            found = min(found, ramp * y.rate + max(array * y.rate, moved * RATE))
    return found


@kernel
def _far(step: Step, v: NDArray[np.int64], depth: int, least: Least) -> None:
    """Bounds by the peak, of all products."""
    update_cycles(step, v, depth, least.updates)
    for place in range(len(step.places)):
        units = _peak_units(least, step.places[place, 0], v)
        if step.places[place, 1] >= 0:
            units = min(units, _peak_units(least, step.places[place, 1], v))
        least.places[place] = LONGEST if units == LONGEST else ceil_div(units, memory_of(v).rate)
        least.close[place] = 0


@kernel
def _approach(step: Step, place: int, v: NDArray[np.int64], only: Only, least: Least) -> None:
    """Bound of a product by the branches of its search."""
    if least.close[place]:
        return
    units = _branch_units(step, least, step.places[place, 0], v, only)
    if step.places[place, 1] >= 0:
        units = min(units, _branch_units(step, least, step.places[place, 1], v, only))
    least.places[place], least.close[place] = LONGEST if units == LONGEST else ceil_div(units, memory_of(v).rate), 1


@kernel
def _sum(step: Step, v: NDArray[np.int64], least: Least) -> int:
    """Cycles of a step at least, whichever passes run dense; 0 where that takes a schedule to say."""
    total = float(vector_cycles(step, v)[0])
    for n in range(len(step.alone)):
        total += float(step.alone[n, 1]) * least.places[step.alone[n, 0]]
    for n in range(len(step.updates_alone)):
        total += float(step.updates_alone[n, 1]) * least.updates[step.updates_alone[n, 0]]
    for n in range(len(step.layers)):
        begin, end, first, last = step.layers[n, 0], step.layers[n, 1], step.layers[n, 2], step.layers[n, 3]
        best = np.inf
        for way in range(first, last):
            update = step.choices[way, 2]
            one = float(least.updates[update]) if update >= 0 else 0.0
            for i in range(begin, end):
                one += float(least.places[runs(step, way, i)])
            best = min(best, one)
        total += float(step.layers[n, 5]) * best
    # Sums of whole numbers below that are exact.
    return int(total) if total < EXACT else 0


@kernel
def bound_rows(step: Step, rows: NDArray[np.int64], depth: NDArray[np.int64], bounds: NDArray[np.int64]) -> None:
    """Cycles that a step takes at least on every machine of ``rows``, int64 [points, 21], by its peak and its DRAM,
    into ``bounds``, int64 [points]."""
    least = least_of(step)
    for n in range(len(rows)):
        bounds[n] = 0
        if memory_of(rows[n]).rate:
            _far(step, rows[n], depth[n], least)
            bounds[n] = _sum(step, rows[n], least)


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
def _closer(step: Step, v: NDArray[np.int64], only: Only, least: Least, best: Best, others: NDArray[np.float64]) -> int:
    """Cycles at least by the branches of the searches, as far as it takes to rule a machine out.

    A product under N:M is looked at as it would run dense only where that may be faster.
    """
    for place in range(step.first_dense):
        _approach(step, place, v, only, least)
        if place % _AT_A_TIME == _AT_A_TIME - 1:
            bound = _sum(step, v, least)
            if _ruled_out(best, bound, others):
                return bound
    for i in range(len(step.products)):
        given, dense = step.products[i, 0], step.products[i, 1]
        if dense >= 0 and least.places[dense] < least.places[given]:
            _approach(step, dense, v, only, least)
    return _sum(step, v, least)


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
    known, memory, least = known_of(step), memory_for(step, 0), least_of(step)
    uncounted = np.empty((0, 0), np.int64)
    for n in order:
        out = _ruled_out(best, bounds[n], others[n])
        if not out and memory_of(rows[n]).rate:
            _far(step, rows[n], depth[n], least)
            bounds[n] = max(bounds[n], _closer(step, rows[n], asked.only, least, best, others[n]))
            out = _ruled_out(best, bounds[n], others[n])
        if out:
            done[n, 0] = LEFT_OUT
            continue
        done[n, 0], done[n, 1], done[n, 2] = found = point(step, rows[n], depth[n], asked, known, memory, uncounted)
        if found.status == FITS and not _ruled_out(best, found.cycles, others[n]):
            _enter(best, n, found.cycles, others[n])
