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
from ..problem import LONGEST
from ..stce.search import CYCLES, EDP, NOTHING, better_than
from .amounts import COUNTED
from .beside import update_cycles, vector_cycles
from .counts import count_update, count_vector
from .memory import COUNTS, Asked, Memory, Solved, forget_others, is_priced, memory_for, solved
from .points import limits_of, memory_of
from .step import Step

__all__ = ["PATTERN", "TOO_MANY", "TOO_SLOW", "Done", "Known", "evaluate_rows", "known_of", "point", "runs"]

PATTERN, TOO_SLOW, TOO_MANY = 3, 4, 5
"""Status of a point beside `TOO_LARGE`, `FITS` and `TOO_LONG`; `evaluate.py:Status` says them in words."""
_UNKNOWN = -1
_COLUMNS = len(COUNTED)
_MANY = 2**55
"""Cycles of a product of which a layer, with its update, may have a hundred in 64 bits."""


class Done(NamedTuple):
    """A step, or a part of it, on a machine: whether it runs, cycles and DRAM bytes."""

    status: int
    cycles: int
    moved: int


@inlined
def _better(objective: int, a: Solved, b: Solved) -> bool:
    """Whether the second role of a product is better than the first, as `array_engine._rank` has it."""
    if a.status != b.status:
        return a.status == FITS or (a.status == TOO_LONG and b.status == TOO_LARGE)
    if is_priced(objective):
        return a.key < b.key
    return a.units < b.units or (objective == CYCLES and a.units == b.units and a.moved < b.moved)


class _Placed(NamedTuple):
    """A product on a machine, as `Done`; the problem that it is searched as, and where the search is kept; its cost by
    price, 0 without."""

    status: int
    cycles: int
    moved: int
    problem: int
    slot: int
    cost: float


@kernel
def _placed(step: Step, place: int, v: NDArray[np.int64], asked: Asked, memory: Memory) -> _Placed:
    """The best placement of a product, by one search or two."""
    first, other = step.places[place, 0], step.places[place, 1]
    # Of a problem: keep and group.
    if step.problems[first, 5] and step.problems[first, 6] > limits_of(v).max_group:
        return _Placed(PATTERN, 0, 0, first, -1, 0.0)
    found, problem = solved(step, first, v, asked, memory, NOTHING), first
    if other >= 0:
        than = NOTHING
        if found.status == FITS:
            than = better_than(asked.objective, found.key, found.units, found.moved)
        turned = solved(step, other, v, asked, memory, than)
        if _better(asked.objective, turned, found):
            found, problem = turned, other
    if found.status != FITS:
        return _Placed(found.status, 0, 0, problem, -1, 0.0)
    cycles = ceil_div(found.units, memory_of(v).rate)
    cost = 0.0
    if is_priced(asked.objective):
        cost = memory.priced[problem, found.slot, 1]
        if asked.objective == EDP:
            cost *= cycles
    return _Placed(FITS if cycles < _MANY else TOO_MANY, cycles, found.moved, problem, found.slot, cost)


_STATUS, _CYCLES, _MOVED, _PROBLEM, _SLOT = range(5)
"""Columns of `Known.placed`."""


class Known(NamedTuple):
    """Placements of a machine as far as they were asked for. ``placed``: int64 [places, 5], as `_Placed`; few arrays,
    since a call counts the references of each.

    ``cost``: float64 [places].
    """

    placed: NDArray[np.int64]
    cost: NDArray[np.float64]
    updates: NDArray[np.int64]
    """Cycles of every update, int64 [updates]."""
    ways: NDArray[np.int64]
    """The choice of every layer, int64 [layers]; behind them room for what is counted of an op, int64 [counted]."""


@kernel
def known_of(step: Step) -> Known:
    """Room for the placements of a step."""
    places, updates = len(step.places), len(step.updates)
    ways = np.empty(len(step.layers) + _COLUMNS, np.int64)
    return Known(np.empty((places, 5), np.int64), np.empty(places, np.float64), np.empty(updates, np.int64), ways)


@kernel
def _know(step: Step, place: int, v: NDArray[np.int64], asked: Asked, known: Known, memory: Memory) -> int:
    """Status of a placement, which is known afterwards."""
    row = known.placed[place]
    if row[_STATUS] == _UNKNOWN:
        found = _placed(step, place, v, asked, memory)
        row[_STATUS], row[_CYCLES], row[_MOVED] = found.status, found.cycles, found.moved
        row[_PROBLEM], row[_SLOT], known.cost[place] = found.problem, found.slot, found.cost
    return int(row[_STATUS])


@inlined
def _may_gain(step: Step, layer: NDArray[np.int64], peak: int, update: int, known: Known) -> bool:
    """`fallback._Choice._may_gain`; ``update``: cycles of the update as annotated."""
    for i in range(layer[0], layer[1]):
        place, dense = step.products[i, 0], step.products[i, 1]
        if dense >= 0 and ceil_div(step.places[place, 2], peak) - known.placed[place, _CYCLES] < update:
            return True
    return False


@inlined
def _least_products(step: Step, layer: NDArray[np.int64], way: int, peak: int, known: Known) -> int:
    """Cycles that the products of a layer take at least under a choice."""
    total = 0
    for i in range(layer[0], layer[1]):
        place = runs(step, way, i)
        if known.placed[place, _STATUS] == FITS:
            total += known.placed[place, _CYCLES]
        else:
            total += ceil_div(step.places[place, 2], peak)
    return total


@kernel
def _cheapest(
    step: Step, v: NDArray[np.int64], layer: NDArray[np.int64], asked: Asked, known: Known, memory: Memory
) -> int:
    """The choice of a layer that costs the least, of equals the first; -1 where one takes `_MANY` cycles."""
    peak = v[0] * v[1]
    if not _may_gain(step, layer, peak, known.updates[layer[4]] if layer[4] >= 0 else 0, known):
        return int(layer[2])
    chosen, least = layer[2], LONGEST
    for way in range(layer[2], layer[3]):
        update = known.updates[step.choices[way, 1]] if step.choices[way, 1] >= 0 else 0
        if update + _least_products(step, layer, way, peak, known) >= least:
            continue
        total, status = update, FITS
        for i in range(layer[0], layer[1]):
            place = runs(step, way, i)
            status = _know(step, place, v, asked, known, memory)
            if status != FITS:
                break
            total += known.placed[place, _CYCLES]
        if status == TOO_MANY:
            return -1
        if status == FITS and total < least:
            chosen, least = way, total
    return int(chosen)


@kernel
def _least_cost(
    step: Step, v: NDArray[np.int64], layer: NDArray[np.int64], asked: Asked, known: Known, memory: Memory
) -> int:
    """The choice of a layer whose products cost the least by price, of equals the first; -1 where one takes `_MANY`
    cycles."""
    chosen, least = layer[2], np.inf
    for way in range(layer[2], layer[3]):
        total, status = 0.0, FITS
        for i in range(layer[0], layer[1]):
            place = runs(step, way, i)
            status = _know(step, place, v, asked, known, memory)
            if status != FITS:
                break
            total += known.cost[place]
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
def _added(totals: NDArray[np.int64], times: int, counts: NDArray[np.int64]) -> float:
    """Add the counts of an op that a step has so often; how many they are."""
    many = 0.0
    for i in range(len(counts)):
        totals[i] += times * counts[i]
        many += float(times) * counts[i]
    return many


@kernel
def _add_product(step: Step, place: int, times: int, known: Known, memory: Memory, totals: NDArray[np.int64]) -> float:
    problem = known.placed[place, _PROBLEM]
    return _added(totals[step.problem_class[problem]], times, memory.kept[problem, known.placed[place, _SLOT], COUNTS:])


@kernel
def _add_update(
    step: Step, update: int, times: int, v: NDArray[np.int64], known: Known, totals: NDArray[np.int64]
) -> float:
    count_update(step, update, memory_of(v), known.ways[len(step.layers) :])
    return _added(totals[step.updates[update, 6]], times, known.ways[len(step.layers) :])


@kernel
def _count(step: Step, v: NDArray[np.int64], known: Known, memory: Memory, totals: NDArray[np.int64]) -> bool:
    """Count a step as it runs into ``totals``, int64 [classes, counted]; whether 64 bits hold it."""
    many = 0.0
    for n in range(len(step.vectors)):
        count_vector(step, n, known.ways[len(step.layers) :])
        many += _added(totals[step.vectors[n, 4]], step.vectors[n, 2], known.ways[len(step.layers) :])
    for place, times in step.alone:
        many += _add_product(step, place, times, known, memory, totals)
    for update, times in step.updates_alone:
        many += _add_update(step, update, times, v, known, totals)
    for n in range(len(step.layers)):
        layer, way = step.layers[n], known.ways[n]
        update = step.choices[way, 2]
        if update >= 0:
            many += _add_update(step, update, layer[5], v, known, totals)
        for i in range(layer[0], layer[1]):
            many += _add_product(step, runs(step, way, i), layer[5], known, memory, totals)
    return many < LONGEST


@kernel
def point(
    step: Step, v: NDArray[np.int64], depth: int, asked: Asked, known: Known, memory: Memory, totals: NDArray[np.int64]
) -> Done:
    """A step on one machine, int64 [21]; ``depth``: of the update's pipeline; ``totals``, int64 [classes, counted]:
    zeros to which what it does is added, empty where nobody asks."""
    if memory_of(v).rate < 1:
        return Done(TOO_SLOW, 0, 0)
    forget_others(memory, v)
    known.placed[:, _STATUS] = _UNKNOWN
    for place in range(step.first_dense):
        status = _know(step, place, v, asked, known, memory)
        if status != FITS:
            return Done(status, 0, 0)
    update_cycles(step, v, depth, known.updates)
    cycles, moved = vector_cycles(step, v)
    long = float(cycles)
    for place, times in step.alone:
        cycles += times * known.placed[place, _CYCLES]
        moved += times * known.placed[place, _MOVED]
        long += float(times) * known.placed[place, _CYCLES]
    for update, times in step.updates_alone:
        one = known.updates[update]
        cycles, long = cycles + times * one, long + float(times) * one
        moved += times * step.updates[update, 2]
    for n in range(len(step.layers)):
        layer = step.layers[n]
        if is_priced(asked.objective):
            way = _least_cost(step, v, layer, asked, known, memory)
        else:
            way = _cheapest(step, v, layer, asked, known, memory)
        if way < 0:
            return Done(TOO_MANY, 0, 0)
        known.ways[n] = way
        update = step.choices[way, 2]
        one, own = (known.updates[update], step.updates[update, 2]) if update >= 0 else (0, 0)
        for i in range(layer[0], layer[1]):
            one += known.placed[runs(step, way, i), _CYCLES]
            own += known.placed[runs(step, way, i), _MOVED]
        cycles, long, moved = cycles + layer[5] * one, long + float(layer[5]) * one, moved + layer[5] * own
    if long >= LONGEST or (len(totals) and not _count(step, v, known, memory, totals)):
        return Done(TOO_MANY, 0, 0)
    return Done(FITS, cycles, moved)


@kernel
def evaluate_rows(
    step: Step,
    rows: NDArray[np.int64],
    depth: NDArray[np.int64],
    asked: Asked,
    done: NDArray[np.int64],
    totals: NDArray[np.int64],
) -> None:
    """A step on every machine of ``rows``, int64 [points, 21]; ``depth``: int64 [points], of the update's pipeline.

    ``done``: int64 [points, 3], status, cycles and bytes. ``totals``: int64 [points, classes, counted], zeros to which
    what a step that runs does is added; of no classes where nobody asks.
    """
    known, memory = known_of(step), memory_for(step, totals.shape[2] if totals.shape[1] else 0)
    for n in range(len(rows)):
        done[n, 0], done[n, 1], done[n, 2] = point(step, rows[n], depth[n], asked, known, memory, totals[n])
