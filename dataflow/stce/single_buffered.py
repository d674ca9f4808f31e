"""Output-stationary without drain registers: results leave from the accumulators, and the next tile waits for them.

A PE saves a word of FP32 a context; a tile may begin once the last of a column's results is on its way, which is a
drain after the last pair of the tile before it began. As slow as plain OS at least, so no search takes it unasked.
"""

from __future__ import annotations

from dataclasses import replace

from ..jit import kernel
from .mapping import Dataflow
from .output_stationary import OUTPUT_STATIONARY
from .pace import ArrayMachine, Tiling

__all__ = ["SINGLE_BUFFERED"]

_plain = OUTPUT_STATIONARY.tiling


@kernel
def _tiling(
    x: ArrayMachine, dataflow: int, keep: int, group: int, interleave: int, rows: int, k: int, run: int
) -> Tiling:
    t = _plain(x, dataflow, keep, group, interleave, rows, k, run)
    distance = max(t.L, t.bare - t.J + t.drain)
    return Tiling(dataflow, keep, group, interleave, t.J, t.slots, t.L, t.bare, t.first, distance, t.drain)


SINGLE_BUFFERED = replace(OUTPUT_STATIONARY, dataflow=Dataflow.OS1, tiling=_tiling, searched=False)
