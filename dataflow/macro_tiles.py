"""Exact cost of one mapping of one op: memory phases over macro-tiles, bytes by level, actions. All integers.

`simulator/step.py` steps the phases one by one; the tests hold both equal.
"""

from __future__ import annotations

from typing import NamedTuple

from .integers import ceil_div, whole_bytes
from .jit import inlined, kernel
from .operand import BYTE
from .problem import COLS, CONTRACTION, LONGEST, NORTH, OUT, RATE, ROWS, WEST, MemoryMachine, Problem, Share, share

__all__ = [
    "BUFFER",
    "FITS",
    "MEMORY",
    "REMADE",
    "TOO_LARGE",
    "TOO_LONG",
    "Axis",
    "Demand",
    "Issue",
    "Moves",
    "OpCost",
    "Tile",
    "Tiled",
    "Times",
    "Totals",
    "cuts",
    "least_units",
    "moves",
    "op_cost",
    "op_totals",
    "op_units",
    "passes",
    "sore_cycles",
    "stored",
    "times_of",
]

REMADE, BUFFER, MEMORY = 0, 1, 2
"""Where the compact form of an operand that SORE reduces is kept between its uses (`Mapping.compact`)."""

TOO_LARGE = 0
"""Status of a mapping whose macro-tiles the buffers do not hold."""
FITS = 1
"""Status of a mapping that is timed."""
TOO_LONG = 2
"""Status of a mapping that takes longer than `LONGEST`."""


class Tile(NamedTuple):
    """Macro-tile: its outputs, whether it holds its operands for the whole contraction, whether rows change slowest,
    and where the compact form of an operand that SORE reduces is kept."""

    rows: int
    cols: int
    resident: int
    rows_slow: int
    compact: int


class Axis(NamedTuple):
    """Macro-tiles along rows or columns: how many, their extent, and what the engine makes of one."""

    tiles: int
    full: int
    last: int
    work: int
    work_last: int


class Issue(NamedTuple):
    """What an engine takes for the macro-tiles of a product, in cycles: ``busy`` of one, the distance to whatever it
    does next, by [last row tile, last column tile]; ``ramp``: of the whole product beyond those."""

    busy: tuple[tuple[int, int], tuple[int, int]]
    ramp: int


class Demand(NamedTuple):
    """What a macro-tile of an engine asks of the buffers."""

    chunk: int
    """Slots of k for which a streamed operand is brought in at a time."""
    streams: int
    """1: the engine can take a macro-tile's contraction in such chunks."""
    result_bits: int
    """Of one result, or partial sum, in the output buffer."""
    index_bits: int
    """Room for the index of a pair that streams through the N2S buffer."""


class Tiled(NamedTuple):
    """A product cut into macro-tiles, in numbers: all that transfers, phases and the system level need of it."""

    problem: Problem
    rows: Axis
    cols: Axis
    tile: Tile
    issue: Issue
    demand: Demand


class Moves(NamedTuple):
    """What a macro-tiling moves, and whether it fits the buffers."""

    fits: int
    row: int
    col: int
    again: int
    """Bytes of an N2S column that is read compact from memory, and of the copy written for it."""
    line: int
    """Bytes of a line of results; 0: they are stored one by one."""
    each: int
    """Bytes of one of those, or bits where it takes less than one."""
    added: int
    """1: col2im sees no whole lines, so results are added up in memory: read as well as stored."""
    lead: int
    """First k-chunk of a streamed macro-tile."""


class Totals(NamedTuple):
    """What a mapping does in all, whenever it does it: cycles of the array with its ramp, bytes, groups that SORE
    reduces and its cycles."""

    status: int
    array: int
    ramp: int
    read_bytes: int
    write_bytes: int
    sore_groups: int
    sore_cycles: int


class OpCost(NamedTuple):
    """`Totals`, and the time in 1/rate cycles, with memory and with SORE."""

    totals: Totals
    memory_units: int
    units: int


@inlined
def cuts(p: Problem, row_tiles: int, col_tiles: int, resident: int) -> tuple[bool, bool, bool]:
    """Whether macro-tiles cut the axis along which im2col repeats the W2E operand, the N2S operand, the results."""
    return (
        (p.west_window == ROWS and row_tiles > 1) or (p.west_window == CONTRACTION and not resident),
        (p.north_window == COLS and col_tiles > 1) or (p.north_window == CONTRACTION and not resident),
        (p.out_window == ROWS and row_tiles > 1) or (p.out_window == COLS and col_tiles > 1),
    )


@inlined
def moves(p: Problem, y: MemoryMachine, d: Demand, q: Share, r: Axis, c: Axis, tile: Tile) -> Moves:
    """Loads and stores of a macro-tiling."""
    resident = tile.resident
    row_cut, col_cut, out_cut = cuts(p, r.tiles, c.tiles, resident)
    row = q.row_cut if row_cut else q.row
    kept = q.held_col_cut if col_cut else q.held_col
    fits = r.full * c.full * d.result_bits <= y.out_half * BYTE
    # Words of which a chunk has slots, wherever in one it begins.
    chunk = d.chunk if p.beats == 1 else (d.chunk + 2 * (p.beats - 1)) // p.beats
    if resident:
        fits = fits and r.full * row <= y.west_half and c.full * kept <= y.north_half
    else:
        west = whole_bytes(chunk * p.west_bits)
        north = whole_bytes(chunk * (p.north_bits + d.index_bits))
        fits = fits and d.streams == 1 and r.full * west <= y.west_half
        fits = fits and c.full * (kept if tile.compact == BUFFER else north) <= y.north_half
    col, line, each = q.col_cut if col_cut else q.col, 0 if out_cut else q.out_line, q.out_each
    added = out_cut and p.out_tensor < p.out_expanded
    west_bits, north_bits = p.west_bits, p.north_bits
    if p.on_chip & WEST:
        row = west_bits = 0
    if p.on_chip & NORTH:
        col = north_bits = 0
    if p.on_chip & OUT:
        line = each = 0
    lead = whole_bytes(min(chunk, p.k // p.beats) * (r.full * west_bits + c.full * north_bits))
    return Moves(int(fits), row, col, q.held_col, line, each, int(added), lead)


@inlined
def stored(p: Problem, m: Moves, rows: int, cols: int) -> int:
    """Bytes that ``rows`` x ``cols`` results weigh in memory."""
    if m.line == 0:
        return m.each * rows * cols if p.out_bits >= BYTE else whole_bytes(m.each * rows * cols)
    return m.line * (rows if p.out_window == COLS else cols)


@inlined
def sore_cycles(q: Share, y: MemoryMachine, group: int, cols: int) -> int:
    """Cycles that SORE takes for ``cols`` columns in steady state."""
    return ceil_div(cols * q.sore_groups, y.sore_lanes) * (1 if y.sore_network else group)


@inlined
def passes(r: Axis, c: Axis, tile: Tile) -> tuple[int, int]:
    """How often all of the W2E operand, and all of the N2S operand, is loaded or read back compact."""
    if tile.resident:
        return (1 if tile.rows_slow or r.tiles == 1 else c.tiles, r.tiles if tile.rows_slow and c.tiles > 1 else 1)
    return c.tiles, 1 if tile.compact == BUFFER and not tile.rows_slow else r.tiles


@inlined
def op_totals(p: Problem, y: MemoryMachine, e: Issue, q: Share, r: Axis, c: Axis, m: Moves, tile: Tile) -> Totals:
    """What happens under a mapping in all; its time is at least that of array, memory or SORE, at most their sum."""
    if not m.fits:
        return Totals(TOO_LARGE, 0, 0, 0, 0, 0, 0)
    rows, cols = r.tiles - 1, c.tiles - 1
    array = rows * (cols * e.busy[0][0] + e.busy[0][1]) + cols * e.busy[1][0] + e.busy[1][1]
    west, north = passes(r, c, tile)
    write = rows * (cols * stored(p, m, r.full, c.full) + stored(p, m, r.full, c.last))
    write += cols * stored(p, m, r.last, c.full) + stored(p, m, r.last, c.last)
    read = west * m.row * p.rows + m.added * write
    reductions = north
    if tile.compact == MEMORY:
        read += (m.col + (north - 1) * m.again) * p.cols
        write += m.again * p.cols
        reductions = 1
    else:
        read += north * m.col * p.cols
    sore = reductions * (cols * sore_cycles(q, y, p.group, c.full) + sore_cycles(q, y, p.group, c.last))
    g = p.groups
    found = Totals(
        FITS, g * array + e.ramp, e.ramp, g * read, g * write, g * reductions * q.sore_groups * p.cols, g * sore
    )
    bytes_ = float(found.read_bytes) + float(found.write_bytes) + float(m.lead)
    if (float(found.array) + float(found.sore_cycles)) * y.rate + bytes_ * RATE >= LONGEST:
        return Totals(TOO_LONG, found.array, e.ramp, found.read_bytes, found.write_bytes, found.sore_groups, g * sore)
    return found


@inlined
def least_units(p: Problem, y: MemoryMachine, r: Axis, c: Axis, m: Moves, tile: Tile, found: Totals) -> int:
    """No order of what happens can be faster: array, memory and SORE each work through their own; nothing hides the
    first loads and the last store from the array, nor its ramp from anybody."""
    last = stored(p, m, r.last, c.last) * RATE * (1 + m.added)
    bytes_ = (found.read_bytes + found.write_bytes) * RATE
    lead = m.lead * RATE
    if tile.resident:
        lead = (r.full * m.row + c.full * m.col) * RATE
    else:
        bytes_ += lead
    work = max((found.array - found.ramp) * y.rate + lead + last, bytes_)
    return found.ramp * y.rate + max(work, found.sore_cycles * y.rate)


class Times(NamedTuple):
    """Time of the parts of a phase in 1/rate cycles, indexed by [last row tile, last column tile], or one of them;
    ``north`` and ``sore`` by [a later use of the column tile, last column tile]."""

    busy: tuple[tuple[int, int], tuple[int, int]]
    store: tuple[tuple[int, int], tuple[int, int]]
    west: tuple[int, int]
    north: tuple[tuple[int, int], tuple[int, int]]
    sore: tuple[tuple[int, int], tuple[int, int]]
    copy: tuple[int, int]


@kernel
def times_of(p: Problem, y: MemoryMachine, e: Issue, q: Share, r: Axis, c: Axis, m: Moves, tile: Tile) -> Times:
    """The parts of which the phases of a mapping are made."""
    busy = ((e.busy[0][0] * y.rate, e.busy[0][1] * y.rate), (e.busy[1][0] * y.rate, e.busy[1][1] * y.rate))
    byte = RATE * (1 + m.added)
    store = (
        (stored(p, m, r.full, c.full) * byte, stored(p, m, r.full, c.last) * byte),
        (stored(p, m, r.last, c.full) * byte, stored(p, m, r.last, c.last) * byte),
    )
    first = c.full * m.col * RATE, c.last * m.col * RATE
    sore = sore_cycles(q, y, p.group, c.full) * y.rate, sore_cycles(q, y, p.group, c.last) * y.rate
    again, sore_again, copy = first, sore, (0, 0)
    if tile.compact == MEMORY:
        again, sore_again = (c.full * m.again * RATE, c.last * m.again * RATE), (0, 0)
        copy = again
    return Times(busy, store, (r.full * m.row * RATE, r.last * m.row * RATE), (first, again), (sore, sore_again), copy)


@kernel
def _phase(k: Times, tile: Tile, r: Axis, c: Axis, slow: int, fast: int, before: int, after: int) -> tuple[int, int]:
    """Time of the phase of one macro-tile, with memory and with SORE; ``before`` (``after``): whether a macro-tile
    went before it, whose results are stored, or comes after it, whose operands are loaded if they are resident."""
    slows, fasts = (r.tiles, c.tiles) if tile.rows_slow else (c.tiles, r.tiles)
    row, col = (slow, fast) if tile.rows_slow else (fast, slow)
    busy = k.busy[int(row == r.tiles - 1)][int(col == c.tiles - 1)]
    moved = k.copy[int(col == c.tiles - 1)] if row == 0 else 0
    if before:
        was_slow, was_fast = (slow, fast - 1) if fast else (slow - 1 if slow else slows - 1, fasts - 1)
        was_row, was_col = (was_slow, was_fast) if tile.rows_slow else (was_fast, was_slow)
        moved += k.store[int(was_row == r.tiles - 1)][int(was_col == c.tiles - 1)]
    west = north = True
    if tile.resident:
        # Loaded is what the next macro-tile needs and this one does not hold.
        west = north = bool(after)
        if after:
            if fast < fasts - 1:
                slow_new, fast_new, fast = False, True, fast + 1
            elif slow < slows - 1:
                slow_new, fast_new, slow, fast = True, fasts > 1, slow + 1, 0
            else:
                slow_new, fast_new, slow, fast = True, True, 0, 0
            west, north = (slow_new, fast_new) if tile.rows_slow else (fast_new, slow_new)
            row, col = (slow, fast) if tile.rows_slow else (fast, slow)
    elif tile.compact == BUFFER:
        north = row == 0 or bool(tile.rows_slow)
    sore = 0
    if west:
        moved += k.west[int(row == r.tiles - 1)]
    if north:
        moved += k.north[int(row > 0)][int(col == c.tiles - 1)]
        sore = k.sore[int(row > 0)][int(col == c.tiles - 1)]
    memory = max(busy, moved)
    return memory, max(memory, sore)


@kernel
def _alike(tiles: int, kind: int) -> tuple[int, int]:
    """The first of the macro-tiles along an axis whose phases are of the ``kind``-th of four kinds; how many are."""
    if tiles < 4 or kind == 0:
        return kind, 1
    return (1, tiles - 3) if kind == 1 else (tiles - 4 + kind, 1)


@kernel
def op_units(
    p: Problem, y: MemoryMachine, k: Times, r: Axis, c: Axis, m: Moves, tile: Tile, ramp: int
) -> tuple[int, int]:
    """Time of an op with memory and with SORE: in every phase the array computes a macro-tile while DMA and SORE
    serve its neighbours.

    Along an axis the phases of the first, the last, the last but one, and of all other macro-tiles are alike, so at
    most 16 are costed, whatever the number of tiles. Only the very first has nothing to store, the very last nothing
    to load.
    """
    slows, fasts = (r.tiles, c.tiles) if tile.rows_slow else (c.tiles, r.tiles)
    memory = every = 0
    for s in range(min(slows, 4)):
        slow, slow_like = _alike(slows, s)
        for f in range(min(fasts, 4)):
            fast, fast_like = _alike(fasts, f)
            like = p.groups * slow_like * fast_like
            first = int(slow == 0 and fast == 0)
            last = int(slow == slows - 1 and fast == fasts - 1)
            only = int(first and last and like == 1)
            for edge in range(4):
                before, after = edge & 1, edge >> 1
                if before and after:
                    times = like - first - last + only
                elif after:
                    times = first - only
                elif before:
                    times = last - only
                else:
                    times = only
                if times:
                    one = _phase(k, tile, r, c, slow, fast, before, after)
                    memory, every = memory + times * one[0], every + times * one[1]
    ends = ramp * y.rate + k.store[1][1]
    if tile.resident:
        lead = k.west[int(r.tiles == 1)] + k.north[0][int(c.tiles == 1)]
        return memory + ends + lead, every + ends + max(lead, k.sore[0][int(c.tiles == 1)])
    return memory + ends + m.lead * RATE, every + ends + m.lead * RATE


@kernel
def op_cost(product: Tiled, y: MemoryMachine) -> OpCost:
    """Cost of an op under a mapping, exact; times are 0 unless `FITS`."""
    p, r, c, tile, e, d = product
    q = share(p)
    m = moves(p, y, d, q, r, c, tile)
    found = op_totals(p, y, e, q, r, c, m, tile)
    if found.status != FITS:
        return OpCost(found, 0, 0)
    memory, every = op_units(p, y, times_of(p, y, e, q, r, c, m, tile), r, c, m, tile, found.ramp)
    return OpCost(found, memory, every)
