"""Closed forms of the array alone: one GEMM through the PEs, memory unlimited. docs/design/machine.md derives them.

`simulator/array.py` steps the same contract cycle by cycle; the tests hold both equal.
"""

from __future__ import annotations

from typing import NamedTuple

from ..workloads.gemm import Gemm
from .accelerator import AcceleratorSpec
from .account import Cycles
from .jit import helper, inlined, kernel
from .mapping import ArrayMapping, Dataflow

__all__ = [
    "ArrayMachine", "Tiling", "array_cycles", "array_machine", "ceil_div", "col_work", "issue_cycles", "mapped_tiling",
    "pairs", "ramp_cycles", "row_work", "tiling",
]  # fmt: skip


class ArrayMachine(NamedTuple):
    """The numbers of an `AcceleratorSpec` that bound the array: size, W2E words a cycle, latencies."""

    R: int
    C: int
    w: int
    Lm: int
    La: int


class Tiling(NamedTuple):
    """How one dataflow cuts and paces a product of k; constant over an op."""

    ws: int
    keep: int
    group: int
    interleave: int
    J: int
    """Cycles of one pair for all interleaved outputs."""
    slots: int
    """OS: pairs of one output. WS: k-tiles."""
    L: int
    """OS: issue time of a tile. WS: distance of batches B."""
    bare: int
    """OS: L without the wait for the next tile's operands. WS: skew of a row s."""
    first: int
    """Load that nothing hides."""
    P: int
    """OS: distance of tiles. WS: 0, it depends on the rows that stream (`ws_distance`)."""
    drain: int
    """OS: words a column drains from a tile."""


def array_machine(spec: AcceleratorSpec) -> ArrayMachine:
    """The spec's array as numbers."""
    return ArrayMachine(
        spec.array.rows, spec.array.cols, spec.array.w2e_words, spec.pe.multiply_latency, spec.pe.add_latency
    )


@helper
def ceil_div(a: int, b: int) -> int:
    """a / b rounded up."""
    return -(-a // b)


@kernel
def pairs(k: int, run: int, keep: int, group: int) -> int:
    """Pairs of one column, as `NMPattern.kept`."""
    return (k // run) * ((run // group) * keep + min(keep, run % group))


@kernel
def tiling(x: ArrayMachine, ws: int, keep: int, group: int, interleave: int, rows: int, k: int, run: int) -> Tiling:
    """Pace of a dataflow for ``rows`` rows (they bound the drain) and contractions of ``k`` in runs of ``run``."""
    J = max(interleave, x.La)
    full, rest = run // group, run % group
    if ws:
        load = ceil_div(interleave * group, x.w)
        k_tiles = ceil_div((k // run) * (full + (rest > 0)), x.R)
        skew = (keep - 1) * J + x.La
        return Tiling(ws, keep, group, interleave, J, k_tiles, max(keep * J, load), skew, max(keep * x.R, load), 0, 0)
    load_full, load_rest = ceil_div(group, x.w), ceil_div(rest, x.w)
    first = load_full if full else load_rest
    last = (min(keep, rest) if rest else keep) * J
    per_run = max(last, first)
    if full:
        per_run += (full - 1) * max(keep * J, load_full)
        if rest:
            per_run += max(keep * J, load_rest)
    L = (k // run) * per_run
    drain = min(x.R, rows) * interleave
    bare = L - max(last, first) + last
    return Tiling(ws, keep, group, interleave, J, pairs(k, run, keep, group), L, bare, first, max(L, drain), drain)


@kernel
def ws_distance(x: ArrayMachine, t: Tiling, rows: int) -> int:
    """P of WS: from tile to tile, ``rows`` dense rows streaming through."""
    return max(ceil_div(rows, t.interleave) * t.L, (x.R - 1) * t.bare + t.keep * x.R)


@kernel
def row_work(x: ArrayMachine, t: Tiling, rows: int) -> int:
    """What ``rows`` rows mean to the array: OS tiles, or the distance of WS tiles through which they stream."""
    return ws_distance(x, t, rows) if t.ws else ceil_div(rows, x.R)


@kernel
def col_work(x: ArrayMachine, t: Tiling, cols: int) -> int:
    """Array tiles along ``cols`` columns."""
    return ceil_div(cols, x.C if t.ws else x.C * t.interleave)


@inlined
def issue_cycles(x: ArrayMachine, t: Tiling, row: int, col: int) -> int:
    """Steady-state time of a block of `row_work` x `col_work`: the distance to whatever the array does next."""
    if t.ws:
        return t.slots * max(col * row, x.R * t.bare + 1)
    return row * col * t.P


@kernel
def ramp_cycles(x: ArrayMachine, t: Tiling, rows: int, cols: int) -> int:
    """What a whole run takes beyond its issue cycles; ``rows`` x ``cols`` is its last macro-tile."""
    skew = min(x.C, cols) - 1
    if t.ws:
        batches, n_tiles = ceil_div(rows, t.interleave), ceil_div(cols, x.C)
        P = ws_distance(x, t, rows)
        turn = max(n_tiles * P, x.R * t.bare + 1)
        return t.first - turn + (n_tiles - 1) * P + (batches - 1) * t.L + x.Lm + x.R * t.bare + t.interleave + skew
    return t.first - t.P + t.bare - t.J + x.Lm + x.La + x.R - 1 + skew + t.drain


@kernel
def array_split(x: ArrayMachine, t: Tiling, rows: int, cols: int, groups: int) -> tuple[int, int, int, int]:
    """Compute, interleave stall, port stall, and run length of a product without memory limits."""
    row, col = row_work(x, t, rows), col_work(x, t, cols)
    total = groups * issue_cycles(x, t, row, col) + ramp_cycles(x, t, rows, cols)
    if t.ws:
        batches = ceil_div(rows, t.interleave)
        tiles = groups * t.slots * col
        pace = t.keep * t.J
        port = (tiles * batches - 1) * (t.L - pace) + (tiles - 1) * (row - batches * t.L)
        slots = tiles * batches * t.keep
    else:
        tiles = groups * row * col
        pace = t.slots * t.J
        port = (tiles - 1) * (t.P - pace) + t.bare - pace
        slots = tiles * t.slots
    return slots * t.interleave, slots * (t.J - t.interleave), port, total


def mapped_tiling(x: ArrayMachine, mapping: ArrayMapping, rows: int, k: int, run: int) -> Tiling:
    """`tiling` of a mapping."""
    pattern, ws = mapping.pattern, int(mapping.dataflow == Dataflow.WS)
    found: Tiling = tiling(x, ws, pattern.keep, pattern.group, mapping.interleave, rows, k, run)
    return found


def array_cycles(spec: AcceleratorSpec, gemm: Gemm, mapping: ArrayMapping) -> Cycles:
    """Cycles of ``gemm`` on the array of ``spec``, A flowing W2E and B N2S, with unlimited buffers and memory."""
    mapping.check(spec)
    x = array_machine(spec)
    t = mapped_tiling(x, mapping, gemm.m, gemm.k, gemm.run)
    compute, stall, port, run = array_split(x, t, gemm.m, gemm.n, gemm.groups)
    return Cycles(compute=compute, interleave_stall=stall, port_stall=port, fill_drain=run - compute - stall - port)
