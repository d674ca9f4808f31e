"""The kernel of the offline scheduler: exhaustive search over the mappings of one op with one choice of roles.

The space, in the order it is walked (the first of equals wins):

- dataflow OS, then WS;
- executed pattern: the op's own; dense runs as 1:1 in OS and as D:D, D = 1, 2, 4, ... held pairs, in WS;
- interleave 1 .. accumulators, as far as the PE's registers hold it;
- macro-tile rows: 1, 2, 3, 4, 6, 8, 12, 16, ... times the array rows (OS) or the interleave (WS), and all rows;
- macro-tile columns: the same multiples of the columns that one array tile makes, and all columns;
- operands resident, rows slow (loop order mn) or columns slow (nm); or streamed; and where SORE would reduce the same
  columns for every row tile: the compact copy kept in memory (resident or streamed), or in the N2S buffer (streamed).

A mapping that by what it does in all cannot win is not costed phase by phase; nor is a branch whose array time alone is
too long. `Only` restricts the space.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .array_time import ArrayMachine, Tiling, ceil_div, col_work, issue_cycles, pairs, row_work, tiling
from .cost import (
    BUFFER,
    FITS,
    LONGEST,
    MEMORY,
    REMADE,
    TOO_LARGE,
    TOO_LONG,
    Axis,
    MemoryMachine,
    Problem,
    Share,
    Tile,
    Totals,
    col_axis,
    least_units,
    moves,
    op_totals,
    op_units,
    row_axis,
    share,
    times_of,
)
from .jit import inlined, kernel

__all__ = [
    "CYCLES", "EDP", "ENERGY", "FORMS", "FREE_SPACE", "NOTHING", "THRIFT", "TIE", "Actions", "Found", "Limits",
    "Only", "Prices", "actions", "search",
]  # fmt: skip

THRIFT, CYCLES, ENERGY, EDP, _BYTES = 0, 1, 2, 3, 4
TIE = 128
"""To the objective thrift times that differ by less than 1/128 are equal. Streaming hides a few hundred cycles of the
first loads and can move ten times the bytes; over the examples this costs 0.0-0.3 % of a step's time and saves 1-34 %
of its energy."""


class Limits(NamedTuple):
    """Registers of a PE."""

    accumulators: int
    dense_words: int
    weight_pairs: int
    max_group: int


class Prices(NamedTuple):
    """Picojoules of the actions that a mapping changes, and ``fixed`` for those it does not."""

    dram_byte: float
    buffer_byte: float
    w2e_word: float
    n2s_pair: float
    output_word: float
    sore_group: float
    fixed: float


class Actions(NamedTuple):
    """Buffer accesses of the array."""

    w2e_words: int
    n2s_pairs: int
    output_words: int


class Only(NamedTuple):
    """What a search is restricted to. ``dataflows``: bit 0 OS, bit 1 WS. ``forms``: bits by the number of `_form`; -1
    for those of the space. The others are lists of allowed values, of any if empty: interleaves, pairs that a dense
    operand holds in WS, rows and columns of a macro-tile, which need not be of the space."""

    dataflows: int
    interleaves: NDArray[np.int64]
    held: NDArray[np.int64]
    rows: NDArray[np.int64]
    cols: NDArray[np.int64]
    forms: int


_ANY = np.empty(0, np.int64)
FREE_SPACE = Only(3, _ANY, _ANY, _ANY, _ANY, -1)


class Found(NamedTuple):
    """Best mapping of a search: whether there is one (`cost.FITS`), its cost under energy or EDP, bytes, and time;
    ``decided``: the mappings costed or excluded by a bound."""

    status: int
    key: float
    moved: int
    units: int
    ws: int
    keep: int
    group: int
    interleave: int
    tile: Tile
    decided: int


NOTHING = Found(TOO_LARGE, np.inf, LONGEST, LONGEST, 0, 0, 0, 0, Tile(0, 0, 0, 0, 0), 0)
"""Of a search without a space."""


@inlined
def actions(p: Problem, x: ArrayMachine, t: Tiling, tile: Tile) -> Actions:
    """Words the array takes from and puts into the buffers."""
    products = p.groups * p.rows * p.cols
    if t.ws:
        slots = pairs(p.k, p.run, p.keep, p.group) if p.keep else p.k
        return Actions(
            p.groups * p.rows * p.k * ceil_div(p.cols, x.C),
            p.groups * p.cols * slots * ceil_div(p.rows, tile.rows),
            products * (2 * t.slots - 1),
        )
    return Actions(
        p.groups * p.rows * p.k * ceil_div(p.cols, x.C * t.interleave),
        p.groups * p.cols * t.slots * ceil_div(p.rows, x.R),
        products,
    )


@inlined
def energy_pj(p: Problem, x: ArrayMachine, t: Tiling, tile: Tile, cost: Totals, price: Prices) -> float:
    """Picojoules of a mapping."""
    a = actions(p, x, t, tile)
    moved = cost.read_bytes + cost.write_bytes
    return (
        price.fixed
        + moved * (price.dram_byte + price.buffer_byte)
        + a.w2e_words * price.w2e_word
        + a.n2s_pairs * price.n2s_pair
        + a.output_words * price.output_word
        + cost.sore_groups * price.sore_group
    )


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
def _floor(p: Problem, x: ArrayMachine, t: Tiling) -> int:
    """Array cycles that no macro-tiling avoids."""
    return p.groups * issue_cycles(x, t, row_work(x, t, p.rows), col_work(x, t, p.cols))


@kernel
def _forms(q: Share, r: Axis, c: Axis) -> int:
    """How many of `_form` there are: keeping a compact copy is worth a try where it is used again."""
    if not q.sore_groups or r.tiles == 1:
        return 3
    return 6 if c.tiles > 1 else 5


@inlined
def _form(r: Axis, c: Axis, form: int) -> Tile:
    """Residence, loop order and place of the compact copy, in the order in which they are tried."""
    if form == 0:
        return Tile(r.full, c.full, 1, 1, REMADE)
    if form == 1:
        return Tile(r.full, c.full, 1, 0, REMADE)
    if form == 2:
        return Tile(r.full, c.full, 0, 1, REMADE)
    if form == 3:
        return Tile(r.full, c.full, 0, 1, MEMORY)
    if form == 4:
        return Tile(r.full, c.full, 0, 0, BUFFER)
    if form == 5:
        return Tile(r.full, c.full, 1, 1, MEMORY)
    # Never better than one of those above, but somebody may ask for them.
    if form == 6:
        return Tile(r.full, c.full, 0, 0, REMADE)
    if form == 7:
        return Tile(r.full, c.full, 1, 0, MEMORY)
    return Tile(r.full, c.full, 0, 0, MEMORY)


FORMS = (
    (1, 1, REMADE), (1, 0, REMADE), (0, 1, REMADE), (0, 1, MEMORY), (0, 0, BUFFER), (1, 1, MEMORY), (0, 0, REMADE),
    (1, 0, MEMORY), (0, 0, MEMORY),
)  # fmt: skip
"""Of `_form`, by number: resident, rows slow, place of the compact copy."""


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
    decided, too_long = 0, 0
    q = share(p)
    for ws in range(2):
        held = 1
        while held <= (min(limits.weight_pairs, limits.max_group) if ws and not p.keep else 1):
            keep, group = (p.keep, p.group) if p.keep else (held, held)
            held += held if len(only.held) == 0 else 1
            unasked = not only.dataflows >> ws & 1 or (ws and not p.keep and not _allows(only.held, keep))
            if unasked or (ws and keep > limits.weight_pairs):
                continue
            for interleave in range(1, limits.accumulators + 1):
                if group * (interleave if ws else 1) > limits.dense_words:
                    break
                t = tiling(x, ws, keep, group, interleave, p.rows, p.k, p.run)
                limit = min(most_units, best.units) if objective == CYCLES else most_units
                asked = _allows(only.interleaves, interleave)
                if not asked or _floor(p, x, t) > limit // y.rate:
                    too_long |= int(asked and limit == LONGEST)
                    continue
                widths = only.cols if len(only.cols) else _steps(x.C if ws else x.C * interleave, p.cols)
                all_cols = [col_axis(p, x, t, cols) for cols in widths]
                for rows in only.rows if len(only.rows) else _steps(interleave if ws else x.R, p.rows):
                    r = row_axis(p, x, t, rows)
                    for c in all_cols:
                        for form in range(_forms(q, r, c) if only.forms < 0 else len(FORMS)):
                            if not only.forms >> form & 1:
                                continue
                            tile = _form(r, c, form)
                            decided += 1
                            m = moves(p, x, y, t, q, r, c, tile)
                            found = op_totals(p, x, y, t, q, r, c, m, tile)
                            if found.status != FITS:
                                too_long |= int(found.status == TOO_LONG)
                                continue
                            least = least_units(y, found)
                            key = _key(p, x, t, tile, found, least, price, objective)
                            if least > most_units or not _better(objective, key, least, found, best):
                                continue
                            k = times_of(p, x, y, t, q, r, c, m, tile)
                            units = op_units(p, y, k, r, c, m, tile, found.ramp)[1]
                            key = _key(p, x, t, tile, found, units, price, objective)
                            if units <= most_units and _better(objective, key, units, found, best):
                                moved = found.read_bytes + found.write_bytes
                                best = Found(FITS, key, moved, units, ws, keep, group, interleave, tile, 0)
    status = best.status if best.status == FITS else (TOO_LONG if too_long else best.status)
    return Found(
        status, best.key, best.moved, best.units, best.ws, best.keep, best.group, best.interleave, best.tile, decided
    )  # fmt: skip


@inlined
def _better(objective: int, key: float, units: int, found: Totals, best: Found) -> bool:
    """Whether a mapping may take the place of the best one; ``key`` and ``units`` are its own or no more than those."""
    moved = found.read_bytes + found.write_bytes
    if objective == CYCLES:
        return units < best.units or (units == best.units and moved < best.moved)
    if objective == _BYTES:
        return moved < best.moved
    return key < best.key


@inlined
def _key(
    p: Problem, x: ArrayMachine, t: Tiling, tile: Tile, found: Totals, units: int, price: Prices, objective: int
) -> float:
    """What the objectives energy and EDP minimise, of a mapping that takes ``units``."""
    if objective in (CYCLES, _BYTES):
        return 0.0
    energy = energy_pj(p, x, t, tile, found, price)
    return energy if objective == ENERGY else energy * units


@kernel
def search(
    p: Problem, x: ArrayMachine, y: MemoryMachine, limits: Limits, price: Prices, objective: int, only: Only
) -> Found:
    """Best mapping of ``p`` in the space this module states, as far as ``only`` allows it.

    Under the objective thrift, mappings within `TIE` of the fastest count as equal and the one that moves the fewest
    DRAM bytes wins.
    """
    if objective != THRIFT:
        return _scan(p, x, y, limits, price, objective, LONGEST, only)
    best = _scan(p, x, y, limits, price, CYCLES, LONGEST, only)
    if best.status != FITS:
        return best
    f = _scan(p, x, y, limits, price, _BYTES, best.units + best.units // TIE, only)
    return Found(
        f.status, f.key, f.moved, f.units, f.ws, f.keep, f.group, f.interleave, f.tile, best.decided + f.decided
    )  # fmt: skip
