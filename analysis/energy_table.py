"""Energy of each action as tables in TOML: every figure with its unit, node, source and how far to trust it."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields, is_dataclass
from enum import StrEnum
from functools import cache
from importlib import resources
from math import isfinite
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from ..workloads.errors import InputError, nearest
from ..workloads.strict import read

__all__ = [
    "BitEnergy", "EnergyTable", "Mark", "MemoryEnergy", "OperationEnergy", "Operations", "load_table", "parse_table",
    "table_names",
]  # fmt: skip

_STRICT = {"extra": "forbid"}


class Mark(StrEnum):
    """How far a figure can be trusted, best first."""

    MEASURED = "measured"
    """By running the named public simulator."""
    PUBLISHED = "published"
    """Read in a paper's abstract, a vendor's page or a public repository."""
    SECOND_HAND = "second-hand"
    """Somebody's notes that quote the source."""
    INFERRED = "inferred"
    """Derived from other figures."""
    ASSUMED = "assumed"
    """Nobody's figure."""


def _check(value: float, node: str, source: str) -> None:
    if not (isfinite(value) and value > 0):
        raise InputError(f"an energy must be a positive number of picojoules, not {value}")
    if not node.strip() or not source.strip():
        raise InputError("node and source of an energy must not be empty")


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationEnergy:
    """Picojoules of one operation."""

    __pydantic_config__ = _STRICT
    value: float
    unit: Literal["pJ"]
    node: str
    source: str
    mark: Mark

    def __post_init__(self) -> None:
        _check(self.value, self.node, self.source)


@dataclass(frozen=True, slots=True, kw_only=True)
class BitEnergy:
    """Picojoules of one bit moved."""

    __pydantic_config__ = _STRICT
    value: float
    unit: Literal["pJ/bit"]
    node: str
    source: str
    mark: Mark

    def __post_init__(self) -> None:
        _check(self.value, self.node, self.source)


@dataclass(frozen=True, slots=True, kw_only=True)
class Operations:
    """Arithmetic and the small logic around it."""

    __pydantic_config__ = _STRICT
    fp16_multiply: OperationEnergy
    fp32_add: OperationEnergy
    fp32_multiply: OperationEnergy
    fp32_divide: OperationEnergy
    fp32_square_root: OperationEnergy
    index_select: OperationEnergy
    compare: OperationEnergy
    vector_element: OperationEnergy


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryEnergy:
    """A memory in its two directions."""

    __pydantic_config__ = _STRICT
    read: BitEnergy
    write: BitEnergy


@dataclass(frozen=True, slots=True, kw_only=True)
class EnergyTable:
    """All figures of one technology. ``scaling`` names the model behind them, ``not_counted`` what they leave out."""

    __pydantic_config__ = _STRICT
    name: str
    title: str
    scaling: str
    not_counted: tuple[str, ...]
    operations: Operations
    sram: MemoryEnergy
    dram: dict[str, MemoryEnergy]

    def dram_of(self, kind: str) -> MemoryEnergy:
        """Energy of a kind of DRAM."""
        if kind not in self.dram:
            raise InputError(f"dram.kind {kind!r} has no energy in table {self.name!r}: {nearest(kind, self.dram)}")
        return self.dram[kind]


@cache
def table_names() -> tuple[str, ...]:
    """Tables that ship."""
    folder = resources.files(__package__) / "tables"
    return tuple(sorted(f.name.removesuffix(".toml") for f in folder.iterdir() if f.name.endswith(".toml")))


def load_table(name: str | Path) -> EnergyTable:
    """Table of a shipped name or of a path that ends in ``.toml``."""
    path = Path(name)
    return parse_table(_text(path), str(path)) if path.suffix == ".toml" else _shipped(str(name))


@cache
def _shipped(name: str) -> EnergyTable:
    if name not in table_names():
        raise InputError(
            f"technology {name!r} is neither an energy table nor a .toml file: {nearest(name, table_names())}"
        )
    shipped = resources.files(__package__) / "tables" / f"{name}.toml"
    return parse_table(shipped.read_text(encoding="utf-8"), f"{name}.toml")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: is not UTF-8 text") from None


def parse_table(text: str, source: str) -> EnergyTable:
    """Table of TOML text; ``source`` names it in errors."""
    try:
        table = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InputError(f"{source}: is not valid TOML: {error}") from None
    return read(EnergyTable, table, source, _keys)


def _keys(place: str) -> list[str]:
    """Valid keys of the table at a dotted path."""
    kind: Any = EnergyTable
    for part in filter(None, place.split(".")):
        kind = get_args(kind)[1] if get_origin(kind) is dict else get_type_hints(kind).get(part)
        if not (is_dataclass(kind) or get_origin(kind) is dict):
            return []
    return [f.name for f in fields(kind)] if is_dataclass(kind) else []
