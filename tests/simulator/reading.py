"""Where the elements of a weight lie that is laid in the order of its reading, element by element."""

from __future__ import annotations

import numpy as np

from weft.dataflow.mapping import Mapping
from weft.workloads.step import MatrixOp


def in_reading_order(op: MatrixOp, mapping: Mapping) -> np.ndarray:  # type: ignore[type-arg]
    """Number of each element of B [groups, k, n], one after the other as macro-tiles are read: k after k, its lines."""
    g, at = op.gemm, 0
    where = np.full((g.groups, g.k, g.n), -1)
    tile = mapping.tile_cols if mapping.n2s == "b" else mapping.tile_rows
    for group in range(g.groups):
        for begin in range(0, g.n, tile):
            for k in range(g.k):
                for line in range(begin, min(begin + tile, g.n)):
                    where[group, k, line] = at
                    at += 1
    return where
