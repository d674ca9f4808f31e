"""Optimisers against a space of which every point is known: `python benchmarks/optimisers.py DIR`.

DIR is a grid that `weft explore -o DIR` swept without `prune`; its points are enough, the system level of its front is
not looked at. An optimiser is asked for points, and their rows are looked up, so a search takes what it thinks and no
schedule. Searches are kept in DIR/asked and not done again. Into docs/results/ go the exact front, the regret of each
optimiser, and what the space came to.

Hypervolumes are of the objectives' binary logarithms, since all of them span decades, up to a reference a tenth worse
than the worst point that runs, in every objective. Regret is the share of the front's hypervolume that is missing.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from weft.analysis.explore.front import front_of, hypervolume
from weft.analysis.explore.measures import Measure
from weft.analysis.explore.plan import plan_of
from weft.analysis.explore.search import Asker
from weft.analysis.explore.space import Search, read_space
from weft.analysis.explore.table import read_parts
from weft.workloads.errors import InputError
from weft.workloads.files import write_atomically
from weft.workloads.strict import read_file

RESULTS = Path(__file__).parents[1] / "docs" / "results"
By = Literal["random", "nsga2", "tpe"]
OPTIMISERS: dict[str, By] = {"random": "random", "nsga2": "nsga2", "tpe": "tpe", "tpe of logarithms": "tpe"}
"""By Optuna's sampler, at its defaults. What TPE learns from follows the hypervolume of what it is told, so it is told
the objectives, and in runs of its own their logarithms."""
ASKS, SEEDS, BATCH = 512, 10, 16
"""Points asked for in a run, runs of an optimiser, points asked for at a time."""
_WORSE = 1.1


class Known:
    """A space with all its points. ``rows``: by point; ``front``: those that nothing beats, of equals the first."""

    def __init__(self, folder: Path) -> None:
        self.plan = plan_of(read_space(json.loads(read_file(folder / "space.json"))["space"]))
        space, parts = self.plan.space, sorted((folder / "points").glob("*.parquet"))
        if space.sampler != "grid" or space.prune or len(parts) != self.plan.chunks:
            raise InputError(f"{folder}: is to be a whole grid without prune: {len(parts)} parts of {self.plan.chunks}")
        measures = ["cycles", "dram_bytes", *(m.name for m in self.plan.objectives)]
        named = dict.fromkeys(["point", *self.plan.axes.names, "status", "reason", *measures])
        self.rows: pa.Table = read_parts(parts, tuple(named))
        self.frame: pd.DataFrame = self.rows.to_pandas()
        self.front = front_of(self.frame, {m.name: m.direction for m in self.plan.objectives})
        self.reference = reference(self.frame[self.frame["status"] == "runs"], self.plan.objectives)

    def answers(self, places: Sequence[NDArray[np.int64]]) -> pa.Table:
        """Rows of the points that have values at ``places`` of the axes."""
        sizes = [len(axis.values) for axis in self.plan.axes.axes]
        return self.rows.take(np.ravel_multi_index(tuple(places), sizes))

    def volume(self, rows: pd.DataFrame) -> float:
        """Hypervolume of the rows that run."""
        return volume(rows[rows["status"] == "runs"], self.plan.objectives, self.reference)


def reference(rows: pd.DataFrame, objectives: Sequence[Measure]) -> dict[str, float]:
    """Of each objective a tenth worse than the worst of ``rows``."""
    return {
        m.name: float(rows[m.name].max()) * _WORSE if m.direction == "min" else float(rows[m.name].min()) / _WORSE
        for m in objectives
    }


def volume(rows: pd.DataFrame, objectives: Sequence[Measure], least: dict[str, float]) -> float:
    """Hypervolume of ``rows`` up to ``least``, in binary logarithms."""
    names, ways = [m.name for m in objectives], [m.direction for m in objectives]
    values = np.log2(rows[names].to_numpy(float))
    return hypervolume(values, np.log2([least[name] for name in names]), ways)


def asked(known: Known, name: str, seed: int) -> list[int]:
    """Numbers of the points that an optimiser asks for, in their order."""
    space, numbers = known.plan.space, list[int]()
    search = Search(by=OPTIMISERS[name], batch=BATCH)
    asker = Asker(plan_of(replace(space, sampler="search", points=ASKS, seed=seed, search=search)))
    for _ in range(ASKS // BATCH):
        rows = known.answers(asker.ask(BATCH))
        numbers += rows["point"].to_pylist()
        asker.tell(_logarithms(rows, known.plan.objectives) if name.endswith("logarithms") else rows)
    return numbers


def _logarithms(rows: pa.Table, objectives: Sequence[Measure]) -> pa.Table:
    for m in objectives:
        rows = rows.set_column(rows.column_names.index(m.name), m.name, pc.log2(rows[m.name].cast(pa.float64())))
    return rows


def kept(known: Known, folder: Path, name: str, seed: int) -> pd.DataFrame:
    """Rows of the points that an optimiser asks for, of an earlier search if there was one."""
    path = folder / "asked" / f"{name.replace(' ', '-')}-{seed}-{ASKS}-{BATCH}.json"
    if not path.exists():
        write_atomically(path, json.dumps(asked(known, name, seed)).encode())
    return known.frame.iloc[json.loads(read_file(path))]


def course(known: Known, rows: pd.DataFrame) -> Iterator[tuple[int, float, int]]:
    """After each batch of ``rows``: points asked for, regret, points of the front that were found."""
    names, whole = [m.name for m in known.plan.objectives], known.volume(known.front)
    best = set(known.front[names].itertuples(index=False, name=None))
    for count in range(BATCH, len(rows) + 1, BATCH):
        so_far = rows[:count]
        found = best & set(so_far[so_far["status"] == "runs"][names].itertuples(index=False, name=None))
        yield count, 1 - known.volume(so_far) / whole, len(found)


def regrets(known: Known, folder: Path, names: Iterable[str] = OPTIMISERS) -> pd.DataFrame:
    """Quartiles over the seeds, a row for each optimiser and number of points asked for."""
    made = []
    for name in names:
        for seed in range(SEEDS):
            made += [(name, *point) for point in course(known, kept(known, folder, name, seed))]
            print(f"{name}, seed {seed}: {100 * made[-1][2]:.2f} % missing after {ASKS}", flush=True)
    every = pd.DataFrame(made, columns=["optimiser", "asked", "regret", "found"])
    groups = every.groupby(["optimiser", "asked"], sort=False)
    regret = groups["regret"].quantile([0.25, 0.5, 0.75]).unstack()
    regret.columns = ["low", "median", "high"]
    return regret.assign(found=groups["found"].median()).reset_index()


def counts(known: Known) -> dict[str, object]:
    """What the space came to."""
    reasons = known.frame[known.frame["status"] != "runs"].groupby(["status", "reason"]).size()
    return {
        "points": known.plan.size,
        "runs": int((known.frame["status"] == "runs").sum()),
        "others": [{"status": s, "reason": why, "points": int(n)} for (s, why), n in reasons.items()],
        "front": len(known.front),
        "reference": known.reference,
        "hypervolume": known.volume(known.front),
        "asked": ASKS,
        "at_a_time": BATCH,
        "seeds": SEEDS,
    }


def main(folder: Path) -> None:
    known, name = Known(folder), folder.name
    front = known.front.drop(columns=["status", "reason"])
    write_atomically(RESULTS / f"{name}.csv", front.to_csv(index=False).encode())
    document = json.dumps(counts(known), indent=1) + "\n"
    write_atomically(RESULTS / f"{name}.json", document.encode())
    print(document, flush=True)
    curves = regrets(known, folder).to_csv(index=False, float_format="%.6g")
    write_atomically(RESULTS / f"{name}-regret.csv", curves.encode())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
