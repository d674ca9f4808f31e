"""The phases of an op as runs of equal ones: there are many, and few differ from their neighbours."""

from __future__ import annotations

import numpy as np

from .kernels.phases import EndLoads, MacroTiles, Runs, list_phases

__all__ = ["expanded", "phase_count", "runs_of"]

_ROOM = 4096
"""Runs that are made room for at first: few ops have more."""


def phase_count(tiles: MacroTiles) -> int:
    """How many there are."""
    return tiles.groups * tiles.row_tiles * tiles.col_tiles


def runs_of(tiles: MacroTiles) -> tuple[Runs, EndLoads]:
    """The phases in which the array works, and what stands around them."""
    room = min(_ROOM, phase_count(tiles))
    while True:
        runs = Runs(*np.zeros((len(Runs._fields), room), np.int64))
        count, ends = list_phases(tiles, runs)
        if count <= room:
            return Runs(*(part[:count].copy() for part in runs)), EndLoads(*ends)
        room = count


def expanded(runs: Runs) -> Runs:
    """Every phase by itself."""
    parts = {name: np.repeat(part, runs.times) for name, part in zip(Runs._fields, runs, strict=True)}
    return Runs(**parts | {"times": np.ones(int(runs.times.sum()), np.int64)})
