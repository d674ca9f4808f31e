"""Words for numbers and runs, as figures and reports write them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fractions import Fraction
from math import floor
from typing import TypeVar

from ..workloads.phase import Use
from ..workloads.step import Workload
from ..workloads.words import count, joules, named, percent, scheme_name, seconds, time_unit

__all__ = [
    "apportion",
    "count",
    "joules",
    "model_name",
    "one_step",
    "percent",
    "percents",
    "percents_of",
    "run_name",
    "seconds",
    "step_name",
    "time_unit",
]

K = TypeVar("K")
_USES: dict[Use, str] = {"infer": "inference", "prefill": "prefill", "decode": "decode"}


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
    return scheme_name(work.scheme, work.pattern, work.layer_patterns)


def one_step(work: Workload) -> str:
    """What a step is called by what it is for."""
    return "one training step" if work.phase.trains else f"one step of {_USES[work.phase.use]}"


def model_name(work: Workload) -> str:
    """Model and, where known, what one sample is."""
    return named(work.model) + (f" ({named(work.input)})" if work.input else "")


def step_name(work: Workload) -> str:
    """Model and what one step takes."""
    return model_name(work) if work.input else f"{named(work.model)}, batch {work.batch}"
