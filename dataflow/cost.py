"""Exact cost of one mapping of one op: memory phases over macro-tiles, bytes by level, actions. All integers.

`simulator/step.py` steps the phases one by one; the tests hold both equal.
"""

from __future__ import annotations

from typing import NamedTuple

from ..workloads.errors import InputError
from ..workloads.step import MatrixOp, Operand
from .accelerator import OPERAND_BYTES, AcceleratorSpec
from .array_time import ArrayMachine, Tiling, ceil_div, col_work, issue_cycles, pairs, ramp_cycles, row_work
from .jit import kernel

__all__ = [
    "RATE", "Axis", "MemoryMachine", "Moves", "OpCost", "Problem", "Share", "Tile", "bound_cycles", "col_axis",
    "memory_machine", "moves", "op_cost", "problem_of", "require_exact", "row_axis", "share", "sore_cycles", "stored",
]  # fmt: skip

RATE = 256
"""The DRAM rate is rounded down to 1/256 byte a cycle; time is then an integer number of 1/rate cycles."""

NO_WINDOW, ROWS, CONTRACTION, COLS = 0, 1, 2, 3
"""Axis along which im2col repeats a stored tensor, as the array sees the product."""


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
    """Macro-tile: its outputs, whether it holds its operands for the whole contraction, whether rows change slowest."""

    rows: int
    cols: int
    resident: int
    rows_slow: int


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
    """Results of a whole row or column that col2im adds up on chip; 0 where nothing is added up."""
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
    line: int
    """Bytes of a line of results; 0: 16-bit results one by one."""
    lead: int
    """First k-chunk of a streamed macro-tile."""


class OpCost(NamedTuple):
    """Time in 1/rate cycles: the array alone, with memory, with SORE; and the bytes moved."""

    fits: int
    array_units: int
    memory_units: int
    units: int
    ramp: int
    read_bytes: int
    write_bytes: int


REFUSED = OpCost(0, 0, 0, 0, 0, 0, 0)


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
    c = _windowed(op.c, g.groups * g.m * g.n, ROWS if swap else COLS)
    west, north = (b, a) if swap else (a, b)
    if op.sparse is None:
        keep, group, online = 0, 1, 0
    else:
        keep, group = op.sparse.pattern.keep, op.sparse.pattern.group
        online = int(op.sparse.online or not pregenerate)
    return Problem(rows, g.k, cols, g.groups, g.run, keep, group, online, *west, *north, *c)


def require_exact(p: Problem, x: ArrayMachine, y: MemoryMachine, pace: int) -> None:
    """Refuse an op whose time, in 1/rate cycles, could leave 64 bits; ``pace`` bounds the cycles of one pair."""
    row_tiles, col_tiles = -(-p.rows // x.R), -(-p.cols // x.C)
    cycles = 4 * pace * (p.groups * row_tiles * col_tiles * (p.k + x.R * p.group) + x.R * x.R)
    moved = (p.w2e_expanded + p.n2s_expanded + p.out_expanded) * (row_tiles + col_tiles) * RATE
    if max(cycles * y.rate, moved) >= 2**62:
        raise InputError(
            f"a product of {p.groups} x {p.rows} x {p.k} x {p.cols} is too large to be timed exactly on this machine; "
            "use a smaller batch or a lower ratio of dram.bytes_per_second to clock_hz"
        )


def _windowed(operand: Operand, elements: int, axis: int) -> tuple[int, int, int]:
    """Stored bytes in the machine's format, bytes after im2col, and the axis along which im2col repeats."""
    tensor, expanded = operand.elements * OPERAND_BYTES, elements * OPERAND_BYTES
    return (tensor, expanded, axis) if tensor < expanded else (expanded, expanded, NO_WINDOW)


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
    return Share(row, row_cut, col, col_cut, held, held_cut, line, groups)


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


@kernel
def moves(
    p: Problem, x: ArrayMachine, y: MemoryMachine, t: Tiling, q: Share, r: Axis, c: Axis, resident: int, group: int
) -> Moves:
    """Loads and stores of a macro-tiling; ``group`` is the executed one."""
    row_cut = (p.w2e_window == ROWS and r.tiles > 1) or (p.w2e_window == CONTRACTION and not resident)
    col_cut = (p.n2s_window == COLS and c.tiles > 1) or (p.n2s_window == CONTRACTION and not resident)
    out_cut = (p.out_window == ROWS and r.tiles > 1) or (p.out_window == COLS and c.tiles > 1)
    row = q.row_cut if row_cut else q.row
    chunk = group * (x.R if t.ws else 1)
    fits = r.full * c.full * (4 if t.ws else 2) <= y.out_half
    if resident:
        kept = q.held_col_cut if col_cut else q.held_col
        fits = fits and r.full * row <= y.w2e_half and c.full * kept <= y.n2s_half
    else:
        # Partial sums of OS stay in the PEs, so a streamed contraction serves one array tile at a time.
        one_tile = t.ws == 1 or (r.work == 1 and c.work == 1)
        fits = fits and one_tile and r.full * chunk * 2 <= y.w2e_half and c.full * chunk * 3 <= y.n2s_half
    lead = (r.full + c.full) * min(chunk, p.k) * 2
    return Moves(int(fits), row, q.col_cut if col_cut else q.col, 0 if out_cut else q.out_line, lead)


@kernel
def stored(p: Problem, m: Moves, rows: int, cols: int) -> int:
    """Bytes that ``rows`` x ``cols`` results weigh in memory."""
    if m.line == 0:
        return 2 * rows * cols
    return m.line * (rows if p.out_window == COLS else cols)


@kernel
def sore_cycles(q: Share, y: MemoryMachine, group: int, cols: int) -> int:
    """Cycles that SORE takes for ``cols`` columns in steady state."""
    return ceil_div(cols * q.sore_groups, y.sore_lanes) * (1 if y.sore_network else group)


@kernel
def _phases(
    tiles: int, busy: int, busy_last: int, store: int, before: int,
    load: int, load_last: int, load_end: int, sore: int, sore_last: int, sore_end: int,
) -> tuple[int, int]:  # fmt: skip
    """Time of one sweep of ``tiles`` fast tiles, with memory and with SORE.

    ``before`` is stored in the first phase, ``store`` in the others. ``load`` (``load_last``) is moved while a full
    tile has a full (the last) one after it, ``load_end`` during the last tile; ``sore`` likewise.
    """
    if tiles == 1:
        memory = max(busy_last, load_end + before)
        return memory, max(memory, sore_end)
    full_next = tiles > 2
    memory = max(busy, (load if full_next else load_last) + before)
    every = max(memory, sore if full_next else sore_last)
    if tiles > 3:
        one = max(busy, load + store)
        memory += (tiles - 3) * one
        every += (tiles - 3) * max(one, sore)
    if full_next:
        one = max(busy, load_last + store)
        memory += one
        every += max(one, sore_last)
    one = max(busy_last, load_end + store)
    return memory + one, every + max(one, sore_end)


@kernel
def op_cost(
    p: Problem, x: ArrayMachine, y: MemoryMachine, t: Tiling, q: Share, r: Axis, c: Axis, resident: int, rows_slow: int,
    group: int,
) -> OpCost:  # fmt: skip
    """Cost of an op: in every phase the array computes a macro-tile while DMA and SORE serve its neighbours.

    Macro-tiles differ only by being the last on an axis, so sweeps with equal neighbours are costed once and
    multiplied: exact, and independent of the number of tiles. Time is in 1/rate cycles.
    """
    m = moves(p, x, y, t, q, r, c, resident, group)
    if not m.fits:
        return REFUSED
    slow, fast = (r, c) if rows_slow else (c, r)
    # Full and last tiles along the slow axis (first letter) and along the fast axis (second letter).
    ff = issue_cycles(x, t, r.work, c.work) * y.rate
    ll = issue_cycles(x, t, r.work_last, c.work_last) * y.rate
    row_last = issue_cycles(x, t, r.work_last, c.work) * y.rate
    col_last = issue_cycles(x, t, r.work, c.work_last) * y.rate
    fl, lf = (col_last, row_last) if rows_slow else (row_last, col_last)
    sff, sll = stored(p, m, r.full, c.full) * RATE, stored(p, m, r.last, c.last) * RATE
    s_row, s_col = stored(p, m, r.last, c.full) * RATE, stored(p, m, r.full, c.last) * RATE
    sfl, slf = (s_col, s_row) if rows_slow else (s_row, s_col)
    slow_bytes, fast_bytes = (m.row * RATE, m.col * RATE) if rows_slow else (m.col * RATE, m.row * RATE)
    slow_full, slow_last = slow.full * slow_bytes, slow.last * slow_bytes
    fast_full, fast_last = fast.full * fast_bytes, fast.last * fast_bytes
    fast_first = fast_full if fast.tiles > 1 else fast_last
    slow_first = slow_full if slow.tiles > 1 else slow_last
    zf = zl = z_first = 0
    if q.sore_groups:
        zf, zl = sore_cycles(q, y, p.group, c.full) * y.rate, sore_cycles(q, y, p.group, c.last) * y.rate
        z_first = zf if c.tiles > 1 else zl
    # SORE works when the N2S side is loaded: on the fast axis when rows are slow, on the slow axis otherwise.
    z_fast, z_fast_last = (zf, zl) if rows_slow else (0, 0)
    z_slow, z_slow_last = (0, 0) if rows_slow else (zf, zl)
    # The next sweep reloads its first fast tile, unless that is the only one and still there.
    again, z_again = (fast_first, z_first if rows_slow else 0) if fast.tiles > 1 else (0, 0)

    memory, every = 0, 0
    for place in range(4):
        if place == 0:
            times, is_last = 1, slow.tiles == 1
        elif place == 1:
            times, is_last = slow.tiles - 3, False
        elif place == 2:
            times, is_last = int(slow.tiles > 2), False
        else:
            times, is_last = int(slow.tiles > 1), True
        if times <= 0:
            continue
        before = sll if place == 0 or (place == 3 and slow.tiles == 1) else sfl
        busy, busy_last, store = (lf, ll, slf) if is_last else (ff, fl, sff)
        if resident:
            wraps = is_last
            next_is_last = slow.tiles == 2 if place == 0 else place == 2
            if wraps:
                load_end, sore_end = slow_first + fast_first, z_first
            else:
                load_end = (slow_last if next_is_last else slow_full) + again
                sore_end = (z_slow_last if next_is_last else z_slow) + z_again
            one = _phases(
                fast.tiles, busy, busy_last, store, before,
                fast_full, fast_last, load_end, z_fast, z_fast_last, sore_end,
            )  # fmt: skip
        else:
            own, z_own = (slow_last, z_slow_last) if is_last else (slow_full, z_slow)
            one = _phases(
                fast.tiles, busy, busy_last, store, before,
                own + fast_full, own + fast_full, own + fast_last, z_own + z_fast, z_own + z_fast, z_own + z_fast_last,
            )  # fmt: skip
        memory += times * one[0]
        every += times * one[1]

    # The first phase of all has nothing to store, the last one nothing more to load.
    g, tiles = p.groups, slow.tiles * fast.tiles
    busy_first = ll if tiles == 1 else (fl if fast.tiles == 1 else (lf if slow.tiles == 1 else ff))
    if resident:
        if fast.tiles > 1:
            load, z = (fast_full, z_fast) if fast.tiles > 2 else (fast_last, z_fast_last)
        elif slow.tiles > 1:
            load, z = (slow_full, z_slow) if slow.tiles > 2 else (slow_last, z_slow_last)
        else:
            load, z = slow_first + fast_first, z_first
        end_load, end_z = slow_first + fast_first, z_first
        kept_load, kept_z = 0, 0
    else:
        load, z = slow_first + fast_first, z_first
        end_load, end_z = slow_last + fast_last, zl
        kept_load, kept_z = end_load, end_z
    before_last = sll if tiles == 1 else (slf if fast.tiles > 1 else sfl)
    memory, every = g * memory, g * every
    if g * tiles == 1:
        memory = max(ll, kept_load)
        every = max(memory, kept_z)
    else:
        whole, part = max(busy_first, load + sll), max(busy_first, load)
        memory += part - whole
        every += max(part, z) - max(whole, z)
        whole, part = max(ll, end_load + before_last), max(ll, kept_load + before_last)
        memory += part - whole
        every += max(part, kept_z) - max(whole, end_z)

    lead, lead_z = (slow_first + fast_first, z_first) if resident else (m.lead * RATE, 0)
    ramp = ramp_cycles(x, t, r.last, c.last)
    inner = (slow.tiles - 1) * (fast.tiles - 1)
    array = inner * ff + (slow.tiles - 1) * fl + (fast.tiles - 1) * lf + ll
    write = inner * sff + (slow.tiles - 1) * sfl + (fast.tiles - 1) * slf + sll
    read_slow, read_fast = (m.row * p.rows, m.col * p.cols) if rows_slow else (m.col * p.cols, m.row * p.rows)
    if resident:
        read = read_slow + read_fast * (slow.tiles if fast.tiles > 1 else 1)
    else:
        read = read_slow * fast.tiles + read_fast * slow.tiles
    ends = ramp * y.rate + lead + sll
    return OpCost(
        1, g * array + ramp * y.rate, memory + ends, every + ends + max(lead_z - lead, 0), ramp,
        g * read, g * write // RATE,
    )  # fmt: skip


@kernel
def bound_cycles(p: Problem, x: ArrayMachine, y: MemoryMachine) -> int:
    """No mapping can be faster: every PE busy with kept products, or every operand moved once at full rate."""
    slots = pairs(p.k, p.run, p.keep, p.group) if p.keep else p.k
    ideal = ceil_div(p.groups * p.rows * p.cols * slots, x.R * x.C)
    north = p.groups * p.cols * _compact_column(p) if p.keep and not p.online else p.n2s_tensor
    return max(ideal, ceil_div((p.w2e_tensor + north + p.out_tensor) * RATE, y.rate))
