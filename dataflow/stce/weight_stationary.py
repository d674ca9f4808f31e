"""Weight-stationary: pairs of the N2S operand stay in the PEs, rows of the other stream past, in batches."""

from __future__ import annotations

from ..integers import ceil_div
from ..jit import helper, inlined, kernel
from ..problem import Problem, pairs
from .mapping import Dataflow, weight_stationary
from .pace import ArrayMachine, Pace, Tiling, Words

__all__ = ["WEIGHT_STATIONARY"]


@kernel
def _widest(most_pairs: int, largest_group: int) -> int:
    return min(most_pairs, largest_group)


@kernel
def _unit(x: ArrayMachine, interleave: int) -> tuple[int, int]:
    return interleave, x.C


@kernel
def _tiling(
    x: ArrayMachine, dataflow: int, keep: int, group: int, interleave: int, rows: int, k: int, run: int
) -> Tiling:
    J = max(interleave, x.La)
    load = ceil_div(interleave * group, x.w)
    k_tiles = ceil_div((k // run) * ceil_div(run, group), x.R)
    skew = (keep - 1) * J + x.La
    return Tiling(dataflow, keep, group, interleave, J, k_tiles, max(keep * J, load), skew, max(keep * x.R, load), 0, 0)


@kernel
def _row_work(x: ArrayMachine, t: Tiling, rows: int) -> int:
    """P: from tile to tile, ``rows`` dense rows streaming through."""
    return max(ceil_div(rows, t.interleave) * t.L, (x.R - 1) * t.bare + t.keep * x.R)


@kernel
def _col_work(x: ArrayMachine, t: Tiling, cols: int) -> int:
    return ceil_div(cols, x.C)


@inlined
def _issue(x: ArrayMachine, t: Tiling, row: int, col: int) -> int:
    return t.slots * max(col * row, x.R * t.bare + x.Lr)


@kernel
def _ramp(x: ArrayMachine, t: Tiling, rows: int, cols: int) -> int:
    batches, n_tiles = ceil_div(rows, t.interleave), ceil_div(cols, x.C)
    P = _row_work(x, t, rows)
    turn = max(n_tiles * P, x.R * t.bare + x.Lr)
    skew = min(x.C, cols) - 1
    return t.first - turn + (n_tiles - 1) * P + (batches - 1) * t.L + x.Lm + x.R * t.bare + t.interleave + skew


@kernel
def _port(x: ArrayMachine, t: Tiling, rows: int, cols: int, groups: int) -> int:
    batches = ceil_div(rows, t.interleave)
    tiles = groups * t.slots * _col_work(x, t, cols)
    return (tiles * batches - 1) * (t.L - t.keep * t.J) + (tiles - 1) * (_row_work(x, t, rows) - batches * t.L)


@inlined
def _pairs(t: Tiling) -> int:
    return t.slots * t.keep


@inlined
def _words(p: Problem, x: ArrayMachine, t: Tiling, tile_rows: int) -> Words:
    kept = pairs(p.k, p.run, p.keep, p.group) if p.keep else p.k
    return Words(
        p.groups * p.rows * p.k * ceil_div(p.cols, x.C),
        p.groups * p.cols * kept * ceil_div(p.rows, tile_rows),
        p.groups * p.rows * p.cols * (2 * t.slots - 1),
    )


@inlined
def _chunk(x: ArrayMachine, t: Tiling) -> int:
    return t.group * x.R


WEIGHT_STATIONARY = Pace(
    dataflow=Dataflow.WS,
    registers=helper(weight_stationary),
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
    stays=False,
)
