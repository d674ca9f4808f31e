"""The dataflows of the array: a table of objects, and kernels that ask the one of a number.

A new dataflow is a `Pace` of its own file, a member of `Dataflow` and a line here. One that the table lacks, or that
lacks a form, is an error when this module is imported; a number that no object has is an error when it is asked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..integers import ceil_div
from ..jit import dispatch, inlined, kernel
from ..macro_tiles import Axis, Demand, Issue
from ..problem import Problem
from .mapping import Dataflow, Registers
from .output_stationary import OUTPUT_STATIONARY
from .pace import ArrayMachine, Pace, Tiling, Words
from .single_buffered import SINGLE_BUFFERED
from .weight_stationary import WEIGHT_STATIONARY

__all__ = [
    "NUMBER",
    "PACES",
    "col_axis",
    "demand_of",
    "issue",
    "issue_of",
    "issuing",
    "least_issue",
    "least_ramp",
    "ramp_of",
    "registers",
    "row_axis",
    "tiles",
    "tiling",
    "unit",
    "whole_length",
    "widest",
    "words",
]

PACES: tuple[Pace, ...] = (OUTPUT_STATIONARY, WEIGHT_STATIONARY, SINGLE_BUFFERED)
"""In the order in which a search tries them: the first of equals wins."""

NUMBER = {pace.dataflow: number for number, pace in enumerate(PACES)}
if NUMBER.keys() != set(Dataflow) or len(PACES) != len(NUMBER):
    raise TypeError(f"the table of dataflows has {sorted(NUMBER)}, the enumeration {sorted(Dataflow)}")

_STAYS = tuple(pace.stays for pace in PACES)


def _asked(part: str) -> Callable[..., Any]:
    return dispatch([getattr(pace, part) for pace in PACES])


_registers: Callable[[int, int, int, int], Registers] = _asked("registers")
_widest: Callable[[int, int, int], int] = _asked("widest")
_unit: Callable[[int, ArrayMachine, int], tuple[int, int]] = _asked("unit")
_tiling: Callable[[int, ArrayMachine, int, int, int, int, int, int, int], Tiling] = _asked("tiling")
_row_work: Callable[[int, ArrayMachine, Tiling, int], int] = _asked("row_work")
_col_work: Callable[[int, ArrayMachine, Tiling, int], int] = _asked("col_work")
_issue: Callable[[int, ArrayMachine, Tiling, int, int], int] = _asked("issue")
_ramp: Callable[[int, ArrayMachine, Tiling, int, int], int] = _asked("ramp")
_port: Callable[[int, ArrayMachine, Tiling, int, int, int], int] = _asked("port")
_pairs: Callable[[int, Tiling], int] = _asked("pairs")
_words: Callable[[int, Problem, ArrayMachine, Tiling, int], Words] = _asked("words")
_chunk: Callable[[int, ArrayMachine, Tiling], int] = _asked("chunk")


@kernel
def registers(number: int, keep: int, group: int, interleave: int) -> Registers:
    """What a PE holds under the dataflow of that number."""
    return _registers(number, keep, group, interleave)


@kernel
def widest(number: int, most_pairs: int, largest_group: int) -> int:
    """The most words of a dense operand that it takes as one group."""
    return _widest(number, most_pairs, largest_group)


@kernel
def unit(number: int, x: ArrayMachine, interleave: int) -> tuple[int, int]:
    """Rows and columns of one of its array tiles."""
    return _unit(number, x, interleave)


@kernel
def tiling(number: int, x: ArrayMachine, keep: int, group: int, interleave: int, rows: int, k: int, run: int) -> Tiling:
    """Its pace for ``rows`` rows (they bound the drain) and contractions of ``k`` in runs of ``run``."""
    return _tiling(number, x, number, keep, group, interleave, rows, k, run)


@kernel
def row_axis(x: ArrayMachine, t: Tiling, rows: int, extent: int) -> Axis:
    """Macro-tiles of ``extent`` of all ``rows``."""
    tiles = ceil_div(rows, extent)
    last = rows - (tiles - 1) * extent
    return Axis(tiles, extent, last, _row_work(t.dataflow, x, t, extent), _row_work(t.dataflow, x, t, last))


@kernel
def col_axis(x: ArrayMachine, t: Tiling, cols: int, extent: int) -> Axis:
    """Macro-tiles of ``extent`` of all ``cols``."""
    tiles = ceil_div(cols, extent)
    last = cols - (tiles - 1) * extent
    return Axis(tiles, extent, last, _col_work(t.dataflow, x, t, extent), _col_work(t.dataflow, x, t, last))


@inlined
def ramp_of(x: ArrayMachine, t: Tiling, r: Axis, c: Axis) -> int:
    """What a run takes beyond its macro-tiles."""
    return _ramp(t.dataflow, x, t, r.last, c.last)


@inlined
def issue_of(x: ArrayMachine, t: Tiling, r: Axis, c: Axis) -> Issue:
    """What the array takes for the macro-tiles of a product."""
    n = t.dataflow
    busy = (
        (_issue(n, x, t, r.work, c.work), _issue(n, x, t, r.work, c.work_last)),
        (_issue(n, x, t, r.work_last, c.work), _issue(n, x, t, r.work_last, c.work_last)),
    )
    return Issue(busy, ramp_of(x, t, r, c))


@inlined
def issue(x: ArrayMachine, t: Tiling, row: int, col: int) -> int:
    """What the array takes for so much work along rows and columns; of two parts it takes as much at least."""
    return _issue(t.dataflow, x, t, row, col)


@kernel
def least_issue(x: ArrayMachine, t: Tiling, rows: int, cols: int) -> int:
    """Cycles of the array that no macro-tiling of a product avoids."""
    n = t.dataflow
    return _issue(n, x, t, _row_work(n, x, t, rows), _col_work(n, x, t, cols))


@kernel
def least_ramp(x: ArrayMachine, t: Tiling) -> int:
    """What a run takes at least beyond its macro-tiles: a ramp rises with rows and columns."""
    return _ramp(t.dataflow, x, t, 1, 1)


@kernel
def whole_length(x: ArrayMachine, t: Tiling, rows: int, cols: int, groups: int) -> tuple[int, int]:
    """Cycles of a product without memory limits: all, and those in which the array waits for its edges between its
    first multiply and its last."""
    issue = least_issue(x, t, rows, cols)
    return groups * issue + _ramp(t.dataflow, x, t, rows, cols), _port(t.dataflow, x, t, rows, cols, groups)


@inlined
def demand_of(x: ArrayMachine, t: Tiling, r: Axis, c: Axis) -> Demand:
    """What a macro-tile asks of the buffers."""
    stays = _STAYS[t.dataflow]
    one_tile = not stays or (r.work == 1 and c.work == 1)
    return Demand(_chunk(t.dataflow, x, t), int(one_tile), x.word_bits if stays else x.sum_bits, x.index_bits)


@kernel
def tiles(
    x: ArrayMachine, t: Tiling, rows: int, cols: int, tile_rows: int, tile_cols: int
) -> tuple[Axis, Axis, Issue, Demand]:
    """Macro-tiles of a product of ``rows`` x ``cols``, what the array takes for them, and what they ask for."""
    r, c = row_axis(x, t, rows, tile_rows), col_axis(x, t, cols, tile_cols)
    return r, c, issue_of(x, t, r, c), demand_of(x, t, r, c)


@kernel
def issuing(
    groups: int, rows: int, cols: int, x: ArrayMachine, t: Tiling, tile_rows: int, tile_cols: int
) -> tuple[int, int]:
    """Cycles in which a PE multiplies for a product that is cut into macro-tiles first, and in which it waits for an
    accumulator, because the interleave is shorter than the adder."""
    high, wide = _unit(t.dataflow, x, t.interleave)
    pairs = groups * _pieces(rows, tile_rows, high) * _pieces(cols, tile_cols, wide) * _pairs(t.dataflow, t)
    return pairs * t.interleave, pairs * (t.J - t.interleave)


@kernel
def _pieces(size: int, tile: int, unit: int) -> int:
    """Units that an axis takes when it is cut into tiles first."""
    tiles = ceil_div(size, tile)
    return (tiles - 1) * ceil_div(tile, unit) + ceil_div(size - (tiles - 1) * tile, unit)


@inlined
def words(p: Problem, x: ArrayMachine, t: Tiling, tile_rows: int) -> Words:
    """Words the array takes from and puts into the buffers."""
    return _words(t.dataflow, p, x, t, tile_rows)
