"""Strict reading of TOML and JSON into our frozen dataclasses; a refusal names the place, the value and the rule."""

from __future__ import annotations

import json
import tomllib
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from .errors import InputError, nearest

__all__ = ["dump_json", "read_json", "read_text", "read_toml"]

T = TypeVar("T")
_SHOWN = 5
_LONGEST = 80


_adapters: dict[object, TypeAdapter[Any]] = {}


def _adapter(kind: type[T]) -> TypeAdapter[T]:
    """Building a validator takes milliseconds, so each is built once."""
    if kind not in _adapters:
        _adapters[kind] = TypeAdapter(kind)
    return _adapters[kind]


def dump_json(kind: type[T], value: T, without: dict[str, Any] | None = None) -> bytes:
    """Canonical JSON of ``value``: the same value always gives the same bytes; ``without`` as pydantic's exclude."""
    return _adapter(kind).dump_json(value, by_alias=True, exclude_defaults=False, exclude=without)


def read_text(path: Path) -> str:
    """UTF-8 text of a file."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: is not UTF-8 text") from None


def read_toml(kind: type[T], text: str, source: str) -> T:
    """``kind`` from TOML; ``source`` is the file to name in an error."""
    try:
        table = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InputError(f"{source}: is not valid TOML: {error}") from None
    # Through JSON, because only there does strict mode accept a mapping for a dataclass.
    return read_json(kind, json.dumps(table, default=str), source)


def read_json(kind: type[T], text: str | bytes, source: str) -> T:
    """``kind`` from JSON; ``source`` is the file to name in an error."""
    try:
        return _adapter(kind).validate_json(text, strict=True)
    except ValidationError as error:
        raise InputError(_explain(kind, error, source)) from None


def _explain(kind: object, error: ValidationError, source: str) -> str:
    # A misspelt key also leaves its field missing: say first what was written.
    details = sorted(error.errors(include_url=False), key=lambda d: "missing" in d["type"])
    lines = [f"{source}: {_message(kind, d)}" for d in details[:_SHOWN]]
    if len(details) > _SHOWN:
        lines.append(f"{source}: and {len(details) - _SHOWN} more")
    return "\n".join(lines)


def _message(kind: object, detail: ErrorDetails) -> str:
    place = ".".join(str(part) for part in detail["loc"])
    inner = detail.get("ctx", {}).get("error")
    if isinstance(inner, InputError):
        return str(inner)
    if detail["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        *path, key = detail["loc"]
        return f"unknown key {place!r}; {nearest(str(key), _keys(kind, path))}"
    if detail["type"] in ("missing", "missing_argument", "missing_keyword_only_argument"):
        return f"key {place!r} is missing"
    value = repr(detail["input"])
    shown = value if len(value) <= _LONGEST else value[:_LONGEST] + "..."
    return f"{place + ': ' if place else ''}{detail['msg']}; found {shown}"


def _keys(kind: Any, path: list[int | str]) -> list[str]:
    """Valid keys of the table at ``path`` inside ``kind``."""
    for part in path:
        kind = _inside(kind, part)
    return [f.name.rstrip("_") for f in fields(kind)] if is_dataclass(kind) else []


def _inside(kind: Any, part: int | str) -> Any:
    """Type of one part of a value: of a field, of an item, or the member of a union that a tag names."""
    if is_dataclass(kind):
        return get_type_hints(kind).get(str(part)) or get_type_hints(kind).get(f"{part}_")
    choices = [choice for choice in get_args(kind) if is_dataclass(choice)]
    tagged = [c for c in choices if "kind" in c.__dataclass_fields__ and c.__dataclass_fields__["kind"].default == part]
    if tagged or get_origin(kind) not in (dict, tuple):
        return next(iter([*tagged, *choices]), None)
    return get_args(kind)[-1 if get_origin(kind) is dict else 0]
