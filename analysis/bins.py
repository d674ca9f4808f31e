"""What happened over time in few equal bins that add up to exactly what happened."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate, pairwise

__all__ = ["BINS", "bin_amounts", "bin_levels"]

BINS = 240
"""Points of a line over time: about one for every three pixels of a wide screen."""


def bin_amounts(start: Sequence[int], end: Sequence[int], amount: Sequence[int], length: int, bins: int) -> list[int]:
    """Whole amounts in ``bins`` equal parts of ``0 .. length``, each interval spread evenly over its time.

    Intervals follow one another without overlap. What a bin boundary cuts is rounded down up to the boundary, so the
    bins add up to the sum of ``amount``, and no bin is off by more than 1.
    """
    before = [0, *accumulate(amount)]
    reached = [0, *(_reached(i * length, bins, start, end, amount, before) for i in range(1, bins + 1))]
    return [late - early for early, late in pairwise(reached)]


def _reached(
    time: int, scale: int, start: Sequence[int], end: Sequence[int], amount: Sequence[int], before: Sequence[int]
) -> int:
    """What has happened by ``time / scale``."""
    i = bisect_right(start, time // scale) - 1
    if i < 0:
        return 0
    if end[i] * scale <= time:
        return before[i + 1]
    return before[i] + amount[i] * (time - start[i] * scale) // ((end[i] - start[i]) * scale)


def bin_levels(time: Sequence[int], level: Sequence[int], length: int, bins: int) -> list[int]:
    """``bins`` x the integral, in ``bins`` equal parts of ``0 .. length``, of what is ``level[i]`` from ``time[i]`` on.

    Times do not fall. Exact: a bin over ``length`` is the mean level in it; the bins add up to ``bins`` x the integral.
    """
    ends = [*time[1:], length][: len(time)]
    held = [n * (late - early) for early, late, n in zip(time, ends, level, strict=True)]
    before = [0, *accumulate(held)]

    def reached(at: int) -> int:
        i = bisect_right(time, at // bins) - 1
        return 0 if i < 0 else bins * before[i] + level[i] * (at - time[i] * bins)

    marks = [reached(i * length) for i in range(bins + 1)]
    return [late - early for early, late in pairwise(marks)]
