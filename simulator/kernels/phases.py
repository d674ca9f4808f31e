"""Memory phases of one op, stepped one after the other: what is held, what moves, who is waited for."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = ["EndLoads", "MacroTiles", "list_phases", "step_phases"]

Table = NDArray[np.int64]


class MacroTiles(NamedTuple):
    """One op as its macro-tiles; ``issue`` and ``sore`` in time, the others in bytes.

    ``issue`` and ``store`` are indexed by [last row tile, last column tile], ``west`` by [last row tile], ``north`` and
    ``sore`` by [last column tile].
    """

    groups: int
    row_tiles: int
    col_tiles: int
    rows_slow: int
    resident: int
    issue: Table
    west: Table
    north: Table
    sore: Table
    store: Table


class EndLoads(NamedTuple):
    """What stands before and behind the phases of an op, in bytes and, for SORE, time.

    ``free_west`` and ``free_north`` are the phases after which a half of that buffer is free for the next op: the last
    one that loads, -1 where none does.
    """

    west: int
    north: int
    sore: int
    store: int
    free_west: int
    free_north: int


@njit(cache=True)
def step_phases(t: MacroTiles, bytes_to_units: int) -> tuple[int, int, int, int, int]:
    """Time of the array, with memory, with SORE, in the unit of ``issue`` and ``sore``; bytes read and written.

    Resident macro-tiles are loaded one phase ahead and reuse what is held; streamed ones load everything in their own
    phase. Phase -1 loads the first macro-tile, a last phase stores the last one.
    """
    phases = t.groups * t.row_tiles * t.col_tiles
    alone = memory = every = 0
    read = written = 0
    held = (-1, -1, -1)
    to_store = 0
    ahead = 1 if t.resident else 0
    for phase in range(-1, phases + 1):
        busy = store = 0
        if 0 <= phase < phases:
            busy, store = _work(t, phase)
        west = north = squeeze = 0
        if 0 <= phase + ahead < phases:
            west, north, squeeze, held = _loads(t, phase + ahead, held)
        transfer = (to_store + west + north) * bytes_to_units
        read += west + north
        written += to_store
        to_store = store
        alone += busy
        memory += max(busy, transfer)
        every += max(busy, transfer, squeeze)
    return alone, memory, every, read, written


@njit(cache=True)
def list_phases(t: MacroTiles, busy: Table, read: Table, written: Table, sore: Table, loads: Table) -> EndLoads:
    """The phases in which the array works, one by one, into int64 [macro-tiles]; and what is around them.

    ``loads``: 1 where a phase loads from the west, 2 from the north, 3 from both.
    """
    phases = t.groups * t.row_tiles * t.col_tiles
    ahead = 1 if t.resident else 0
    held = (-1, -1, -1)
    first_west = first_north = first_sore = 0
    if t.resident:
        first_west, first_north, first_sore, held = _loads(t, 0, held)
    free_west = free_north = -1
    to_store = 0
    for phase in range(phases):
        written[phase] = to_store
        busy[phase], to_store = _work(t, phase)
        west = north = 0
        sore[phase] = 0
        if phase + ahead < phases:
            west, north, sore[phase], held = _loads(t, phase + ahead, held)
        read[phase] = west + north
        loads[phase] = int(west > 0) + 2 * int(north > 0)
        if west:
            free_west = phase
        if north:
            free_north = phase
    return EndLoads(first_west, first_north, first_sore, to_store, free_west, free_north)


@njit(cache=True)
def _work(t: MacroTiles, index: int) -> tuple[int, int]:
    """Time of the array and bytes of results of the ``index``-th macro-tile."""
    i, j = _place(index % (t.row_tiles * t.col_tiles), t.row_tiles, t.col_tiles, t.rows_slow)
    last = int(i == t.row_tiles - 1), int(j == t.col_tiles - 1)
    return t.issue[last], t.store[last]


@njit(cache=True)
def _loads(t: MacroTiles, index: int, held: tuple[int, int, int]) -> tuple[int, int, int, tuple[int, int, int]]:
    """Bytes from the west and from the north, time of SORE, and what is held when the ``index``-th macro-tile is."""
    tiles = t.row_tiles * t.col_tiles
    group = index // tiles
    i, j = _place(index % tiles, t.row_tiles, t.col_tiles, t.rows_slow)
    west = north = sore = 0
    if not t.resident or group != held[0] or i != held[1]:
        west = t.west[int(i == t.row_tiles - 1)]
    if not t.resident or group != held[0] or j != held[2]:
        north = t.north[int(j == t.col_tiles - 1)]
        sore = t.sore[int(j == t.col_tiles - 1)]
    return west, north, sore, (group, i, j)


@njit(cache=True)
def _place(index: int, row_tiles: int, col_tiles: int, rows_slow: int) -> tuple[int, int]:
    """Row and column tile of the ``index``-th macro-tile."""
    if rows_slow:
        return index // col_tiles, index % col_tiles
    return index % row_tiles, index // row_tiles
