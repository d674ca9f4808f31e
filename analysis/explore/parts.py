"""The files of an exploration: parts of points that are made by tasks, written once, and read again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa

from ...workloads.files import write_atomically
from ..executor import Executor
from .front import merge
from .levels import RUNS
from .measures import Measure
from .plan import Plan
from .space import Value
from .table import read_parts

__all__ = [
    "FRONT",
    "JOURNAL",
    "POINTS",
    "SPACE",
    "SUMMARY",
    "SYSTEM",
    "Progress",
    "make",
    "merged",
    "part_path",
    "rows_of",
    "values_of",
]

SPACE, POINTS, FRONT, SUMMARY, SYSTEM = "space.json", "points", "front.parquet", "explore.json", "system"
"""What is in a folder; the last only until the front is done."""
JOURNAL = "optuna.journal"
"""Of a search."""

Progress = Callable[[str, int, int], object]
"""What is done, how much of it, and of how much."""


def part_path(folder: Path, number: int) -> Path:
    """The file of a part."""
    return folder / f"{number:06d}.parquet"


def make(
    folder: Path, do: Callable[[int], bytes], tasks: Sequence[int], run: Executor, tell: Callable[[int], object]
) -> None:
    """Write the parts that are not there yet."""
    left = [task for task in tasks if not part_path(folder, task).exists()]
    ended = tasks[-1] + 1 - len(left) if tasks else 0
    tell(ended)
    for task, made in run.each(do, left):
        write_atomically(part_path(folder, task), made)
        ended += 1
        tell(ended)


def merged(front: pd.DataFrame, paths: Sequence[Path], objectives: Sequence[Measure]) -> pd.DataFrame:
    """The front of ``front`` and of the points in files."""
    wanted, ways = ["point", "status", *(m.name for m in objectives)], {m.name: m.direction for m in objectives}
    for path in paths:
        part = read_parts([path], tuple(dict.fromkeys(wanted))).to_pandas()
        known = part[(part["status"] == RUNS) & part[list(ways)].notna().all(axis=1)]
        if len(known):
            front = merge([front, known], ways)
    return front


def values_of(plan: Plan, rows: pa.Table) -> list[dict[str, Value]]:
    """Values of the axes, of rows of points."""
    found: list[dict[str, Value]] = rows.select(list(plan.axes.names)).to_pylist()
    return found


def rows_of(plan: Plan, folder: Path, points: Sequence[int]) -> pa.Table:
    """Rows of points, from their parts."""
    found = []
    for part in dict.fromkeys(point // plan.chunk for point in points):
        own = [point - part * plan.chunk for point in points if point // plan.chunk == part]
        found.append(read_parts([part_path(folder / POINTS, part)]).take(own))
    return pa.concat_tables(found).unify_dictionaries() if found else pa.table({"point": pa.array([], pa.int64())})
