"""Where a value stands: among a few values by themselves, or in one of many equal bins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import log2, log10
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

__all__ = ["Bins", "Levels", "Scale", "in_order", "label_of", "numbers", "short_label"]

_SPAN = 8
"""Times the least value that the largest must be for bins to be equal in the logarithm."""
_CLOSE = 1e-9
_PREFIXES = "kMGT"
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

    @cached_property
    def middles(self) -> tuple[float, ...]:
        """Where each value stands between 0 and 1."""
        return tuple((i + 0.5) / self.count for i in range(self.count))

    def place(self, value: Any) -> float | None:
        """Between 0, before the first one, and 1, after the last."""
        return self.middles[self.values.index(value)] if value in self.values else None


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
        """float64 [count + 1]; the ends of the values are the middles of the outer bins."""
        low, high = self._ends
        half = 0.5 * (high - low) / (self.count - 1)
        edges = np.linspace(low - half, high + half, self.count + 1)
        return np.exp(edges) if self.log else edges

    @cached_property
    def middles(self) -> tuple[float, ...]:
        """Where each bin stands between 0 and 1."""
        return tuple(i / (self.count - 1) for i in range(self.count))

    @property
    def _ends(self) -> tuple[float, float]:
        """Of the values or of their logarithms; a single value has room to both sides, as have two that bins could
        not tell apart."""
        low, high = (float(np.log(end)) if self.log else end for end in (self.low, self.high))
        size = max(abs(low), abs(high))
        room = 0.0 if high - low > _CLOSE * size else 0.1 * size or 0.5
        return low - room, high + room

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
        low, high = self._ends
        at = float(np.log(value)) if self.log else float(value)
        return float(np.clip((at - low) / (high - low), 0.0, 1.0))

    def value(self, place: float) -> float:
        """What stands at a place between 0 and 1."""
        low, high = self._ends
        at = low + place * (high - low)
        return float(np.exp(at)) if self.log else at


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
    if isinstance(value, bool) or not isinstance(value, int | float):
        return label_of(value)
    if abs(value) < _LONG:
        return label_of(float(f"{value:.4g}"))
    power = min(int(log10(abs(value)) // 3), len(_PREFIXES))
    binary = min(int(log2(abs(value)) // 10), len(_PREFIXES))
    decimal, kept = value / 1000**power, value / 1024**binary
    # Powers of two have too many digits in the decimal system.
    if float(f"{decimal:.4g}") != decimal and float(f"{kept:.4g}") == kept:
        return f"{kept:,.4g} {_PREFIXES[binary - 1]}i".replace("ki", "Ki")
    return f"{decimal:,.4g} {_PREFIXES[power - 1]}"


def in_order(values: Sequence[Any]) -> tuple[Any, ...]:
    """Nothing first, then numbers by size or words by the alphabet."""
    return tuple(sorted(values, key=lambda value: (value is not None, 0 if value is None else value)))
