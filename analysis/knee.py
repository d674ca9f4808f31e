"""Where a curve bends: Kneedle.

Satopaa, Albrecht, Irwin, Raghavan, "Finding a 'Kneedle' in a Haystack: Detecting Knee Points in System Behavior",
ICDCS Workshops 2011. Of its candidates, the maxima of the difference curve, the highest is taken, so that there is no
sensitivity to choose; nothing is smoothed, since simulated curves have no noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log

__all__ = ["knee"]


def knee(curve: Sequence[tuple[float, float]]) -> int | None:
    """Number of the point at which a falling curve bends, on log-log axes; None of one that nowhere bends inwards.

    ``curve``: x ascending and y, both positive. Both axes are scaled to the unit square of the curve's own ends, so the
    answer is one of these points and depends on where the curve begins and ends.
    """
    if len(curve) < 3:
        return None
    xs, ys = [log(x) for x, _ in curve], [log(y) for _, y in curve]
    wide, tall = xs[-1] - xs[0], ys[0] - ys[-1]
    if not wide or not tall:
        return None
    # Upside down the curve is one that rises and levels off, as in the paper.
    differences = [(ys[0] - y) / tall - (x - xs[0]) / wide for x, y in zip(xs, ys, strict=True)]
    highest = max(range(len(curve)), key=lambda i: differences[i])
    return highest if differences[highest] > _STRAIGHT else None


_STRAIGHT = 1e-9
"""A straight line differs from itself by no more than what logarithms are rounded by."""
