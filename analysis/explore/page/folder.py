"""A results folder of an exploration, as the page needs it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq

from ....workloads.errors import InputError, reading
from .points import FolderPoints, Points
from .summary import Summary, read_summary

__all__ = ["REPORTS", "Results", "read_results"]

REPORTS = Path("reports")
"""Of a results folder: a folder a point, named by its number, with the page `report.html`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """``front``: points that no other is better than, a row each; None where none is written.

    ``place``: as commands call the folder; ``reports``: where a point's own page lies, as links call it.
    """

    points: Points
    front: pd.DataFrame | None
    summary: Summary
    place: str = "DIR"
    reports: dict[int, str] = field(default_factory=dict)


def read_results(folder: Path) -> Results:
    """What ``folder`` holds; points are read when they are asked for, reports are named from the folder on."""
    if not folder.is_dir():
        raise InputError(f"{folder}: is no folder; give one that `weft explore SPACE -o DIR` wrote to")
    summary = read_summary(folder)
    front = _front(folder / "front.parquet")
    numbers = [] if front is None else front["point"].tolist()
    made = {int(n): (REPORTS / str(n) / "report.html").as_posix() for n in numbers}
    return Results(
        points=FolderPoints(folder),
        front=front,
        summary=summary,
        place=str(folder),
        reports={n: place for n, place in made.items() if (folder / place).is_file()},
    )


def _front(path: Path) -> pd.DataFrame | None:
    if not path.is_file():
        return None
    with reading(str(path), "a Parquet file with the points of a front"):
        found: pd.DataFrame = pq.read_table(path).to_pandas()
    if "point" not in found.columns:
        raise InputError(f"{path}: has no column 'point'; it holds {', '.join(map(str, found.columns)) or 'none'}")
    return found
