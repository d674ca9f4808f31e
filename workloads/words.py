"""Words for numbers and for a scheme, as lines, figures and reports write them."""

from __future__ import annotations

from collections.abc import Sequence

from .errors import printable, shorten

__all__ = ["count", "joules", "joules_unit", "named", "percent", "scheme_name", "seconds", "time_unit"]

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


def joules_unit(value: float) -> tuple[float, str]:
    """Unit to write an energy of ``value`` joules in, and its length in joules."""
    return _unit(value, "J")


def _written(value: float, unit: str) -> str:
    size, name = _unit(value, unit)
    return f"{value / size:#.3g}".rstrip(".") + f" {name}"


def _unit(value: float, unit: str) -> tuple[float, str]:
    return next(((size, sign + unit) for size, sign in _SIGNS if value >= size), (1e-9, f"n{unit}"))


def percent(share: float) -> str:
    """Whole percent, below ten with one digit."""
    return f"{100 * share:.0f} %" if share >= 0.0995 or share == 0 else f"{100 * share:.1f} %"


def named(name: str) -> str:
    """A name that others gave, of a length that a title takes."""
    return shorten(printable(name), _LONGEST)


def scheme_name(scheme: str, pattern: object = None, rules: Sequence[object] = ()) -> str:
    """Scheme and pattern, with the rules for layers or, of many, how many there are."""
    few = ", ".join(named(str(rule)) for rule in rules)
    return (
        named(scheme)
        + (f" {pattern}" if pattern else "")
        + (f", {few if len(rules) <= _FEW_RULES else f'{len(rules)} rules for layers'}" if rules else "")
    )
