"""Solved searches, for machines that differ in capacities only.

What a mapping costs depends on array, DRAM and SORE. Buffers and registers only say whether it fits, and whatever fits
less room fits more. So the best mapping of a machine, in either role, is that of every machine with no more room in
which it still fits; under thrift, where the fastest mapping says how slow the thriftiest may be, both must.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..jit import bare, inlined, kernel
from ..macro_tiles import FITS, TOO_LONG, Tile, moves
from ..prices import Prices
from ..problem import MemoryMachine, Problem, share
from ..stce.cost import Form, cost_of
from ..stce.dataflows import col_axis, demand_of, registers, row_axis, tiling, widest
from ..stce.pace import ArrayMachine
from ..stce.search import EDP, ENERGY, Best, Side, search_sides
from ..stce.space import Limits, Only
from .counts import count_product
from .points import array_of, limits_of, memory_of
from .step import Step

__all__ = [
    "COUNTS",
    "Asked",
    "Memory",
    "Solved",
    "forget_others",
    "is_priced",
    "memory_for",
    "price_at",
    "problem_at",
    "solved",
]

_KEPT = 16
"""Searches that are kept of a place; the oldest goes first."""


class Asked(NamedTuple):
    """What every search of a run is asked."""

    objective: int
    only: Only


class Solved(NamedTuple):
    """What a search found: whether there is a mapping, its time in 1/rate cycles, its bytes, and its problem; ``slot``:
    where it is kept, -1 if it is not."""

    status: int
    units: int
    moved: int
    problem: int
    slot: int


class Memory(NamedTuple):
    """Searches of machines that are alike but for capacities; few arrays, since a call counts the references of each.

    ``machine``, int64 [12]: what they have in common. ``tally``, int64 [places]: how many searches of each were kept.
    ``kept``, int64 [places, searches, 30 + counted], of those kept: the 7 capacities; status, time and bytes, as
    `Solved`; the mappings of 10 numbers, problem, form and tile, the fastest and the best; and what the best does,
    columns as `amounts.COUNTED`, none unless they are asked for. ``picojoules``, float64 [places, searches]: of the
    best, under energy and edp.
    """

    machine: NDArray[np.int64]
    tally: NDArray[np.int64]
    kept: NDArray[np.int64]
    picojoules: NDArray[np.float64]


_FOUND, _MAPPINGS, COUNTS = 7, 10, 30
"""Columns of `Memory.kept` from which on there is what a search found, its mappings, and what the best does."""


@kernel
def memory_for(step: Step, counted: int) -> Memory:
    """One without a search; ``counted``: columns of the counts, 0 for none."""
    n = len(step.places)
    return Memory(
        np.full(12, -1, np.int64),
        np.zeros(n, np.int64),
        np.empty((n, _KEPT, COUNTS + counted), np.int64),
        np.zeros((n, _KEPT), np.float64),
    )


@bare
def forget_others(memory: Memory, v: NDArray[np.int64]) -> None:
    """Forget all unless it is of machines like ``v``, int64 [28]."""
    alike = True
    for i in range(12):
        column = i if i < 9 else i + 3
        if memory.machine[i] != v[column]:
            memory.machine[i], alike = v[column], False
    if not alike:
        memory.tally[:] = 0


@inlined
def problem_at(v: NDArray[np.int64]) -> Problem:
    """The problem of a row, int64 [22]."""
    # fmt: off
    return Problem(
        v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7], v[8], v[9], v[10],
        v[11], v[12], v[13], v[14], v[15], v[16], v[17], v[18], v[19], v[20], v[21],
    )
    # fmt: on


@inlined
def price_at(v: NDArray[np.float64]) -> Prices:
    """The prices of a row, float64 [8]."""
    return Prices(v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7])


@inlined
def _room_of(v: NDArray[np.int64], i: int) -> int:
    """A capacity of a row: bytes of the buffers' halves, then the registers."""
    return int(v[9 + i] if i < 3 else v[12 + i])


@bare
def _fits(step: Step, x: ArrayMachine, y: MemoryMachine, limits: Limits, m: NDArray[np.int64]) -> bool:
    """Whether a machine has room for a mapping that is of the space of a larger one."""
    p = problem_at(step.problems[m[0]])
    dataflow, keep, group, interleave = m[1], m[2], m[3], m[4]
    held = registers(dataflow, keep, group, interleave)
    if held.pairs > limits.weight_pairs or held.dense_words > limits.dense_words or interleave > limits.accumulators:
        return False
    if p.keep == 0 and keep > widest(dataflow, limits.weight_pairs, limits.max_group):
        return False
    tile = Tile(m[5], m[6], m[7], m[8], m[9])
    t = tiling(dataflow, x, keep, group, interleave, p.rows, p.k, p.run)
    r, c = row_axis(x, t, p.rows, tile.rows), col_axis(x, t, p.cols, tile.cols)
    return bool(moves(p, y, demand_of(x, t, r, c), share(p), r, c, tile).fits)


@inlined
def is_priced(objective: int) -> bool:
    """Whether it is energy or edp."""
    return objective in (ENERGY, EDP)


@bare
def _keep(
    memory: Memory, step: Step, place: int, problems: tuple[int, int], v: NDArray[np.int64], asked: Asked, best: Best
) -> int:
    slot = memory.tally[place] % _KEPT
    memory.tally[place] += 1
    kept, found = memory.kept[place, slot], best.found
    for i in range(7):
        kept[i] = _room_of(v, i)
    kept[_FOUND], kept[_FOUND + 1], kept[_FOUND + 2] = found.status, found.units, found.moved
    for i in range(2):
        f, side = (found, best.side) if i else (best.fastest, best.fastest_side)
        m = kept[_MAPPINGS + 10 * i : _MAPPINGS + 10 * i + 10]
        m[0] = problems[side]
        m[1], m[2], m[3], m[4] = f.dataflow, f.keep, f.group, f.interleave
        m[5], m[6], m[7], m[8], m[9] = f.tile.rows, f.tile.cols, f.tile.resident, f.tile.rows_slow, f.tile.compact
    if found.status == FITS:
        form, of = (
            Form(found.dataflow, found.keep, found.group, found.interleave),
            Side(
                problem_at(step.problems[problems[best.side]]), price_at(step.prices[problems[best.side]]), asked.only
            ),
        )
        if len(kept) > COUNTS:
            count_product(of.p, array_of(v), memory_of(v), form, found.tile, kept[COUNTS:])
        if is_priced(asked.objective):
            cost = cost_of(of.p, array_of(v), memory_of(v), form, found.tile, of.price)
            memory.picojoules[place, slot] = cost.energy_pj
    return int(slot)


@bare
def _recalled(memory: Memory, step: Step, place: int, v: NDArray[np.int64]) -> int:
    """The kept search that answers for a machine; -1 for none."""
    searches = memory.tally[place]
    for back in range(min(searches, _KEPT)):
        slot = (searches - 1 - back) % _KEPT
        kept = memory.kept[place, slot]
        within = True
        for i in range(7):
            within &= _room_of(v, i) <= kept[i]
        if not within:
            continue
        if kept[_FOUND] != FITS:
            return int(slot)
        x, y, limits = array_of(v), memory_of(v), limits_of(v)
        first, second = kept[_MAPPINGS : _MAPPINGS + 10], kept[_MAPPINGS + 10 : COUNTS]
        if _fits(step, x, y, limits, first) and _fits(step, x, y, limits, second):
            return int(slot)
    return -1


@bare
def solved(
    step: Step, place: int, problems: tuple[int, int], v: NDArray[np.int64], asked: Asked, memory: Memory
) -> Solved:
    """The search of a place for a machine, int64 [28], or what is known of it; ``problems``: of its roles, the second
    -1 where it has one."""
    slot = _recalled(memory, step, place, v)
    if slot >= 0:
        found = memory.kept[place, slot]
        return Solved(found[_FOUND], found[_FOUND + 1], found[_FOUND + 2], found[_MAPPINGS + 10], slot)
    x, y, limits, first = (
        array_of(v),
        memory_of(v),
        limits_of(v),
        Side(problem_at(step.problems[problems[0]]), price_at(step.prices[problems[0]]), asked.only),
    )
    if problems[1] >= 0:
        best = search_sides(
            (first, Side(problem_at(step.problems[problems[1]]), price_at(step.prices[problems[1]]), asked.only)),
            x,
            y,
            limits,
            asked.objective,
        )
    else:
        best = search_sides((first,), x, y, limits, asked.objective)
    # That all of a large space is too long does not say that a part of it has any mapping.
    if best.found.status != TOO_LONG:
        slot = _keep(memory, step, place, problems, v, asked, best)
    return Solved(best.found.status, best.found.units, best.found.moved, problems[best.side], slot)
