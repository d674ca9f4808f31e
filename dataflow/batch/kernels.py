"""Kernels: the schedule of a step on one machine, in numbers alone; `schedule.py`, `fallback.py`, `beside.py` in small.

The search is `stce/search.py` itself. What is of an op on its own is added up here, and held equal by the tests.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..integers import ceil_div
from ..jit import inlined, kernel
from ..macro_tiles import FITS, TOO_LARGE, TOO_LONG
from ..prices import Prices
from ..problem import LONGEST, MemoryMachine, Problem
from ..stce.pace import ArrayMachine
from ..stce.search import CYCLES, Found, search
from ..stce.space import Limits, Only
from .beside import update_cycles, vector_cycles
from .points import array_of, limits_of, memory_of
from .step import Step

__all__ = [
    "PATTERN",
    "TOO_MANY",
    "TOO_SLOW",
    "Asked",
    "Done",
    "Known",
    "evaluate_rows",
    "known_of",
    "point",
    "problem_at",
    "runs",
]

PATTERN, TOO_SLOW, TOO_MANY = 3, 4, 5
"""Status of a point beside `TOO_LARGE`, `FITS` and `TOO_LONG`; `evaluate.py:Status` says them in words."""
_UNKNOWN = -1
_MANY = 2**55
"""Cycles of a product of which a layer, with its update, may have a hundred in 64 bits."""


class Asked(NamedTuple):
    """What every search of a run is asked."""

    objective: int
    price: Prices
    only: Only


class Done(NamedTuple):
    """A step, or a part of it, on a machine: whether it runs, cycles and DRAM bytes."""

    status: int
    cycles: int
    moved: int


@inlined
def problem_at(v: NDArray[np.int64]) -> Problem:
    """The problem of a row."""
    # fmt: off
    return Problem(
        v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7], v[8], v[9], v[10],
        v[11], v[12], v[13], v[14], v[15], v[16], v[17], v[18], v[19], v[20],
    )
    # fmt: on


@inlined
def _better(objective: int, a: Found, b: Found) -> bool:
    """Whether the second role of a product is better than the first, as `array_engine._rank` has it."""
    if a.status != b.status:
        return a.status == FITS or (a.status == TOO_LONG and b.status == TOO_LARGE)
    return a.units < b.units or (objective == CYCLES and a.units == b.units and a.moved < b.moved)


@kernel
def _placed(step: Step, place: int, x: ArrayMachine, y: MemoryMachine, limits: Limits, asked: Asked) -> Done:
    """The best placement of a product, by one search or two."""
    p = problem_at(step.problems[step.places[place, 0]])
    if p.keep and p.group > limits.max_group:
        return Done(PATTERN, 0, 0)
    found = search(p, x, y, limits, asked.price, asked.objective, asked.only)
    other = step.places[place, 1]
    if other >= 0:
        turned = search(problem_at(step.problems[other]), x, y, limits, asked.price, asked.objective, asked.only)
        if _better(asked.objective, turned, found):
            found = turned
    if found.status != FITS:
        return Done(found.status, 0, 0)
    cycles = ceil_div(found.units, y.rate)
    return Done(FITS if cycles < _MANY else TOO_MANY, cycles, found.moved)


class Known(NamedTuple):
    """Placements of a machine as far as they were asked for, int64 [places] each."""

    status: NDArray[np.int64]
    cycles: NDArray[np.int64]
    moved: NDArray[np.int64]
    updates: NDArray[np.int64]
    """Cycles of every update, int64 [updates]."""


@kernel
def known_of(step: Step) -> Known:
    """Room for the placements of a step."""
    places, updates = len(step.places), len(step.updates)
    status, cycles, moved = np.empty(places, np.int64), np.empty(places, np.int64), np.empty(places, np.int64)
    return Known(status, cycles, moved, np.empty(updates, np.int64))


@kernel
def _know(step: Step, place: int, x: ArrayMachine, y: MemoryMachine, limits: Limits, asked: Asked, known: Known) -> int:
    """Status of a placement, which is known afterwards."""
    if known.status[place] == _UNKNOWN:
        known.status[place], known.cycles[place], known.moved[place] = _placed(step, place, x, y, limits, asked)
    return int(known.status[place])


@inlined
def _may_gain(step: Step, layer: NDArray[np.int64], peak: int, update: int, known: Known) -> bool:
    """`fallback._Choice._may_gain`; ``update``: cycles of the update as annotated."""
    lead, faster = 0, False
    for i in range(layer[0], layer[1]):
        place, dense = step.products[i, 0], step.products[i, 1]
        if dense >= 0:
            ahead = ceil_div(step.places[place, 2], peak) - known.cycles[place]
            lead += ahead
            faster |= ahead < 0
    return bool(lead < update or faster)


@inlined
def _least_products(step: Step, layer: NDArray[np.int64], way: int, peak: int, known: Known) -> int:
    """Cycles that the products of a layer take at least under a choice."""
    total = 0
    for i in range(layer[0], layer[1]):
        place = runs(step, way, i)
        if known.status[place] == FITS:
            total += known.cycles[place]
        else:
            total += ceil_div(step.places[place, 2], peak)
    return total


@kernel
def _cheapest(step: Step, v: NDArray[np.int64], layer: NDArray[np.int64], asked: Asked, known: Known) -> int:
    """The choice of a layer that costs the least, of equals the first; -1 where one takes `_MANY` cycles."""
    x, y, limits = array_of(v), memory_of(v), limits_of(v)
    if not _may_gain(step, layer, x.R * x.C, known.updates[layer[4]] if layer[4] >= 0 else 0, known):
        return int(layer[2])
    chosen, least = layer[2], LONGEST
    for way in range(layer[2], layer[3]):
        update = known.updates[step.choices[way, 1]] if step.choices[way, 1] >= 0 else 0
        if update + _least_products(step, layer, way, x.R * x.C, known) >= least:
            continue
        total, status = update, FITS
        for i in range(layer[0], layer[1]):
            place = runs(step, way, i)
            status = _know(step, place, x, y, limits, asked, known)
            if status != FITS:
                break
            total += known.cycles[place]
        if status == TOO_MANY:
            return -1
        if status == FITS and total < least:
            chosen, least = way, total
    return int(chosen)


@inlined
def runs(step: Step, way: int, product: int) -> int:
    """The place of a product of a layer under a choice of dense passes."""
    return int(step.products[product, 1 if step.products[product, 2] & step.choices[way, 0] else 0])


@kernel
def point(step: Step, v: NDArray[np.int64], depth: int, asked: Asked, known: Known) -> Done:
    """A step on one machine."""
    x, y, limits = array_of(v), memory_of(v), limits_of(v)
    if y.rate < 1:
        return Done(TOO_SLOW, 0, 0)
    known.status[:] = _UNKNOWN
    for place in range(step.first_dense):
        status = _know(step, place, x, y, limits, asked, known)
        if status != FITS:
            return Done(status, 0, 0)
    update_cycles(step, v, depth, known.updates)
    cycles, moved = vector_cycles(step, v)
    long = float(cycles)
    for place, times in step.alone:
        cycles += times * known.cycles[place]
        moved += times * known.moved[place]
        long += float(times) * known.cycles[place]
    for update, times in step.updates_alone:
        one = known.updates[update]
        cycles, long = cycles + times * one, long + float(times) * one
        moved += times * step.updates[update, 2]
    for n in range(len(step.layers)):
        layer = step.layers[n]
        way = _cheapest(step, v, layer, asked, known)
        if way < 0:
            return Done(TOO_MANY, 0, 0)
        update = step.choices[way, 2]
        one, own = (known.updates[update], step.updates[update, 2]) if update >= 0 else (0, 0)
        for i in range(layer[0], layer[1]):
            one += known.cycles[runs(step, way, i)]
            own += known.moved[runs(step, way, i)]
        cycles, long, moved = cycles + layer[5] * one, long + float(layer[5]) * one, moved + layer[5] * own
    return Done(FITS, cycles, moved) if long < LONGEST else Done(TOO_MANY, 0, 0)


@kernel
def evaluate_rows(
    step: Step, rows: NDArray[np.int64], depth: NDArray[np.int64], asked: Asked, done: NDArray[np.int64]
) -> None:
    """A step on every machine of ``rows``, int64 [points, 20]; ``depth``: int64 [points], of the update's pipeline;
    ``done``: int64 [points, 3], status, cycles and bytes."""
    known = known_of(step)
    for n in range(len(rows)):
        done[n, 0], done[n, 1], done[n, 2] = point(step, rows[n], depth[n], asked, known)
