"""Solved searches, for machines that differ in capacities only.

What a mapping costs depends on array, DRAM and SORE. Buffers and registers only say whether it fits, and whatever fits
less room fits more. So the best mapping of a machine is that of every machine with no more room in which it still
fits; under thrift, where the fastest mapping says how slow the thriftiest may be, both must.
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
from ..stce.search import EDP, ENERGY, NOTHING, Found, search_both
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
"""Searches that are kept of a problem; the oldest goes first."""


class Asked(NamedTuple):
    """What every search of a run is asked."""

    objective: int
    only: Only


class Solved(NamedTuple):
    """What a search found: whether there is a mapping, its time in 1/rate cycles, its bytes, and what the objectives
    energy and edp minimise; ``slot``: where it is kept, -1 if it is not."""

    status: int
    units: int
    moved: int
    key: float
    slot: int


class Memory(NamedTuple):
    """Searches of machines that are alike but for capacities; few arrays, since a call counts the references of each.

    ``machine``, int64 [12]: what they have in common. ``tally``, int64 [problems, 2]: how many searches of each there
    were, and how many of them were kept. ``kept``, int64 [problems, searches, 28 + counted], of those kept: the 7
    capacities; status, time and bytes, as `Solved`; the mappings of 9 numbers, the fastest and the best; and what the
    best does, columns as `amounts.COUNTED`, none unless they are asked for. ``priced``, float64 [problems, searches,
    2], under energy and edp: what they minimise and picojoules.
    """

    machine: NDArray[np.int64]
    tally: NDArray[np.int64]
    kept: NDArray[np.int64]
    priced: NDArray[np.float64]


_FOUND, _MAPPINGS, COUNTS = 7, 10, 28
"""Columns of `Memory.kept` from which on there is what a search found, its mappings, and what the best does."""


@kernel
def memory_for(step: Step, counted: int) -> Memory:
    """One without a search; ``counted``: columns of the counts, 0 for none."""
    n = len(step.problems)
    return Memory(
        np.full(12, -1, np.int64),
        np.zeros((n, 2), np.int64),
        np.empty((n, _KEPT, COUNTS + counted), np.int64),
        np.zeros((n, _KEPT, 2), np.float64),
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
def _fits(p: Problem, x: ArrayMachine, y: MemoryMachine, limits: Limits, m: NDArray[np.int64]) -> bool:
    """Whether a machine has room for a mapping that is of the space of a larger one."""
    dataflow, keep, group, interleave = m[0], m[1], m[2], m[3]
    held = registers(dataflow, keep, group, interleave)
    if held.pairs > limits.weight_pairs or held.dense_words > limits.dense_words or interleave > limits.accumulators:
        return False
    if p.keep == 0 and keep > widest(dataflow, limits.weight_pairs, limits.max_group):
        return False
    tile = Tile(m[4], m[5], m[6], m[7], m[8])
    t = tiling(dataflow, x, keep, group, interleave, p.rows, p.k, p.run)
    r, c = row_axis(x, t, p.rows, tile.rows), col_axis(x, t, p.cols, tile.cols)
    return bool(moves(p, y, demand_of(x, t, r, c), share(p), r, c, tile).fits)


@inlined
def is_priced(objective: int) -> bool:
    """Whether it is energy or edp."""
    return objective in (ENERGY, EDP)


@bare
def _keep(
    memory: Memory,
    problem: int,
    p: Problem,
    v: NDArray[np.int64],
    asked: Asked,
    price: Prices,
    fastest: Found,
    best: Found,
) -> int:
    slot = memory.tally[problem, 1] % _KEPT
    memory.tally[problem, 1] += 1
    kept = memory.kept[problem, slot]
    for i in range(7):
        kept[i] = _room_of(v, i)
    kept[_FOUND], kept[_FOUND + 1], kept[_FOUND + 2] = best.status, best.units, best.moved
    for i in range(2):
        f, m = best if i else fastest, kept[_MAPPINGS + 9 * i : _MAPPINGS + 9 * i + 9]
        m[0], m[1], m[2], m[3] = f.dataflow, f.keep, f.group, f.interleave
        m[4], m[5], m[6], m[7], m[8] = f.tile.rows, f.tile.cols, f.tile.resident, f.tile.rows_slow, f.tile.compact
    if best.status == FITS:
        form = Form(best.dataflow, best.keep, best.group, best.interleave)
        if len(kept) > COUNTS:
            count_product(p, array_of(v), memory_of(v), form, best.tile, kept[COUNTS:])
        if is_priced(asked.objective):
            memory.priced[problem, slot, 0] = best.key
            memory.priced[problem, slot, 1] = cost_of(p, array_of(v), memory_of(v), form, best.tile, price).energy_pj
    return int(slot)


@bare
def _recalled(memory: Memory, problem: int, p: Problem, v: NDArray[np.int64]) -> int:
    """The kept search that answers for a machine; -1 for none."""
    searches = memory.tally[problem, 1]
    for back in range(min(searches, _KEPT)):
        slot = (searches - 1 - back) % _KEPT
        kept = memory.kept[problem, slot]
        within = True
        for i in range(7):
            within &= _room_of(v, i) <= kept[i]
        if not within:
            continue
        if kept[_FOUND] != FITS:
            return int(slot)
        x, y, limits = array_of(v), memory_of(v), limits_of(v)
        first, second = kept[_MAPPINGS : _MAPPINGS + 9], kept[_MAPPINGS + 9 : COUNTS]
        if _fits(p, x, y, limits, first) and _fits(p, x, y, limits, second):
            return int(slot)
    return -1


@bare
def solved(step: Step, problem: int, v: NDArray[np.int64], asked: Asked, memory: Memory, than: Found) -> Solved:
    """The search of a problem for a machine, int64 [28], or what is known of it; ``than``: nothing that is no better is
    of use (`search.better_than`)."""
    p = problem_at(step.problems[problem])
    slot = _recalled(memory, problem, p, v)
    if slot >= 0:
        found = memory.kept[problem, slot]
        return Solved(found[_FOUND], found[_FOUND + 1], found[_FOUND + 2], memory.priced[problem, slot, 0], slot)
    x, y, limits, price = array_of(v), memory_of(v), limits_of(v), price_at(step.prices[problem])
    # A search that finds nothing better answers for no other machine, so one where others may follow finds the best.
    if memory.tally[problem, 0]:
        than = NOTHING
    memory.tally[problem, 0] += 1
    fastest, best = search_both(p, x, y, limits, price, asked.objective, asked.only, than)
    # That all of a large space is too long does not say that a part of it has any mapping.
    if best.status == FITS or (best.status != TOO_LONG and than.place == NOTHING.place):
        slot = _keep(memory, problem, p, v, asked, price, fastest, best)
    return Solved(best.status, best.units, best.moved, best.key, slot)
