"""What is said of points that do not run, in words."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ...dataflow.batch.evaluate import Status
from .levels import LEFT_OUT, RUNS
from .measures import Measure

__all__ = ["REASONS", "STATUSES", "each", "outside", "too_large"]

_WORDS = {
    Status.NO_ROOM: ("no room", "no tile fits the buffers and registers"),
    Status.TOO_LONG: ("too long", "no mapping can be timed within 2^62 parts of a cycle"),
    Status.PATTERN: ("pattern", "groups of the pattern are longer than pe.max_group"),
    Status.TOO_SLOW: ("too slow", "DRAM gives less than a byte in 256 cycles"),
    Status.TOO_MANY: ("too many", "cycles leave 64 bits"),
    Status.UNPRICED: ("unpriced", "the energy table of the machine cannot charge it"),
    Status.LEFT_OUT: (LEFT_OUT, "its bound is no better than a point of the front"),
}
STATUSES = np.array([RUNS if s is Status.RUNS else _WORDS[s][0] for s in sorted(Status)], object)
REASONS = np.array(["" if s is Status.RUNS else _WORDS[s][1] for s in sorted(Status)], object)
"""By the number of a status."""


def too_large(resource: str, there: str, used: float) -> str:
    """That a device has too little."""
    return f"{resource}: {used:,.0f}, over {there}"


def each(amounts: NDArray[np.float64], say: Callable[[float], str]) -> NDArray[np.object_]:
    """Words of ``amounts``, float64 [amounts], each amount once: texts, object [amounts]."""
    found, which = np.unique(amounts, return_inverse=True)
    return np.array([say(amount) for amount in found.tolist()], object)[which]


def outside(m: Measure, word: str, limit: float, found: float) -> str:
    """That a measure is outside of a limit."""
    return f"{m.name}: {'is not known' if np.isnan(found) else f'{found:,.6g} {m.unit}, {word} {limit:,.6g}'}"
