"""Memory phases of one op, stepped one after the other: what is held, what moves, who is waited for."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = ["step_phases"]

Table = NDArray[np.int64]


@njit(cache=True)
def step_phases(
    groups: int, row_tiles: int, col_tiles: int, rows_slow: int, resident: int,
    issue: Table, west: Table, north: Table, sore: Table, store: Table, bytes_to_units: int,
) -> tuple[int, int, int, int, int]:  # fmt: skip
    """Time of the array, with memory, with SORE, in the unit of ``issue`` and ``sore``; bytes read and written.

    ``issue`` and ``store`` are indexed by [last row tile, last column tile], ``west`` by [last row tile], ``north`` and
    ``sore`` by [last column tile]. Resident macro-tiles are loaded one phase ahead and reuse what is held; streamed
    ones load everything in their own phase. Phase -1 loads the first macro-tile, a last phase stores the last one.
    """
    tiles = row_tiles * col_tiles
    alone = memory = every = 0
    read = written = 0
    held_group = held_row = held_col = -1
    to_store = 0
    ahead = 1 if resident else 0
    for phase in range(-1, groups * tiles + 1):
        busy = 0
        next_store = 0
        if 0 <= phase < groups * tiles:
            i, j = _place(phase % tiles, row_tiles, col_tiles, rows_slow)
            busy = issue[int(i == row_tiles - 1), int(j == col_tiles - 1)]
            next_store = store[int(i == row_tiles - 1), int(j == col_tiles - 1)]
        moved, squeeze = to_store, 0
        coming = phase + ahead
        if 0 <= coming < groups * tiles:
            g = coming // tiles
            i, j = _place(coming % tiles, row_tiles, col_tiles, rows_slow)
            if not resident or g != held_group or i != held_row:
                moved += west[int(i == row_tiles - 1)]
            if not resident or g != held_group or j != held_col:
                moved += north[int(j == col_tiles - 1)]
                squeeze = sore[int(j == col_tiles - 1)]
            held_group, held_row, held_col = g, i, j
        read += moved - to_store
        written += to_store
        to_store = next_store
        transfer = moved * bytes_to_units
        alone += busy
        memory += max(busy, transfer)
        every += max(busy, transfer, squeeze)
    return alone, memory, every, read, written


@njit(cache=True)
def _place(index: int, row_tiles: int, col_tiles: int, rows_slow: int) -> tuple[int, int]:
    """Row and column tile of the ``index``-th macro-tile."""
    if rows_slow:
        return index // col_tiles, index % col_tiles
    return index % row_tiles, index // row_tiles
