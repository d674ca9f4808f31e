"""What a folder holds that a report can be made of: runs, at any of two levels below it, and a study."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ...simulator.result import SimResult
from ...simulator.system_result import SystemResult
from ...workloads.errors import InputError
from ..energy import EnergyReport, energy
from ..level import AnyResult, cycles_of
from ..publish import settle
from ..saved import SavedRun, saved_run
from ..study_files import SavedStudy, read_study
from ..words import run_name

__all__ = ["Contents", "Run", "open_folder", "read_folder"]

_DEPTH = 2


@dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    """One run: ``result`` op after op, ``system`` with its ops overlapped where the run was made at that level.

    ``label`` tells it from all others of the folder, ``name`` from those of its model and batch.
    """

    place: str
    label: str
    name: str
    result: SimResult
    system: SystemResult | None
    command: str
    weft_version: str

    @cached_property
    def energy(self) -> EnergyReport:
        """By the table that its machine names."""
        return energy(self.timed)

    @property
    def timed(self) -> AnyResult:
        """The result at the level of the run."""
        return self.result if self.system is None else self.system

    @property
    def cycles(self) -> int:
        """Cycles of the step at the level of the run."""
        return cycles_of(self.timed)

    @property
    def seconds(self) -> float:
        """Time of the step at the level of the run."""
        return self.cycles / self.result.spec.clock_hz


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """Runs of one model beside each other, the slowest first; and a study, if there is one."""

    runs: tuple[Run, ...]
    study: SavedStudy | None


def open_folder(folder: Path) -> tuple[list[SavedRun], SavedStudy | None]:
    """What is in ``folder``, before anything is simulated."""
    settle(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: is no folder; give what `weft run`, `weft compare` or `weft study` wrote with -o")
    try:
        found = [folder, *(p for depth in range(1, _DEPTH + 1) for p in sorted(folder.glob("/".join("*" * depth))))]
        saved = [saved_run(p) for p in found if (p / "result.json").is_file() and not p.name.startswith(".")]
        study = read_study(folder)
    except OSError as error:
        raise InputError(f"{folder}: cannot be read: {error.strerror}") from None
    if not saved and (study is None or not study.rows):
        raise InputError(
            f"{folder}: holds no run and no study; write one there with `weft run MODEL -o {folder}` or "
            "`weft compare`, or finish `weft study`"
        )
    return saved, study


def read_folder(folder: Path, progress: Callable[[int, int], None] | None = None) -> Contents:
    """Simulate again what ``folder`` holds and check it against what is written there.

    ``progress`` is called with the runs done and all of them.
    """
    saved, study = open_folder(folder)
    results = []
    for i, one in enumerate(saved):
        if progress is not None:
            progress(i, len(saved))
        results.append(one.simulated())
    labels, names = _labels(saved, folder), dict[Path, str]()
    for step in dict.fromkeys(map(_step, saved)):
        mine = [one for one in saved if _step(one) == step]
        names.update(zip((one.folder for one in mine), _labels(mine, folder), strict=True))
    runs = [
        _run(one, result, label, names[one.folder], folder)
        for one, result, label in zip(saved, results, labels, strict=True)
    ]
    runs.sort(key=lambda run: (run.result.workload.model, run.result.workload.batch, -run.seconds, run.place))
    return Contents(runs=tuple(runs), study=study)


def _run(saved: SavedRun, result: SimResult | SystemResult, label: str, name: str, folder: Path) -> Run:
    system = result if isinstance(result, SystemResult) else None
    return Run(
        place=_place(saved, folder),
        label=label,
        name=name,
        system=system,
        result=result.step if isinstance(result, SystemResult) else result,
        command=saved.command,
        weft_version=saved.weft_version,
    )


def _step(saved: SavedRun) -> tuple[str, int]:
    return saved.workload.model, saved.workload.batch


def _place(saved: SavedRun, folder: Path) -> str:
    return saved.folder.relative_to(folder).as_posix()


def _labels(saved: list[SavedRun], folder: Path) -> list[str]:
    """Scheme, and as much more as tells the runs apart."""

    def parts(one: SavedRun) -> tuple[str, ...]:
        work = one.workload
        return (
            f"{work.model}, batch {work.batch}",
            run_name(work),
            f"on {one.spec}",
            f"for {one.objective}",
            f"level {one.level}",
        )

    columns = list(zip(*map(parts, saved), strict=True))
    shown = [i for i, column in enumerate(columns) if i == 1 or len(set(column)) > 1]
    labels = [", ".join(columns[i][n] for i in shown) for n in range(len(saved))]
    places = [_place(one, folder) for one in saved]
    return [
        f"{label} ({place})" if labels.count(label) > 1 else label for label, place in zip(labels, places, strict=True)
    ]
