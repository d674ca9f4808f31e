"""The search as it is meant: every mapping of the space is costed, the first of the best wins.

Costs are those of `weft.dataflow`, which is what the search takes too; the walk, the space and the order are its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from weft.dataflow.macro_tiles import (
    BUFFER,
    FITS,
    MEMORY,
    REMADE,
    TOO_LARGE,
    TOO_LONG,
    Axis,
    Tile,
    Totals,
    moves,
    op_totals,
    op_units,
    times_of,
)
from weft.dataflow.objective import TIE
from weft.dataflow.prices import Prices
from weft.dataflow.problem import LONGEST, RATE, MemoryMachine, Problem, Share, share
from weft.dataflow.stce.cost import energy_pj
from weft.dataflow.stce.dataflows import (
    PACES,
    col_axis,
    demand_of,
    issue_of,
    least_issue,
    registers,
    row_axis,
    tiling,
    unit,
    widest,
)
from weft.dataflow.stce.pace import ArrayMachine, Tiling
from weft.dataflow.stce.space import Limits, Only

__all__ = ["Found", "search", "search_roles"]

# Not cached: tests and benchmarks import this file under two names, and a cached kernel knows one of them.
kernel, inlined = njit(error_model="numpy"), njit(error_model="numpy", forceinline=True)

THRIFT, CYCLES, ENERGY, EDP, _BYTES = 0, 1, 2, 3, 4


@inlined
def _least_units(y: MemoryMachine, found: Totals) -> int:
    return max(max(found.array, found.sore_cycles) * y.rate, (found.read_bytes + found.write_bytes) * RATE)


_DATAFLOWS = len(PACES)


class Found(NamedTuple):
    """Best mapping of a search: whether there is one (`cost.FITS`), its cost under energy or EDP, bytes, and time;
    ``decided``: the mappings costed or excluded by a bound."""

    status: int
    key: float
    moved: int
    units: int
    dataflow: int
    keep: int
    group: int
    interleave: int
    tile: Tile
    decided: int


NOTHING = Found(TOO_LARGE, np.inf, LONGEST, LONGEST, 0, 0, 0, 0, Tile(0, 0, 0, 0, 0), 0)
"""Of a search without a space."""


@kernel
def _steps(unit: int, size: int) -> NDArray[np.int64]:
    """Tile extents: 1, 2, 3, 4, 6, 8, 12, ... units while below ``size``, then ``size``."""
    found = np.empty(130, np.int64)
    n, power = 0, 1
    while power * unit < size:
        found[n] = power * unit
        n += 1
        if power > 1 and power * 3 // 2 * unit < size:
            found[n] = power * 3 // 2 * unit
            n += 1
        power *= 2
    found[n] = size
    return found[: n + 1]


@kernel
def _allows(values: NDArray[np.int64], value: int) -> bool:
    return len(values) == 0 or bool(np.any(values == value))


@kernel
def _forms(q: Share, r: Axis, c: Axis) -> int:
    """How many of `FORMS` are tried: keeping a compact copy is worth a try where it is used again."""
    if not q.sore_groups or r.tiles == 1:
        return 3
    return 6 if c.tiles > 1 else 5


FORMS = (
    (1, 1, REMADE),
    (1, 0, REMADE),
    (0, 1, REMADE),
    (0, 1, MEMORY),
    (0, 0, BUFFER),
    (1, 1, MEMORY),
    (0, 0, REMADE),
    (1, 0, MEMORY),
    (0, 0, MEMORY),
)
"""Residence, loop order (1: rows slow) and place of the compact copy, in the order in which they are tried; the last
three are never better than one before them, but somebody may ask for them."""


@inlined
def _best_tiles(
    p: Problem,
    x: ArrayMachine,
    y: MemoryMachine,
    t: Tiling,
    q: Share,
    price: Prices,
    objective: int,
    most_units: int,
    only: Only,
    best: Found,
) -> tuple[Found, int]:
    """Best of ``best`` and of the mappings at one pace; whether one was too long to be timed."""
    decided, too_long = best.decided, 0
    high, wide = unit(t.dataflow, x, t.interleave)
    all_cols = [col_axis(x, t, p.cols, cols) for cols in (only.cols if len(only.cols) else _steps(wide, p.cols))]
    for rows in only.rows if len(only.rows) else _steps(high, p.rows):
        r = row_axis(x, t, p.rows, rows)
        for c in all_cols:
            for form in range(_forms(q, r, c) if only.forms < 0 else len(FORMS)):
                if not only.forms >> form & 1:
                    continue
                resident, rows_slow, compact = FORMS[form]
                tile = Tile(r.full, c.full, resident, rows_slow, compact)
                decided += 1
                m = moves(p, y, demand_of(x, t, r, c), q, r, c, tile)
                if not m.fits:
                    continue
                e = issue_of(x, t, r, c)
                found = op_totals(p, y, e, q, r, c, m, tile)
                if found.status != FITS:
                    too_long |= int(found.status == TOO_LONG)
                    continue
                least = _least_units(y, found)
                key = _key(p, x, t, tile, found, least, y.rate, price, objective)
                if least > most_units or not _better(objective, key, least, found, best):
                    continue
                units = op_units(p, y, times_of(p, y, e, q, r, c, m, tile), r, c, m, tile, found.ramp)[1]
                key = _key(p, x, t, tile, found, units, y.rate, price, objective)
                if units <= most_units and _better(objective, key, units, found, best):
                    moved = found.read_bytes + found.write_bytes
                    best = Found(FITS, key, moved, units, t.dataflow, t.keep, t.group, t.interleave, tile, 0)
    b = best
    return Found(
        b.status, b.key, b.moved, b.units, b.dataflow, b.keep, b.group, b.interleave, b.tile, decided
    ), too_long


@kernel
def _scan(
    p: Problem,
    x: ArrayMachine,
    y: MemoryMachine,
    limits: Limits,
    price: Prices,
    objective: int,
    most_units: int,
    only: Only,
) -> Found:
    """Best mapping by one objective among those that take at most ``most_units``; of equals the first, of equally fast
    ones the first that moves the fewest bytes."""
    best = Found(TOO_LARGE, np.inf, LONGEST, LONGEST, 0, 0, 0, 0, Tile(0, 0, 0, 0, 0), 0)
    too_long = 0
    q = share(p)
    for number in range(_DATAFLOWS):
        widest_group = 1 if p.keep else widest(number, limits.weight_pairs, limits.max_group)
        held = 1
        while held <= widest_group:
            keep, group = (p.keep, p.group) if p.keep else (held, held)
            held += held if len(only.held) == 0 else 1
            pairs = registers(number, keep, group, 1).pairs
            unasked = not only.dataflows >> number & 1 or (pairs > 0 and not p.keep and not _allows(only.held, keep))
            if unasked or pairs > limits.weight_pairs:
                continue
            for interleave in range(1, limits.accumulators + 1):
                if registers(number, keep, group, interleave).dense_words > limits.dense_words:
                    break
                t = tiling(number, x, keep, group, interleave, p.rows, p.k, p.run)
                limit = min(most_units, best.units) if objective == CYCLES else most_units
                asked = _allows(only.interleaves, interleave)
                if not asked or p.groups * least_issue(x, t, p.rows, p.cols) > limit // y.rate:
                    too_long |= int(asked and limit == LONGEST)
                    continue
                best, longer = _best_tiles(p, x, y, t, q, price, objective, most_units, only, best)
                too_long |= longer
    status = best.status if best.status == FITS else (TOO_LONG if too_long else best.status)
    b = best
    return Found(status, b.key, b.moved, b.units, b.dataflow, b.keep, b.group, b.interleave, b.tile, b.decided)


@inlined
def _better(objective: int, key: float, units: int, found: Totals, best: Found) -> bool:
    """Whether a mapping may take the place of the best one; ``key`` and ``units`` are its own or no more than those."""
    moved = found.read_bytes + found.write_bytes
    if objective == CYCLES:
        return units < best.units or (units == best.units and moved < best.moved)
    if objective == _BYTES:
        return moved < best.moved or (moved == best.moved and units < best.units)
    return key < best.key


@inlined
def _key(
    p: Problem,
    x: ArrayMachine,
    t: Tiling,
    tile: Tile,
    found: Totals,
    units: int,
    rate: int,
    price: Prices,
    objective: int,
) -> float:
    """What the objectives energy and EDP minimise, of a mapping that takes ``units`` of 1/``rate`` cycles."""
    if objective in (CYCLES, _BYTES):
        return 0.0
    energy = energy_pj(p, x, t, tile, found, price) + price.cycle * (units / rate)
    return energy if objective == ENERGY else energy * units


@kernel
def search(
    p: Problem, x: ArrayMachine, y: MemoryMachine, limits: Limits, price: Prices, objective: int, only: Only
) -> Found:
    """Best mapping of ``p`` in the space this module states, as far as ``only`` allows it.

    Under the objective thrift, mappings within `TIE` of the fastest count as equal and the one that moves the fewest
    DRAM bytes wins, of these the fastest, of these the first.
    """
    if objective != THRIFT:
        return _scan(p, x, y, limits, price, objective, LONGEST, only)
    best = _scan(p, x, y, limits, price, CYCLES, LONGEST, only)
    if best.status != FITS:
        return best
    f = _scan(p, x, y, limits, price, _BYTES, best.units + best.units // TIE, only)
    return Found(
        f.status, f.key, f.moved, f.units, f.dataflow, f.keep, f.group, f.interleave, f.tile, best.decided + f.decided
    )


def search_roles(
    roles: Sequence[tuple[Problem, Prices, Only]], x: ArrayMachine, y: MemoryMachine, limits: Limits, objective: int
) -> tuple[int, Found]:
    """The best mapping of all of ``roles``, and which one it is of: by the objective alone, over the best of each."""
    goal = CYCLES if objective == THRIFT else objective
    every = [_scan(p, x, y, limits, price, goal, LONGEST, only) for p, price, only in roles]
    fits = [found.units for found in every if found.status == FITS]
    if objective == THRIFT and fits:
        most = min(fits) + min(fits) // TIE
        every = [_scan(p, x, y, limits, price, _BYTES, most, only) for p, price, only in roles]

    def merit(found: Found) -> tuple[float, ...]:
        if found.status != FITS:
            return 1 if found.status == TOO_LONG else 2, 0, 0
        if objective == THRIFT:
            return 0, found.moved, found.units
        return (0, found.units, found.moved) if objective == CYCLES else (0, found.key, 0)

    best = min(range(len(every)), key=lambda i: merit(every[i]))
    return best, every[best]
