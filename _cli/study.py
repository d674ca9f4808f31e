"""`weft study`."""

from __future__ import annotations

import os
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..workloads.errors import InputError, printable
from ..workloads.files import cache_root
from .clusters import executor_at
from .console import bar, get_console, make_table, si
from .inputs import machine, split_names
from .options import DATA_HELP, DEFAULT_NM, Cluster, Insecure, Json
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
_TRACKS = (
    "scheme",
    "corrupted %",
    "noise/blur/contrast",
    "training",
    "",
    "to target",
    "an image",
    "parameters",
    "cycles",
    "energy",
    "LUT sites",
)


Keep = Annotated[
    bool, typer.Option("--keep", help="Take trainings in DIR that another state of the sources made, too.")
]


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
    beside: Annotated[
        str, typer.Option(metavar="MODEL:SCHEME,..", help="Other models, each under one scheme, in every table.")
    ] = "",
    below: Annotated[float, typer.Option(help="Points below dense validation accuracy: the target.")] = 0.5,
    jobs: Annotated[int | None, typer.Option(help="Trainings at a time, one thread each; a process a core.")] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", metavar="DIR", help="Keep trainings and results here; $WEFT_CACHE/study or out/study if none."
        ),
    ] = None,
    keep: Keep = False,
    cluster: Cluster = None,
    insecure: Insecure = False,
    as_json: Json = False,
) -> None:
    """Train every model under every scheme, simulate what was trained, and put accuracy beside time and energy."""
    from ..workloads.schemes.scheme import SCHEMES
    from ..workloads.sparsity import NMPattern

    at_once = _at_once(jobs, cluster)
    folder = output if output is not None else (cache_root() or Path("out")) / "study"
    require_writable_folder(folder)
    from ..analysis.study import StudySpec, run_study
    from ..analysis.study_files import require_free_for_study, save_study, study_dict

    spec = StudySpec(
        data=data,
        models=split_names(model),
        schemes=tuple(SCHEMES) if schemes == "all" else split_names(schemes),
        patterns=tuple(map(NMPattern.parse, nm.split(","))),
        seeds=seeds,
        machine=machine(arch),
        epochs=epochs,
        below=below / 100,
        beside=_pairs(beside),
    )
    require_free_for_study(folder)

    try:
        with redirect_stdout(sys.stderr), bar("training") as progress, executor_at(cluster, insecure) as executor:
            found = run_study(spec, folder, at_once, progress, keep=keep, executor=executor)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"the same command goes on from {folder}") from None
    save_study(found, folder, context.obj)
    if as_json:
        print_json(study_dict(found, context.obj))
        return
    _show(found, folder)


def _at_once(jobs: int | None, cluster: str | None) -> int:
    """Trainings at a time on this host."""
    if jobs is not None and cluster is not None:
        raise InputError("--jobs is of processes here, and a cluster has its own workers; leave out one of the two")
    return jobs if jobs is not None else os.cpu_count() or 1


def _pairs(text: str) -> tuple[tuple[str, str], ...]:
    """Models with their schemes."""
    made = []
    for name in split_names(text) if text else ():
        model, colon, scheme = name.rpartition(":")
        if not colon or not model or not scheme:
            raise InputError(f"--beside {name!r} is not of the form model:scheme, for example resnet9:dense")
        made.append((model, scheme))
    return tuple(made)


def _show(study: Study, folder: Path) -> None:
    """Two tables a model: accuracy, what it costs on the machine, and the two together; and what else there is."""
    from ..analysis.study_files import machine_luts, saved_study, study_provenance
    from ..analysis.study_rows import by_table

    spec, saved, console = study.spec, saved_study(study), get_console(_WIDTH)
    console.print(printable(study_provenance(saved)), style="bold")
    console.print(printable(machine_luts(saved)))
    console.print(f"target: dense accuracy on the validation set minus {100 * spec.below:g} points")
    for model, rows in by_table(study.rows).items():
        console.print(make_table(model, _COLUMNS, [_row(row) for row in rows], left=2))
        console.print(make_table(f"{model}: other tracks", _TRACKS, [_tracks(row) for row in rows]))
        for row in rows:
            name = _named(row)
            for seed, why in row.failed.items():
                console.print(f"{name}, seed {seed}, not trained: {why}")
            if row.unplaced:
                console.print(f"{name}, not on this machine: {row.unplaced}")
    console.print(f"Tables, pictures and trainings: {folder}")


def _scheme(row: StudyRow) -> str:
    return f"{row.model} {row.scheme}" if row.table else row.scheme


def _named(row: StudyRow) -> str:
    return f"{_scheme(row)} {row.pattern or ''}".strip()


def _spread(mean: float | None, deviation: float | None) -> str:
    """Percents."""
    if mean is None:
        return "-"
    return f"{100 * mean:.2f}" + ("" if deviation is None else f" +-{100 * deviation:.2f}")


def _tracks(row: StudyRow) -> tuple[str, ...]:
    def number(value: float | None, unit: str) -> str:
        return "-" if value is None else si(value, unit)

    kinds = [value for value in (row.noise, row.blur, row.contrast) if value is not None]
    return (
        _named(row),
        _spread(row.corrupted, row.corrupted_sd),
        " / ".join(f"{100 * kind:.1f}" for kind in kinds) or "-",
        number(row.training_seconds, "s"),
        number(row.training_joules, "J"),
        number(row.joules_to_target, "J"),
        number(row.bit_operations, "BOP"),
        number(row.parameter_bits, "bit"),
        "-" if row.image_cycles is None else f"{row.image_cycles:,.0f}",
        number(row.image_joules, "J"),
        "-" if row.luts is None else f"{row.luts:,}",
    )


def _row(row: StudyRow) -> tuple[str, ...]:
    def times(speedup: float | None) -> str:
        return "-" if speedup is None else f"{speedup:.2f}x"

    return (
        _scheme(row),
        row.pattern or "",
        _spread(row.validation, row.validation_sd),
        _spread(row.accuracy, row.accuracy_sd),
        _spread(row.loss, row.loss_sd),
        "-" if row.cycles is None else f"{row.cycles:,.0f}",
        "-" if row.joules is None else si(row.joules, "J"),
        times(row.speedup),
        f"{row.reached}/{row.seeds}",
        "-" if row.seconds_to_target is None else si(row.seconds_to_target, "s"),
        times(row.time_speedup),
    )
