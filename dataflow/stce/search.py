"""The kernel of the offline scheduler: exhaustive search over the mappings of one op, with one choice of roles or two.

All of the space (`space.py`) is decided, little of it costed: a branch, a row of macro-tiles or a mapping is left out
as soon as a bound of its time or of its bytes (`bounds.py`) says that it cannot win. Of equals the first in the order
of the space wins, in whatever order they are visited, since each mapping knows its place; of roles, the first given.
tests/dataflow/exhaustive.py costs every mapping and finds the same.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..integers import ceil_div
from ..jit import inlined, kernel
from ..macro_tiles import (
    FITS,
    MEMORY,
    TOO_LARGE,
    TOO_LONG,
    Axis,
    Tile,
    Totals,
    least_units,
    moves,
    op_totals,
    op_units,
    passes,
    times_of,
)
from ..objective import TIE
from ..operand import BYTE
from ..prices import Prices
from ..problem import LONGEST, RATE, MemoryMachine, Problem, Share, share
from .bounds import Bound, Once, least_bytes, least_of_rows, least_of_tile, once_of
from .cost import energy_of, energy_pj, lasting
from .dataflows import col_axis, demand_of, issue_of, row_axis, tiling, unit, words
from .pace import ArrayMachine, Tiling, Words
from .space import FORMS, ROWS_AT, Limits, Only, branches_of, extents, forms_of, place_of, room_of

__all__ = ["CYCLES", "EDP", "ENERGY", "NOTHING", "THRIFT", "Best", "Found", "Side", "search", "search_sides"]

THRIFT, CYCLES, ENERGY, EDP, _BYTES = 0, 1, 2, 3, 4


class Found(NamedTuple):
    """Best mapping of a search: whether there is one (`cost.FITS`), its cost under energy or EDP, bytes, and time;
    ``place``: where it stands in the order of the space."""

    status: int
    key: float
    moved: int
    units: int
    dataflow: int
    keep: int
    group: int
    interleave: int
    tile: Tile
    place: int


NOTHING = Found(TOO_LARGE, np.inf, LONGEST, LONGEST, 0, 0, 0, 0, Tile(0, 0, 0, 0, 0), LONGEST)
"""Of a search without a space."""

IMPOSSIBLE = NOTHING._replace(status=TOO_LONG)
"""Of one whose mappings that fit are all too long to be timed."""


_FIRST = -1
"""A place before that of every mapping."""


class _Goal(NamedTuple):
    """What is minimised, by which prices, among the mappings that take at most ``most_units``."""

    objective: int
    price: Prices
    most_units: int


@inlined
def _wins(objective: int, key: float, units: int, moved: int, place: int, best: Found) -> bool:
    """Whether a mapping may take the place of the best one; ``key``, ``units`` and ``moved`` are its own or less."""
    if objective == CYCLES and units != best.units:
        return units < best.units
    if objective == _BYTES and moved == best.moved and units != best.units:
        return units < best.units
    if objective in (CYCLES, _BYTES):
        return moved < best.moved or (moved == best.moved and place < best.place)
    return key < best.key or (key == best.key and place < best.place)


@inlined
def _key(
    p: Problem, x: ArrayMachine, t: Tiling, tile: Tile, found: Totals, units: int, rate: int, goal: _Goal
) -> float:
    """What the objectives energy and EDP minimise, of a mapping that takes ``units`` of 1/``rate`` cycles."""
    if not _priced(goal):
        return 0.0
    return _charged(energy_pj(p, x, t, tile, found, goal.price), units, rate, goal)


@inlined
def _charged(energy: float, units: int, rate: int, goal: _Goal) -> float:
    """`_key` of a mapping whose actions take ``energy``; of more energy or time it is no less."""
    whole = lasting(energy, units, rate, goal.price)
    return whole if goal.objective == ENERGY else whole * units


@inlined
def _tile(
    p: Problem,
    x: ArrayMachine,
    y: MemoryMachine,
    t: Tiling,
    q: Share,
    goal: _Goal,
    r: Axis,
    c: Axis,
    tile: Tile,
    place: int,
    best: Found,
) -> tuple[Found, int]:
    """The better of ``best`` and one mapping; whether that is too long to be timed."""
    m = moves(p, y, demand_of(x, t, r, c), q, r, c, tile)
    if not m.fits:
        return best, 0
    e = issue_of(x, t, r, c)
    found = op_totals(p, y, e, q, r, c, m, tile)
    if found.status != FITS:
        return best, int(found.status == TOO_LONG)
    moved = found.read_bytes + found.write_bytes
    least = least_units(p, y, r, c, m, tile, found)
    key = _key(p, x, t, tile, found, least, y.rate, goal)
    if least > goal.most_units or not _wins(goal.objective, key, least, moved, place, best):
        return best, 0
    units = op_units(p, y, times_of(p, y, e, q, r, c, m, tile), r, c, m, tile, found.ramp)[1]
    key = _key(p, x, t, tile, found, units, y.rate, goal)
    if units <= goal.most_units and _wins(goal.objective, key, units, moved, place, best):
        best = Found(FITS, key, moved, units, t.dataflow, t.keep, t.group, t.interleave, tile, place)
    return best, 0


@inlined
def _longest(goal: _Goal, best: Found, moved: int) -> int:
    """What a mapping may take at most to be of use, that moves so many bytes at least."""
    tells = goal.objective == CYCLES or (goal.objective == _BYTES and moved == best.moved)
    return min(goal.most_units, best.units) if tells else goal.most_units


@inlined
def _priced(goal: _Goal) -> bool:
    return goal.objective in (ENERGY, EDP)


@inlined
def _hopeless(goal: _Goal, y: MemoryMachine, best: Found, least: Bound, energy: float, place: int) -> bool:
    """Whether what takes no less than that, and no less ``energy``, and is not before ``place``, cannot win; nothing is
    while anything would."""
    if goal.objective == _BYTES and least.moved > best.moved:
        return True
    if goal.objective == ENERGY and energy > best.key:
        return True
    longest = _longest(goal, best, least.moved)
    if longest == LONGEST and (not _priced(goal) or best.key == np.inf):
        return False
    alone, moved = float(least.array) * y.rate + float(least.ends) * RATE, float(least.moved) * RATE
    if max(alone, moved) >= LONGEST:
        return True
    units = least.ramp * y.rate + max(least.array * y.rate + least.ends * RATE, least.moved * RATE)
    if goal.objective in (CYCLES, _BYTES) and units == longest:
        return least.moved > best.moved or (least.moved == best.moved and place > best.place)
    return _charged(energy, units, y.rate, goal) > best.key if _priced(goal) else units > longest


@inlined
def _least_energy(p: Problem, q: Share, a: Words, reductions: int, moved: int, goal: _Goal) -> float:
    """Picojoules of a mapping at least that moves so many words and bytes, if anybody asks."""
    return energy_of(a, moved, p.groups * reductions * q.sore_groups * p.cols, goal.price) if _priced(goal) else 0.0


@inlined
def _best_of_rows(
    p: Problem,
    x: ArrayMachine,
    y: MemoryMachine,
    t: Tiling,
    q: Share,
    of: Once,
    goal: _Goal,
    forms: int,
    r: Axis,
    a: Words,
    of_rows: Bound,
    room: NDArray[np.int64],
    held: int,
    streamed: int,
    place: int,
    best: Found,
) -> tuple[Found, int]:
    """The better of ``best`` and of the mappings with these row tiles; of the columns so many fit resident, and
    streamed."""
    too_long = 0
    for form in range(forms_of(q, r.tiles, room[0, 1]) if forms < 0 else len(FORMS)):
        if not forms >> form & 1:
            continue
        resident, rows_slow, compact = FORMS[form]
        for j in range((held if resident else streamed) - 1, -1, -1):
            # But for what the array makes of a tile, which no bound asks.
            c = Axis(room[j, 1], room[j, 0], room[j, 2], 0, 0)
            if forms < 0 and form >= forms_of(q, r.tiles, c.tiles):
                continue
            tile = Tile(r.full, c.full, resident, rows_slow, compact)
            least = least_of_tile(p, x, t, q, of, of_rows.array, r, c, tile)
            own, energy = place + place_of(0, 0, j, form), 0.0
            if _priced(goal):
                reductions = 1 if compact == MEMORY else passes(r, c, tile)[1]
                energy = _least_energy(p, q, a, reductions, least.moved, goal)
            if _hopeless(goal, y, best, least, energy, own):
                # Narrower columns move no fewer bytes, once there are several tiles of them.
                more = Bound(least.array, of_rows.ramp, 0, least.moved)
                if c.tiles > 1 and _hopeless(goal, y, best, more, energy, _FIRST):
                    break
                continue
            best, longer = _tile(p, x, y, t, q, goal, r, col_axis(x, t, p.cols, c.full), tile, own, best)
            too_long |= longer
    return best, too_long


@inlined
def _best_tiles(
    p: Problem,
    x: ArrayMachine,
    y: MemoryMachine,
    t: Tiling,
    q: Share,
    of: Once,
    ramp: int,
    goal: _Goal,
    forms: int,
    asked_rows: int,
    asked_cols: int,
    branch: int,
    room: NDArray[np.int64],
    best: Found,
) -> tuple[Found, int]:
    """Best of ``best`` and of the mappings at one pace; whether one was too long to be timed."""
    too_long = 0
    high, wide = unit(t.dataflow, x, t.interleave)
    highs = extents(room, ROWS_AT, asked_rows, high, p.rows)
    wides = extents(room, 0, asked_cols, wide, p.cols)
    for j in range(wides):
        room[j, 1] = ceil_div(p.cols, room[j, 0])
        room[j, 2] = p.cols - (room[j, 1] - 1) * room[j, 0]
    col_work = col_axis(x, t, p.cols, p.cols).work
    one, two = Axis(1, 1, 1, 1, 1), Axis(1, 1, 1, 2, 2)
    bits = demand_of(x, t, one, one).result_bits
    one_tile = not demand_of(x, t, two, two).streams
    fits_north = wides
    while fits_north and room[fits_north - 1, 0] * min(q.held_col, q.held_col_cut) > y.north_half:
        fits_north -= 1
    may_stream = wides
    while one_tile and may_stream and room[may_stream - 1, 0] > wide:
        may_stream -= 1
    fits_out = 0
    # From the widest down: the first that fits moves the fewest bytes, which rules out most of the others.
    for i in range(highs - 1, -1, -1):
        high_now = room[i, ROWS_AT]
        while fits_out < wides and high_now * room[fits_out, 0] * bits <= y.out_half * BYTE:
            fits_out += 1
        held = min(fits_out, fits_north) if high_now * q.row <= y.west_half else 0
        streamed = 0 if one_tile and high_now > high else min(fits_out, may_stream)
        if max(held, streamed) == 0:
            continue
        r = row_axis(x, t, p.rows, high_now)
        over, ends = room[max(held, streamed) - 1, 1], 0 if streamed else high_now * q.row
        least = least_of_rows(p, x, t, q, of, ramp, r, col_work, over, ends)
        a = words(p, x, t, high_now) if _priced(goal) else Words(0, 0, 0)
        place = place_of(branch, i, 0, 0)
        if _hopeless(goal, y, best, least, _least_energy(p, q, a, 1, least.moved, goal), place):
            continue
        best, longer = _best_of_rows(p, x, y, t, q, of, goal, forms, r, a, least, room, held, streamed, place, best)
        too_long |= longer
    return best, too_long


@kernel
def _scan(
    p: Problem, x: ArrayMachine, y: MemoryMachine, branches: NDArray[np.int64], goal: _Goal, only: Only, best: Found
) -> Found:
    """Best of ``best`` and of the mappings that take at most the goal's units; of equals the first, of equally fast
    ones the first that moves the fewest bytes."""
    too_long, nearest = 0, 0
    if len(branches) == 0:
        return best
    q = share(p)
    of, room = once_of(p, q), room_of(only)
    highs, wides, energies = len(only.rows), len(only.cols), np.empty(len(branches) if _priced(goal) else 0)
    moved = least_bytes(of, (False, False, False), 1, 1)
    for b in range(len(branches)):
        if _priced(goal):
            # The whole height at once reads the fewest words.
            dataflow, keep, group, interleave = branches[b, 0], branches[b, 1], branches[b, 2], branches[b, 3]
            a = words(p, x, tiling(dataflow, x, keep, group, interleave, p.rows, p.k, p.run), p.rows)
            energies[b] = _least_energy(p, q, a, 1, moved, goal)
            if energies[b] < energies[nearest]:
                nearest = b
        elif branches[b, 4] < branches[nearest, 4]:
            nearest = b
    # The branch with the least to do for the array, or the least energy, first: what it finds rules out most others.
    for turn in range(-1, len(branches)):
        b = nearest if turn < 0 else turn
        if turn == nearest:
            continue
        least, energy = Bound(branches[b, 4], branches[b, 5], 0, moved), energies[b] if _priced(goal) else 0.0
        if _hopeless(goal, y, best, least, energy, place_of(b, 0, 0, 0)):
            continue
        dataflow, keep, group, interleave = branches[b, 0], branches[b, 1], branches[b, 2], branches[b, 3]
        t = tiling(dataflow, x, keep, group, interleave, p.rows, p.k, p.run)
        best, longer = _best_tiles(p, x, y, t, q, of, least.ramp, goal, only.forms, highs, wides, b, room, best)
        too_long |= longer
    if best.status == FITS or not too_long:
        return best
    return IMPOSSIBLE


class Side(NamedTuple):
    """A product with one choice of roles, what its actions cost, and what of its space is asked for."""

    p: Problem
    price: Prices
    only: Only


class Best(NamedTuple):
    """The best mapping of `search_sides` and the number of its side; under thrift the fastest one, by which it was
    found, and the number of that one's, else the same again."""

    side: int
    found: Found
    fastest_side: int
    fastest: Found


@inlined
def _beaten_by(best: Found, first: bool) -> Found:
    """What the search of another side begins with: nothing, and of equals none is better, or all if it is ``first``."""
    place = LONGEST if first else -1
    return Found(TOO_LARGE, best.key, best.moved, best.units, 0, 0, 0, 0, Tile(0, 0, 0, 0, 0), place)


@kernel
def search_sides(sides: tuple[Side, ...], x: ArrayMachine, y: MemoryMachine, limits: Limits, objective: int) -> Best:
    """The best mapping of ``sides`` together, one or two: under thrift, of those within `TIE` of the fastest of all,
    the one that moves the fewest DRAM bytes; of these the fastest, of these the first.

    Of sides without a mapping the first that has one too long to be timed, else the first.
    """
    goal = CYCLES if objective == THRIFT else objective
    first = branches_of(sides[0].p, x, limits, sides[0].only)
    branches, best, side = first, NOTHING, 0
    for n in range(len(sides)):
        one = sides[n]
        if n:
            branches = branches_of(one.p, x, limits, one.only)
        than = _beaten_by(best, False) if best.status == FITS else NOTHING
        found = _scan(one.p, x, y, branches, _Goal(goal, one.price, LONGEST), one.only, than)
        if found.status == FITS or (found.status == TOO_LONG and best.status == TOO_LARGE):
            best, side = found, n
    fastest, fastest_side = best, side
    if objective == THRIFT and best.status == FITS:
        most = best.units + best.units // TIE
        for n in range(len(sides)):
            one = sides[n]
            than = best if n == side else _beaten_by(best, n < side)
            found = _scan(one.p, x, y, branches if n else first, _Goal(_BYTES, one.price, most), one.only, than)
            if found.status == FITS:
                best, side = found, n
    return Best(side, best, fastest_side, fastest)


@kernel
def search(
    p: Problem, x: ArrayMachine, y: MemoryMachine, limits: Limits, price: Prices, objective: int, only: Only
) -> Found:
    """Best mapping of ``p`` in the space this module states, as far as ``only`` allows it: `search_sides` of one."""
    return search_sides((Side(p, price, only),), x, y, limits, objective).found
