"""An exploration's folder read again: its points, its front, what it came to."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from ...workloads.errors import InputError, reading
from ...workloads.one_line import OneLine
from ...workloads.strict import read_file
from .parts import FRONT, POINTS, SPACE, SUMMARY
from .plan import Plan, plan_of
from .space import Space, read_space
from .table import read_parts

__all__ = ["Explored", "read_explored"]


@dataclass(frozen=True, slots=True, repr=False)
class Explored(OneLine):
    """A finished exploration. ``summary``: what explore.json holds."""

    folder: Path
    space: Space
    summary: dict[str, Any]

    def parts(self) -> list[Path]:
        """Files of the points, in their order."""
        return sorted((self.folder / POINTS).glob("*.parquet"))

    def frame(self, columns: list[str] | None = None) -> pd.DataFrame:
        """All points, or some columns of them."""
        found: pd.DataFrame = read_parts(self.parts(), columns).to_pandas()
        return found

    def front(self) -> pd.DataFrame:
        """The points that no other one is better than, at the system level too."""
        found: pd.DataFrame = read_parts([self.folder / FRONT]).to_pandas()
        return found

    def plan(self) -> Plan:
        """The space made ready again."""
        return plan_of(self.space)

    def _said(self) -> str:
        s = self.summary
        by = ", ".join(o["name"] for o in s["objectives"])
        return f"{s['points']:,} points of {s['model']} on {s['machine']}, {s['front']:,} on the front of {by}"


def read_explored(folder: Path) -> Explored:
    """The exploration in ``folder``; refused where there is none, or where it has not come to its end."""
    if not (folder / SPACE).is_file():
        raise InputError(f"{folder}: holds no exploration; `weft explore SPACE.toml -o {folder}` makes one")
    if not (folder / SUMMARY).is_file():
        raise InputError(f"{folder}: the exploration has not come to its end; the same `weft explore` goes on with it")
    with reading(str(folder / SPACE), "the space of an exploration"):
        space = read_space(json.loads(read_file(folder / SPACE))["space"])
    with reading(str(folder / SUMMARY), "the summary of an exploration"):
        summary = json.loads(read_file(folder / SUMMARY))
    return Explored(folder, space, summary)
