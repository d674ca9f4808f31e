"""Exact Pareto fronts of many points: the front, its merge, its hypervolume, its knee.

A row dominates another that it is nowhere worse and somewhere better than (`dataflow/batch/front.py` keeps machines
from being scheduled that are dominated already by a bound).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from ...workloads.errors import InputError
from .levels import require_columns, runs

__all__ = ["Direction", "Objectives", "front_of", "hypervolume", "knee", "merge", "pareto"]

Direction: TypeAlias = Literal["min", "max"]
Objectives: TypeAlias = Mapping[str, Direction]
"""What to look for in which column."""

_FEW, _SIEVE = 512, 64
"""Rows that are compared each with each, and rows that sieve all others beforehand; set by speed alone."""


def pareto(
    values: ArrayLike, directions: Sequence[Direction] | None = None, *, ties: bool = False
) -> NDArray[np.int64]:
    """Numbers of the rows of ``values``, any dtype [rows, objectives], that no other row dominates, ascending; int64
    [front].

    Of equal rows the first, with ``ties`` all. Each objective is to be small unless ``directions`` say otherwise.
    """
    return _pareto(list(_costs(values, directions).T), ties=ties)


def front_of(frame: pd.DataFrame, objectives: Objectives) -> pd.DataFrame:
    """The rows of ``frame`` that run and that no other row dominates, by ascending ``point``; of equals the lowest."""
    require_columns(frame, ("point", *objectives))
    if not objectives:
        raise InputError("a front needs an objective")
    running = frame[runs(frame)].sort_values("point", kind="stable", ignore_index=True)
    ranks = []
    for name, direction in objectives.items():
        column = running[name].to_numpy()
        _require_numbers(column[:, None], [f"objective {name!r}"], running["point"].to_numpy())
        # By rank, because cycles beyond 2^53 are no float64.
        _, rank = np.unique(column, return_inverse=True)
        ranks.append(_towards(rank, direction))
    return running.iloc[_pareto(ranks, ties=False)].reset_index(drop=True)


def merge(fronts: Iterable[pd.DataFrame], objectives: Objectives) -> pd.DataFrame:
    """The front of all points together of which ``fronts``, or any frames of points, are parts, in whatever order."""
    parts = [part for part in fronts if len(part)]
    if not parts:
        raise InputError("there is no row to make a front of")
    return front_of(pd.concat(parts, ignore_index=True), objectives)


def hypervolume(values: ArrayLike, reference: ArrayLike, directions: Sequence[Direction] | None = None) -> float:
    """What the rows of ``values``, any dtype [rows, objectives], dominate of the space up to ``reference``, any dtype
    [objectives], exactly; two or three objectives (Zitzler and Thiele 1998; by sweep, Beume et al. 2009).

    Its unit is the product of those of the objectives. Rows that are not better than the reference in every objective
    add nothing.
    """
    costs = _costs(values, directions).astype(float)
    least = np.asarray(reference, float)
    if least.shape != (costs.shape[1],) or np.isnan(least).any():
        raise InputError(f"reference must be {costs.shape[1]} numbers, one an objective, not {reference!r}")
    if costs.shape[1] not in (2, 3):
        raise InputError(f"a hypervolume is of 2 or 3 objectives, not {costs.shape[1]}")
    least = np.array([_towards(r, d) for r, d in zip(least, _directions(directions, len(least)), strict=True)])
    inside = costs[(costs < least).all(1)]
    points = inside[pareto(inside)] if len(inside) else inside
    points = points[np.argsort(points[:, 0], kind="stable")]
    ends = np.append(points[1:, 0], least[0]) - points[:, 0] if len(points) else np.zeros(0)
    if costs.shape[1] == 2:
        return float((ends * (least[1] - points[:, 1])).sum())
    stairs, area, volume = _Stairs(), 0.0, 0.0
    for (_, y, z), thick in zip(points.tolist(), ends.tolist(), strict=True):
        area += stairs.area(y, z, *least[1:].tolist())
        stairs.add(y, z)
        volume += area * thick
    return float(volume)


def knee(values: ArrayLike, directions: Sequence[Direction] | None = None) -> int:
    """Number of the row of ``values``, any dtype [rows, objectives], that is the front's knee: furthest towards the
    best from the plane through the front's ends (Das 1999), with every objective scaled to its range on the front.

    Of equally far ones the first. Where an objective spans decades, give its logarithm.
    """
    costs = _costs(values, directions).astype(float)
    if not len(costs):
        raise InputError("no row has no knee")
    best = pareto(costs)
    front = costs[best]
    low, high = front.min(0), front.max(0)
    if not np.isfinite(front).all():
        raise InputError("a knee needs finite numbers on the front")
    moves = high > low
    return int(best[int(np.argmin(((front - low)[:, moves] / (high - low)[moves]).sum(1)))])


def _directions(directions: Sequence[Direction] | None, objectives: int) -> Sequence[Direction]:
    found: Sequence[Direction] = ["min"] * objectives if directions is None else directions
    if len(found) != objectives:
        raise InputError(f"directions must be one of {objectives} objectives each, not {len(found)}")
    return found


def _costs(values: ArrayLike, directions: Sequence[Direction] | None) -> NDArray[Any]:
    """All of them to be small."""
    found = np.asarray(values)
    if not found.size and directions:
        found = found.reshape(0, len(directions))
    if found.ndim != 2 or not found.shape[1]:
        raise InputError(f"values must be of shape [rows, objectives], not {list(found.shape)}")
    _require_numbers(found, [f"objective {number}" for number in range(found.shape[1])], np.arange(len(found)))
    each = _directions(directions, found.shape[1])
    return np.stack([_towards(found[:, i], direction) for i, direction in enumerate(each)], axis=1)


def _towards(costs: Any, direction: Direction) -> Any:
    match direction:
        case "min":
            return costs
        case "max":
            return -costs
        case _:
            raise InputError(f"a direction is 'min' or 'max', not {direction!r}")


def _require_numbers(values: NDArray[Any], names: Sequence[str], points: NDArray[Any]) -> None:
    if values.dtype.kind not in "if":
        raise InputError(f"{names[0]} must be numbers, signed or of floating point, not {values.dtype}")
    missing = np.isnan(values)
    if missing.any():
        row, column = np.argwhere(missing)[0]
        raise InputError(f"{names[column]} is unknown for point {points[row]}: leave such points out, or the objective")


def _pareto(columns: Sequence[NDArray[Any]], *, ties: bool) -> NDArray[np.int64]:
    order = np.lexsort(columns[::-1])  # stable, so the first of equal rows comes first
    if not len(order):
        return np.zeros(0, np.int64)
    rows = np.stack([column[order] for column in columns], axis=1)
    first = np.append(True, (rows[1:] != rows[:-1]).any(1))
    best = np.zeros(int(first.sum()), bool)
    best[_undominated(rows[first])] = True
    kept = best[np.cumsum(first) - 1]
    return np.sort(order[kept if ties else kept & first]).astype(np.int64)


def _undominated(rows: NDArray[Any]) -> NDArray[np.int64]:
    """Of rows that all differ, in lexicographic order, so that none dominates an earlier one."""
    match rows.shape[1]:
        case 1:
            return np.zeros(1, np.int64)
        case 2:
            before = np.minimum.accumulate(rows[:, 1])[:-1]
            return np.flatnonzero(np.append(True, rows[1:, 1] < before))
        case _:
            left = _sieved(rows)
            return left[_by_halves(rows[left])]


def _sieved(rows: NDArray[Any]) -> NDArray[np.int64]:
    """Rows that none of the best on average dominates."""
    ranks = sum(np.unique(column, return_inverse=True)[1].astype(float) for column in rows.T)
    left = np.arange(len(rows))
    for strong in np.argsort(ranks, kind="stable")[:_SIEVE]:
        worse = (rows[left] >= rows[strong]).all(1)
        left = left[~worse | (left == strong)]
    return left


def _by_halves(rows: NDArray[Any]) -> NDArray[np.int64]:
    """Of rows as in `_undominated`, in O(n log^(k-2) n) for k objectives (Kung, Luccio and Preparata 1975)."""
    if len(rows) <= _FEW:
        return np.flatnonzero(~np.tril(_covered(rows, rows), -1).any(1))
    half = len(rows) // 2
    early, late = _by_halves(rows[:half]), half + _by_halves(rows[half:])
    return np.concatenate([early, late[_uncovered(rows[late], rows[early], 1)]])


def _uncovered(rows: NDArray[Any], others: NDArray[Any], start: int) -> NDArray[np.bool_]:
    """Rows that none of ``others`` is nowhere worse than, in the objectives from number ``start`` on."""
    if not len(rows) or not len(others):
        return np.ones(len(rows), bool)
    if rows.shape[1] - start == 1:
        return np.asarray(rows[:, start] < others[:, start].min())
    if rows.shape[1] - start == 2:
        order = np.argsort(others[:, start])
        least = np.minimum.accumulate(others[order, start + 1])
        before = np.searchsorted(others[order, start], rows[:, start], side="right")
        return np.asarray((before == 0) | (rows[:, start + 1] < least[before - 1]))
    if len(rows) * len(others) <= _FEW**2:
        return np.asarray(~_covered(rows[:, start:], others[:, start:]).any(1))
    values = np.unique(np.concatenate([rows[:, start], others[:, start]]))
    if len(values) == 1:
        return _uncovered(rows, others, start + 1)
    low = values[(len(values) - 1) // 2]
    near, good = rows[:, start] <= low, others[:, start] <= low
    kept = np.empty(len(rows), bool)
    kept[near] = _uncovered(rows[near], others[good], start)
    far = np.flatnonzero(~near)
    far_kept = _uncovered(rows[far], others[~good], start)
    far_kept[far_kept] = _uncovered(rows[far[far_kept]], others[good], start + 1)
    kept[far] = far_kept
    return kept


def _covered(rows: NDArray[Any], others: NDArray[Any]) -> NDArray[np.bool_]:
    """Whether the second of each pair is nowhere worse, [rows, others]."""
    found = np.ones((len(rows), len(others)), bool)
    for i in range(rows.shape[1]):
        found &= others[None, :, i] <= rows[:, None, i]
    return found


class _Stairs:
    """Pairs of costs of which none dominates another: one rises, the other falls."""

    def __init__(self) -> None:
        self._ys: list[Any] = []
        self._zs: list[Any] = []

    def add(self, y: Any, z: Any) -> bool:
        """Take a pair in, unless one is nowhere worse."""
        if self._covered(y, z):
            return False
        start, end = self._replaced(y, z)
        self._ys[start:end], self._zs[start:end] = [y], [z]
        return True

    def area(self, y: float, z: float, most_y: float, most_z: float) -> float:
        """What a pair would add to the area dominated up to a reference that all pairs are below."""
        if self._covered(y, z):
            return 0.0
        start, end = self._replaced(y, z)
        left, height, added = y, self._zs[start - 1] if start else most_z, 0.0
        for i in range(start, end):
            added += (self._ys[i] - left) * (height - z)
            left, height = self._ys[i], self._zs[i]
        right = self._ys[end] if end < len(self._ys) else most_y
        return float(added + (right - left) * (height - z))

    def _covered(self, y: Any, z: Any) -> bool:
        before = bisect_right(self._ys, y)
        return before > 0 and self._zs[before - 1] <= z

    def _replaced(self, y: Any, z: Any) -> tuple[int, int]:
        start = end = bisect_left(self._ys, y)
        while end < len(self._zs) and self._zs[end] >= z:
            end += 1
        return start, end
