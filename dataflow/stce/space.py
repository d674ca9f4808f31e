"""The mappings of one op with one choice of roles that a search decides.

In the order in which they are counted, so that of equals the first is a word:

- dataflow OS, then WS;
- executed pattern: the op's own; dense runs as 1:1 in OS and as D:D, D = 1, 2, 4, ... held pairs, in WS;
- interleave 1 .. accumulators, as far as the PE's registers hold it;
- macro-tile rows: 1, 2, 3, 4, 6, 8, 12, 16, ... times the array rows (OS) or the interleave (WS), and all rows;
- macro-tile columns: the same multiples of the columns that one array tile makes, and all columns;
- operands resident, rows slow (loop order mn) or columns slow (nm); or streamed; and where SORE would reduce the same
  columns for every row tile: the compact copy kept in memory (resident or streamed), or in the N2S buffer (streamed).

`Only` restricts the space.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..jit import inlined, kernel
from ..macro_tiles import BUFFER, MEMORY, REMADE
from ..problem import Problem, Share
from .dataflows import PACES, least_issue, least_ramp, registers, tiling, widest
from .pace import ArrayMachine

__all__ = [
    "FORMS",
    "FREE_SPACE",
    "ROWS_AT",
    "Limits",
    "Only",
    "branches_of",
    "extents",
    "forms_of",
    "place_of",
    "room_of",
]


class Limits(NamedTuple):
    """Registers of a PE."""

    accumulators: int
    dense_words: int
    weight_pairs: int
    max_group: int


class Only(NamedTuple):
    """What a search is restricted to. ``dataflows``: bits by their number. ``forms``: bits by the number of `FORMS`; -1
    for those of the space. The others are allowed values, int64 [values], of any if empty: interleaves, pairs that a
    dense operand holds in WS, rows and columns of a macro-tile, which need not be of the space."""

    dataflows: int
    interleaves: NDArray[np.int64]
    held: NDArray[np.int64]
    rows: NDArray[np.int64]
    cols: NDArray[np.int64]
    forms: int


_ANY = np.empty(0, np.int64)
_DATAFLOWS = len(PACES)
FREE_SPACE = Only(sum(pace.searched << number for number, pace in enumerate(PACES)), _ANY, _ANY, _ANY, _ANY, -1)


_MOST_EXTENTS = 130
"""That 64 bits have."""
ROWS_AT = 3
"""Column of a `room_of` in which the extents of rows are; before it there is what `extents` of columns need."""


@kernel
def room_of(only: Only) -> NDArray[np.int64]:
    """Room for the extents of columns, their tiles, what is left for the last, and the extents of rows, int64 [extents,
    4]."""
    room = np.empty((max(_MOST_EXTENTS, len(only.rows), len(only.cols)), 4), np.int64)
    for i in range(len(only.cols)):
        room[i, 0] = only.cols[i]
    for i in range(len(only.rows)):
        room[i, ROWS_AT] = only.rows[i]
    return room


@inlined
def extents(room: NDArray[np.int64], column: int, asked: int, unit: int, size: int) -> int:
    """Tile extents, into a column of ``room``, int64 [extents, 4], and how many: those ``asked`` for and there already;
    without any 1, 2, 3, 4, 6, 8, 12, ... units while below ``size``, then ``size``."""
    if asked:
        return asked
    n, power = 0, 1
    while power * unit < size:
        room[n, column] = power * unit
        n += 1
        if power > 1 and power * 3 // 2 * unit < size:
            room[n, column] = power * 3 // 2 * unit
            n += 1
        power *= 2
    room[n, column] = size
    return n + 1


@kernel
def _allows(values: NDArray[np.int64], value: int) -> bool:
    return bool(np.any(values == value))


@inlined
def forms_of(q: Share, row_tiles: int, col_tiles: int) -> int:
    """How many of `FORMS` are tried: keeping a compact copy is worth a try where it is used again."""
    if not q.sore_groups or row_tiles == 1:
        return 3
    return 6 if col_tiles > 1 else 5


FORMS = (
    (1, 1, REMADE),
    (1, 0, REMADE),
    (0, 1, REMADE),
    (0, 1, MEMORY),
    (0, 0, BUFFER),
    (1, 1, MEMORY),
    (0, 0, REMADE),
    (1, 0, MEMORY),
    (0, 0, MEMORY),
)
"""Residence, loop order (1: rows slow) and place of the compact copy, in the order in which they are tried; the last
three are never better than one before them, but somebody may ask for them."""


_BRANCH, _ROW, _COL = 44, 24, 4
"""Bits at which the numbers of branch, row and column of a mapping's place begin; its form has the lowest."""


@kernel
def branches_of(p: Problem, x: ArrayMachine, limits: Limits, only: Only) -> NDArray[np.int64]:
    """Every branch that the registers hold, int64 [branches, 6]: dataflow, keep, group, interleave, and the cycles that
    the array takes at least, in all and beyond its macro-tiles."""
    # Asked once: a kernel counts the references of an array whenever it looks at one.
    any_held, any_interleave = len(only.held) == 0, len(only.interleaves) == 0
    most = 8 if any_held else 65
    found = np.empty((_DATAFLOWS * most * limits.accumulators, 6), np.int64)
    n = 0
    for number in range(_DATAFLOWS):
        widest_group = 1 if p.keep else widest(number, limits.weight_pairs, limits.max_group)
        held = 1
        while held <= widest_group:
            keep, group = (p.keep, p.group) if p.keep else (held, held)
            held += held if any_held else 1
            pairs = registers(number, keep, group, 1).pairs
            if not only.dataflows >> number & 1 or pairs > limits.weight_pairs:
                continue
            if not any_held and pairs > 0 and not p.keep and not _allows(only.held, keep):
                continue
            for interleave in range(1, limits.accumulators + 1):
                if registers(number, keep, group, interleave).dense_words > limits.dense_words:
                    break
                if any_interleave or _allows(only.interleaves, interleave):
                    found[n, 0], found[n, 1], found[n, 2], found[n, 3] = number, keep, group, interleave
                    t = tiling(number, x, keep, group, interleave, p.rows, p.k, p.run)
                    found[n, 4] = p.groups * least_issue(x, t, p.rows, p.cols)
                    found[n, 5] = least_ramp(x, t)
                    n += 1
    return found[:n]


@inlined
def place_of(branch: int, row: int, col: int, form: int) -> int:
    """Where a mapping stands in the order of the space, by the numbers of its parts."""
    return (branch << _BRANCH) + (row << _ROW) + (col << _COL) + form
