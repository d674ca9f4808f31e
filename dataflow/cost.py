"""Exact cost of one mapping of one op: memory phases over macro-tiles, bytes by level, actions. All integers.

`simulator/step.py` steps the phases one by one; the tests hold both equal.
"""

from __future__ import annotations

from typing import NamedTuple

from numba import njit

from ..workloads.errors import InputError
from ..workloads.step import MatrixOp, Operand
from .accelerator import OPERAND_BYTES, AcceleratorSpec
from .array_time import ArrayMachine, Tiling, array_machine, ceil_div, issue_cycles, pairs, ramp_cycles

__all__ = [
    "RATE", "MemoryMachine", "OpCost", "Problem", "Tile", "bound_cycles", "memory_machine", "op_cost", "problem_of", "traffic",
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


class Traffic(NamedTuple):
    """What a macro-tiling moves, in bytes, and whether it fits the buffers."""

    fits: int
    row: int
    """One W2E row of one load."""
    col: int
    """One N2S column of one load, as it comes from memory."""
    out: int
    """All outputs of all groups."""
    lead: int
    """First k-chunk of a streamed macro-tile."""
    read: int


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
        raise InputError(
            f"dram of {spec.name!r} gives {float(spec.dram_bytes_per_cycle):.2g} bytes a cycle; at least 1/{RATE} is needed"
        )
    half = spec.buffers
    return MemoryMachine(
        half.w2e_bytes // 2, half.n2s_bytes // 2, half.output_bytes // 2, rate,
        spec.sore.lanes, int(spec.sore.kind == "network"),
    )  # fmt: skip


def problem_of(op: MatrixOp, n2s: str, pregenerate: bool) -> Problem:
    """``op`` with operand ``n2s`` ("a" or "b") flowing north to south.

    im2col repeats A along k, and B and C along n (workloads/trace.py); the transposed product exchanges rows and columns.
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


def _windowed(operand: Operand, elements: int, axis: int) -> tuple[int, int, int]:
    """Stored bytes in the machine's format, bytes after im2col, and the axis along which im2col repeats."""
    tensor, expanded = operand.elements * OPERAND_BYTES, elements * OPERAND_BYTES
    return (tensor, expanded, axis) if tensor < expanded else (expanded, expanded, NO_WINDOW)


@njit(cache=True)
def _compact_column(p: Problem) -> int:
    """Bytes of one compact N2S column: FP16 values and their indices."""
    bits, last = 16, p.group - 1
    while last:
        bits, last = bits + 1, last >> 1
    return ceil_div(pairs(p.k, p.run, p.keep, p.group) * bits, 8)


@njit(cache=True)
def traffic(p: Problem, x: ArrayMachine, y: MemoryMachine, t: Tiling, tile: Tile, group: int) -> Traffic:
    """Bytes of every kind of load, and whether the macro-tile fits; ``group`` is the executed one."""
    mt, nt = ceil_div(p.rows, tile.rows), ceil_div(p.cols, tile.cols)
    streamed = not tile.resident
    row_cut = (p.w2e_window == ROWS and mt > 1) or (p.w2e_window == CONTRACTION and streamed)
    col_cut = (p.n2s_window == COLS and nt > 1) or (p.n2s_window == CONTRACTION and streamed)
    out_cut = (p.out_window == ROWS and mt > 1) or (p.out_window == COLS and nt > 1)
    row = ceil_div(p.w2e_expanded if row_cut else p.w2e_tensor, p.groups * p.rows)
    dense_col = ceil_div(p.n2s_expanded if col_cut else p.n2s_tensor, p.groups * p.cols)
    held_col = _compact_column(p) if p.keep else dense_col
    col = dense_col if p.online else held_col
    out = p.out_expanded if out_cut else p.out_tensor
    chunk = group * (x.R if t.ws else 1)
    fits = tile.rows * tile.cols * (4 if t.ws else 2) <= y.out_half
    if tile.resident:
        fits = fits and tile.rows * row <= y.w2e_half and tile.cols * held_col <= y.n2s_half
        slow, fast = (row * p.rows, col * p.cols) if tile.rows_slow else (col * p.cols, row * p.rows)
        slow_tiles, fast_tiles = (mt, nt) if tile.rows_slow else (nt, mt)
        read = slow + fast * (slow_tiles if fast_tiles > 1 else 1)
    else:
        one_tile = t.ws or (tile.rows <= x.R and tile.cols <= x.C * t.interleave)
        fits = fits and one_tile and tile.rows * chunk * 2 <= y.w2e_half and tile.cols * chunk * 3 <= y.n2s_half
        read = row * p.rows * nt + col * p.cols * mt
    return Traffic(int(fits), row, col, out, (tile.rows + tile.cols) * min(chunk, p.k) * 2, p.groups * read)


@njit(cache=True)
def span(index: int, tiles: int, full: int, size: int) -> int:
    """Extent of tile ``index`` on an axis; the last one is what remains."""
    return full if index < tiles - 1 else size - (tiles - 1) * full


@njit(cache=True)
def load_bytes(p: Problem, tile: Tile, m: Traffic, i: int, j: int) -> int:
    """DRAM bytes that must be read before or, streamed, during macro-tile (row tile ``i``, column tile ``j``)."""
    mt, nt = ceil_div(p.rows, tile.rows), ceil_div(p.cols, tile.cols)
    west, north = _loaded(tile, mt, nt, i, j)
    return west * span(i, mt, tile.rows, p.rows) * m.row + north * span(j, nt, tile.cols, p.cols) * m.col


@njit(cache=True)
def _loaded(tile: Tile, mt: int, nt: int, i: int, j: int) -> tuple[int, int]:
    """Whether the W2E and the N2S operand of a macro-tile are loaded for it, or still there."""
    if not tile.resident:
        return 1, 1
    if tile.rows_slow:
        return int(j == 0), int(nt > 1 or i == 0)
    return int(mt > 1 or j == 0), int(i == 0)


@njit(cache=True)
def sore_cycles(p: Problem, y: MemoryMachine, tile: Tile, i: int, j: int) -> int:
    """Cycles that SORE compresses the N2S operand of a macro-tile; 0 where it comes compact or is still there."""
    if not p.online:
        return 0
    mt, nt = ceil_div(p.rows, tile.rows), ceil_div(p.cols, tile.cols)
    _, north = _loaded(tile, mt, nt, i, j)
    groups = north * span(j, nt, tile.cols, p.cols) * (p.k // p.run) * ceil_div(p.run, p.group)
    return ceil_div(groups, y.sore_lanes) * (1 if y.sore_network else p.group)


@njit(cache=True)
def store_bytes(p: Problem, tile: Tile, m: Traffic, i: int, j: int) -> int:
    """DRAM bytes that macro-tile (i, j) writes."""
    mt, nt = ceil_div(p.rows, tile.rows), ceil_div(p.cols, tile.cols)
    outputs = span(i, mt, tile.rows, p.rows) * span(j, nt, tile.cols, p.cols)
    if m.out == p.out_expanded:
        return 2 * outputs
    # Outputs that col2im adds up on chip leave as the stored tensor, spread evenly.
    return ceil_div(outputs * ceil_div(m.out, p.groups), p.rows * p.cols)


@njit(cache=True)
def _spread(place: int, tiles: int) -> tuple[int, int]:
    """Index and multiplicity of the ``place``-th kind of tile on an axis: first, middle, last but one, last.

    Middle tiles have equal neighbours; the last but one is followed by a ragged one.
    """
    if place == 0:
        return 0, 1
    if place == 1:
        return 1, max(tiles - 3, 0)
    if place == 2:
        return tiles - 2, int(tiles > 2)
    return tiles - 1, int(tiles > 1)


@njit(cache=True)
def op_cost(p: Problem, x: ArrayMachine, y: MemoryMachine, t: Tiling, tile: Tile, group: int) -> OpCost:
    """Cost of an op: in every phase the array computes a macro-tile while DMA and SORE serve its neighbours.

    The phases of equal tiles with equal neighbours are counted once and multiplied, so this is exact and O(1).
    """
    m = traffic(p, x, y, t, tile, group)
    if not m.fits:
        return REFUSED
    used = min(x.R, p.rows)
    mt, nt = ceil_div(p.rows, tile.rows), ceil_div(p.cols, tile.cols)
    slow, fast = (mt, nt) if tile.rows_slow else (nt, mt)
    array_units = memory_units = units = write = 0
    for place_g in range(4):
        g, times_g = _spread(place_g, p.groups)
        for place_s in range(4):
            s, times_s = _spread(place_s, slow)
            for place_f in range(4):
                f, times_f = _spread(place_f, fast)
                times = times_g * times_s * times_f
                if times == 0:
                    continue
                i, j = (s, f) if tile.rows_slow else (f, s)
                rows, cols = span(i, mt, tile.rows, p.rows), span(j, nt, tile.cols, p.cols)
                issue = issue_cycles(x, t, rows, cols, used) * y.rate
                first = g == 0 and s == 0 and f == 0
                last = g == p.groups - 1 and s == slow - 1 and f == fast - 1
                moved, sore = 0, 0
                if not tile.resident:
                    moved, sore = load_bytes(p, tile, m, i, j), sore_cycles(p, y, tile, i, j)
                elif not last:
                    s1, f1 = (s, f + 1) if f + 1 < fast else ((s + 1) % slow, 0)
                    i1, j1 = (s1, f1) if tile.rows_slow else (f1, s1)
                    moved, sore = load_bytes(p, tile, m, i1, j1), sore_cycles(p, y, tile, i1, j1)
                if not first:
                    s1, f1 = (s, f - 1) if f > 0 else ((s - 1) % slow, fast - 1)
                    i1, j1 = (s1, f1) if tile.rows_slow else (f1, s1)
                    moved += store_bytes(p, tile, m, i1, j1)
                memory = max(issue, moved * RATE)
                array_units += times * issue
                memory_units += times * memory
                units += times * max(memory, sore * y.rate)
                write += times * store_bytes(p, tile, m, i, j)
    lead = load_bytes(p, tile, m, 0, 0) if tile.resident else m.lead
    lead_sore = sore_cycles(p, y, tile, 0, 0) if tile.resident else 0
    ends = lead * RATE + store_bytes(p, tile, m, mt - 1, nt - 1) * RATE
    ends_sore = max(lead * RATE, lead_sore * y.rate) - lead * RATE
    ramp = ramp_cycles(x, t, span(mt - 1, mt, tile.rows, p.rows), span(nt - 1, nt, tile.cols, p.cols), used)
    ramp_units = ramp * y.rate
    return OpCost(
        1, array_units + ramp_units, memory_units + ramp_units + ends, units + ramp_units + ends + ends_sore, ramp,
        m.read, write,
    )  # fmt: skip


@njit(cache=True)
def bound_cycles(p: Problem, x: ArrayMachine, y: MemoryMachine) -> int:
    """No mapping can be faster: every PE busy with kept products, or every operand moved once at full rate."""
    slots = pairs(p.k, p.run, p.keep, p.group) if p.keep else p.k
    ideal = ceil_div(p.groups * p.rows * p.cols * slots, x.R * x.C)
    north = p.groups * p.cols * _compact_column(p) if p.keep and not p.online else p.n2s_tensor
    return max(ideal, ceil_div((p.w2e_tensor + north + p.out_tensor) * RATE, y.rate))
