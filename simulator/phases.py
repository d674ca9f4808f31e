"""The phases of an op as streaks of equal ones: there are many, and few differ from their neighbours."""

from __future__ import annotations

import numpy as np

from .kernels.phases import EndLoads, MacroTiles, Streaks, list_phases

__all__ = ["expanded", "phase_count", "streaks_of"]

_ROOM = 4096
"""Streaks that are made room for at first: few ops have more."""


def phase_count(tiles: MacroTiles) -> int:
    """How many there are."""
    return tiles.groups * tiles.row_tiles * tiles.col_tiles


def streaks_of(tiles: MacroTiles) -> tuple[Streaks, EndLoads]:
    """The phases in which the array works, and what stands around them."""
    room = min(_ROOM, phase_count(tiles))
    while True:
        streaks = Streaks(*np.zeros((len(Streaks._fields), room), np.int64))
        count, ends = list_phases(tiles, streaks)
        if count <= room:
            return Streaks(*(part[:count].copy() for part in streaks)), EndLoads(*ends)
        room = count


def expanded(streaks: Streaks) -> Streaks:
    """Every phase by itself."""
    parts = {name: np.repeat(part, streaks.times) for name, part in zip(Streaks._fields, streaks, strict=True)}
    return Streaks(**parts | {"times": np.ones(int(streaks.times.sum()), np.int64)})
