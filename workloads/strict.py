"""Strict reading of outside data into our frozen dataclasses; every refusal names the place, the value and the rule."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from .errors import InputError, nearest

__all__ = ["dump_json", "read"]

T = TypeVar("T")
_SHOWN = 5
_LONGEST = 80


_adapters: dict[object, TypeAdapter[Any]] = {}


def _adapter(kind: type[T]) -> TypeAdapter[T]:
    """Building a validator takes milliseconds, so each is built once."""
    if kind not in _adapters:
        _adapters[kind] = TypeAdapter(kind)
    return _adapters[kind]


def read(kind: type[T], data: str | bytes | dict[str, Any], source: str, names: Callable[[str], list[str]]) -> T:
    """Build ``kind`` from JSON text or from a parsed table; ``source`` is the file to name in an error.

    ``names`` gives the valid keys beside a dotted path, to suggest one for a misspelt key.
    """
    # A table goes through JSON because only there does strict mode accept a mapping for a dataclass.
    text = json.dumps(data, default=str) if isinstance(data, dict) else data
    try:
        return _adapter(kind).validate_json(text, strict=True)
    except ValidationError as error:
        raise InputError(_explain(error, source, names)) from None
    except RecursionError:
        raise InputError(f"{source}: nested too deeply") from None


def dump_json(kind: type[T], value: T) -> bytes:
    """Canonical JSON of ``value``: the same value always gives the same bytes."""
    return _adapter(kind).dump_json(value, by_alias=True, exclude_defaults=False)


def _explain(error: ValidationError, source: str, names: Callable[[str], list[str]]) -> str:
    # A misspelt key also leaves its field missing: say first what was written.
    details = sorted(error.errors(include_url=False), key=lambda d: "missing" in d["type"])
    lines = [_line(d, source, names) for d in details[:_SHOWN]]
    if len(details) > _SHOWN:
        lines.append(f"{source}: and {len(details) - _SHOWN} more")
    return "\n".join(lines)


def _line(detail: ErrorDetails, source: str, names: Callable[[str], list[str]]) -> str:
    place = ".".join(str(part) for part in detail["loc"])
    inner = detail.get("ctx", {}).get("error")
    if isinstance(inner, InputError):
        return f"{source}: {inner}"
    if detail["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        parent, _, key = place.rpartition(".")
        return f"{source}: unknown key {place!r}; {nearest(key, names(parent))}"
    if detail["type"] in ("missing", "missing_argument", "missing_keyword_only_argument"):
        return f"{source}: key {place!r} is missing"
    value = repr(detail["input"])
    shown = value if len(value) <= _LONGEST else value[:_LONGEST] + "..."
    where = f"{place}: " if place else ""
    return f"{source}: {where}{detail['msg']}; found {shown}"
