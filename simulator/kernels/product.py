"""Products in the order of the contraction, many outputs side by side: a sum is sequential in k, and in nothing else.

The compiler may neither reorder nor contract what stands here (no fast-math), so a vector lane computes one output's
sum, as a PE does. Kernels are long loops over blocks that stay in the caches, and call none but the innermost.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .jit import kernel

Single = NDArray[np.float32]

ROWS = 4
"""Rows that share what is loaded of a panel."""
DEPTH = 4
"""Steps of k between a load and a store of a sum."""
PANEL_K, PANEL_N = 256, 128
"""Of the right operand, 128 KiB: half a second-level cache or less, so sums and panel stay there together."""
LANES = 16
"""Columns are filled up to a multiple of them, the widest vectors of today."""


@kernel
def dense(a: Single, b: Single, out: Single) -> None:
    """``out`` [g, m, n] = ``a`` [g, m, k] ``b`` [g, k, n], each sum from -0.0."""
    batch, m, k = a.shape
    n = b.shape[2]
    totals = np.empty((ROWS, PANEL_N), np.float32)
    left = np.empty((ROWS, PANEL_K), np.float32)
    panel = np.zeros((PANEL_K, PANEL_N), np.float32)
    for g in range(batch):
        for j0 in range(0, n, PANEL_N):
            width = min(PANEL_N, n - j0)
            lanes = -(-width // LANES) * LANES
            for k0 in range(0, k, PANEL_K):
                depth = min(PANEL_K, k - k0)
                steps = -(-depth // DEPTH) * DEPTH
                panel[:depth, :width] = b[g, k0 : k0 + depth, j0 : j0 + width]
                # What k lacks of whole steps is 1 x -0.0 = -0.0, which no sum sees.
                panel[depth:steps] = np.float32(-0.0)
                for i0 in range(0, m, ROWS):
                    rows = min(ROWS, m - i0)
                    for i in range(ROWS):
                        left[i, :depth] = a[g, i0 + min(i, rows - 1), k0 : k0 + depth]
                        left[i, depth:steps] = np.float32(1.0)
                    if k0 == 0:
                        totals[:] = np.float32(-0.0)
                    else:
                        totals[:rows, :width] = out[g, i0 : i0 + rows, j0 : j0 + width]
                    _add_panel(totals, left, panel, steps, lanes)
                    out[g, i0 : i0 + rows, j0 : j0 + width] = totals[:rows, :width]


@kernel
def _add_panel(totals: Single, left: Single, panel: Single, steps: int, lanes: int) -> None:
    """Four rows of sums go on by ``steps`` products each, in order."""
    for k in range(0, steps, DEPTH):
        x00, x01, x02, x03 = left[0, k], left[0, k + 1], left[0, k + 2], left[0, k + 3]
        x10, x11, x12, x13 = left[1, k], left[1, k + 1], left[1, k + 2], left[1, k + 3]
        x20, x21, x22, x23 = left[2, k], left[2, k + 1], left[2, k + 2], left[2, k + 3]
        x30, x31, x32, x33 = left[3, k], left[3, k + 1], left[3, k + 2], left[3, k + 3]
        for j in range(lanes):
            y0, y1, y2, y3 = panel[k, j], panel[k + 1, j], panel[k + 2, j], panel[k + 3, j]
            totals[0, j] = (((totals[0, j] + x00 * y0) + x01 * y1) + x02 * y2) + x03 * y3
            totals[1, j] = (((totals[1, j] + x10 * y0) + x11 * y1) + x12 * y2) + x13 * y3
            totals[2, j] = (((totals[2, j] + x20 * y0) + x21 * y1) + x22 * y2) + x23 * y3
            totals[3, j] = (((totals[3, j] + x30 * y0) + x31 * y1) + x32 * y2) + x33 * y3


@kernel
def sparse(start: NDArray[np.int64], index: NDArray[np.int64], value: Single, b: Single, out: Single) -> None:
    """``out`` [m, n]: row i sums from -0.0 its pairs, ``start[i]`` to ``start[i + 1]``: value x row of ``b`` [k, n].

    ``index``, which ascends inside a row, and ``value`` [pairs]. What a row has no pair of it does not meet at all.
    """
    m, n = out.shape
    k = len(b)
    at = np.empty(m, np.int64)
    totals = np.empty(PANEL_N, np.float32)
    panel = np.zeros((PANEL_K, PANEL_N), np.float32)
    for j0 in range(0, n, PANEL_N):
        width = min(PANEL_N, n - j0)
        lanes = -(-width // LANES) * LANES
        at[:] = start[:m]
        for k0 in range(0, k, PANEL_K):
            depth = min(PANEL_K, k - k0)
            panel[:depth, :width] = b[k0 : k0 + depth, j0 : j0 + width]
            for i in range(m):
                if k0 == 0:
                    totals[:] = np.float32(-0.0)
                else:
                    totals[:width] = out[i, j0 : j0 + width]
                at[i] = _add_pairs(totals, index, value, panel, at[i], start[i + 1], k0, lanes)
                out[i, j0 : j0 + width] = totals[:width]


@kernel
def _add_pairs(
    totals: Single, index: NDArray[np.int64], value: Single, panel: Single, at: int, end: int, k0: int, lanes: int
) -> int:
    """A row of sums goes on by the pairs from ``at`` on that meet the panel, which starts at ``k0``; the first not."""
    k1 = k0 + len(panel)
    while at + 8 <= end and index[at + 7] < k1:
        i0, i1, i2, i3 = index[at] - k0, index[at + 1] - k0, index[at + 2] - k0, index[at + 3] - k0
        i4, i5, i6, i7 = index[at + 4] - k0, index[at + 5] - k0, index[at + 6] - k0, index[at + 7] - k0
        x0, x1, x2, x3 = value[at], value[at + 1], value[at + 2], value[at + 3]
        x4, x5, x6, x7 = value[at + 4], value[at + 5], value[at + 6], value[at + 7]
        for j in range(lanes):
            total = (((totals[j] + x0 * panel[i0, j]) + x1 * panel[i1, j]) + x2 * panel[i2, j]) + x3 * panel[i3, j]
            totals[j] = (((total + x4 * panel[i4, j]) + x5 * panel[i5, j]) + x6 * panel[i6, j]) + x7 * panel[i7, j]
        at += 8
    while at < end and index[at] < k1:
        i0, x0 = index[at] - k0, value[at]
        for j in range(lanes):
            totals[j] = totals[j] + x0 * panel[i0, j]
        at += 1
    return at
