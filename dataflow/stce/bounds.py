"""What mappings take at least, by a few multiplications: of one, of all with the same row tiles, of a branch.

Bounds of `macro_tiles.op_units` and of the bytes of `macro_tiles.op_totals`, never above them.
"""

from __future__ import annotations

from typing import NamedTuple

from ..integers import whole_bytes
from ..jit import inlined, kernel
from ..macro_tiles import Axis, Tile, cuts, passes
from ..operand import BYTE
from ..problem import COLS, LONGEST, Problem, Share
from .dataflows import issue, ramp_of
from .pace import ArrayMachine, Tiling

__all__ = ["Bound", "Once", "least_bytes", "least_of_rows", "least_of_tile", "once_of"]


class Once(NamedTuple):
    """Bytes that an operand or the results take at least, in all, where windows stay whole and where they are cut; of
    the N2S operand again, once it is compact."""

    west: int
    west_cut: int
    north: int
    north_cut: int
    again: int
    out: int
    out_cut: int


@kernel
def once_of(p: Problem, q: Share) -> Once:
    rows, cols = p.groups * p.rows, p.groups * p.cols
    each = p.groups * (whole_bytes(q.out_each * p.rows * p.cols) if p.out_bits < BYTE else q.out_each * p.rows * p.cols)
    lines = q.out_line * (rows if p.out_window == COLS else cols)
    added = 1 + int(p.out_tensor < p.out_expanded)
    return Once(
        q.row * rows,
        q.row_cut * rows,
        q.col * cols,
        q.col_cut * cols,
        q.held_col * cols if p.online else LONGEST,
        lines if q.out_line else each,
        each * added,
    )


@inlined
def least_bytes(of: Once, cut: tuple[bool, bool, bool], west: int, north: int) -> int:
    """Bytes of a mapping at least, that loads the operands so often."""
    once = of.north_cut if cut[1] else of.north
    return (
        west * (of.west_cut if cut[0] else of.west)
        + once
        + (north - 1) * min(once, of.again)
        + (of.out_cut if cut[2] else of.out)
    )


class Bound(NamedTuple):
    """What a mapping takes at least: cycles of its macro-tiles and beyond them, bytes that nothing hides from these,
    and all of its bytes."""

    array: int
    ramp: int
    ends: int
    moved: int


@inlined
def least_of_rows(
    p: Problem, x: ArrayMachine, t: Tiling, q: Share, of: Once, ramp: int, r: Axis, col_work: int, over: int, ends: int
) -> Bound:
    """Of the mappings with these row tiles; ``over``: the fewest column tiles that fit."""
    cut = cuts(p, r.tiles, over, 1)
    moved = least_bytes(of, cut, 1, 1)
    if over > 1 and r.tiles > 1:
        moved = min(least_bytes(of, cut, over, 1), least_bytes(of, cut, 1, r.tiles))
    work = issue(x, t, (r.tiles - 1) * r.work + r.work_last, col_work)
    return Bound(p.groups * work, ramp, ends, moved)


@inlined
def least_of_tile(
    p: Problem, x: ArrayMachine, t: Tiling, q: Share, of: Once, array: int, r: Axis, c: Axis, tile: Tile
) -> Bound:
    """Of a mapping whose row tiles take so many cycles at least."""
    west, north = passes(r, c, tile)
    cut = cuts(p, r.tiles, c.tiles, tile.resident)
    ends = r.last * c.last * q.out_each
    if q.out_line and not cut[2]:
        ends = q.out_line * (r.last if p.out_window == COLS else c.last)
    if p.out_bits < BYTE:
        ends = 0
    if tile.resident:
        ends += r.full * (q.row_cut if cut[0] else q.row) + c.full * (q.col_cut if cut[1] else q.col)
    return Bound(array, ramp_of(x, t, r, c), ends, least_bytes(of, cut, west, north))
