"""Rows of a sweep: which run, and where in the space they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ...workloads.errors import InputError, nearest

__all__ = [
    "LEFT_OUT",
    "REFUSED",
    "RUNS",
    "Axes",
    "axes_of",
    "cells",
    "codes",
    "ordered",
    "require_columns",
    "runs",
    "number",
]

Axes: TypeAlias = Mapping[str, Sequence[Any]]
"""Values of each axis by its name, in the order of the space: the next value is one step away."""

RUNS, LEFT_OUT, REFUSED = "runs", "left out", "refused"
"""Words of the column ``status`` that are not a reason by themselves."""

_MOST_CELLS = 2**62


def runs(frame: pd.DataFrame) -> NDArray[np.bool_]:
    """Rows whose point runs, bool [rows]."""
    require_columns(frame, ("status",))
    return np.asarray(frame["status"] == RUNS, bool)


def require_columns(frame: pd.DataFrame, names: Sequence[str]) -> None:
    """Refuse names that are no columns of ``frame``."""
    for name in names:
        if name not in frame.columns:
            raise InputError(f"the points have no column {name!r}: {nearest(name, map(str, frame.columns))}")


def axes_of(frame: pd.DataFrame, names: Sequence[str]) -> dict[str, list[Any]]:
    """The values that occur on each of the axes ``names``, numbers in ascending order, other values as they come."""
    require_columns(frame, names)
    found = {}
    for name in names:
        values = frame[name].unique().tolist()
        found[name] = sorted(values) if ordered(sorted(values, key=_as_number)) else values
    return found


def ordered(values: Sequence[Any]) -> bool:
    """Whether an axis has an order, that is numbers that only rise or only fall; among others every step is equal."""
    if not all(isinstance(value, (int, float, np.number)) and not isinstance(value, bool) for value in values):
        return False
    steps = np.diff(np.asarray(values, float))
    return bool((steps > 0).all() or (steps < 0).all())


def codes(frame: pd.DataFrame, axes: Axes) -> NDArray[np.int64]:
    """Position of each row's value among the values of its axis, int64 [rows, axes]."""
    require_columns(frame, tuple(axes))
    found = np.empty((len(frame), len(axes)), np.int64)
    for number, (name, values) in enumerate(axes.items()):
        index = pd.Index(list(values))
        if not len(index) or index.has_duplicates:
            raise InputError(f"axis {name!r} needs values, each once, not {_some(values)}")
        found[:, number] = index.get_indexer(pd.Index(frame[name]))
        if (found[:, number] < 0).any():
            other = frame[name].tolist()[int(np.argmax(found[:, number] < 0))]
            raise InputError(f"column {name!r} holds {other!r}, which is no value of its axis: {_some(values)}")
    return found


def cells(positions: NDArray[np.int64], sizes: Sequence[int]) -> NDArray[np.int64]:
    """A number for each row of ``positions``, int64 [rows, axes], the same for equal rows; returns int64 [rows].

    Where the axes of ``sizes`` have less than 2^62 points in all, it is the point's place in their product, in C order.
    """
    found = np.zeros(len(positions), np.int64)
    below = 1
    for number, size in enumerate(sizes):
        if below * size > _MOST_CELLS:
            values, found = np.unique(found, return_inverse=True)
            below = len(values)
        found = found * size + positions[:, number]
        below *= size
    return found


def number(value: float) -> str:
    """With all digits of a count that has seven at most, otherwise with four."""
    return f"{value:,.0f}" if abs(value) < 1e7 and float(value).is_integer() else f"{value:.4g}"


def _some(values: Sequence[Any]) -> str:
    shown = ", ".join(str(value) for value in values[:8])
    return shown + (f" and {len(values) - 8} more" if len(values) > 8 else "") or "none"


def _as_number(value: Any) -> tuple[bool, float, str]:
    number = isinstance(value, (int, float, np.number))
    return not number, float(value) if number else 0.0, str(value)
