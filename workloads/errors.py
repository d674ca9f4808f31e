"""The one error that bad input raises, what of a value may be shown, and the nearest valid name to suggest."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from math import isfinite

__all__ = [
    "InputError",
    "brief",
    "nearest",
    "printable",
    "reading",
    "require_choice",
    "require_int",
    "require_positive",
    "shorten",
]


_NAMED, _OFFERED = 40, 600
"""Names offered at most, and their characters; schemes and models are fewer, the ops of a step many and long."""

_LINES, _LINE, _WORD = 29, 1000, 240
"""What fits on a screen: lines of a message, and characters of a line and of a word in it."""

_CONTROLS = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Unicode categories that move the cursor, talk to the terminal, turn the direction of reading or break a line."""


class InputError(ValueError):
    """Input that breaks a stated rule; the message names where, the value, the rule and what would be valid.

    The command line prints the message alone and ends with exit code 2. A message quotes what others wrote, so it
    holds no control character but the end of a line, and is :func:`brief`.
    """

    def __init__(self, message: str) -> None:
        super().__init__(brief(printable(message, lines=True)))


def printable(text: str, *, lines: bool = False) -> str:
    """``text`` with control characters, tabs and line breaks too unless ``lines``, written as Python escapes them."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        c if (lines and c in "\n\t") or unicodedata.category(c) not in _CONTROLS else repr(c)[1:-1] for c in text
    )


def brief(text: str) -> str:
    """``text`` with what is too long for a screen cut in the middle, where the rule of a message seldom stands."""
    rows = text.splitlines()
    if len(rows) > _LINES:
        rows = [*rows[: _LINES - 1], f"... and {len(rows) - _LINES + 1} lines more"]
    words = re.compile(rf"\S{{{_WORD + 1},}}")
    return "\n".join(shorten(words.sub(lambda word: shorten(word[0], _WORD), row), _LINE) for row in rows)


def shorten(text: str, longest: int) -> str:
    """``text``, its middle left out where it is longer than ``longest``."""
    half = (longest - 3) // 2
    return text if len(text) <= longest else f"{text[:half]}...{text[-half:]}"


@contextmanager
def reading(what: str, expected: str) -> Iterator[None]:
    """Where a library takes in a file of others: whatever it raises there is an :class:`InputError` of ``what``.

    Libraries publish no list of what they raise: a cut or foreign file ends as an overflow, a recursion, a wrong type
    or an error of their own.
    """
    try:
        yield
    except InputError:
        raise
    except MemoryError as error:
        raise InputError(f"{what}: takes more memory than there is; expected {expected}") from error
    except Exception as error:
        if isinstance(error, OSError) and error.strerror:
            raise InputError(f"{what}: cannot be read: {error.strerror}") from error
        # Of over-long integers Python also says how its limit is lifted, which is no advice for a file.
        first = " ".join(str(error).split()).partition("; use sys.set_int")[0][:300]
        raise InputError(f"{what}: is not {expected} ({type(error).__name__}: {first})") from error


def nearest(name: str, choices: Iterable[str]) -> str:
    """Sentence tail that offers the valid names closest to ``name``, or the first of them when none is close."""
    names = sorted(set(choices))
    in_small = {choice.casefold(): choice for choice in names}
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    close = close or [in_small[c] for c in difflib.get_close_matches(name.casefold(), in_small, n=3, cutoff=0.5)]
    if close:
        return "did you mean " + " or ".join(repr(c) for c in close) + "?"
    lengths = accumulate(len(choice) + 2 for choice in names)
    shown = names[: max(1, sum(length <= _OFFERED for length in lengths))][:_NAMED]
    more = f" and {len(names) - len(shown)} more" if len(names) > len(shown) else ""
    return "choose one of " + ", ".join(shown) + more


def require_int(where: str, value: object, low: int, high: int) -> None:
    """Refuse anything but an integer in ``[low, high]``; ``bool`` is not an integer here."""
    if type(value) is not int or not low <= value <= high:
        shown = _number(value) if isinstance(value, int) else repr(value)
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


def _number(value: int) -> str:
    """Digits of an integer, or how many there are where Python refuses to write them."""
    return str(value) if abs(value) < 10**100 else f"an integer of some {int(value.bit_length() * 0.30103)} digits"
