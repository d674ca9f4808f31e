"""A results folder of an exploration, as the page needs it."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

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


def read_results(folder: Path, page: Path | None = None) -> Results:
    """What ``folder`` holds; points are read when they are asked for.

    ``page``: the file that will link to reports, one in the folder if none.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: is no folder; give one that `weft explore SPACE -o DIR` wrote to")
    summary = read_summary(folder)
    front = _front(folder / "front.parquet")
    numbers = [] if front is None else front["point"].tolist()
    written = {int(n): folder / REPORTS / str(int(n)) / "report.html" for n in numbers}
    start = folder if page is None else page.absolute().parent
    return Results(
        points=FolderPoints(folder),
        front=front,
        summary=summary,
        place=shlex.quote(str(folder)),
        reports={n: quote(os.path.relpath(path, start)) for n, path in written.items() if path.is_file()},
    )


def _front(path: Path) -> pd.DataFrame | None:
    if not path.is_file():
        return None
    with reading(str(path), "a Parquet file with the points of a front"):
        found: pd.DataFrame = pq.read_table(path).to_pandas()
    if "point" not in found.columns:
        raise InputError(f"{path}: has no column 'point'; it holds {', '.join(map(str, found.columns)) or 'none'}")
    return found
