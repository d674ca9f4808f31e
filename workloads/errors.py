"""The one error that bad input raises, and the nearest valid name to suggest with it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from math import isfinite

__all__ = ["InputError", "nearest", "require_choice", "require_int", "require_positive"]


_NAMED = 40
"""Names offered at most; schemes and models are fewer, the ops of a step many."""


class InputError(ValueError):
    """Input that breaks a stated rule; the message names where, the value, the rule and what would be valid.

    The command line prints the message alone and ends with exit code 2.
    """


def nearest(name: str, choices: Iterable[str]) -> str:
    """Sentence tail that offers the valid names closest to ``name``, or the first of them when none is close."""
    names = sorted(set(choices))
    in_small = {choice.casefold(): choice for choice in names}
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    close = close or [in_small[c] for c in difflib.get_close_matches(name.casefold(), in_small, n=3, cutoff=0.5)]
    if close:
        return "did you mean " + " or ".join(repr(c) for c in close) + "?"
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return "choose one of " + ", ".join(names[:_NAMED]) + more


def require_int(where: str, value: object, low: int, high: int) -> None:
    """Refuse anything but an integer in ``[low, high]``; ``bool`` is not an integer here."""
    if type(value) is not int or not low <= value <= high:
        shown = value if isinstance(value, int) else repr(value)
        hint = ""
        if type(value) is int:
            hint = f"; the nearest valid value is {min(max(value, low), high)}"
        raise InputError(f"{where} must be an integer from {low} to {high}, not {shown}{hint}")


def require_choice(where: str, value: str, choices: Sequence[str]) -> str:
    """Refuse anything but one of ``choices``."""
    if value not in choices:
        raise InputError(f"{where} is {str(value)!r}: {nearest(str(value), map(str, choices))}")
    return value


def require_positive(where: str, value: float) -> None:
    """Refuse zero, negative numbers, infinities and NaN."""
    if not (isfinite(value) and value > 0):
        raise InputError(f"{where} must be a positive number, not {value}")
