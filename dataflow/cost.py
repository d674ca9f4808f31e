"""Exact cost of one mapping of one op: memory phases over macro-tiles, bytes by level, actions. All integers.

`simulator/step.py` steps the phases one by one; the tests hold both equal.

64 bits: a GEMM has at most 2^53 multiply-accumulates, so its cycles, bytes and groups stay below 2^61, whatever the
mapping. Only times, in 1/rate cycles, can leave 64 bits; `op_totals` bounds them by the sum of all that happens.
"""

from __future__ import annotations

from typing import NamedTuple

from ..workloads.errors import InputError
from ..workloads.step import MatrixOp, Operand
from .accelerator import OPERAND_BYTES, AcceleratorSpec
from .array_time import ArrayMachine, Tiling, ceil_div, col_work, issue_cycles, pairs, ramp_cycles, row_work
from .jit import inlined, kernel

__all__ = [
    "BUFFER", "FITS", "LONGEST", "MEMORY", "RATE", "REMADE", "TOO_LARGE", "TOO_LONG", "Axis", "MemoryMachine", "Moves",
    "OpCost", "Problem", "Share", "Tile", "Times", "Totals", "bound_cycles", "col_axis", "least_units",
    "memory_machine", "moves", "op_cost", "op_totals", "op_units", "problem_of", "row_axis", "share", "sore_cycles",
    "stored", "times_of", "too_long",
]  # fmt: skip

RATE = 256
"""The DRAM rate is rounded down to 1/256 byte a cycle; time is then an integer number of 1/rate cycles."""

NO_WINDOW, ROWS, CONTRACTION, COLS = 0, 1, 2, 3
"""Axis along which im2col repeats a stored tensor, as the array sees the product."""


REMADE, BUFFER, MEMORY = 0, 1, 2
"""Where the compact form of an operand that SORE reduces is kept between its uses (`Mapping.compact`)."""

TOO_LARGE, FITS, TOO_LONG = 0, 1, 2
"""What a mapping is: more than the buffers hold; timed; longer than `LONGEST`."""

LONGEST = 2**62
"""Bound of an op's time in 1/rate cycles."""


class MemoryMachine(NamedTuple):
    """The numbers of an `AcceleratorSpec` that bound data movement; bytes of one buffer half."""

    w2e_half: int
    n2s_half: int
    out_half: int
    rate: int
    """DRAM bytes in `RATE` cycles."""
    sore_lanes: int
    sore_network: int


class Problem(NamedTuple):
    """One op as the array sees it: rows x k (W2E) times k x cols (N2S). Bytes are totals over the groups."""

    rows: int
    k: int
    cols: int
    groups: int
    run: int
    keep: int
    """0: dense."""
    group: int
    online: int
    w2e_tensor: int
    w2e_expanded: int
    w2e_window: int
    n2s_tensor: int
    n2s_expanded: int
    n2s_window: int
    out_tensor: int
    out_expanded: int
    out_window: int


class Tile(NamedTuple):
    """Macro-tile: its outputs, whether it holds its operands for the whole contraction, whether rows change slowest,
    and where the compact form of an operand that SORE reduces is kept."""

    rows: int
    cols: int
    resident: int
    rows_slow: int
    compact: int


class Share(NamedTuple):
    """Bytes of one row or column of a problem; ``_cut`` where im2col must repeat it, because its window axis is cut."""

    row: int
    row_cut: int
    col: int
    """One N2S column as it comes from memory."""
    col_cut: int
    held_col: int
    """One N2S column as the buffer holds it."""
    held_col_cut: int
    out_line: int
    """Stored results of a whole row or column, where they are not one by one: col2im adds up or leaves gaps."""
    out_each: int
    """One result where lines are cut, with its part of the gaps."""
    sore_groups: int
    """N:M groups of one column that SORE reduces on the way in; 0 where it has nothing to do."""


class Axis(NamedTuple):
    """Macro-tiles along rows or columns: how many, their extent, and what the array makes of one."""

    tiles: int
    full: int
    last: int
    work: int
    work_last: int


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
    """Bytes of one of those."""
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


def memory_machine(spec: AcceleratorSpec) -> MemoryMachine:
    """The spec's buffers, DRAM and SORE as numbers."""
    rate = int(spec.dram_bytes_per_cycle * RATE)
    if rate < 1:
        given = float(spec.dram_bytes_per_cycle)
        raise InputError(f"dram of {spec.name!r} gives {given:.2g} bytes a cycle, but at least 1/{RATE} is needed")
    half = spec.buffers
    return MemoryMachine(
        half.w2e_bytes // 2, half.n2s_bytes // 2, half.output_bytes // 2, rate,
        spec.sore.lanes, int(spec.sore.kind == "network"),
    )  # fmt: skip


def problem_of(op: MatrixOp, n2s: str, pregenerate: bool) -> Problem:
    """``op`` with operand ``n2s`` ("a" or "b") flowing north to south.

    im2col repeats A along k, and B and C along n (workloads/trace.py); transposed, rows and columns change places.
    """
    g = op.gemm
    swap = n2s == "a"
    rows, cols = (g.n, g.m) if swap else (g.m, g.n)
    a = _windowed(op.a, g.groups * g.m * g.k, CONTRACTION)
    b = _windowed(op.b, g.groups * g.k * g.n, ROWS if swap else COLS)
    c = _windowed(op.c, g.groups * g.m * g.n, ROWS if swap else COLS, whole=True)
    west, north = (b, a) if swap else (a, b)
    if op.sparse is None:
        keep, group, online = 0, 1, 0
    else:
        keep, group = op.sparse.pattern.keep, op.sparse.pattern.group
        online = int(op.sparse.online or not pregenerate)
    return Problem(rows, g.k, cols, g.groups, g.run, keep, group, online, *west, *north, *c)


def too_long(p: Problem) -> InputError:
    """Of an op that no mapping can time within `LONGEST`."""
    return InputError(
        f"a product of {p.groups} x {p.rows} x {p.k} x {p.cols} is too large to be timed exactly on this machine; "
        "use a smaller batch or a lower ratio of dram.bytes_per_second to clock_hz"
    )


def _windowed(operand: Operand, elements: int, axis: int, *, whole: bool = False) -> tuple[int, int, int]:
    """Stored bytes in the machine's format, bytes after im2col, and the axis along which im2col repeats.

    ``whole``: a stored tensor larger than what the product makes is zero elsewhere and written all the same, as whoever
    reads it reads all of it; of one that the product reads only what it needs is loaded.
    """
    tensor, expanded = operand.elements * OPERAND_BYTES, elements * OPERAND_BYTES
    repeated = tensor < expanded or (whole and tensor > expanded)
    return (tensor, expanded, axis) if repeated else (expanded, expanded, NO_WINDOW)


@kernel
def _compact_column(p: Problem) -> int:
    """Bytes of one compact N2S column: operands and their indices."""
    bits, last = 16, p.group - 1
    while last:
        bits, last = bits + 1, last >> 1
    return ceil_div(pairs(p.k, p.run, p.keep, p.group) * bits, 8)


@kernel
def share(p: Problem) -> Share:
    """What one row or column of a problem weighs; parts of a byte are rounded up."""
    rows, cols = p.groups * p.rows, p.groups * p.cols
    col, col_cut = ceil_div(p.n2s_tensor, cols), ceil_div(p.n2s_expanded, cols)
    held, held_cut = col, col_cut
    if p.keep:
        held = held_cut = _compact_column(p)
        if not p.online:
            col = col_cut = held
    line = 0
    if p.out_window != NO_WINDOW:
        line = ceil_div(p.out_tensor, rows if p.out_window == COLS else cols)
    groups = (p.k // p.run) * ceil_div(p.run, p.group) if p.online else 0
    row, row_cut = ceil_div(p.w2e_tensor, rows), ceil_div(p.w2e_expanded, rows)
    each = ceil_div(max(p.out_tensor, p.out_expanded), rows * p.cols)
    return Share(row, row_cut, col, col_cut, held, held_cut, line, each, groups)


@kernel
def row_axis(p: Problem, x: ArrayMachine, t: Tiling, rows: int) -> Axis:
    """Macro-tiles of ``rows`` rows."""
    tiles = ceil_div(p.rows, rows)
    last = p.rows - (tiles - 1) * rows
    return Axis(tiles, rows, last, row_work(x, t, rows), row_work(x, t, last))


@kernel
def col_axis(p: Problem, x: ArrayMachine, t: Tiling, cols: int) -> Axis:
    """Macro-tiles of ``cols`` columns."""
    tiles = ceil_div(p.cols, cols)
    last = p.cols - (tiles - 1) * cols
    return Axis(tiles, cols, last, col_work(x, t, cols), col_work(x, t, last))


@inlined
def moves(p: Problem, x: ArrayMachine, y: MemoryMachine, t: Tiling, q: Share, r: Axis, c: Axis, tile: Tile) -> Moves:
    """Loads and stores of a macro-tiling."""
    resident = tile.resident
    row_cut = (p.w2e_window == ROWS and r.tiles > 1) or (p.w2e_window == CONTRACTION and not resident)
    col_cut = (p.n2s_window == COLS and c.tiles > 1) or (p.n2s_window == CONTRACTION and not resident)
    out_cut = (p.out_window == ROWS and r.tiles > 1) or (p.out_window == COLS and c.tiles > 1)
    row = q.row_cut if row_cut else q.row
    kept = q.held_col_cut if col_cut else q.held_col
    chunk = t.group * (x.R if t.ws else 1)
    fits = r.full * c.full * (4 if t.ws else 2) <= y.out_half
    if resident:
        fits = fits and r.full * row <= y.w2e_half and c.full * kept <= y.n2s_half
    else:
        # Partial sums of OS stay in the PEs, so a streamed contraction serves one array tile at a time.
        one_tile = t.ws == 1 or (r.work == 1 and c.work == 1)
        north = c.full * (kept if tile.compact == BUFFER else chunk * 3)
        fits = fits and one_tile and r.full * chunk * 2 <= y.w2e_half and north <= y.n2s_half
    lead = (r.full + c.full) * min(chunk, p.k) * 2
    col, line = q.col_cut if col_cut else q.col, 0 if out_cut else q.out_line
    added = out_cut and p.out_tensor < p.out_expanded
    return Moves(int(fits), row, col, q.held_col, line, q.out_each, int(added), lead)


@inlined
def stored(p: Problem, m: Moves, rows: int, cols: int) -> int:
    """Bytes that ``rows`` x ``cols`` results weigh in memory."""
    if m.line == 0:
        return m.each * rows * cols
    return m.line * (rows if p.out_window == COLS else cols)


@inlined
def sore_cycles(q: Share, y: MemoryMachine, group: int, cols: int) -> int:
    """Cycles that SORE takes for ``cols`` columns in steady state."""
    return ceil_div(cols * q.sore_groups, y.sore_lanes) * (1 if y.sore_network else group)


@inlined
def op_totals(
    p: Problem, x: ArrayMachine, y: MemoryMachine, t: Tiling, q: Share, r: Axis, c: Axis, m: Moves, tile: Tile
) -> Totals:
    """What happens under a mapping in all; its time is at least that of array, memory or SORE, at most their sum."""
    if not m.fits:
        return Totals(TOO_LARGE, 0, 0, 0, 0, 0, 0)
    rows, cols = r.tiles - 1, c.tiles - 1
    array = rows * (cols * issue_cycles(x, t, r.work, c.work) + issue_cycles(x, t, r.work, c.work_last))
    array += cols * issue_cycles(x, t, r.work_last, c.work) + issue_cycles(x, t, r.work_last, c.work_last)
    ramp = ramp_cycles(x, t, r.last, c.last)
    if tile.resident:
        west = 1 if tile.rows_slow or r.tiles == 1 else c.tiles
        north = r.tiles if tile.rows_slow and c.tiles > 1 else 1
    else:
        west, north = c.tiles, 1 if tile.compact == BUFFER and not tile.rows_slow else r.tiles
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
        FITS, g * array + ramp, ramp, g * read, g * write, g * reductions * q.sore_groups * p.cols, g * sore
    )  # fmt: skip
    bytes_ = float(found.read_bytes) + float(found.write_bytes) + float(m.lead)
    if (float(found.array) + float(found.sore_cycles)) * y.rate + bytes_ * RATE >= LONGEST:
        return Totals(TOO_LONG, found.array, ramp, found.read_bytes, found.write_bytes, found.sore_groups, g * sore)
    return found


@inlined
def least_units(y: MemoryMachine, found: Totals) -> int:
    """No order of what happens can be faster: array, memory and SORE each work through their own."""
    return max(max(found.array, found.sore_cycles) * y.rate, (found.read_bytes + found.write_bytes) * RATE)


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
def times_of(
    p: Problem, x: ArrayMachine, y: MemoryMachine, t: Tiling, q: Share, r: Axis, c: Axis, m: Moves, tile: Tile
) -> Times:
    """The parts of which the phases of a mapping are made."""
    busy = (
        (issue_cycles(x, t, r.work, c.work) * y.rate, issue_cycles(x, t, r.work, c.work_last) * y.rate),
        (issue_cycles(x, t, r.work_last, c.work) * y.rate, issue_cycles(x, t, r.work_last, c.work_last) * y.rate),
    )
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
    return Times(
        busy, store, (r.full * m.row * RATE, r.last * m.row * RATE), (first, again), (sore, sore_again), copy
    )  # fmt: skip


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
def op_cost(
    p: Problem, x: ArrayMachine, y: MemoryMachine, t: Tiling, q: Share, r: Axis, c: Axis, tile: Tile
) -> OpCost:  # fmt: skip
    """Cost of an op under a mapping, exact; times are 0 unless `FITS`."""
    m = moves(p, x, y, t, q, r, c, tile)
    found = op_totals(p, x, y, t, q, r, c, m, tile)
    if found.status != FITS:
        return OpCost(found, 0, 0)
    memory, every = op_units(p, y, times_of(p, x, y, t, q, r, c, m, tile), r, c, m, tile, found.ramp)
    return OpCost(found, memory, every)


def bound_cycles(p: Problem, x: ArrayMachine, y: MemoryMachine) -> int:
    """No mapping can be faster: every PE busy with kept products, or every operand moved once at full rate."""
    slots = pairs(p.k, p.run, p.keep, p.group) if p.keep else p.k
    ideal: int = ceil_div(p.groups * p.rows * p.cols * slots, x.R * x.C)
    north = p.groups * p.cols * _compact_column(p) if p.keep and not p.online else p.n2s_tensor
    return max(ideal, ceil_div((p.w2e_tensor + north + p.out_tensor) * RATE, y.rate))
