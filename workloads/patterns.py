"""Names chosen by patterns: the wildcards of a shell, each of which must find something."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from .errors import InputError, nearest

__all__ = ["matching"]


def matching(patterns: Sequence[str], names: Iterable[str], what: str) -> list[str]:
    """Those of ``names`` that match one of ``patterns`` (``*`` matches dots too), in their order.

    A pattern that finds no ``what`` is refused with the names closest to it.
    """
    choices = list(names)
    chosen: set[str] = set()
    for pattern in patterns:
        found = [name for name in choices if fnmatchcase(name, pattern)]
        if not found:
            raise InputError(f"no {what} matches {pattern!r}: {nearest(pattern, choices)}")
        chosen.update(found)
    return [name for name in choices if name in chosen]
