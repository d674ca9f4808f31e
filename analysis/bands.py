"""How far energies may be off: factors by figure, totals as three numbers, and what of a ratio cancels.

A total is lowest where every figure is. A ratio of two totals grows or falls with each figure by itself, so its ends
lie at corners of the bands: each figure at one end of its own, on both sides at once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from itertools import product
from math import ceil, floor, isfinite, log10
from typing import NamedTuple

from ..workloads.errors import InputError, nearest
from ..workloads.mark import Mark
from ..workloads.strict import read_toml
from ..workloads.words import joules_unit

__all__ = ["Band", "Joules", "Spent", "band_words", "banded", "known_band", "ratio_range", "shipped_bands"]

_STRICT = {"extra": "forbid"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """Least and largest factors of a likely value, with their own origin."""

    __pydantic_config__ = _STRICT
    low: float
    high: float
    mark: Mark
    source: str

    def __post_init__(self) -> None:
        if not (0 < self.low <= 1 <= self.high and isfinite(self.high)):
            raise InputError(f"a band of {self.low:g} to {self.high:g}: low must be in (0, 1], high at least 1")
        if not self.source.strip():
            raise InputError("source of a band must not be empty")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bands:
    __pydantic_config__ = _STRICT
    bands: dict[str, Band]


class Joules(NamedTuple):
    """An energy: likely, and the least and the most by the bands of the figures that it rests on."""

    low: float
    likely: float
    high: float


class Spent(NamedTuple):
    """Energy on one figure of a table. ``common``: the band of a factor that other figures share, as that of a node."""

    figure: str
    band: Band
    common: Band | None
    energy: float


@cache
def shipped_bands() -> dict[str, Band]:
    """Those that a figure may name."""
    text = (resources.files(__package__) / "tables" / "bands.toml").read_text(encoding="utf-8")
    return read_toml(_Bands, text, "bands.toml").bands


def known_band(name: str) -> Band:
    """The shipped band of that name."""
    found = shipped_bands().get(name)
    if found is None:
        raise InputError(f"band {name!r} is not known: {nearest(name, shipped_bands())}")
    return found


def band_words(found: Joules) -> str:
    """As ``1.30 J, 0.75-2.5``: all three in one unit."""
    size, unit = joules_unit(found.likely)
    low, likely, high = (value / size for value in found)
    return f"{likely:#.3g}".rstrip(".") + f" {unit}, {_two(low, floor)}-{_two(high, ceil)}"


def banded(found: Joules) -> dict[str, float]:
    """The three as records have them."""
    return {"energy_j": found.likely, "energy_low_j": found.low, "energy_high_j": found.high}


def _two(value: float, outwards: Callable[[float], int]) -> str:
    """Two digits that count, rounded away from the likely value, never as a power."""
    if not value:
        return "0"
    last = floor(log10(value)) - 1
    # To what is left of a float's own error first: 28 is 28, however it was computed.
    return f"{round(outwards(round(value / 10.0**last, 9)) * 10.0**last, max(0, -last)):g}"


def ratio_range(above: Sequence[Spent], below: Sequence[Spent]) -> tuple[float, float]:
    """Least and largest ratio of two totals, both positive, over all figures within their bands.

    Of every figure that both totals rest on there is one value. For given common factors the ratio is largest where
    the figures that weigh most above, relative to below, are high and the others low: as many cases as figures.
    """
    commons = list(dict.fromkeys(s.common for s in (*above, *below) if s.common is not None))
    found = []
    for ends in product(*((c.low, c.high) for c in commons)):
        factor = dict(zip(commons, ends, strict=True))
        sides = [_by_figure(spent, factor) for spent in (above, below)]
        figures = list(dict.fromkeys((*sides[0], *sides[1])))
        weights = [(sides[0].get(f, 0.0), sides[1].get(f, 0.0), f[1]) for f in figures]
        found += [_largest(weights), 1 / _largest([(b, a, band) for a, b, band in weights])]
    return min(found), max(found)


def _by_figure(spent: Iterable[Spent], factor: dict[Band, float]) -> dict[tuple[str, Band], float]:
    sums: dict[tuple[str, Band], float] = defaultdict(float)
    for one in spent:
        sums[one.figure, one.band] += one.energy * (1.0 if one.common is None else factor[one.common])
    return sums


def _largest(weights: Sequence[tuple[float, float, Band]]) -> float:
    ordered = sorted(weights, key=lambda w: w[0] / (w[0] + w[1]) if w[0] + w[1] else 0.0, reverse=True)
    above = sum(one * band.low for one, _, band in ordered)
    below = sum(other * band.low for _, other, band in ordered)
    best = above / below
    for one, other, band in ordered:
        above, below = above + one * (band.high - band.low), below + other * (band.high - band.low)
        best = max(best, above / below)
    return best
