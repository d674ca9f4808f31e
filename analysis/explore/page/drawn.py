"""What the script of the page draws: counts of bins, corners of fronts, and the few points that have a mark."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from .cuts import Column, Cuts, Pair
from .folder import Results
from .front_rows import details, value_of
from .scales import Bins, Levels, short_label
from .summary import Summary

__all__ = ["MOST_CORNERS", "drawn_data", "importance_rows", "ticks"]

MOST_CORNERS = 1000
"""Of the line of a front or a bound: more than a screen has pixels across would show nothing."""
_MOST_TICKS = 12
_LEAST_SHARE = 0.0005
"""Of a variance: less is no bar that could be seen, and pairs of ten axes would be 45 rows of such."""
_PLACES = (0.0, 1 / 3, 2 / 3, 1.0)


def drawn_data(results: Results, cuts: Cuts, front: pd.DataFrame | None) -> dict[str, Any]:
    """``front``: the points of it that are shown."""
    objectives = list(cuts.seen.objectives)
    return {
        "objectives": [
            {"label": one.label, "words": one.words, "sign": one.sign, "log": bins.log, "edges": _short(bins.edges)}
            for one, bins in cuts.seen.objectives.items()
        ],
        "pairs": [_pair(pair, cuts) for pair in cuts.pairs],
        "front": None if front is None else _front(results, cuts, front),
        "columns": [
            {
                "label": column.label,
                "objective": column.objective is not None,
                "ticks": ticks(column),
                "middles": list(column.scale.middles),
            }
            for column in cuts.columns
        ],
        "links": [_sparse(counts) for counts in cuts.links],
        "importances": importance_rows(results.summary),
        "slices": [
            {
                "label": name,
                "values": list(scale.short_labels) if isinstance(scale, Levels) else [],
                "edges": _short(scale.edges) if isinstance(scale, Bins) else [],
                "log": isinstance(scale, Bins) and scale.log,
                "of": [
                    {**_sparse(cuts.slices[name, one].counts), "best": _short(cuts.slices[name, one].best)}
                    for one in objectives
                ],
            }
            for name, scale in cuts.seen.axes.items()
            if scale.count > 1
        ],
        "statuses": [{"label": name, "points": count} for name, count in cuts.seen.statuses.items()],
        "refused": [
            {"label": name, "points": count} for name, count in _largest_first(results.summary.refused_by or {})
        ],
    }


def ticks(column: Column) -> list[list[Any]]:
    """Places between 0 and 1 on a column and what is written there; of many values some."""
    scale = column.scale
    if isinstance(scale, Levels):
        step = -(-scale.count // _MOST_TICKS)
        return [[scale.middles[i], scale.short_labels[i]] for i in range(0, scale.count, step)]
    return [[at, short_label(float(f"{scale.value(at):.3g}"))] for at in _PLACES]


def importance_rows(summary: Summary) -> dict[str, Any] | None:
    """Shares of axes and pairs in each objective, those that explain most first; without those that show nothing."""
    if not summary.importances:
        return None
    shares = {name: {one.axis: one.share for one in given} for name, given in summary.importances.items()}
    words = {one.name: one.words for one in summary.objectives or ()}
    axes = dict.fromkeys(axis for given in shares.values() for axis in given)
    most = {axis: max(given.get(axis, 0.0) for given in shares.values()) for axis in axes}
    order = sorted(axes, key=lambda axis: -sum(given.get(axis, 0.0) for given in shares.values()))
    order = [axis for axis in order if most[axis] >= _LEAST_SHARE] or order[:1]
    return {
        "objectives": [words.get(name, name) for name in shares],
        "rows": [{"label": axis, "shares": [given.get(axis, 0.0) for given in shares.values()]} for axis in order],
    }


def _largest_first(counts: dict[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))


def _pair(pair: Pair, cuts: Cuts) -> dict[str, Any]:
    order = list(cuts.seen.objectives)
    return {
        "x": order.index(pair.x),
        "y": order.index(pair.y),
        "runs": _sparse(pair.runs),
        "left": _sparse(pair.left_out),
        "front": _corners(pair, *pair.front.some(MOST_CORNERS)),
        "bound": None if pair.bound is None else _corners(pair, *pair.bound.coarse(MOST_CORNERS)),
        "why": pair.unbounded,
    }


def _corners(pair: Pair, x: NDArray[np.float64], y: NDArray[np.float64]) -> dict[str, list[float | None]]:
    return {"x": _short(pair.x.sign * x), "y": _short(pair.y.sign * y)}


def _front(results: Results, cuts: Cuts, front: pd.DataFrame) -> dict[str, Any]:
    known = details(front, (*cuts.seen.axes, *(results.summary.tied or ())))
    rows = range(len(front))
    return {
        "values": [
            [value_of(front, row, one.name) if one.name in front.columns else None for row in rows]
            for one in cuts.seen.objectives
        ],
        "places": [
            [
                column.scale.place(value_of(front, row, column.name)) if column.name in front.columns else None
                for row in rows
            ]
            for column in cuts.columns
        ],
        "details": known,
        "reports": [results.reports.get(one["point"]) for one in known],
        "place": results.place,
    }


def _sparse(counts: NDArray[np.int64]) -> dict[str, list[int]]:
    """Bins with anything in them, row after row, by their number."""
    flat = counts.reshape(-1)
    at = np.flatnonzero(flat)
    return {"at": at.tolist(), "n": flat[at].tolist()}


def _short(values: NDArray[np.float64]) -> list[float | None]:
    """Seven digits, which no screen shows more of; None for nothing."""
    return [float(f"{v:.7g}") if np.isfinite(v) else None for v in values]
