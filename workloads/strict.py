"""Strict reading of TOML and JSON into our frozen dataclasses; a refusal names the place, the value and the rule."""

from __future__ import annotations

import codecs
import json
import os
import stat
import tomllib
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from .errors import InputError, nearest, printable, reading, shorten

__all__ = ["MAX_FILE_BYTES", "dump_json", "read_file", "read_json", "read_text", "read_toml", "require_regular"]

T = TypeVar("T")
MAX_FILE_BYTES = 2**30
"""Largest file that is read; what we read as a whole is far smaller."""

_SHOWN = 5
_LONGEST = 80

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
"""The mark of UTF-32 begins with that of UTF-16."""

_adapters: dict[object, TypeAdapter[Any]] = {}


def _adapter(kind: type[T]) -> TypeAdapter[T]:
    """Building a validator takes milliseconds, so each is built once."""
    if kind not in _adapters:
        _adapters[kind] = TypeAdapter(kind)
    return _adapters[kind]


def dump_json(kind: type[T], value: T, without: dict[str, Any] | None = None) -> bytes:
    """Canonical JSON of ``value``: the same value always gives the same bytes; ``without`` as pydantic's exclude."""
    return _adapter(kind).dump_json(value, by_alias=True, exclude_defaults=False, exclude=without)


def read_file(path: Path, most: int = MAX_FILE_BYTES) -> bytes:
    """All of a regular file of at most ``most`` bytes; a pipe, a socket or a device may block for ever or never end."""
    try:
        # Opening a pipe waits for its other end unless told not to.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY), "rb") as file:
            found = os.fstat(file.fileno())
            require_regular(path, found)
            if found.st_size > most:
                raise InputError(f"{path}: is larger than {most // 2**20} MiB, the most that is read of such a file")
            return file.read()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except InputError:
        raise
    except ValueError as error:
        # A null character in a name that a file gave us.
        raise InputError(f"{path}: cannot be read: {error}") from None


def require_regular(path: Path, found: os.stat_result) -> None:
    """Refuse what is no file."""
    if not stat.S_ISREG(found.st_mode):
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), "no file")
        raise InputError(f"{path}: cannot be read: it is {kind}; expected a file")


def read_text(path: Path) -> str:
    """Text of a file: UTF-8, or what its byte-order mark says, without the mark; every end of a line is ``\\n``.

    The one door for text that users write: editors and spreadsheets put such marks before it.
    """
    raw = read_file(path)
    encoding = next((name for mark, name in _MARKS if raw.startswith(mark)), "utf-8")
    try:
        return raw.decode(encoding).replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError:
        raise InputError(f"{path}: is not {encoding.removesuffix('-sig').upper()} text") from None


def read_toml(kind: type[T], text: str, source: str) -> T:
    """``kind`` from TOML; ``source`` is the file to name in an error."""
    with reading(source, "valid TOML"):
        # Through JSON, because only there does strict mode accept a mapping for a dataclass.
        table = json.dumps(tomllib.loads(text), default=str)
    return read_json(kind, table, source)


def read_json(kind: type[T], text: str | bytes, source: str) -> T:
    """``kind`` from JSON; ``source`` is the file to name in an error."""
    with reading(source, "valid JSON"):
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
        # What checks itself names itself, but not which of many it is.
        return f"{place}: {inner}" if any(isinstance(part, int) for part in detail["loc"]) else str(inner)
    if detail["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        *path, key = detail["loc"]
        known = _keys(kind, path)
        return f"unknown key {place!r}" + (f"; {nearest(str(key), known)}" if known else "")
    if detail["type"] in ("missing", "missing_argument", "missing_keyword_only_argument"):
        return f"key {place!r} is missing"
    try:
        value = shorten(repr(detail["input"]), _LONGEST)
    except ValueError:
        # Python writes no integer of more than 4,300 digits.
        value = "an integer of thousands of digits"
    return f"{place + ': ' if place else ''}{shorten(printable(detail['msg']), 4 * _LONGEST)}; found {value}"


def _keys(kind: Any, path: list[int | str]) -> list[str]:
    """Valid keys of the table at ``path`` inside ``kind``."""
    for part in path:
        kind = _inside(kind, part)
    tables = _tables(kind)
    return [f.name.rstrip("_") for f in fields(tables[0])] if len(tables) == 1 else []


def _tables(kind: Any) -> list[Any]:
    """Dataclasses that a value may be: of a union, as with None where a table may be left out, its members."""
    return [kind] if is_dataclass(kind) else [choice for choice in get_args(kind) if is_dataclass(choice)]


def _inside(kind: Any, part: int | str) -> Any:
    """Type of one part of a value: of a field, of an item, or the member of a union that a tag names."""
    if is_dataclass(kind):
        return get_type_hints(kind).get(str(part)) or get_type_hints(kind).get(f"{part}_")
    choices = _tables(kind)
    tagged = [c for c in choices if "kind" in c.__dataclass_fields__ and c.__dataclass_fields__["kind"].default == part]
    if tagged or get_origin(kind) not in (dict, tuple):
        return next(iter([*tagged, *choices]), None)
    return get_args(kind)[-1 if get_origin(kind) is dict else 0]
