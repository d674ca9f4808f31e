"""Words for numbers and runs, as figures and reports write them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fractions import Fraction
from math import floor
from typing import TypeVar

from ..workloads.errors import printable, shorten
from ..workloads.step import Workload

__all__ = [
    "apportion",
    "count",
    "joules",
    "model_name",
    "percent",
    "percents",
    "percents_of",
    "run_name",
    "seconds",
    "step_name",
    "time_unit",
]

K = TypeVar("K")
_LONGEST = 80
_FEW_RULES = 2
_SIGNS = ((1.0, ""), (1e-3, "m"), (1e-6, "µ"))


def count(value: float) -> str:
    """469170213 as 469 M."""
    for limit, unit in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(value) >= limit:
            return f"{value / limit:.3g}{unit}"
    return f"{value:.3g}"


def time_unit(value: float) -> tuple[float, str]:
    """Unit to write a time of ``value`` seconds in, and its length in seconds."""
    return _unit(value, "s")


def seconds(value: float) -> str:
    """0.0867 as 86.7 ms."""
    return _written(value, "s")


def joules(value: float) -> str:
    """0.0867 as 86.7 mJ."""
    return _written(value, "J")


def _written(value: float, unit: str) -> str:
    size, name = _unit(value, unit)
    return f"{value / size:#.3g}".rstrip(".") + f" {name}"


def _unit(value: float, unit: str) -> tuple[float, str]:
    return next(((size, sign + unit) for size, sign in _SIGNS if value >= size), (1e-9, f"n{unit}"))


def percent(share: float) -> str:
    """Whole percent, below ten with one digit."""
    return f"{100 * share:.0f} %" if share >= 0.0995 or share == 0 else f"{100 * share:.1f} %"


def apportion(whole: int, parts: Iterable[float | Fraction]) -> list[int]:
    """Whole numbers in the proportion of ``parts`` (not negative) that add up to ``whole``, by largest remainders.

    None is off by 1 or more; of equal remainders the first gets more. All zero where ``parts`` are.
    """
    exact = [Fraction(part) for part in parts]
    every = sum(exact)
    if not every:
        return [0] * len(exact)
    due = [whole * part / every for part in exact]
    given = [floor(share) for share in due]
    largest = sorted(range(len(due)), key=lambda i: given[i] - due[i])
    for i in largest[: whole - sum(given)]:
        given[i] += 1
    return given


def percents(parts: Iterable[float | Fraction], whole: float | Fraction | None = None) -> list[str]:
    """Percent with one digit each, rounded together: as printed they add up to exactly 100.0.

    Of another ``whole``, to its rounded share of it.
    """
    given = list(parts)
    every = sum(Fraction(part) for part in given)
    tenths = 1000 if whole is None or not whole else round(1000 * every / Fraction(whole))
    return [f"{n / 10:.1f}" for n in apportion(tenths, given)]


def percents_of(parts: Mapping[K, float | Fraction]) -> dict[K, str]:
    """The same by name."""
    return dict(zip(parts, percents(parts.values()), strict=True))


def run_name(work: Workload) -> str:
    """Scheme and pattern, with the rules for layers or, of many, how many there are."""
    named, rules = _shown(work.scheme) + (f" {work.pattern}" if work.pattern else ""), work.layer_patterns
    few = ", ".join(_shown(str(rule)) for rule in rules)
    return named + (f", {few if len(rules) <= _FEW_RULES else f'{len(rules)} rules for layers'}" if rules else "")


def model_name(work: Workload) -> str:
    """Model and, where known, what one sample is."""
    return _shown(work.model) + (f" ({_shown(work.input)})" if work.input else "")


def step_name(work: Workload) -> str:
    """Model and what one step takes."""
    return model_name(work) if work.input else f"{_shown(work.model)}, batch {work.batch}"


def _shown(name: str) -> str:
    """A name that others gave, of a length that a title takes."""
    return shorten(printable(name), _LONGEST)
