"""Kernels of the placements of a step on one machine: the best mapping of a product, and on which engine.

What `engines.place` has of every product, by searches that machines share.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..integers import ceil_div
from ..jit import bare, inlined, kernel
from ..macro_tiles import FITS, TOO_LARGE
from ..stce.search import EDP
from .amounts import COUNTED
from .memory import COUNTS, Asked, Memory, forget_others, is_priced, solved
from .points import limits_of, memory_of
from .step import Step
from .xnor import Engines

__all__ = [
    "MOVED",
    "PATTERN",
    "PROBLEM",
    "SLOT",
    "SPENT",
    "STATUS",
    "TOO_MANY",
    "TOO_SLOW",
    "UNKNOWN",
    "UNPRICED",
    "XNOR_COUNTS",
    "Known",
    "know",
    "known_of",
    "solve_xnor",
    "with_xnor",
]

PATTERN, TOO_SLOW, TOO_MANY, UNPRICED = 3, 4, 5, 7
"""Status of a point beside `TOO_LARGE`, `FITS` and `TOO_LONG`; `evaluate.py:Status` says them in words."""
UNKNOWN = -1
_COUNTED = len(COUNTED)
_MANY = 2**55
"""Cycles of a product of which a layer, with its update, may have a hundred in 64 bits."""


class _Placed(NamedTuple):
    """A product on a machine, as `Done`; the problem that it is placed as, and where the search is kept; its cost by
    price, 0 without."""

    status: int
    cycles: int
    moved: int
    problem: int
    slot: int
    cost: float


@bare
def _placed(
    step: Step, place: int, first: int, other: int, v: NDArray[np.int64], asked: Asked, memory: Memory
) -> _Placed:
    """The best placement of a product on an engine, by its problems there, ``first`` and ``other``, -1 for none; ``v``
    has the engine as its array. Not inlined: the search is in it, which compiles for long."""
    if first < 0:
        return _Placed(UNPRICED, 0, 0, first, -1, 0.0)
    # Of a problem: keep and group.
    if step.problems[first, 5] and step.problems[first, 6] > limits_of(v).max_group:
        return _Placed(PATTERN, 0, 0, first, -1, 0.0)
    found = solved(step, place, (first, other), v, asked, memory)
    if found.status != FITS:
        return _Placed(found.status, 0, 0, found.problem, -1, 0.0)
    cycles = ceil_div(found.units, memory_of(v).rate)
    cost = 0.0
    if is_priced(asked.objective):
        cost = memory.picojoules[place, found.slot]
        if asked.objective == EDP:
            cost *= cycles
    return _Placed(FITS if cycles < _MANY else TOO_MANY, cycles, found.moved, found.problem, found.slot, cost)


STATUS, SPENT, MOVED, PROBLEM, SLOT = range(5)
"""Columns of `Known.placed`."""
XNOR_COUNTS = 4
"""Column of `Engines.placed` from which on there is what is done."""


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
    engine: NDArray[np.int64]
    """Where products stand, int64 [places]: 1 on the XNOR engine, else 0."""
    xnor: NDArray[np.int64]
    """What its XNOR engine has of every place, as a row of `Engines.placed`; no places without one."""
    xnor_cost: NDArray[np.float64]
    """The same of `Engines.cost`."""


@kernel
def known_of(step: Step) -> Known:
    """Room for the placements of a step."""
    places, updates = len(step.places), len(step.updates)
    ways = np.empty(len(step.layers) + _COUNTED, np.int64)
    none = np.empty((0, 0), np.int64), np.empty(0, np.float64)
    placed, cost = np.empty((places, 5), np.int64), np.empty(places, np.float64)
    return Known(placed, cost, np.empty(updates, np.int64), ways, np.zeros(places, np.int64), none[0], none[1])


@bare
def solve_xnor(step: Step, engines: Engines, number: int, asked: Asked, memory: Memory) -> None:
    """Place the products of a step on an XNOR engine, unless they are."""
    v = engines.rows[number]
    # Of a memory that is too slow nothing is asked.
    if engines.solved[number] or memory_of(v).rate < 1:
        return
    engines.solved[number] = 1
    forget_others(memory, v)
    for place in range(len(step.places)):
        row = engines.placed[number, place]
        if step.places[place, 3] < 0:
            row[STATUS] = TOO_LARGE
            continue
        found = _placed(step, place, step.places[place, 3], step.places[place, 4], v, asked, memory)
        row[STATUS], row[SPENT], row[MOVED], row[PROBLEM] = found.status, found.cycles, found.moved, found.problem
        engines.cost[number, place] = found.cost
        if found.slot >= 0:
            for i in range(len(row) - XNOR_COUNTS):
                row[XNOR_COUNTS + i] = memory.kept[place, found.slot, COUNTS + i]


@kernel
def with_xnor(step: Step, engines: Engines, n: int, asked: Asked, known: Known, memory: Memory) -> Known:
    """``known`` for machine ``n`` with what its XNOR engine has, if it has one; ``memory``: of those engines alone."""
    number = engines.of[n]
    if number < 0:
        return known
    solve_xnor(step, engines, number, asked, memory)
    k = known
    return Known(k.placed, k.cost, k.updates, k.ways, k.engine, engines.placed[number], engines.cost[number])


@inlined
def _is_placed(status: int) -> bool:
    """Whether there is a mapping, however many cycles it takes."""
    return status in (FITS, TOO_MANY)


@inlined
def _on_xnor(step: Step, place: int, v: NDArray[np.int64], asked: Asked, known: Known) -> bool:
    """Whether the XNOR engine is faster than the STCE could be, before anybody asks that."""
    if len(known.xnor) == 0 or is_priced(asked.objective) or not _is_placed(known.xnor[place, STATUS]):
        return False
    return bool(ceil_div(step.places[place, 2], v[0] * v[1]) > known.xnor[place, SPENT])


@inlined
def _xnor_wins(asked: Asked, known: Known, place: int) -> bool:
    """`engines.place`: of engines that cost the same, the STCE."""
    if len(known.xnor) == 0 or not _is_placed(known.xnor[place, STATUS]):
        return False
    if not _is_placed(known.placed[place, STATUS]):
        return True
    if is_priced(asked.objective):
        return bool(known.xnor_cost[place] < known.cost[place])
    return bool(known.xnor[place, SPENT] < known.placed[place, SPENT])


@bare
def know(step: Step, place: int, v: NDArray[np.int64], asked: Asked, known: Known, memory: Memory) -> int:
    """Status of the placement of a product on whichever engine, which is known afterwards, on a machine, int64 [28]."""
    row = known.placed[place]
    if row[STATUS] != UNKNOWN:
        return int(row[STATUS])
    on_xnor = _on_xnor(step, place, v, asked, known)
    if not on_xnor:
        found = _placed(step, place, step.places[place, 0], step.places[place, 1], v, asked, memory)
        row[STATUS], row[SPENT], row[MOVED] = found.status, found.cycles, found.moved
        row[PROBLEM], row[SLOT], known.cost[place] = found.problem, found.slot, found.cost
        on_xnor = _xnor_wins(asked, known, place)
    if on_xnor:
        for i in range(SLOT):
            row[i] = known.xnor[place, i]
        row[SLOT] = -1
        known.cost[place] = known.xnor_cost[place]
    known.engine[place] = int(on_xnor)
    return int(row[STATUS])
