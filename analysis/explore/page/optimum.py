"""The best that an objective of a machine can be by the bound of its cycles, be it scheduled or not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..measures import measure
from .scales import numbers

__all__ = ["Rates", "needed", "optimum"]


@dataclass(frozen=True, slots=True)
class Rates:
    """Cycles a second and samples a step, where all points have the same; None where not, or not known."""

    clock: float | None
    samples: float | None


def needed(objective: str) -> tuple[str, ...]:
    """Columns that `optimum` asks for."""
    m = measure(objective, "objectives")
    if m.early:
        return (objective,)
    return (*dict.fromkeys((objective, "cycles", "bound_cycles", *([m.per] if m.per else []))),)


def optimum(objective: str, part: Any, rates: Rates) -> NDArray[np.float64] | None:
    """float64 [rows], NaN where it is not known; None of an objective that no bound says anything of.

    ``part``: an Arrow table with the columns that are `needed`, and `clock_hz` and `batch` where points have them.
    """
    m = measure(objective, "objectives")
    if m.early:
        return numbers(part[objective])
    if not (m.timed or m.per):
        return None
    cycles, bound = numbers(part["cycles"]), numbers(part["bound_cycles"])
    least = np.where(bound > 0, bound, np.where(cycles > 0, cycles, np.nan))
    if objective == "cycles":
        return least
    clock = _rate(part, "clock_hz", rates.clock)
    if clock is None:
        return None
    with np.errstate(all="ignore"):
        seconds = least / clock
    if objective == "seconds":
        return seconds
    samples = _rate(part, "batch", rates.samples)
    if samples is None:
        return None
    with np.errstate(all="ignore"):  # what is no number is not known
        return samples / seconds / numbers(part[m.per]) if m.per else samples / seconds


def _rate(part: Any, own: str, same: float | None) -> NDArray[np.float64] | float | None:
    return numbers(part[own]) if own in part.column_names else same
