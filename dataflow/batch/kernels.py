"""Kernels: the schedule of a step on one machine, in numbers alone; `schedule.py`, `fallback.py`, `beside.py` in small.

The search is `stce/search.py` itself. What is of an op on its own is added up here, and held equal by the tests.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..integers import ceil_div
from ..jit import bare, inlined, kernel
from ..macro_tiles import FITS, TOO_LARGE
from ..problem import LONGEST
from .beside import joined_cycles, update_bytes, update_cycles, vector_cycles
from .counts import count_update, count_vector
from .memory import COUNTS, Asked, Memory, forget_others, is_priced, memory_for
from .placed import (
    MOVED,
    PROBLEM,
    SLOT,
    SPENT,
    STATUS,
    TOO_MANY,
    TOO_SLOW,
    UNKNOWN,
    XNOR_COUNTS,
    Known,
    know,
    known_of,
    solve_xnor,
    with_xnor,
)
from .points import memory_of
from .step import Step
from .xnor import Engines

__all__ = ["Done", "evaluate_rows", "point", "runs"]


class Done(NamedTuple):
    """A step, or a part of it, on a machine: whether it runs, cycles and DRAM bytes."""

    status: int
    cycles: int
    moved: int


@inlined
def _may_gain(step: Step, layer: NDArray[np.int64], peak: int, update: int, known: Known) -> bool:
    """`fallback._Choice._may_gain`; ``update``: cycles of the update as annotated."""
    for i in range(layer[0], layer[1]):
        place, dense = step.products[i, 0], step.products[i, 1]
        if dense >= 0 and ceil_div(step.places[place, 2], peak) - known.placed[place, SPENT] < update:
            return True
    return False


@inlined
def _least_products(step: Step, layer: NDArray[np.int64], way: int, peak: int, known: Known) -> int:
    """Cycles that the products of a layer take at least under a choice."""
    total = 0
    for i in range(layer[0], layer[1]):
        place = runs(step, way, i)
        if known.placed[place, STATUS] == FITS:
            total += known.placed[place, SPENT]
        else:
            total += ceil_div(step.places[place, 2], peak)
    return total


@bare
def _cheapest(
    step: Step, v: NDArray[np.int64], layer: NDArray[np.int64], asked: Asked, known: Known, memory: Memory
) -> int:
    """The choice of a layer that costs the least, of equals the first; -1 where one takes `_MANY` cycles."""
    peak = v[0] * v[1] + v[21] * v[22] * v[23]
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
            status = know(step, place, v, asked, known, memory)
            if status != FITS:
                break
            total += known.placed[place, SPENT]
        if status == TOO_MANY:
            return -1
        if status == FITS and total < least:
            chosen, least = way, total
    return int(chosen)


@bare
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
            status = know(step, place, v, asked, known, memory)
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


@bare
def _added(totals: NDArray[np.int64], times: int, counts: NDArray[np.int64]) -> float:
    """Add the counts of an op that a step has so often; how many they are."""
    many = 0.0
    for i in range(len(counts)):
        totals[i] += times * counts[i]
        many += float(times) * counts[i]
    return many


@bare
def _add_product(step: Step, place: int, times: int, known: Known, memory: Memory, totals: NDArray[np.int64]) -> float:
    problem = known.placed[place, PROBLEM]
    if known.engine[place]:
        return _added(totals[step.problem_class[problem]], times, known.xnor[place, XNOR_COUNTS:])
    return _added(totals[step.problem_class[problem]], times, memory.kept[place, known.placed[place, SLOT], COUNTS:])


@bare
def _add_update(
    step: Step, update: int, times: int, v: NDArray[np.int64], known: Known, totals: NDArray[np.int64]
) -> float:
    count_update(step, update, memory_of(v), known.engine, known.ways[len(step.layers) :])
    return _added(totals[step.updates[update, 6]], times, known.ways[len(step.layers) :])


@bare
def _count(step: Step, v: NDArray[np.int64], known: Known, memory: Memory, totals: NDArray[np.int64]) -> bool:
    """Count a step as it runs into ``totals``, int64 [classes, counted]; whether 64 bits hold it."""
    many = 0.0
    for n in range(len(step.vectors)):
        count_vector(step, n, known.engine, known.ways[len(step.layers) :])
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


@bare
def point(
    step: Step, v: NDArray[np.int64], depth: int, asked: Asked, known: Known, memory: Memory, totals: NDArray[np.int64]
) -> Done:
    """A step on one machine, int64 [28]; ``depth``: of the update's pipeline; ``totals``, int64 [classes, counted]:
    zeros to which what it does is added, empty where nobody asks."""
    if memory_of(v).rate < 1:
        return Done(TOO_SLOW, 0, 0)
    for n in range(len(step.vectors)):
        if step.vectors[n, 14] > memory_of(v).out_half:
            return Done(TOO_LARGE, 0, 0)
    forget_others(memory, v)
    known.placed[:, STATUS] = UNKNOWN
    for place in range(step.first_dense):
        status = know(step, place, v, asked, known, memory)
        if status != FITS:
            return Done(status, 0, 0)
    update_cycles(step, v, depth, known.engine, known.updates)
    cycles, moved = vector_cycles(step, v, known.engine)
    long = float(cycles)
    for place, times in step.alone:
        cycles += times * known.placed[place, SPENT]
        moved += times * known.placed[place, MOVED]
        long += float(times) * known.placed[place, SPENT]
    for update, times in step.updates_alone:
        one = known.updates[update]
        cycles, long = cycles + times * one, long + float(times) * one
        moved += times * update_bytes(step, update, known.engine)
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
            one += known.placed[runs(step, way, i), SPENT]
            own += known.placed[runs(step, way, i), MOVED]
        cycles, long, moved = cycles + layer[5] * one, long + float(layer[5]) * one, moved + layer[5] * own
    for n in range(len(step.vectors)):
        layer, behind = step.vectors[n, 10], step.vectors[n, 11]
        if behind >= 0:
            place = behind if layer < 0 else runs(step, known.ways[layer], behind)
            one = joined_cycles(step, n, v, known.placed[place, SPENT], known.engine)
            cycles, long = cycles + step.vectors[n, 2] * one, long + float(step.vectors[n, 2]) * one
    if long >= LONGEST or (len(totals) and not _count(step, v, known, memory, totals)):
        return Done(TOO_MANY, 0, 0)
    return Done(FITS, cycles, moved)


@kernel
def evaluate_rows(
    step: Step,
    rows: NDArray[np.int64],
    depth: NDArray[np.int64],
    engines: Engines,
    asked: Asked,
    done: NDArray[np.int64],
    totals: NDArray[np.int64],
) -> None:
    """A step on every machine of ``rows``, int64 [points, 28]; ``depth``: int64 [points], of the update's pipeline;
    ``engines``: the XNOR engines of the same machines.

    ``done``: int64 [points, 3], status, cycles and bytes. ``totals``: int64 [points, classes, counted], zeros to which
    what a step that runs does is added; of no classes where nobody asks.
    """
    counted = totals.shape[2] if totals.shape[1] else 0
    known, memory, of_xnor = known_of(step), memory_for(step, counted), memory_for(step, counted)
    # In their own order, in which their searches answer for each other.
    for number in range(len(engines.rows)):
        solve_xnor(step, engines, number, asked, of_xnor)
    for n in range(len(rows)):
        own = with_xnor(step, engines, n, asked, known, of_xnor)
        done[n, 0], done[n, 1], done[n, 2] = point(step, rows[n], depth[n], asked, own, memory, totals[n])
