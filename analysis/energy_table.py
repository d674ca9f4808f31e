"""Energy of each action as tables in TOML: every figure with its unit, node, source and how far to trust it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from importlib import resources
from math import isfinite
from pathlib import Path
from typing import Literal

from ..workloads.errors import InputError, nearest
from ..workloads.strict import read_text, read_toml

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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Figure:
    """A positive number with its origin."""

    __pydantic_config__ = _STRICT
    value: float
    node: str
    source: str
    mark: Mark

    def __post_init__(self) -> None:
        if not (isfinite(self.value) and self.value > 0):
            raise InputError(f"an energy must be a positive number of picojoules, not {self.value}")
        if not self.node.strip() or not self.source.strip():
            raise InputError("node and source of an energy must not be empty")


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationEnergy(_Figure):
    """Picojoules of one operation."""

    unit: Literal["pJ"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BitEnergy(_Figure):
    """Picojoules of one bit moved."""

    unit: Literal["pJ/bit"]


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
    return parse_table(read_text(path), str(path)) if path.suffix == ".toml" else _shipped(str(name))


@cache
def _shipped(name: str) -> EnergyTable:
    if name not in table_names():
        raise InputError(
            f"technology {name!r} is neither an energy table nor a .toml file: {nearest(name, table_names())}"
        )
    shipped = resources.files(__package__) / "tables" / f"{name}.toml"
    return parse_table(shipped.read_text(encoding="utf-8"), f"{name}.toml")


def parse_table(text: str, source: str) -> EnergyTable:
    """Table of TOML text; ``source`` names it in errors."""
    return read_toml(EnergyTable, text, source)
