"""A space explored into a folder: parts that are written once, so that whatever is killed when, the rest goes on.

Points come in parts of a fixed size, and parts in waves. Where the space prunes, every part of a wave is decided
against the front of all earlier waves and its own points, never against what another part happened to have found by
then: the same space gives the same bytes in one process, in many, and after any number of interruptions.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from ...dataflow.config_io import dumps_spec
from ...workloads.errors import InputError, reading, shorten
from ...workloads.files import alone, remove_parts, write_atomically
from ...workloads.strict import read_file
from ..executor import Executor, Serial, sources
from .chunk import evaluate_points
from .measures import Measure, sign
from .overlapped import AT_ONCE, Overlapped
from .parts import FRONT, POINTS, SPACE, SUMMARY, SYSTEM, Progress, make, merged, part_path, rows_of, values_of
from .plan import Plan, plan_of
from .search import search
from .space import Space, space_json
from .summary import summary
from .table import parquet_bytes, read_parts, table_of
from .work import traced, work_at

__all__ = ["sweep"]

SCHEMA = 1
"""Of a folder; one of another is refused."""
_LOOKED_AT = 64
"""Models that are traced beforehand."""


@dataclass(frozen=True, slots=True)
class _Part:
    """What a worker makes of a part; plain data."""

    plan: Plan
    best: NDArray[np.float64] | None

    def __call__(self, number: int) -> bytes:
        begin = number * self.plan.chunk
        numbers = np.arange(begin, min(begin + self.plan.chunk, self.plan.size), dtype=np.int64)
        values = self.plan.axes.columns(numbers)
        return parquet_bytes(table_of(numbers, values, evaluate_points(self.plan, values, self.best)))


def sweep(space: Space, folder: Path, executor: Executor | None = None, progress: Progress | None = None) -> None:
    """Evaluate every point of ``space`` into ``folder``, or go on there; then the front, at the system level too.

    Refuses a folder with another space, or of other sources: what was made stays as it is.
    """
    plan, run, tell = plan_of(space), executor or Serial(), progress or (lambda what, done, total: None)
    with alone(folder, "exploration"):
        _require_models(plan)
        _begin(plan, folder)
        if _whole(plan, folder):
            return
        if space.sampler == "search":
            front = search(plan, folder / POINTS, run, partial(_tell_points, plan, tell))
        else:
            front = _swept(plan, folder / POINTS, run, partial(_tell_points, plan, tell))
        _finish(plan, folder, front, run, tell)


def _swept(plan: Plan, folder: Path, run: Executor, tell: Callable[[int], object]) -> pd.DataFrame:
    """Points that are known beforehand; their front."""
    front = pd.DataFrame()
    for wave in _waves(plan):
        best = _costs(front, plan.objectives) if plan.space.prune else None
        make(folder, _Part(plan, best), wave, run, tell)
        front = merged(front, [part_path(folder, n) for n in wave], plan.objectives)
    return front


def _require_models(plan: Plan) -> None:
    """Refuse before any long work a model that cannot be traced; of very many, some."""
    for name in list(plan.models)[:_LOOKED_AT]:
        first = {axis.name: axis.values[0] for axis in plan.axes.axes if axis.name in ("seq", "batch")}
        traced(work_at(plan.space, plan.models, {**first, "model": name}))


def _begin(plan: Plan, folder: Path) -> None:
    """Let ``folder`` be of this space, or refuse it."""
    document = {
        "schema": SCHEMA,
        "weft_version": version("weft"),
        "sources": sources(),
        "space": json.loads(space_json(plan.space)),
        "machines": {name: dumps_spec(base) for name, base in plan.bases.items()},
        "models": plan.models,
    }
    path = folder / SPACE
    if not path.exists():
        remove_parts(path)
        others = sorted(entry.name for entry in folder.iterdir() if entry.name != "lock")
        if others:
            raise InputError(f"{folder}: is not empty and holds no exploration ({others[0]}, ...); name a new folder")
        write_atomically(path, json.dumps(document, indent=1).encode() + b"\n")
        return
    with reading(str(path), "the space of an exploration"):
        held = json.loads(read_file(path))
        schema, made_by = held["schema"], held["weft_version"]
    if schema != SCHEMA:
        raise InputError(
            f"{folder}: was made by weft {made_by} in form {schema}, and this is form {SCHEMA}; name another folder"
        )
    for key in ("space", "machines", "models", "sources"):
        if held.get(key) != document[key]:
            raise InputError(f"{folder}: {_otherwise(key, held.get(key), document[key])}; name another folder")


def _whole(plan: Plan, folder: Path) -> bool:
    """Whether nothing is left to do."""
    if not (folder / SUMMARY).exists() or any(not part_path(folder / POINTS, n).exists() for n in range(plan.chunks)):
        return False
    shutil.rmtree(folder / SYSTEM, ignore_errors=True)
    return True


def _otherwise(key: str, held: Any, asked: Any) -> str:
    """In what a folder differs from what is asked for."""
    if key == "sources":
        return "was made by another state of weft's sources, whose numbers may differ"
    names = [name for name in {**held, **asked} if held.get(name) != asked.get(name)]
    if key != "space":
        return f"holds points of another {key.removesuffix('s')} {names[0]!r}"
    name = names[0]
    was, now = (shorten(json.dumps(of.get(name)), 200) for of in (held, asked))
    return f"holds another space, of {name} = {was} and not {now}"


def _waves(plan: Plan) -> Iterator[range]:
    """Parts that are made side by side: all, or as many as came before, so that each is decided by half of them."""
    if not plan.space.prune:
        yield range(plan.chunks)
        return
    first = 0
    while first < plan.chunks:
        last = min(plan.chunks, max(1, 2 * first))
        yield range(first, last)
        first = last


def _tell_points(plan: Plan, tell: Progress, parts: int) -> None:
    tell("points", min(parts * plan.chunk, plan.size), plan.size)


def _costs(front: pd.DataFrame, objectives: Sequence[Measure]) -> NDArray[np.float64]:
    """Objectives of a front, so that less is better."""
    if not len(front):
        return np.empty((0, len(objectives)))
    return np.column_stack([sign(m) * front[m.name].to_numpy(np.float64) for m in objectives])


def _finish(plan: Plan, folder: Path, front: pd.DataFrame, run: Executor, tell: Progress) -> None:
    """Simulate the front with ops overlapped, and write it and the summary."""
    points = tuple(int(n) for n in front["point"]) if len(front) else ()
    rows = rows_of(plan, folder, points)
    parts, work = -(-len(points) // AT_ONCE), folder / SYSTEM
    tables = [rows]
    if points:
        do = Overlapped(plan, tuple(zip(points, values_of(plan, rows), strict=True)))
        make(work, do, range(parts), run, lambda done: tell("front", done, parts))
        tables.append(read_parts([part_path(work, n) for n in range(parts)]).drop_columns(["point"]))
    made = pa.table({name: table[name] for table in tables for name in table.column_names})
    write_atomically(folder / FRONT, parquet_bytes(made))
    document = summary(plan, [part_path(folder / POINTS, n) for n in range(plan.chunks)], made)
    write_atomically(folder / SUMMARY, json.dumps(document, indent=1).encode() + b"\n")
    shutil.rmtree(work, ignore_errors=True)
