"""The kernel of the offline scheduler: exhaustive search over the mappings of one op with one choice of roles.

The space, in the order it is walked (the first of equals wins):

- dataflow OS, then WS;
- executed pattern: the op's own; dense runs as 1:1 in OS and as D:D, D = 1, 2, 4, ... held pairs, in WS;
- interleave 1 .. accumulators, as far as the PE's registers hold it;
- macro-tile rows: 1, 2, 3, 4, 6, 8, 12, 16, ... times the array rows (OS) or the interleave (WS), and all rows;
- macro-tile columns: the same multiples of the columns that one array tile makes, and all columns;
- operands resident, rows slow (loop order mn) or columns slow (nm); or streamed.

A branch whose array time alone is not below the best time found is skipped: memory can only add to it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .array_time import ArrayMachine, Tiling, ceil_div, col_work, issue_cycles, pairs, row_work, tiling
from .cost import MemoryMachine, OpCost, Problem, Tile, col_axis, op_cost, row_axis, share
from .jit import kernel

__all__ = ["CYCLES", "EDP", "ENERGY", "TIE", "Actions", "Found", "Limits", "Prices", "actions", "search"]

CYCLES, ENERGY, EDP, _BYTES = 0, 1, 2, 3
TIE = 128
"""Times that differ by less than 1/128 are equal. Streaming hides a few hundred cycles of the first loads and can move
ten times the bytes; over the examples this costs 0.0-0.3 % of a step's time and saves 1-34 % of its energy."""
_UNLIMITED = 2**63 - 1


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
    fixed: float


class Actions(NamedTuple):
    """Buffer accesses of the array."""

    w2e_words: int
    n2s_pairs: int
    output_words: int


class Found(NamedTuple):
    """Best mapping of a search; ``key`` is its cost in the objective's own unit, ``evaluated`` the mappings costed."""

    key: float
    units: int
    ws: int
    keep: int
    group: int
    interleave: int
    tile: Tile
    evaluated: int


@kernel
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


@kernel
def energy_pj(p: Problem, x: ArrayMachine, t: Tiling, tile: Tile, cost: OpCost, price: Prices) -> float:
    """Picojoules of a mapping."""
    a = actions(p, x, t, tile)
    moved = cost.read_bytes + cost.write_bytes
    return (
        price.fixed
        + moved * (price.dram_byte + price.buffer_byte)
        + a.w2e_words * price.w2e_word
        + a.n2s_pairs * price.n2s_pair
        + a.output_words * price.output_word
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
def _floor(p: Problem, x: ArrayMachine, t: Tiling) -> int:
    """Array cycles that no macro-tiling avoids."""
    return p.groups * issue_cycles(x, t, row_work(x, t, p.rows), col_work(x, t, p.cols))


@kernel
def _scan(
    p: Problem, x: ArrayMachine, y: MemoryMachine, limits: Limits, price: Prices, objective: int, most_units: int
) -> Found:
    """Best mapping by one objective among those that take at most ``most_units``."""
    best_tile, best_key, best_units = Tile(0, 0, 0, 0), np.inf, -1
    best_ws = best_keep = best_group = best_interleave = 0
    evaluated = 0
    q = share(p)
    for ws in range(2):
        held = 1
        while held <= (min(limits.weight_pairs, limits.max_group) if ws and not p.keep else 1):
            keep, group = (p.keep, p.group) if p.keep else (held, held)
            held *= 2
            if ws and keep > limits.weight_pairs:
                continue
            for interleave in range(1, limits.accumulators + 1):
                if group * (interleave if ws else 1) > limits.dense_words:
                    break
                t = tiling(x, ws, keep, group, interleave, p.rows, p.k, p.run)
                floor = _floor(p, x, t) * y.rate
                if floor > most_units or (objective == CYCLES and best_units >= 0 and floor >= best_units):
                    continue
                all_cols = [col_axis(p, x, t, cols) for cols in _steps(x.C if ws else x.C * interleave, p.cols)]
                for rows in _steps(interleave if ws else x.R, p.rows):
                    r = row_axis(p, x, t, rows)
                    for c in all_cols:
                        for form in range(3):
                            tile = Tile(rows, c.full, int(form < 2), int(form != 1))
                            cost = op_cost(p, x, y, t, q, r, c, tile.resident, tile.rows_slow, group)
                            evaluated += 1
                            if not cost.fits or cost.units > most_units:
                                continue
                            key = _key(p, x, t, tile, cost, price, objective)
                            if key < best_key:
                                best_key, best_units, best_tile = key, cost.units, tile
                                best_ws, best_keep, best_group, best_interleave = ws, keep, group, interleave
    return Found(best_key, best_units, best_ws, best_keep, best_group, best_interleave, best_tile, evaluated)


@kernel
def _key(p: Problem, x: ArrayMachine, t: Tiling, tile: Tile, cost: OpCost, price: Prices, objective: int) -> float:
    """What an objective minimises."""
    if objective == CYCLES:
        return float(cost.units)
    if objective == _BYTES:
        return float(cost.read_bytes + cost.write_bytes)
    energy = energy_pj(p, x, t, tile, cost, price)
    return energy if objective == ENERGY else energy * cost.units


@kernel
def search(p: Problem, x: ArrayMachine, y: MemoryMachine, limits: Limits, price: Prices, objective: int) -> Found:
    """Best mapping of ``p`` in the space this module states; ``units`` < 0 when none fits the buffers.

    Under the objective cycles, mappings within `TIE` of the fastest count as equal and the one that moves the fewest
    DRAM bytes wins; its ``key`` is still its time.
    """
    best = _scan(p, x, y, limits, price, objective, _UNLIMITED)
    if objective != CYCLES or best.units < 0:
        return best
    thrifty = _scan(p, x, y, limits, price, _BYTES, best.units + best.units // TIE)
    return Found(
        float(thrifty.units), thrifty.units, thrifty.ws, thrifty.keep, thrifty.group, thrifty.interleave, thrifty.tile,
        best.evaluated + thrifty.evaluated,
    )  # fmt: skip
