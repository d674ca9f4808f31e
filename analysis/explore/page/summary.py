"""What `explore.json` says of a sweep; what it does not say is not on the page, and the page says so."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ....workloads.errors import InputError
from ....workloads.strict import read_json, read_text

__all__ = ["FILE", "Objective", "Share", "Summary", "read_summary"]

FILE = "explore.json"
_UNITS = {"s": "seconds", "J": "joules", "W": "watts", "B": "bytes", "samples/s": "samples per second"}
"""What names of objectives call their units."""


@dataclass(frozen=True, slots=True)
class Objective:
    """What machines are compared by: the name of a column of points."""

    name: str
    direction: Literal["min", "max"]
    unit: str = ""

    @property
    def sign(self) -> int:
        """1 where less is better, else -1."""
        return 1 if self.direction == "min" else -1

    @property
    def words(self) -> str:
        """Its name, in the unit's letters where that is the same word: PEs for pes."""
        return self.unit if self.unit.lower() == self.name.lower() else _words(self.name)

    @property
    def label(self) -> str:
        """In words, with its unit where the words do not say it."""
        said = self.unit in ("", self.words) or self.words.endswith(_UNITS.get(self.unit, "\0"))
        return self.words if said else f"{self.words}, {self.unit}"

    def with_unit(self, written: str) -> str:
        """145 KiB, 3.2 s; only the number of what is counted."""
        if self.unit in ("", self.words):
            return written
        return written + ("" if written[-1].isalpha() else " ") + self.unit


def _words(name: str) -> str:
    """A field of a machine is called by its path."""
    return name if "." in name else name.replace("_", " ")


@dataclass(frozen=True, slots=True)
class Share:
    """What share of an objective's variance an axis explains, 0 to 1."""

    axis: str
    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """None: not said. ``tied``: fields that have the value of an axis."""

    weft_version: str | None = None
    model: str | None = None
    machine: str | None = None
    axes: dict[str, list[Any]] | None = None
    tied: dict[str, str] | None = None
    objectives: tuple[Objective, ...] | None = None
    points: int | None = None
    refused_by: dict[str, int] | None = None
    importances: dict[str, list[Share]] | None = None
    advice: tuple[str, ...] | None = None
    command: str | None = None


def read_summary(folder: Path) -> Summary:
    """Of a results folder."""
    path = folder / FILE
    if not path.is_file():
        raise InputError(f"{path}: is not there; `weft explore SPACE -o {folder}` writes it, or finishes what it began")
    return read_json(Summary, read_text(path), str(path))
