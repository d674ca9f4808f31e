"""Memory phases of one op, stepped one after the other: what is held, what moves, who is waited for."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .jit import inlined, kernel

__all__ = ["EndLoads", "MacroTiles", "Streaks", "list_phases", "step_phases"]

Table = NDArray[np.int64]


class MacroTiles(NamedTuple):
    """One op as its macro-tiles; ``west``, ``north`` and ``store`` in bytes, the others in time; all int64.

    ``issue``, ``store`` and ``store_time`` are indexed by [last row tile, last column tile], ``west`` and ``west_time``
    by [last row tile], ``north``, ``north_time`` and ``sore`` by [a later row tile than the first, last column tile],
    ``copy`` (the compact copy of a column tile, written while the first row tile is computed) and ``copy_time`` by
    [last column tile]. ``north_held``: columns that SORE reduced stay in the buffer, though the op is streamed.
    ``added``: 1 where results are added up in memory: read, too, when they are stored.
    ``turn``: what DRAM loses in a phase that loads and stores.
    """

    groups: int
    row_tiles: int
    col_tiles: int
    rows_slow: int
    resident: int
    north_held: int
    issue: Table
    west: Table
    north: Table
    sore: Table
    store: Table
    copy: Table
    added: int
    west_time: Table
    north_time: Table
    store_time: Table
    copy_time: Table
    turn: int


class EndLoads(NamedTuple):
    """What stands before and behind the phases of an op, in bytes and in time of DRAM and SORE.

    ``free_west`` and ``free_north`` are the streaks after which a half of that buffer is free for the next op:
    the last one that loads, -1 where none does; of a streamed op, which uses both halves to its end, the last one.
    """

    west: int
    north: int
    store: int
    west_time: int
    north_time: int
    store_time: int
    sore: int
    free_west: int
    free_north: int


@kernel
def step_phases(t: MacroTiles) -> tuple[int, int, int, int, int]:
    """Time of the array, with memory, with SORE; bytes read and written.

    Resident macro-tiles are loaded one phase ahead and reuse what is held; streamed ones load everything in their own
    phase. Phase -1 loads the first macro-tile, a last phase stores the last one.
    """
    phases = t.groups * t.row_tiles * t.col_tiles
    alone = memory = every = 0
    read = written = 0
    held = (-1, -1, -1)
    to_store = storing = 0
    ahead = 1 if t.resident else 0
    for phase in range(-1, phases + 1):
        busy = store = storing_next = 0
        read += t.added * to_store
        if 0 <= phase < phases:
            busy, store, storing_next = _work(t, phase)
            copy, copying = _copy(t, phase)
            to_store, storing = to_store + copy, storing + copying
        west = north = west_time = north_time = squeeze = 0
        if 0 <= phase + ahead < phases:
            (west, north), (west_time, north_time), squeeze, held = _loads(t, phase + ahead, held)
        transfer = _transfer(t, west_time + north_time, storing)
        read += west + north
        written += to_store
        to_store, storing = store, storing_next
        alone += busy
        memory += max(busy, transfer)
        every += max(busy, transfer, squeeze)
    return alone, memory, every, read, written


class Streaks(NamedTuple):
    """Room for streaks, ``times`` equal phases in a row each, int64 [streaks] (`tasks.Tasks`)."""

    busy: Table
    transfer: Table
    read: Table
    written: Table
    sore: Table
    loads: Table
    times: Table


@kernel
def list_phases(t: MacroTiles, streaks: Streaks) -> tuple[int, EndLoads]:
    """The phases in which the array works as streaks of equal ones, as far as there is room; how many streaks there
    are; and what is around them.

    ``loads``: 1 where a phase loads from the west, 2 from the north, 3 from both.
    """
    phases = t.groups * t.row_tiles * t.col_tiles
    ahead = 1 if t.resident else 0
    held = (-1, -1, -1)
    first, first_time, first_sore = (0, 0), (0, 0), 0
    if t.resident:
        first, first_time, first_sore, held = _loads(t, 0, held)
    free_west = free_north = count = -1
    to_store = storing = 0
    last = (-1, -1, -1, -1, -1, -1)
    for phase in range(phases):
        copy, copying = _copy(t, phase)
        written, read = to_store + copy, t.added * to_store
        before = storing + copying
        busy, to_store, storing = _work(t, phase)
        west = north = west_time = north_time = sore = 0
        if phase + ahead < phases:
            (west, north), (west_time, north_time), sore, held = _loads(t, phase + ahead, held)
        transfer = _transfer(t, west_time + north_time, before)
        this = (busy, transfer, read + west + north, written, sore, int(west > 0) + 2 * int(north > 0))
        if this != last:
            count, last = count + 1, this
            if count < len(streaks.times):
                streaks.busy[count], streaks.transfer[count], streaks.read[count] = this[0], this[1], this[2]
                streaks.written[count], streaks.sore[count], streaks.loads[count] = this[3], this[4], this[5]
                streaks.times[count] = 0
        if count < len(streaks.times):
            streaks.times[count] += 1
        if west or not t.resident:
            free_west = count
        if north or not t.resident:
            free_north = count
    ends = EndLoads(*first, to_store * (1 + t.added), *first_time, storing, first_sore, free_west, free_north)
    return count + 1, ends


@inlined
def _transfer(t: MacroTiles, loading: int, storing: int) -> int:
    """Time of DRAM for what a phase loads and stores."""
    return loading + storing + (t.turn if storing and (loading or t.added) else 0)


@inlined
def _work(t: MacroTiles, index: int) -> tuple[int, int, int]:
    """Time of the array, bytes of results and time to store them, of the ``index``-th macro-tile."""
    i, j = _place(index % (t.row_tiles * t.col_tiles), t.row_tiles, t.col_tiles, t.rows_slow)
    last = int(i == t.row_tiles - 1), int(j == t.col_tiles - 1)
    return t.issue[last], t.store[last], t.store_time[last]


@inlined
def _copy(t: MacroTiles, index: int) -> tuple[int, int]:
    """Bytes of the compact copy that is written while the ``index``-th macro-tile is computed, and the time."""
    if not t.copy[1]:
        return 0, 0
    i, j = _place(index % (t.row_tiles * t.col_tiles), t.row_tiles, t.col_tiles, t.rows_slow)
    if i:
        return 0, 0
    last = int(j == t.col_tiles - 1)
    return t.copy[last], t.copy_time[last]


@inlined
def _loads(
    t: MacroTiles, index: int, held: tuple[int, int, int]
) -> tuple[tuple[int, int], tuple[int, int], int, tuple[int, int, int]]:
    """Of the ``index``-th macro-tile, from the west and from the north, bytes and time; SORE; what is held then."""
    tiles = t.row_tiles * t.col_tiles
    group = index // tiles
    i, j = _place(index % tiles, t.row_tiles, t.col_tiles, t.rows_slow)
    west = north = west_time = north_time = sore = 0
    if not t.resident or group != held[0] or i != held[1]:
        last = int(i == t.row_tiles - 1)
        west, west_time = t.west[last], t.west_time[last]
    if not (t.resident or t.north_held) or group != held[0] or j != held[2]:
        use = int(i > 0), int(j == t.col_tiles - 1)
        north, north_time, sore = t.north[use], t.north_time[use], t.sore[use]
    return (west, north), (west_time, north_time), sore, (group, i, j)


@inlined
def _place(index: int, row_tiles: int, col_tiles: int, rows_slow: int) -> tuple[int, int]:
    """Row and column tile of the ``index``-th macro-tile."""
    if rows_slow:
        return index // col_tiles, index % col_tiles
    return index % row_tiles, index // row_tiles
