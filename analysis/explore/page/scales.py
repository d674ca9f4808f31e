"""Where a value stands: among a few values by themselves, or in one of many equal bins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

__all__ = ["Bins", "Levels", "Scale", "in_order", "label_of", "numbers", "short_label"]

_SPAN = 8
"""Times the least value that the largest must be for bins to be equal in the logarithm."""
_LONG = 10_000
"""From here on a number takes more letters than its first digits and a prefix."""


@dataclass(frozen=True)
class Levels:
    """Values by themselves, in their order."""

    values: tuple[Any, ...]

    @property
    def count(self) -> int:
        return len(self.values)

    @cached_property
    def short_labels(self) -> tuple[str, ...]:
        """In few letters, as far as these tell them apart."""
        short = tuple(map(short_label, self.values))
        return short if len(set(short)) == len(short) else self.labels

    @cached_property
    def labels(self) -> tuple[str, ...]:
        return tuple(map(label_of, self.values))

    def index(self, column: Any) -> NDArray[np.int64]:
        """Which of the values, int64 [rows]; -1 for another one."""
        chosen = pa.array(self.values, column.type)
        found = pc.index_in(column, value_set=chosen).fill_null(-1)
        return np.asarray(found.to_numpy(), np.int64)

    def place(self, value: Any) -> float | None:
        """Between 0, before the first one, and 1, after the last."""
        return (self.values.index(value) + 0.5) / self.count if value in self.values else None


@dataclass(frozen=True)
class Bins:
    """``count`` bins from ``low`` to ``high``, equal in the value or, ``log``, in its logarithm."""

    low: float
    high: float
    count: int

    @cached_property
    def log(self) -> bool:
        return self.low > 0 and self.high > _SPAN * self.low

    @cached_property
    def edges(self) -> NDArray[np.float64]:
        """float64 [count + 1]; a value on an edge is in the bin above it, the last one in the last bin."""
        low, high = self.low, self.high
        if low == high:
            low, high = (0.9 * low, 1.1 * low) if low > 0 else (low - 0.5, high + 0.5)
        if not self.log:
            return np.linspace(low, high, self.count + 1)
        edges = np.geomspace(low, high, self.count + 1)
        edges[0], edges[-1] = low, high
        return edges

    def index(self, column: Any) -> NDArray[np.int64]:
        """Which bin, int64 [rows]; -1 for what is no finite number. ``column``: of Arrow, or float64 [rows]."""
        values = numbers(column)
        found = np.searchsorted(self.edges, values, side="right") - 1
        found[~np.isfinite(values)] = -1
        return np.minimum(found, self.count - 1)

    def place(self, value: Any) -> float | None:
        """Between 0, at the low end, and 1."""
        if value is None or not np.isfinite(value):
            return None
        ends = self.edges[[0, -1]]
        at = float(value)
        if self.log:
            ends, at = np.log(ends), float(np.log(at))
        return float(np.clip((at - ends[0]) / (ends[1] - ends[0]), 0.0, 1.0))


Scale = Levels | Bins


def numbers(column: Any) -> NDArray[np.float64]:
    """float64 [rows], NaN where there is nothing."""
    if isinstance(column, np.ndarray):
        return np.asarray(column, np.float64)
    return np.asarray(pc.cast(column, pa.float64(), safe=False).to_numpy(), np.float64)


def label_of(value: Any) -> str:
    """A value as axes and tables write it."""
    match value:
        case None:
            return "none"
        case bool():
            return str(value).lower()
        case int():
            return f"{value:,}"
        case float():
            return f"{value:,.6g}"
        case _:
            return str(value)


def short_label(value: Any) -> str:
    """The same in few letters: 131,072 as 128 Ki, 3,200,000,000 as 3.2 G; digits beyond the fourth are lost."""
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) < _LONG:
        return label_of(float(f"{value:.4g}")) if isinstance(value, float) else label_of(value)
    if isinstance(value, int) and value % 1024 == 0:
        return _prefixed(value, 1024, ("Ki", "Mi", "Gi", "Ti"))
    return _prefixed(value, 1000, ("k", "M", "G", "T"))


def _prefixed(value: float, base: int, prefixes: tuple[str, ...]) -> str:
    power = 0
    while power < len(prefixes) and abs(value) >= base:
        value, power = value / base, power + 1
    return f"{value:,.4g}" + (f" {prefixes[power - 1]}" if power else "")


def in_order(values: Sequence[Any]) -> tuple[Any, ...]:
    """Nothing first, then numbers by size or words by the alphabet."""
    return tuple(sorted(values, key=lambda value: (value is not None, 0 if value is None else value)))
