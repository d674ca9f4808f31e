"""What the XNOR engine does of a product with words left out: what is not issued is neither read nor counted."""

from __future__ import annotations

from typing import NamedTuple, assert_never

import numpy as np
import numpy.typing as npt

from ..accelerator import AcceleratorSpec
from ..stce.mapping import Dataflow
from .mapping import XnorMapping, require_xnor
from .time import slots_of_tiles

__all__ = ["Executed", "executed"]

Int64 = npt.NDArray[np.int64]


class Executed(NamedTuple):
    """Counts of `counts.XnorCounts`, by their names, that depend on what is left out."""

    popcounts: int
    w2e_words: int
    n2s_pairs: int
    output_words: int


def executed(spec: AcceleratorSpec, mapping: XnorMapping, m: int, n: int, beats: int, occupied: Int64) -> Executed:
    """Of ``m`` x ``n`` results in one macro-tile, of which each tile has ``occupied`` words of so many ``beats``.

    int64 [tiles], as of `time.skipped_cycles`. A tile without words has one slot, which is issued, read and counted.
    """
    own = require_xnor(spec)
    mapping.check(spec)
    slots = slots_of_tiles(occupied, beats)
    match mapping.dataflow:
        case Dataflow.OS:
            rows, cols = _sizes(m, own.rows), _sizes(n, own.cols * mapping.interleave)
            by_tile = slots.reshape(len(rows), len(cols))
            output_words = m * n
        case Dataflow.WS:
            rows, cols = np.array([m]), _sizes(n, own.cols)
            by_tile = slots.reshape(1, len(cols))
            # A partial sum goes out and comes back between two tiles along k.
            visits = 2 * -(-slots // (own.rows * mapping.group)) - 1
            output_words = int((visits * cols).sum()) * m
        case Dataflow.OS1:
            raise AssertionError("a mapping refuses it")
        case _:
            assert_never(mapping.dataflow)
    return Executed(
        popcounts=int(rows @ by_tile @ cols),
        w2e_words=int((rows @ by_tile).sum()),
        n2s_pairs=int((by_tile @ cols).sum()),
        output_words=output_words,
    )


def _sizes(length: int, step: int) -> Int64:
    """Of pieces of ``step``, the last one shorter; int64 [pieces]."""
    starts = np.arange(0, length, step)
    sizes: Int64 = np.minimum(starts + step, length) - starts
    return sizes
