"""Output-stationary: an array tile of R x (C interleave) outputs stays in the accumulators for its contraction."""

from __future__ import annotations

from ..integers import ceil_div
from ..jit import helper, inlined, kernel
from ..problem import Problem, pairs
from .mapping import Dataflow, output_stationary
from .pace import ArrayMachine, Pace, Tiling, Words

__all__ = ["OUTPUT_STATIONARY"]


@kernel
def _widest(most_pairs: int, largest_group: int) -> int:
    return 1


@kernel
def _unit(x: ArrayMachine, interleave: int) -> tuple[int, int]:
    return x.R, x.C * interleave


@kernel
def _tiling(
    x: ArrayMachine, dataflow: int, keep: int, group: int, interleave: int, rows: int, k: int, run: int
) -> Tiling:
    J = max(interleave, x.La)
    full, rest = run // group, run % group
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
    return Tiling(
        dataflow, keep, group, interleave, J, pairs(k, run, keep, group), L, bare, first, max(L, drain), drain
    )


@kernel
def _row_work(x: ArrayMachine, t: Tiling, rows: int) -> int:
    return ceil_div(rows, x.R)


@kernel
def _col_work(x: ArrayMachine, t: Tiling, cols: int) -> int:
    return ceil_div(cols, x.C * t.interleave)


@inlined
def _issue(x: ArrayMachine, t: Tiling, row: int, col: int) -> int:
    return row * col * t.P


@kernel
def _ramp(x: ArrayMachine, t: Tiling, rows: int, cols: int) -> int:
    return t.first - t.P + t.bare - t.J + x.Lm + x.La + x.R - 1 + min(x.C, cols) - 1 + t.drain


@kernel
def _port(x: ArrayMachine, t: Tiling, rows: int, cols: int, groups: int) -> int:
    tiles, pace = groups * _row_work(x, t, rows) * _col_work(x, t, cols), t.slots * t.J
    return (tiles - 1) * (t.P - pace) + t.bare - pace


@inlined
def _pairs(t: Tiling) -> int:
    return t.slots


@inlined
def _words(p: Problem, x: ArrayMachine, t: Tiling, tile_rows: int) -> Words:
    return Words(
        p.groups * p.rows * p.k * ceil_div(p.cols, x.C * t.interleave),
        p.groups * p.cols * t.slots * ceil_div(p.rows, x.R),
        p.groups * p.rows * p.cols,
    )


@inlined
def _chunk(x: ArrayMachine, t: Tiling) -> int:
    return t.group


OUTPUT_STATIONARY = Pace(
    dataflow=Dataflow.OS,
    registers=helper(output_stationary),
    widest=_widest,
    unit=_unit,
    tiling=_tiling,
    row_work=_row_work,
    col_work=_col_work,
    issue=_issue,
    ramp=_ramp,
    port=_port,
    pairs=_pairs,
    words=_words,
    chunk=_chunk,
    searched=True,
    stays=True,
)
