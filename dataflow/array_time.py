"""Closed forms of the array alone: one GEMM through the PEs, memory unlimited. docs/design/machine.md derives them.

`simulator/array.py` steps the same contract cycle by cycle; the tests hold both equal.
"""

from __future__ import annotations

from typing import NamedTuple

from numba import njit

from ..workloads.gemm import Gemm
from .account import Cycles
from .accelerator import AcceleratorSpec
from .mapping import ArrayMapping, Dataflow

__all__ = ["ArrayMachine", "Tiling", "array_cycles", "array_machine", "issue_cycles", "pairs", "ramp_cycles", "tiling"]


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


def array_machine(spec: AcceleratorSpec) -> ArrayMachine:
    """The spec's array as numbers."""
    return ArrayMachine(
        spec.array.rows, spec.array.cols, spec.array.w2e_words, spec.pe.multiply_latency, spec.pe.add_latency
    )


@njit(cache=True)
def ceil_div(a: int, b: int) -> int:
    """a / b rounded up."""
    return -(-a // b)


@njit(cache=True)
def pairs(k: int, run: int, keep: int, group: int) -> int:
    """Pairs of one column, as `NMPattern.kept`."""
    return (k // run) * ((run // group) * keep + min(keep, run % group))


@njit(cache=True)
def tiling(x: ArrayMachine, ws: int, keep: int, group: int, interleave: int, k: int, run: int) -> Tiling:
    """Pace of a dataflow for contractions of ``k`` in runs of ``run``."""
    J = max(interleave, x.La)
    full, rest = run // group, run % group
    if ws:
        load = ceil_div(interleave * group, x.w)
        k_tiles = ceil_div((k // run) * (full + (rest > 0)), x.R)
        return Tiling(ws, keep, interleave, J, k_tiles, max(keep * J, load), (keep - 1) * J + x.La, max(keep * x.R, load))
    load_full, load_rest = ceil_div(group, x.w), ceil_div(rest, x.w)
    first = load_full if full else load_rest
    last = (min(keep, rest) if rest else keep) * J
    per_run = max(last, first)
    if full:
        per_run += (full - 1) * max(keep * J, load_full)
        if rest:
            per_run += max(keep * J, load_rest)
    L = (k // run) * per_run
    return Tiling(ws, keep, interleave, J, pairs(k, run, keep, group), L, L - max(last, first) + last, first)


@njit(cache=True)
def _ws_distance(x: ArrayMachine, t: Tiling, rows: int) -> int:
    """P of WS: from tile to tile, ``rows`` dense rows streaming through."""
    return max(ceil_div(rows, t.interleave) * t.L, (x.R - 1) * t.bare + t.keep * x.R)


@njit(cache=True)
def issue_cycles(x: ArrayMachine, t: Tiling, rows: int, cols: int, drain_rows: int) -> int:
    """Steady-state time of ``rows`` x ``cols`` outputs: the distance to whatever the array does next.

    ``drain_rows`` are the used rows of the op, min(R, m): what every OS tile drains.
    """
    if t.ws:
        P = _ws_distance(x, t, rows)
        return t.slots * max(ceil_div(cols, x.C) * P, x.R * t.bare + 1)
    P = max(t.L, drain_rows * t.interleave)
    return ceil_div(rows, x.R) * ceil_div(cols, x.C * t.interleave) * P


@njit(cache=True)
def ramp_cycles(x: ArrayMachine, t: Tiling, rows: int, cols: int, drain_rows: int) -> int:
    """What a whole run takes beyond its issue cycles; ``rows`` x ``cols`` is its last macro-tile."""
    skew = min(x.C, cols) - 1
    if t.ws:
        batches, n_tiles = ceil_div(rows, t.interleave), ceil_div(cols, x.C)
        P = _ws_distance(x, t, rows)
        last = rows - (batches - 1) * t.interleave
        turn = max(n_tiles * P, x.R * t.bare + 1)
        return t.first - turn + (n_tiles - 1) * P + (batches - 1) * t.L + x.Lm + x.R * t.bare + last + skew
    drain = drain_rows * t.interleave
    return t.first - max(t.L, drain) + t.bare - t.J + x.Lm + x.La + x.R - 1 + skew + drain


@njit(cache=True)
def array_split(x: ArrayMachine, t: Tiling, rows: int, cols: int, groups: int) -> tuple[int, int, int, int]:
    """Compute, interleave stall, port stall, and run length of a product without memory limits."""
    used = min(x.R, rows)
    total = groups * issue_cycles(x, t, rows, cols, used) + ramp_cycles(x, t, rows, cols, used)
    if t.ws:
        batches = ceil_div(rows, t.interleave)
        tiles = groups * t.slots * ceil_div(cols, x.C)
        pace = t.keep * t.J
        port = (tiles * batches - 1) * (t.L - pace) + (tiles - 1) * (_ws_distance(x, t, rows) - batches * t.L)
        slots = tiles * batches * t.keep
    else:
        tiles = groups * ceil_div(rows, x.R) * ceil_div(cols, x.C * t.interleave)
        pace = t.slots * t.J
        port = (tiles - 1) * (max(t.L, used * t.interleave) - pace) + t.bare - pace
        slots = tiles * t.slots
    return slots * t.interleave, slots * (t.J - t.interleave), port, total


def array_cycles(spec: AcceleratorSpec, gemm: Gemm, mapping: ArrayMapping) -> Cycles:
    """Cycles of ``gemm`` on the array of ``spec``, A flowing W2E and B N2S, with unlimited buffers and memory."""
    mapping.check(spec)
    x = array_machine(spec)
    pattern = mapping.pattern
    t = tiling(
        x, int(mapping.dataflow is Dataflow.WS), pattern.keep, pattern.group, mapping.interleave, gemm.k, gemm.run
    )
    compute, stall, port, run = array_split(x, t, gemm.m, gemm.n, gemm.groups)
    return Cycles(compute=compute, interleave_stall=stall, port_stall=port, fill_drain=run - compute - stall - port)
