"""The front of two objectives as points go by: what no other is better than, less being better in both."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["Staircase"]


class Staircase:
    """Corners of the front so far: ``x`` float64 [corners] rises, ``y`` float64 [corners] falls."""

    def __init__(self) -> None:
        self.x = np.zeros(0)
        self.y = np.zeros(0)

    def add(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> None:
        """Points, float64 [points] each, finite."""
        new = ~self.reached(x, y)
        xs, ys = np.concatenate((self.x, x[new])), np.concatenate((self.y, y[new]))
        order = np.lexsort((ys, xs))
        xs, ys = xs[order], ys[order]
        # A point stays if it is lower than all to its left, of which those of its own x come first if lower.
        least = np.minimum.accumulate(ys)
        kept = np.ones(len(ys), bool)
        kept[1:] = ys[1:] < least[:-1]
        self.x, self.y = xs[kept], ys[kept]

    def reached(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.bool_]:
        """bool [points]: whether the front is at least as good in both as each point, float64 [points] each."""
        if not len(self.x):
            return np.zeros(len(x), bool)
        before = np.searchsorted(self.x, x, side="right") - 1
        return (before >= 0) & (self.y[np.maximum(before, 0)] <= y)

    def coarse(self, most: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """At most ``most`` corners, float64 [corners] each, that are nowhere worse than the front's own.

        Neighbours become one corner that is as good as either in both, so what lies beyond these lies beyond the front.
        """
        if len(self.x) <= most:
            return self.x, self.y
        starts = np.linspace(0, len(self.x), most + 1).astype(np.int64)
        return self.x[starts[:-1]], self.y[starts[1:] - 1]

    def some(self, most: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """At most ``most`` of the corners, float64 [corners] each, both ends among them."""
        if len(self.x) <= most:
            return self.x, self.y
        chosen = np.linspace(0, len(self.x) - 1, most).astype(np.int64)
        return self.x[chosen], self.y[chosen]
