"""HTML made of Python values: what is not markup is escaped, always."""

from __future__ import annotations

import json
from collections.abc import Iterable
from html import escape
from typing import Any

__all__ = ["Html", "element", "embedded_json", "joined"]

_VOID = frozenset({"meta", "input", "br"})


class Html(str):
    """Text that is markup already; any other string is escaped when it becomes part of an element."""

    __slots__ = ()


def element(tag: str, *children: str | None, **attributes: str | bool | None) -> Html:
    """An element; ``class_`` and the like lose the underscore, others become hyphens, None and False are left out."""
    written = "".join(_attribute(name, value) for name, value in attributes.items())
    if tag in _VOID:
        return Html(f"<{tag}{written}>")
    return Html(f"<{tag}{written}>{joined(children)}</{tag}>")


def joined(parts: Iterable[str | None]) -> Html:
    """Parts one after the other."""
    return Html("".join(_safe(part) for part in parts if part is not None))


def embedded_json(value: Any) -> Html:
    """JSON that is safe inside a script element, whatever its strings hold."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return Html(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def _safe(part: str) -> str:
    return part if isinstance(part, Html) else escape(part, quote=False)


def _attribute(name: str, value: str | bool | None) -> str:
    if value is None or value is False:
        return ""
    written = name.rstrip("_").replace("_", "-")
    return f" {written}" if value is True else f' {written}="{escape(value)}"'
