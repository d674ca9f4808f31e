"""What a field of a machine may be, as data: one place for checks, messages, docs and whoever explores machines."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields, is_dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

from ..workloads.errors import InputError, require_int

__all__ = ["FieldRule", "Range", "field_rules", "require_ranges"]


@dataclass(frozen=True, slots=True)
class Range:
    """Of an integer field, as ``Annotated[int, Range(...)]``: least and most value, and what it counts."""

    least: int
    most: int
    unit: str


class FieldRule(NamedTuple):
    """One field of a description, nested ones by their path."""

    path: str
    allowed: Range | tuple[str, ...] | type
    """A range; the words that it may be; or a type without a rule."""
    optional: bool
    default: object
    """`dataclasses.MISSING` where it must be given."""
    table: str = ""
    """The table that it stands in, if a description may do without that."""

    @property
    def values(self) -> str:
        """What it may be, in words."""
        match self.allowed:
            case Range(least, most, _):
                return f"{_number(least)} to {_number(most)}"
            case tuple() as words:
                return " or ".join(words)
            case kind:
                return {str: "text", bool: "true or false"}.get(kind, kind.__name__)

    @property
    def unit(self) -> str:
        """What it counts."""
        return self.allowed.unit if isinstance(self.allowed, Range) else ""

    @property
    def otherwise(self) -> str:
        """What holds where it is left out."""
        if self.default is MISSING:
            return f"must be given in [{self.table}]" if self.table else "must be given"
        if self.default is None or self.default == "":
            return "none"
        return str(self.default).lower() if isinstance(self.default, bool) else str(self.default)


def _number(value: int) -> str:
    """Powers of two as such where the digits would say little."""
    if value >= 2**20 and value & (value - 1) == 0:
        return f"2^{value.bit_length() - 1}"
    return f"{value:,}"


def require_ranges(of: object, name: str) -> None:
    """Refuse a description with a field outside of its rule; ``name`` is the table that it stands in."""
    for rule in _own_rules(of.__class__):
        value, where = getattr(of, rule.path), f"{name}.{rule.path}" if name else rule.path
        if value is None and rule.optional:
            continue
        match rule.allowed:
            case Range(least, most, _):
                require_int(where, value, least, most)
            case tuple() as words if value not in words:
                raise InputError(f"{where} must be {' or '.join(map(repr, words))}, not {value!r}")
            case kind if kind is bool and not isinstance(value, bool):
                raise InputError(f"{where} must be true or false, not {value!r}")
            case _:
                pass


def field_rules(kind: type, path: str = "") -> Iterator[FieldRule]:
    """Every field of a description, those of its tables after its own."""
    tables = []
    for rule in _own_rules(kind):
        if isinstance(rule.allowed, type) and is_dataclass(rule.allowed):
            tables.append((rule.path, rule.allowed, rule.path if rule.optional else ""))
        else:
            yield rule._replace(path=path + rule.path)
    for name, table, left_out in tables:
        for rule in field_rules(table, f"{path}{name}."):
            yield rule._replace(table=left_out) if left_out else rule


_rules: dict[type, tuple[FieldRule, ...]] = {}


def _own_rules(kind: type) -> tuple[FieldRule, ...]:
    if kind not in _rules:
        hints = get_type_hints(kind, include_extras=True)
        _rules[kind] = tuple(FieldRule(f.name, *_allowed(hints[f.name]), f.default) for f in fields(kind))
    return _rules[kind]


def _allowed(hint: Any) -> tuple[Any, bool]:
    """Rule of a type, and whether it may be left out."""
    if get_origin(hint) is Annotated and get_origin(get_args(hint)[0]) in (Union, UnionType):
        return _allowed(get_args(hint)[0])
    if get_origin(hint) in (Union, UnionType):
        (inner,) = (choice for choice in get_args(hint) if choice is not NoneType)
        return _allowed(inner)[0], True
    if get_origin(hint) is Literal:
        return get_args(hint), False
    ranges = [extra for extra in getattr(hint, "__metadata__", ()) if isinstance(extra, Range)]
    return (ranges[0] if ranges else hint), False
