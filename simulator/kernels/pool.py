"""Pooling by tables: ``places`` int64 [positions, taps] has the pixel of each tap of a window, -1 outside of the image.

Images are [n, pixels, channels], what a window makes [n, positions, channels]; a vector is of channels.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .jit import kernel

Single = NDArray[np.float32]
Places = NDArray[np.int64]
Taps = NDArray[np.uint8]


@kernel
def largest(x: Single, places: Places, y: Single, taps: Taps) -> None:
    """``y`` and the tap that it came from: the first of equals, the first NaN where there is one."""
    images, _, channels = x.shape
    positions, window = places.shape
    for n in range(images):
        for p in range(positions):
            best, at, seen = y[n, p], taps[n, p], False
            for tap in range(window):
                if places[p, tap] < 0:
                    continue
                some = x[n, places[p, tap]]
                if not seen:
                    for c in range(channels):
                        best[c], at[c] = some[c], np.uint8(tap)
                    seen = True
                    continue
                for c in range(channels):
                    taken = some[c] > best[c] or (some[c] != some[c] and best[c] == best[c])
                    at[c] = np.uint8(tap) if taken else at[c]
                    best[c] = some[c] if taken else best[c]


@kernel
def give_back(gradient: Single, places: Places, taps: Taps, x: Single) -> None:
    """Add each gradient to ``x`` where its maximum stood, window by window."""
    images, positions, channels = gradient.shape
    for n in range(images):
        for p in range(positions):
            for c in range(channels):
                place = places[p, taps[n, p, c]]
                x[n, place, c] = x[n, place, c] + gradient[n, p, c]


@kernel
def average(x: Single, places: Places, shares: Single, y: Single) -> None:
    """``y``, the sum of each window from -0.0 in order of its taps, times its share, float32 [positions]."""
    images, _, channels = x.shape
    positions, window = places.shape
    for n in range(images):
        for p in range(positions):
            total, share = y[n, p], shares[p]
            total[:] = np.float32(-0.0)
            for tap in range(window):
                if places[p, tap] >= 0:
                    some = x[n, places[p, tap]]
                    for c in range(channels):
                        total[c] = total[c] + some[c]
            for c in range(channels):
                total[c] = total[c] * share


@kernel
def share_out(gradient: Single, places: Places, shares: Single, x: Single) -> None:
    """Add each gradient times its share, rounded, to all places of its window in ``x``, window by window."""
    images, positions, channels = gradient.shape
    window = places.shape[1]
    for n in range(images):
        for p in range(positions):
            some, share = gradient[n, p], shares[p]
            for tap in range(window):
                if places[p, tap] >= 0:
                    total = x[n, places[p, tap]]
                    for c in range(channels):
                        total[c] = total[c] + some[c] * share
