"""How what holds arrays or many parts shows itself at a prompt: in one line."""

from __future__ import annotations

from collections.abc import Sized
from dataclasses import fields
from typing import Any, cast

from .errors import printable, shorten

__all__ = ["LONGEST", "OneLine"]

LONGEST = 300
"""Characters of the line at most; names that others gave are cut before that."""
_FEW = 4
"""Parts of a collection that are written out, if they are short."""


class OneLine:
    """A dataclass with ``repr=False`` that says what it is in at most `LONGEST` characters, ``<Class: ...>``.

    By default its fields, of an array type and shape, of a collection how many; a class of its own words has ``_said``.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return shorten(printable(f"<{type(self).__name__}: {self._said()}>"), LONGEST)

    def _said(self) -> str:
        shown = {f.name: getattr(self, f.name) for f in fields(cast(Any, self)) if f.repr}
        return ", ".join(f"{name} {_brief(value)}" for name, value in shown.items() if value is not None)


def _brief(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        return f"{value.dtype} {list(value.shape)}"
    few = not isinstance(value, Sized) or isinstance(value, str) or len(value) <= _FEW
    written = str(value) if few else ""
    if few and len(written) <= LONGEST // 5:
        return written
    return f"of {len(value)}" if isinstance(value, Sized) else str(getattr(value, "name", type(value).__name__))
