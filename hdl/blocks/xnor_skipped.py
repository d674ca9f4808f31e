"""What the banks of the XNOR engine hold where words are left out (docs/design/xnor.md, "Skipping")."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ...dataflow.stce.mapping import Dataflow
from ...dataflow.xnor.mapping import XnorMapping
from ...dataflow.xnor.spec import XnorSpec
from ...workloads.errors import InputError
from .banks import Bits32
from .control_format import COUNT_BITS

__all__ = ["Occupied", "SkippedOrder", "require_skipping", "skipped_order"]

Bits = npt.NDArray[np.bool_]
Int64 = npt.NDArray[np.int64]
NO_SLOT = -1


class Occupied(NamedTuple):
    """Which words have a value besides 0: of the lines of A, bool [m, words], and of the columns of B, [n, words]."""

    a: Bits
    b: Bits


class SkippedOrder(NamedTuple):
    """Slots in the order of their use, tile after tile, a tile of none with one that is `NO_SLOT`.

    ``west`` int64 [rows, words] and ``north`` int64 [cols, pairs] are the slots, ``line`` and ``column``, of the same
    shapes, the row of A and the column of B that each is of, which may lie beyond the edge. ``tiles`` uint32
    [tiles + 1]: how many slots each has, and what stands behind the last.
    """

    west: Int64
    line: Int64
    north: Int64
    column: Int64
    tiles: Bits32


def require_skipping(mapping: XnorMapping) -> None:
    """Refuse a dataflow of which the RTL leaves out no words."""
    if mapping.dataflow is not Dataflow.OS:
        raise InputError(
            f"skip is True, but in dataflow {mapping.dataflow} the RTL leaves out no words, only in "
            f"{Dataflow.OS}; run it with skip False, or as {Dataflow.OS}"
        )


def skipped_order(own: XnorSpec, mapping: XnorMapping, beats: int, words: Occupied) -> SkippedOrder:
    """OS: of each tile the words that are zero neither in all of its rows nor in all of its columns, of ``beats``
    slots each."""
    rows, cols, contexts = own.rows, own.cols, mapping.interleave
    wide = cols * contexts
    west, line, north, column = list[Int64](), list[Int64](), list[Int64](), list[Int64]()
    counted = list[int]()
    for top in range(0, len(words.a), rows):
        for left in range(0, len(words.b), wide):
            found = np.flatnonzero(words.a[top : top + rows].any(axis=0) & words.b[left : left + wide].any(axis=0))
            slots = (found[:, None] * beats + np.arange(beats)).ravel()
            if not len(slots):
                slots = np.array([NO_SLOT])
            r, slot = np.broadcast_arrays(np.arange(top, top + rows)[:, None], slots)
            west.append(slot)
            line.append(r)
            c, slot, i = np.broadcast_arrays(*np.ix_(np.arange(cols), slots, np.arange(contexts)))
            north.append(slot.reshape(cols, -1))
            column.append((left + i * cols + c).reshape(cols, -1))
            counted.append(len(slots))
    counts = np.array([*counted, 1])
    if counts.max() >> COUNT_BITS:
        raise InputError(
            f"a tile has {counts.max()} slots, but the controller counts up to {(1 << COUNT_BITS) - 1} of one where "
            f"words are left out; cut the product into macro-tiles"
        )
    return SkippedOrder(
        west=np.concatenate(west, axis=1),
        line=np.concatenate(line, axis=1),
        north=np.concatenate(north, axis=1),
        column=np.concatenate(column, axis=1),
        tiles=counts.astype(np.uint32),
    )
