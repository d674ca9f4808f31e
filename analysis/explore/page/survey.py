"""The first look at all points: how many there are of which status, and what values each column takes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ....workloads.errors import InputError, nearest
from ..levels import LEFT_OUT, RUNS
from .optimum import Rates, needed, optimum
from .points import Points
from .scales import Bins, Levels, Scale, in_order, numbers
from .summary import Objective, Summary

__all__ = ["Progress", "Survey", "survey"]

Progress = Callable[[int, int], None]
_MOST_LEVELS, _MOST_WORDS = 24, 40
"""Numbers beyond the first are binned; an axis of more words than the second is not drawn."""
_OBJECTIVE_BINS = 56
_RATES = ("seconds", "samples_per_second")
_OWN, _MIXED = ("clock_hz", "batch"), ("arch", "model")
"""Of a point itself, where it has them; and what points of a clock and a batch must have in common."""
_SAME = 1e-6
"""Two clocks that differ by less are one: seconds are rounded cycles over it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """``columns`` are all that later looks need; ``objectives`` those that any point has a number of."""

    statuses: dict[str, int]
    axes: dict[str, Scale]
    objectives: dict[Objective, Bins]
    columns: tuple[str, ...]
    rates: Rates
    absent: tuple[str, ...]
    """Why an axis or an objective is not drawn, a sentence each."""


class _Extent:
    """Least and most of finite numbers."""

    def __init__(self) -> None:
        self.low, self.high = np.inf, -np.inf

    def add(self, values: NDArray[np.float64]) -> None:
        """float64 [values]."""
        known = values[np.isfinite(values)]
        if len(known):
            self.low, self.high = min(self.low, float(known.min())), max(self.high, float(known.max()))

    @property
    def any(self) -> bool:
        return self.low <= self.high

    @property
    def same(self) -> float | None:
        return self.high if self.any and self.high - self.low <= _SAME * abs(self.high) else None


class _Distinct:
    """Values of a column, as long as they are few; of numbers their extent."""

    def __init__(self) -> None:
        self.values: dict[Any, None] = {}
        self.extent = _Extent()
        self.numeric = False

    def add(self, column: Any) -> None:
        self.numeric = pa.types.is_integer(column.type) or pa.types.is_floating(column.type)
        if self.numeric:
            self.extent.add(numbers(column))
        if len(self.values) <= _MOST_WORDS:
            self.values.update(dict.fromkeys(pc.unique(column).to_pylist()))

    @property
    def scale(self) -> Scale | None:
        if self.numeric and len(self.values) > _MOST_LEVELS and self.extent.any:
            return Bins(self.extent.low, self.extent.high, _MOST_LEVELS)
        return Levels(in_order(list(self.values))) if len(self.values) <= _MOST_WORDS else None


def survey(points: Points, summary: Summary, progress: Progress | None = None) -> Survey:
    """Of all ``points``; refuses points without a status."""
    asked, absent = _asked(points, summary)
    axes = [name for name in summary.axes or () if name in points.columns]
    bounded = [name for one in asked for name in needed(one.name)]
    columns = ("status", *axes, *(one.name for one in asked), *bounded, "cycles", *_RATES, *_OWN, *_MIXED)
    columns = tuple(name for name in dict.fromkeys(columns) if name in points.columns)
    distinct = {name: _Distinct() for name in (*axes, *_MIXED) if name in columns}
    extents = {one: _Extent() for one in asked}
    clock, samples = _Extent(), _Extent()
    statuses: Counter[str] = Counter()
    seen = 0
    for part in points.parts(columns):
        for entry in pc.value_counts(part["status"]).to_pylist():
            statuses[entry["values"]] += entry["counts"]
        for name, values in distinct.items():
            values.add(part[name])
        ran = part.filter(pc.equal(part["status"], RUNS))
        for one, extent in extents.items():
            extent.add(numbers(ran[one.name]))
        if {"cycles", *_RATES} <= set(columns):
            seconds = numbers(ran["seconds"])
            with np.errstate(all="ignore"):  # what is no number is no rate
                clock.add(numbers(ran["cycles"]) / seconds)
                samples.add(numbers(ran["samples_per_second"]) * seconds)
        seen += part.num_rows
        if progress is not None:
            progress(seen, 2 * len(points))
    # Another machine, or another model, may bring a clock or a batch of its own that no point that runs has.
    alike = all(len(distinct[name].values) < 2 for name in _MIXED if name in distinct)
    rates = Rates(clock.same, samples.same) if alike else Rates(None, None)
    if statuses[LEFT_OUT] and "bound_cycles" in columns:
        _widen(extents, points, columns, rates)
    scales = {name: distinct[name].scale for name in axes}
    absent += [f"{name} has more than {_MOST_WORDS} words" for name, scale in scales.items() if scale is None]
    absent += [f"no point that runs has a number of {one.name}" for one, extent in extents.items() if not extent.any]
    return Survey(
        statuses=dict(sorted(statuses.items(), key=_order)),
        axes={name: scale for name, scale in scales.items() if scale is not None},
        objectives={o: Bins(e.low, e.high, _OBJECTIVE_BINS) for o, e in extents.items() if e.any},
        columns=columns,
        rates=rates,
        absent=tuple(absent),
    )


def _order(entry: tuple[str, int]) -> tuple[bool, bool, str]:
    """What runs first, then what was left out, then the others by name."""
    return entry[0] != RUNS, entry[0] != LEFT_OUT, entry[0]


def _widen(extents: dict[Objective, _Extent], points: Points, columns: Sequence[str], rates: Rates) -> None:
    """By the machines that were left out, where their bounds put them."""
    for part in points.parts(columns):
        rest = part.filter(pc.equal(part["status"], LEFT_OUT))
        if rest.num_rows:
            for one, extent in extents.items():
                best = optimum(one.name, rest, rates)
                if best is not None and extent.any:
                    extent.add(best)


def _asked(points: Points, summary: Summary) -> tuple[list[Objective], list[str]]:
    """Objectives that are columns, and what is said of the others."""
    if "status" not in points.columns:
        raise InputError("points: have no column 'status'; every point of a sweep says whether it runs")
    found, absent = list[Objective](), list[str]()
    for one in summary.objectives or ():
        if one.name in points.columns:
            found.append(one)
        else:
            absent.append(f"{one.name} is no column of the points: {nearest(one.name, points.columns)}")
    absent += [f"axis {name} is no column of the points" for name in summary.axes or () if name not in points.columns]
    return found, absent
