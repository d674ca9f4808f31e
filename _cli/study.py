"""`weft study`."""

from __future__ import annotations

import os
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..workloads.errors import printable
from ..workloads.files import cache_root
from .console import bar, get_console, make_table, si
from .inputs import machine, split_names
from .options import DATA_HELP, DEFAULT_NM, Json
from .outputs import print_json, require_writable_folder

if TYPE_CHECKING:
    from ..analysis.study import Study
    from ..analysis.study_rows import StudyRow

__all__ = ["study"]

_WIDTH = 145
"""Characters that the table takes with the longest names."""
_COLUMNS = (
    "scheme",
    "N:M",
    "validation %",
    "test %",
    "loss",
    "cycles",
    "energy",
    "speed-up",
    "reached",
    "to target",
    "speed-up",
)


def study(
    context: typer.Context,
    data: Annotated[str, typer.Argument(metavar="DATA", help=DATA_HELP)] = "digits",
    model: Annotated[str, typer.Option(help="Models to train, with commas.")] = "resnet9",
    schemes: Annotated[str, typer.Option(help="With commas, or all; dense is always there: SCHEMES.")] = "all",
    nm: Annotated[str, typer.Option(metavar="KEEP:GROUP,..", help="N:M patterns, with commas.")] = DEFAULT_NM,
    seeds: Annotated[int, typer.Option(help="Trainings of each; their spread is in the table.")] = 3,
    arch: Annotated[
        str, typer.Option(metavar="NAME|FILE.toml", help="Machine; the default is small, as the models for digits are.")
    ] = "sat-ecp5",
    epochs: Annotated[int | None, typer.Option(help="Passes over the training set; what is usual if none.")] = None,
    below: Annotated[float, typer.Option(help="Points below dense validation accuracy: the target.")] = 0.5,
    jobs: Annotated[int | None, typer.Option(help="Trainings at a time, one thread each; a process a core.")] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", metavar="DIR", help="Keep trainings and results here; $WEFT_CACHE/study or out/study if none."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Train every model under every scheme, simulate what was trained, and put accuracy beside time and energy."""
    from ..workloads.schemes.scheme import SCHEMES
    from ..workloads.sparsity import NMPattern

    folder = output if output is not None else (cache_root() or Path("out")) / "study"
    require_writable_folder(folder)
    from ..analysis.study import StudySpec

    spec = StudySpec(
        data=data,
        models=split_names(model),
        schemes=tuple(SCHEMES) if schemes == "all" else split_names(schemes),
        patterns=tuple(map(NMPattern.parse, nm.split(","))),
        seeds=seeds,
        machine=machine(arch),
        epochs=epochs,
        below=below / 100,
    )
    from ..analysis.study import run_study
    from ..analysis.study_files import require_free_for_study, save_study, study_dict

    require_free_for_study(folder)

    with redirect_stdout(sys.stderr), bar("training") as progress:
        try:
            found = run_study(spec, folder, jobs if jobs is not None else os.cpu_count() or 1, progress)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"the same command goes on from {folder}") from None
    save_study(found, folder, context.obj)
    if as_json:
        print_json(study_dict(found, context.obj))
        return
    _show(found, folder)


def _show(study: Study, folder: Path) -> None:
    """A table a model: accuracy, what it costs on the machine, and the two together."""
    from ..analysis.study_files import saved_study, study_provenance

    spec, console = study.spec, get_console(_WIDTH)
    console.print(printable(study_provenance(saved_study(study))), style="bold")
    console.print(f"target: dense accuracy on the validation set minus {100 * spec.below:g} points")
    for model in spec.models:
        rows = [row for row in study.rows if row.model == model]
        console.print(make_table(model, _COLUMNS, [_row(row) for row in rows], left=2))
        for row in rows:
            name = f"{row.scheme} {row.pattern or ''}".strip()
            for seed, why in row.failed.items():
                console.print(f"{name}, seed {seed}, not trained: {why}")
            if row.unplaced:
                console.print(f"{name}, not on this machine: {row.unplaced}")
    console.print(f"Tables, pictures and trainings: {folder}")


def _row(row: StudyRow) -> tuple[str, ...]:
    def spread(mean: float | None, deviation: float | None) -> str:
        if mean is None:
            return "-"
        return f"{100 * mean:.2f}" + ("" if deviation is None else f" +-{100 * deviation:.2f}")

    def times(speedup: float | None) -> str:
        return "-" if speedup is None else f"{speedup:.2f}x"

    return (
        row.scheme,
        row.pattern or "",
        spread(row.validation, row.validation_sd),
        spread(row.accuracy, row.accuracy_sd),
        spread(row.loss, row.loss_sd),
        "-" if row.cycles is None else f"{row.cycles:,.0f}",
        "-" if row.joules is None else si(row.joules, "J"),
        times(row.speedup),
        f"{row.reached}/{row.seeds}",
        "-" if row.seconds_to_target is None else si(row.seconds_to_target, "s"),
        times(row.time_speedup),
    )
