"""A space searched by Optuna: batches that an optimiser asks for, each a part of the table.

Samplers are made anew for every batch, seeded by its number, and know nothing but the trials before it. So the parts
are all that a search has to keep: one that was killed asks for the same points again, finds them in their parts, and
goes on.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, assert_never

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from ...workloads.errors import InputError
from ...workloads.files import write_atomically
from ..executor import Executor
from .axes import Axis
from .chunk import evaluate_points
from .levels import RUNS
from .parts import JOURNAL, make, merged, part_path
from .plan import Plan
from .saved import read_explored
from .table import parquet_bytes, read_parts, table_of

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler

__all__ = ["Asker", "search"]

_MOST_WARM = 1000
"""Points of an earlier exploration that a search begins with; TPE looks at all of them whenever it is asked."""


@dataclass(frozen=True, slots=True)
class _Batch:
    """What a worker makes of the points that were asked for; plain data."""

    plan: Plan
    number: int
    places: tuple[NDArray[np.int64], ...]

    def __call__(self, number: int) -> bytes:
        values = self.plan.axes.at(self.places)
        numbers = np.arange(len(self.places[0]), dtype=np.int64) + self.number * self.plan.chunk
        return parquet_bytes(table_of(numbers, values, evaluate_points(self.plan, values)))


class Asker:
    """An optimiser over the axes of a space: it is asked for points, and told what they came to.

    For loops of one's own: ``ask`` gives places of values, ``tell`` takes rows of the table in the same order. Ask and
    tell in turns; equal seeds and answers give equal points.
    """

    def __init__(self, plan: Plan) -> None:
        if find_spec("optuna") is None:
            raise InputError("sampler 'search' needs Optuna: pip install 'weft[explore]'")
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._plan, self._batches = plan, 0
        self._open: list[Trial] = []
        self._distributions = {axis.name: _distribution(axis) for axis in plan.axes.axes}
        least, most = optuna.study.StudyDirection.MINIMIZE, optuna.study.StudyDirection.MAXIMIZE
        ways = [least if m.direction == "min" else most for m in plan.objectives]
        self.study: Study = optuna.create_study(directions=ways, sampler=_sampler(plan, 0))

    def ask(self, count: int) -> tuple[NDArray[np.int64], ...]:
        """The next points: of every axis the places of their values, int64 [count]."""
        if self._open:
            raise InputError(f"{len(self._open)} points were asked for and not told yet; tell them first")
        self.study.sampler = _sampler(self._plan, self._batches)
        self._batches += 1
        self._open = [self.study.ask(self._distributions) for _ in range(count)]
        return tuple(
            np.array([_place(axis, trial.params[axis.name]) for trial in self._open], np.int64)
            for axis in self._plan.axes.axes
        )

    def tell(self, rows: pa.Table) -> None:
        """What the points asked for last came to, a row each."""
        if rows.num_rows != len(self._open):
            raise InputError(f"{len(self._open)} points were asked for, and {rows.num_rows} rows told")
        for trial, row in zip(self._open, rows.to_pylist(), strict=True):
            values, broken = _outcome(self._plan, row)
            trial.set_constraint("holds", broken)
            self.study.tell(trial, values)
        self._open = []

    def save(self, path: Path) -> None:
        """Write all trials as a journal of Optuna's, which its own tools read."""
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        with tempfile.TemporaryDirectory() as made:
            file = Path(made) / "journal"
            ways = self.study.directions
            copy = optuna.create_study(
                storage=JournalStorage(JournalFileBackend(str(file))), study_name="weft", directions=ways
            )
            copy.add_trials(self.study.trials)
            write_atomically(path, file.read_bytes())

    def knows(self, rows: pa.Table) -> None:
        """Points from elsewhere, of the same axes."""
        from optuna.trial import create_trial

        for row in rows.to_pylist():
            values, broken = _outcome(self._plan, row)
            params = {axis.name: _param(axis, row[axis.name]) for axis in self._plan.axes.axes}
            self.study.add_trial(
                create_trial(
                    values=values, params=params, distributions=self._distributions, constraints={"holds": broken}
                )
            )


def _outcome(plan: Plan, row: dict[str, Any]) -> tuple[list[float], float]:
    """Objectives of a point, the worst that there is where they are not known; and how many things are against it,
    which above 0 says that it is none."""
    worst = {"min": math.inf, "max": -math.inf}
    known = row["status"] == RUNS and not any(math.isnan(row[m.name]) for m in plan.objectives)
    values = [float(row[m.name]) if known else worst[m.direction] for m in plan.objectives]
    return values, 0.0 if known else float(row["reason"].count("; ") + 1)


def search(plan: Plan, folder: Path, run: Executor, tell: Callable[[int], object]) -> pd.DataFrame:
    """Ask for all points of the space, a batch at a time, and write what they come to; the front of them."""
    asker = Asker(plan)
    if plan.space.search.warm is not None:
        asker.knows(_warm(plan, Path(plan.space.search.warm)))
    front = pd.DataFrame()
    for number in range(plan.chunks):
        places = asker.ask(min(plan.chunk, plan.size - number * plan.chunk))
        make(folder, _Batch(plan, number, places), [number], run, tell)
        rows = read_parts([part_path(folder, number)])
        _require_same(plan, folder, number, rows, places)
        asker.tell(rows)
        front = merged(front, [part_path(folder, number)], plan.objectives)
    asker.save(folder.parent / JOURNAL)
    return front


def _require_same(plan: Plan, folder: Path, number: int, rows: pa.Table, places: Sequence[NDArray[np.int64]]) -> None:
    for name, asked in plan.axes.at(places).items():
        if rows[name].to_pylist() != asked.tolist():
            raise InputError(
                f"{part_path(folder, number)}: holds other points than the search asks for now: it was made by another "
                "version of Optuna, or of NumPy; name another folder"
            )


def _warm(plan: Plan, folder: Path) -> pa.Table:
    """Points of an earlier exploration: its front, and others evenly."""
    earlier = read_explored(folder)
    names = [axis.name for axis in plan.axes.axes]
    rows = read_parts(earlier.parts())
    missing = [name for name in (*names, *(m.name for m in plan.objectives)) if name not in rows.column_names]
    if missing:
        raise InputError(f"search.warm: the points of {folder} have no {missing[0]!r}; it is for the same axes")
    best = set(earlier.front()["point"].tolist())
    step = max(1, rows.num_rows // _MOST_WARM)
    inside = np.ones(rows.num_rows, bool)
    for axis in plan.axes.axes:
        inside &= np.array([value in axis.values for value in rows[axis.name].to_pylist()], bool)
    chosen = [i for i, point in enumerate(rows["point"].to_pylist()) if inside[i] and (point in best or i % step == 0)]
    if not chosen:
        raise InputError(f"search.warm: no point of {folder} has values that this space has")
    return rows.take(chosen[: 2 * _MOST_WARM])


def _ordered(axis: Axis) -> bool:
    """Whether an axis is a number that grows, so that neighbours are alike."""
    values = axis.values
    if isinstance(values, range):
        return True
    numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    return len(numbers) == len(values) and numbers == sorted(set(numbers))


def _distribution(axis: Axis) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, IntDistribution

    if _ordered(axis):
        return IntDistribution(0, len(axis.values) - 1)
    if len(set(axis.values)) < len(axis.values):
        raise InputError(f"axes.{axis.name} has a value twice, which a search could not tell apart")
    return CategoricalDistribution(list(axis.values))


def _place(axis: Axis, param: Any) -> int:
    return int(param) if _ordered(axis) else list(axis.values).index(param)


def _param(axis: Axis, value: Any) -> Any:
    return axis.values.index(value) if _ordered(axis) else value


def _sampler(plan: Plan, batch: int) -> BaseSampler:
    from optuna.samplers import NSGAIISampler, RandomSampler, TPESampler

    by, seed = plan.space.search.by, (plan.space.seed * 1_000_003 + batch) % 2**32
    match by:
        case "tpe":
            return TPESampler(seed=seed, multivariate=True, constant_liar=True)
        case "nsga2":
            return NSGAIISampler(seed=seed)
        case "random":
            return RandomSampler(seed=seed)
        case _:
            assert_never(by)
