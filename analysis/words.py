"""Words for numbers and runs, as figures and reports write them."""

from __future__ import annotations

from ..workloads.step import Workload

__all__ = ["count", "joules", "model_name", "percent", "run_name", "seconds", "step_name", "time_unit"]

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


def run_name(work: Workload) -> str:
    """Scheme and pattern."""
    return work.scheme + (f" {work.pattern}" if work.pattern else "")


def model_name(work: Workload) -> str:
    """Model and, where known, what one sample is."""
    return work.model + (f" ({work.input})" if work.input else "")


def step_name(work: Workload) -> str:
    """Model and what one step takes."""
    return model_name(work) if work.input else f"{work.model}, batch {work.batch}"
