"""Points counted the ways the page shows them, in two passes over all of them and a memory that does not grow."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import combinations, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..levels import LEFT_OUT, RUNS
from .optimum import optimum
from .points import Points
from .scales import Levels, Scale, numbers
from .staircase import Staircase
from .summary import Objective, Summary
from .survey import Progress, Survey, survey

__all__ = ["Column", "Cuts", "Pair", "Slice", "cut"]


@dataclass(frozen=True, slots=True)
class Column:
    """An axis or an objective as a vertical line: what it is called and where its values stand."""

    name: str
    scale: Scale
    objective: Objective | None = None

    @property
    def label(self) -> str:
        return self.name if self.objective is None else self.objective.label


@dataclass(slots=True)
class Pair:
    """Two objectives against each other.

    ``runs``: int64 [bins of x, bins of y], machines that were scheduled; ``left_out``: the same of machines that were
    not, at the best that their bound lets them be; ``front``: corners in the order and the sign of `Staircase`;
    ``bound``: that of all machines at their best, beyond which none is, None where ``unbounded`` says why.
    """

    x: Objective
    y: Objective
    runs: NDArray[np.int64]
    left_out: NDArray[np.int64]
    front: Staircase = field(default_factory=Staircase)
    bound: Staircase | None = field(default_factory=Staircase)
    unbounded: str = ""


@dataclass(slots=True)
class Slice:
    """An objective by the values of an axis: ``counts`` int64 [values, bins], ``best`` float64 [values] or NaN."""

    counts: NDArray[np.int64]
    best: NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cuts:
    """``columns`` of the parallel axes, and ``links`` between one and the next, int64 [values, values] each.

    ``by_status``: int64 [values, statuses] by axis, statuses in the order of those of ``seen``.
    """

    seen: Survey
    pairs: tuple[Pair, ...]
    columns: tuple[Column, ...]
    links: tuple[NDArray[np.int64], ...]
    slices: dict[tuple[str, Objective], Slice]
    by_status: dict[str, NDArray[np.int64]]

    @property
    def points(self) -> int:
        return sum(self.seen.statuses.values())


def cut(points: Points, summary: Summary, progress: Progress | None = None) -> Cuts:
    """Every cut of ``points``; ``progress`` is called with the rows read and all that will be."""
    seen = survey(points, summary, progress)
    bins = {one: scale.count for one, scale in seen.objectives.items()}
    axes = [Column(name, scale) for name, scale in seen.axes.items() if scale.count > 1]
    # An axis may be an objective too.
    goals = {one.name for one in bins}
    columns = (
        *(axis for axis in axes if axis.name not in goals),
        *(Column(one.name, scale, one) for one, scale in seen.objectives.items()),
    )
    made = Cuts(
        seen=seen,
        pairs=tuple(
            Pair(x, y, np.zeros((bins[x], bins[y]), np.int64), np.zeros((bins[x], bins[y]), np.int64))
            for x, y in combinations(bins, 2)
        ),
        columns=columns,
        links=tuple(np.zeros((a.scale.count, b.scale.count), np.int64) for a, b in pairwise(columns)),
        slices={
            (axis.name, one): Slice(np.zeros((axis.scale.count, n), np.int64), np.full(axis.scale.count, np.nan))
            for axis in axes
            for one, n in bins.items()
        },
        by_status={a.name: np.zeros((a.scale.count, len(seen.statuses)), np.int64) for a in axes},
    )
    done = len(points)
    for part in points.parts(seen.columns):
        _add(made, part)
        done += part.num_rows
        if progress is not None:
            progress(done, 2 * len(points))
    return made


def _add(made: Cuts, part: Any) -> None:
    """Count the rows of a part."""
    seen = made.seen
    names = tuple(seen.statuses)
    status = Levels(names).index(part["status"])
    ran = status == names.index(RUNS) if RUNS in names else np.zeros(len(status), bool)
    apart = status == names.index(LEFT_OUT) if LEFT_OUT in names else np.zeros(len(status), bool)
    index = {name: scale.index(part[name]) for name, scale in seen.axes.items()}
    values = {one: numbers(part[one.name]) for one in seen.objectives}
    of = {one: np.where(ran, scale.index(values[one]), -1) for one, scale in seen.objectives.items()}
    for name, counts in made.by_status.items():
        _count(counts, index[name], status)
    for (name, one), found in made.slices.items():
        _count(found.counts, index[name], of[one])
        _best(found.best, index[name], np.where(of[one] >= 0, one.sign * values[one], np.inf), one.sign)
    lines = [of[c.objective] if c.objective else np.where(ran, index[c.name], -1) for c in made.columns]
    for counts, left, right in zip(made.links, lines, lines[1:], strict=False):
        _count(counts, left, right)
    bounded = "bound_cycles" in seen.columns
    best = {one: optimum(one.name, part, seen.rates) if bounded else None for one in seen.objectives}
    for pair in made.pairs:
        _count(pair.runs, of[pair.x], of[pair.y])
        both = (of[pair.x] >= 0) & (of[pair.y] >= 0)
        pair.front.add(pair.x.sign * values[pair.x][both], pair.y.sign * values[pair.y][both])
        _bound(pair, best, seen, ran, apart)


def _bound(
    pair: Pair,
    best: dict[Objective, NDArray[np.float64] | None],
    seen: Survey,
    ran: NDArray[np.bool_],
    apart: NDArray[np.bool_],
) -> None:
    """Add the rows of a part at their best."""
    x, y = best[pair.x], best[pair.y]
    if x is None or y is None:
        pair.bound = None
        silent = " and ".join(one.words for one in (pair.x, pair.y) if best[one] is None)
        pair.unbounded = f"no bound says how good {silent} can be before a machine is scheduled"
        return
    if apart.any():
        _count(pair.left_out, *(np.where(apart, seen.objectives[o].index(best[o]), -1) for o in (pair.x, pair.y)))
    counted, known = ran | apart, np.isfinite(x) & np.isfinite(y)
    if pair.bound is not None and (counted & ~known).any():
        pair.bound = None
        pair.unbounded = "of some machines the bound or another number is not known"
    if pair.bound is not None:
        pair.bound.add(pair.x.sign * x[counted], pair.y.sign * y[counted])


def _count(counts: NDArray[np.int64], left: NDArray[np.int64], right: NDArray[np.int64]) -> None:
    """Add one for each row that stands somewhere in both."""
    both = (left >= 0) & (right >= 0)
    flat = left[both] * counts.shape[1] + right[both]
    counts += np.bincount(flat, minlength=counts.size).reshape(counts.shape)


def _best(best: NDArray[np.float64], index: NDArray[np.int64], values: NDArray[np.float64], sign: int) -> None:
    """Lower ``best``, in the objective's own sign, to the least of ``values``, where less is better."""
    known = np.isfinite(values) & (index >= 0)
    least = np.full(len(best), np.inf)
    np.minimum.at(least, index[known], values[known])
    before = np.where(np.isnan(best), np.inf, sign * best)
    least = np.minimum(before, least)
    best[:] = np.where(np.isfinite(least), sign * least, np.nan)
