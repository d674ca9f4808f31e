"""What a step takes at least on a machine, in tens of microseconds, and which machines that rules out for a front."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..integers import ceil_div
from ..jit import bare, inlined, kernel
from ..macro_tiles import FITS
from ..problem import LONGEST, RATE, pairs, share
from ..stce.bounds import least_bytes, once_of
from ..stce.space import Only, branches_of
from .beside import update_cycles, vector_cycles
from .kernels import point, runs
from .memory import Asked, memory_for, problem_at
from .placed import known_of, with_xnor
from .points import array_of, limits_of, memory_of
from .step import Step
from .xnor import Engines

__all__ = ["LEFT_OUT", "Alike", "Best", "bound_rows", "decide_rows"]

EXACT = 2**53
"""Below it floats are whole numbers."""
_AT_A_TIME = 6
"""Products whose bounds are made closer before the sum is looked at again."""
_AHEAD, _ALIKE = 512, 32
"""Turns ahead within which machines are scheduled with one like them, if there are more than that many of its kind. Set
by speed alone."""
LEFT_OUT = 6
"""Status of a point that its bound rules out."""


class Least(NamedTuple):
    """Cycles at least of the products of a step, and cycles of its updates, int64 [places] and [updates]; ``close``,
    int64 [places]: 1 where the bound is that of the search's branches. ``engine``, int64 [places]: 0 where a product
    stands on the STCE whatever the machine, else -1. Of every problem, int64 [problems] each, on any machine: ``work``,
    products that PEs make, and ``moved``, bytes if every operand is moved once."""

    places: NDArray[np.int64]
    updates: NDArray[np.int64]
    close: NDArray[np.int64]
    engine: NDArray[np.int64]
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
    engine = np.where(step.places[:, 3] < 0, 0, -1)
    return Least(np.empty(places, np.int64), updates, np.empty(places, np.int64), engine, work, moved)


@inlined
def _peak_units(least: Least, problem: int, pes: int, rate: int) -> int:
    """Time in 1/rate cycles in which so many PEs work at their peak and every operand is moved once; `LONGEST` where
    that cannot be timed, and of no problem."""
    if problem < 0:
        return LONGEST
    moved = least.moved[problem]
    array = ceil_div(least.work[problem], pes)
    long = max(float(array) * rate, float(moved) * RATE)
    return int(max(array * rate, moved * RATE)) if long < LONGEST else LONGEST


@kernel
def _branch_units(step: Step, least: Least, problem: int, v: NDArray[np.int64], only: Only) -> int:
    """Time in 1/rate cycles that no branch of the search undercuts; `LONGEST` where none can be timed, and of no
    problem."""
    if problem < 0:
        return LONGEST
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


@bare
def _far(step: Step, v: NDArray[np.int64], depth: int, least: Least) -> None:
    """Bounds by the peak, of all products."""
    update_cycles(step, v, depth, least.engine, least.updates)
    stce, xnor, rate = v[0] * v[1], v[21] * v[22], memory_of(v).rate
    for place in range(len(step.places)):
        of = step.places[place]
        units = min(_peak_units(least, of[0], stce, rate), _peak_units(least, of[1], stce, rate))
        if of[3] >= 0:
            units = min(units, _peak_units(least, of[3], xnor, rate), _peak_units(least, of[4], xnor, rate))
        least.places[place] = LONGEST if units == LONGEST else ceil_div(units, memory_of(v).rate)
        least.close[place] = 0


@bare
def _approach(step: Step, place: int, v: NDArray[np.int64], xnor: NDArray[np.int64], only: Only, least: Least) -> None:
    """Bound of a product by the branches of its searches; ``xnor``: the XNOR engine of the machine, int64 [28], if
    products have problems there."""
    if least.close[place]:
        return
    of = step.places[place]
    units = min(_branch_units(step, least, of[0], v, only), _branch_units(step, least, of[1], v, only))
    if of[3] >= 0:
        on_xnor = min(_branch_units(step, least, of[3], xnor, only), _branch_units(step, least, of[4], xnor, only))
        units = min(units, on_xnor)
    least.places[place], least.close[place] = LONGEST if units == LONGEST else ceil_div(units, memory_of(v).rate), 1


@bare
def _sum(step: Step, v: NDArray[np.int64], least: Least) -> int:
    """Cycles of a step at least, whichever passes run dense; 0 where that takes a schedule to say."""
    total = float(vector_cycles(step, v, least.engine)[0])
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
    """Cycles that a step takes at least on every machine of ``rows``, int64 [points, 28], by its peak and its DRAM,
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


@bare
def _ruled_out(best: Best, cycles: int, others: NDArray[np.float64]) -> bool:
    out, i = False, 0
    while not out and i < best.size[0]:
        out, i = _below(best.cycles[i], best.others[i], cycles, others), i + 1
    return out


@bare
def _closer(
    step: Step,
    v: NDArray[np.int64],
    xnor: NDArray[np.int64],
    only: Only,
    least: Least,
    best: Best,
    others: NDArray[np.float64],
    trail: NDArray[np.int64],
) -> int:
    """Cycles at least by the branches of the searches, as far as it takes to rule a machine out: ever more of them into
    ``trail``, int64 [steps]; how many. ``xnor``: as of `_approach`.

    A product under N:M is looked at as it would run dense only where that may be faster.
    """
    made = 0
    for place in range(step.first_dense):
        _approach(step, place, v, xnor, only, least)
        if place % _AT_A_TIME == _AT_A_TIME - 1:
            trail[made], made = _sum(step, v, least), made + 1
            if _ruled_out(best, trail[made - 1], others):
                return made
    for i in range(len(step.products)):
        given, dense = step.products[i, 0], step.products[i, 1]
        if dense >= 0 and least.places[dense] < least.places[given]:
            _approach(step, dense, v, xnor, only, least)
    trail[made] = _sum(step, v, least)
    return made + 1


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


class Alike(NamedTuple):
    """Machines that differ in capacities only side by side, the roomiest first: ``rows``, int64 [own], row numbers;
    ``begin`` and ``end``, int64 [points], of a machine where those like it are among them."""

    rows: NDArray[np.int64]
    begin: NDArray[np.int64]
    end: NDArray[np.int64]


class Trails(NamedTuple):
    """Bounds of machines, each closer than the one before, int64 [points, steps], and how many of them are made, int64
    [points]: as many as it took to rule a machine out, and -1 while nobody asked."""

    bounds: NDArray[np.int64]
    made: NDArray[np.int64]


@bare
def _is_out(
    step: Step,
    n: int,
    v: NDArray[np.int64],
    xnor: NDArray[np.int64],
    depth: int,
    only: Only,
    least: Least,
    bounds: NDArray[np.int64],
    others: NDArray[np.float64],
    best: Best,
    trails: Trails,
) -> tuple[bool, int]:
    """Whether ``best`` rules a machine out by its bounds, and by which; ``xnor``: as of `_approach`."""
    bound = bounds[n]
    if _ruled_out(best, bound, others):
        return True, bound
    if trails.made[n] < 0:
        trails.made[n] = 0
        if memory_of(v).rate:
            _far(step, v, depth, least)
            trails.made[n] = _closer(step, v, xnor, only, least, best, others, trails.bounds[n])
    for k in range(trails.made[n]):
        if _ruled_out(best, trails.bounds[n, k], others):
            return True, max(bound, trails.bounds[n, k])
    return False, max(bound, trails.bounds[n, trails.made[n] - 1]) if trails.made[n] else bound


@kernel
def decide_rows(
    step: Step,
    rows: NDArray[np.int64],
    depth: NDArray[np.int64],
    engines: Engines,
    asked: Asked,
    order: NDArray[np.int64],
    alike: Alike,
    bounds: NDArray[np.int64],
    others: NDArray[np.float64],
    best: Best,
    done: NDArray[np.int64],
) -> None:
    """Schedule, in ``order`` (int64, row numbers), the machines that their bound does not rule out; ``engines``: their
    XNOR engines.

    Of many that are ``alike`` those whose turn comes soon are scheduled with the first, unless they are ruled out by
    then: their searches answer for one another, which saves more than those cost that are ruled out later. ``done``:
    int64 [points, 3], status, cycles and bytes.
    """
    known, memory, of_xnor, least = known_of(step), memory_for(step, 0), memory_for(step, 0), least_of(step)
    uncounted, scheduled = np.empty((0, 0), np.int64), np.zeros(len(rows), np.bool_)
    steps = step.first_dense // _AT_A_TIME + 1
    trails = Trails(np.empty((len(rows), steps), np.int64), np.full(len(rows), -1, np.int64))
    turn = np.zeros(len(rows), np.int64)
    turn[order] = np.arange(len(order))
    for n in order:
        xnor = rows[n] if engines.of[n] < 0 else engines.rows[engines.of[n]]
        out, bound = _is_out(step, n, rows[n], xnor, depth[n], asked.only, least, bounds, others[n], best, trails)
        if not out and not scheduled[n]:
            last = turn[n] + (_AHEAD if alike.end[n] - alike.begin[n] > _ALIKE else 0)
            for i in range(alike.begin[n], alike.end[n]):
                m = alike.rows[i]
                if scheduled[m] or not turn[n] <= turn[m] <= last:
                    continue
                its = rows[m] if engines.of[m] < 0 else engines.rows[engines.of[m]]
                if not _is_out(step, m, rows[m], its, depth[m], asked.only, least, bounds, others[m], best, trails)[0]:
                    own = with_xnor(step, engines, m, asked, known, of_xnor)
                    found = point(step, rows[m], depth[m], asked, own, memory, uncounted)
                    done[m, 0], done[m, 1], done[m, 2] = found
                    scheduled[m] = True
        bounds[n] = bound
        if out:
            done[n, 0], done[n, 1], done[n, 2] = LEFT_OUT, 0, 0
        elif done[n, 0] == FITS and not _ruled_out(best, done[n, 1], others[n]):
            _enter(best, n, done[n, 1], others[n])
