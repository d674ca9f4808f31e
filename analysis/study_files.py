"""A study as one JSON document, a table, a page of Markdown and a folder."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from ..dataflow.config_io import spec_hash
from ..workloads.host import Host
from ..workloads.io import dumps_workload
from ..workloads.one_line import OneLine
from ..workloads.strict import read_json
from .area import known_area
from .footprint import area_target
from .frames import csv_text
from .pictures import picture_names, pictures
from .publish import STUDY, publish, read_published, require_free
from .study import Study
from .study_rows import StudyRow, by_table
from .theme import THEMES
from .words import percent

__all__ = [
    "SavedStudy",
    "machine_luts",
    "read_study",
    "require_free_for_study",
    "save_study",
    "saved_study",
    "study_dict",
    "study_frame",
    "study_markdown",
    "study_provenance",
]

_PICTURES = ("study", "study-costs")
_TABLES = ("study.csv", "study.md", "study.parquet")
_TEXT = ("failed", "phases", "kept_dense", "seed_seconds_to_target")
_INTEGERS = ("seeds", "trained", "reached")
_COLUMNS = (
    "scheme",
    "N:M",
    "validation, %",
    "test, %",
    "loss, points",
    "cycles a step",
    "uJ a step",
    "speed-up",
    "reached",
    "steps to target",
    "time to target, s",
    "speed-up to target",
    "density FF / BP / WU",
    "SAD, %",
)
_TRACKS = (
    "scheme",
    "N:M",
    "test, %",
    "corrupted, %",
    "noise / blur / contrast, %",
    "training, s",
    "training, mJ",
    "mJ to target",
    "s to target, each seed",
    "kBOP an image",
    "parameters, kbit",
    "cycles an image",
    "uJ an image",
    "LUT sites in use",
)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class SavedStudy(OneLine):
    """What study.json holds. ``hosts``: where it trained; ``images``: in the training, validation and test set;
    ``earlier``: how many of the trainings other sources made."""

    __pydantic_config__ = {"extra": "forbid"}
    weft_version: str
    hosts: tuple[Host, ...]
    command: str
    data: str
    images: tuple[int, int, int] | None
    machine: str
    machine_hash: str
    clock_hz: int
    seeds: int
    below_dense: float
    rows: tuple[StudyRow, ...]
    trainings: int = 0
    earlier: int = 0
    luts: int | None = None
    device: str | None = None
    device_luts: int | None = None


def saved_study(study: Study, command: str = "") -> SavedStudy:
    """What is kept of a study; shares as shares, times in seconds, energies in joules."""
    spec, trainings = study.spec, study.trainings
    target = area_target(spec.machine)
    area = None if target is None else known_area(spec.machine, target)
    return SavedStudy(
        weft_version=version("weft"),
        command=command,
        data=spec.data,
        hosts=tuple(sorted({host for training in trainings for host in training.hosts}, key=str)),
        images=trainings[0].images if trainings else None,
        machine=spec.machine.name,
        machine_hash=spec_hash(spec.machine),
        clock_hz=spec.machine.clock_hz,
        seeds=spec.seeds,
        below_dense=spec.below,
        rows=study.rows,
        trainings=len(trainings),
        earlier=study.earlier,
        luts=None if area is None else area.total["lut_sites"],
        device=None if area is None else area.device,
        device_luts=None if area is None else area.has["lut_sites"],
    )


def study_dict(study: Study, command: str = "") -> dict[str, Any]:
    """The JSON of a study."""
    return asdict(saved_study(study, command))


def study_frame(study: Study) -> pd.DataFrame:
    """One row a model, scheme and pattern; what is nested stands as JSON text."""
    records = []
    for row in study.rows:
        record = asdict(row)
        records.append({key: json.dumps(v) if key in _TEXT else v for key, v in record.items()})
    numbers = [f.name for f in fields(StudyRow) if f.type == "float | None"]
    frame = pd.DataFrame.from_records(records)
    whole = [f.name for f in fields(StudyRow) if f.type == "int | None"]
    kinds = {**dict.fromkeys(numbers, "float64"), **dict.fromkeys(_INTEGERS, "int64"), **dict.fromkeys(whole, "Int64")}
    frame = frame.astype(kinds)
    frame.insert(0, "data", study.spec.data)
    return frame


def study_provenance(study: SavedStudy) -> str:
    """One line: the data and its sets, seeds, machine, and where the trainings ran."""
    sets = (
        ""
        if study.images is None
        else " ({:,} images to train, {:,} for validation, {:,} to test)".format(*study.images)
    )
    seeds = ", ".join(map(str, range(study.seeds)))
    ran = "; ".join(map(str, study.hosts)) or "no training"
    earlier = f"; {study.earlier} of {study.trainings} trainings are of another state of the sources"
    return (
        f"{study.data}{sets}, seeds {seeds}, on {study.machine} ({study.machine_hash}); trained on {ran}"
        f"{earlier if study.earlier else ''}"
    )


def machine_luts(study: SavedStudy) -> str:
    """One line: what the machine takes of a device."""
    if study.luts is None or study.device is None or study.device_luts is None:
        return f"Synthesis has not counted all blocks of {study.machine}; `weft area` does"
    fits = "it fits" if study.luts <= study.device_luts else "it does not fit"
    share = percent(study.luts / study.device_luts)
    return f"{study.machine} takes {study.luts:,} of {study.device_luts:,} LUT sites of {study.device}, {share}: {fits}"


def study_markdown(study: Study) -> str:
    """Where it comes from, and two tables a model, accuracy beside cost and the other tracks; under them what was not
    trained or not placed, with the reason."""
    saved = saved_study(study)
    parts = [f"{study_provenance(saved)}. {machine_luts(saved)}."]
    for model, rows in by_table(study.rows).items():
        target = next((row.target for row in rows if row.target is not None), None)
        named = "" if target is None else f" (target {100 * target:.2f} %)"
        lines = [f"### {model}{named}", "", *_table(_COLUMNS, [_cells(row) for row in rows])]
        lines += ["", *_table(_TRACKS, [_track_cells(row) for row in rows])]
        parts.append("\n".join([*lines, *_notes(rows)]))
    return "\n\n".join(parts) + "\n"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(line)} |" for line in (columns, ["---"] * 2 + ["---:"] * (len(columns) - 2), *rows)]


def _cells(row: StudyRow) -> list[str]:
    densities = (row.density_ff, row.density_bp, row.density_wu)
    return [
        _scheme(row),
        row.pattern or "",
        _spread(row.validation, row.validation_sd),
        _spread(row.accuracy, row.accuracy_sd),
        "" if row.reference else _spread(row.loss, row.loss_sd),
        _number(row.cycles, ",.0f"),
        _number(row.joules, ",.0f", 1e6),
        _number(row.speedup, ".2f", after="x"),
        f"{row.reached} of {row.seeds}",
        _number(row.steps_to_target, ",.0f"),
        _number(row.seconds_to_target, ".1f"),
        _number(row.time_speedup, ".2f", after="x"),
        " / ".join(_number(d, ".3g") for d in densities),
        _number(row.sad, ".1f", 100.0),
    ]


def _track_cells(row: StudyRow) -> list[str]:
    kinds = (row.noise, row.blur, row.contrast)
    seeds = (row.seed_seconds_to_target or {}).values()
    share = "" if row.lut_share is None else f" ({percent(row.lut_share)})"
    return [
        _scheme(row),
        row.pattern or "",
        _spread(row.accuracy, row.accuracy_sd),
        _spread(row.corrupted, row.corrupted_sd),
        " / ".join(_number(kind, ".1f", 100) for kind in kinds),
        _number(row.training_seconds, ".2f"),
        _number(row.training_joules, ".2f", 1e3),
        _number(row.joules_to_target, ".2f", 1e3),
        " / ".join("never" if at is None else f"{at:.2f}" for at in seeds) or "-",
        _number(row.bit_operations, ",.0f", 1e-3),
        _number(row.parameter_bits, ",.1f", 1e-3),
        _number(row.image_cycles, ",.0f"),
        _number(row.image_joules, ".3f", 1e6),
        _number(row.luts, ",.0f") + share,
    ]


def _scheme(row: StudyRow) -> str:
    return f"`{row.model} {row.scheme}`" if row.table else f"`{row.scheme}`"


def _number(value: float | None, form: str, scale: float = 1.0, after: str = "") -> str:
    return "-" if value is None else f"{scale * value:{form}}{after}"


def _spread(mean: float | None, deviation: float | None) -> str:
    """Points of a percent."""
    if mean is None:
        return "-"
    return f"{100 * mean:.2f}" + ("" if deviation is None else f" +- {100 * deviation:.2f}")


def _notes(rows: Sequence[StudyRow]) -> list[str]:
    found: dict[str, list[str]] = {}
    for row in rows:
        name = f"{_scheme(row)} {row.pattern}" if row.pattern else _scheme(row)
        for seed, why in row.failed.items():
            found.setdefault(f"not trained: {why}", []).append(f"{name} seed {seed}")
        if row.unplaced:
            found.setdefault(f"not on this machine: {row.unplaced}", []).append(name)
    return ["", *(f"- {', '.join(names)}: {why}" for why, names in found.items())] if found else []


def require_free_for_study(folder: Path) -> None:
    """Refuse before the work what :func:`save_study` would refuse after it."""
    require_free(
        folder, ("study.json", *_TABLES, *(name for stem in _PICTURES for name in picture_names(stem, THEMES)))
    )


def save_study(study: Study, folder: Path, command: str) -> None:
    """Write ``study.json``, ``.csv``, ``.parquet``, ``.md``, pictures, and ``steps/``: workloads for `weft run`.

    Each workload is the step of the longest phase of a row, with what the trainings measured in it.
    """
    from .figures import cost_figure, study_figure

    frame, table = study_frame(study), io.BytesIO()
    frame.to_parquet(table, index=False)
    texts = (csv_text(frame, index=False).encode(), study_markdown(study).encode(), table.getvalue())
    document = json.dumps(study_dict(study, command), indent=1, allow_nan=False) + "\n"
    files = {"study.json": document.encode(), **dict(zip(_TABLES, texts, strict=True))}
    for stem, draw in zip(_PICTURES, (study_figure, cost_figure), strict=True):
        files |= pictures(stem, partial(draw, study), THEMES)
    for (model, scheme, pattern), step in study.steps.items():
        name = "-".join([model, scheme, *([pattern.replace(":", "of")] if pattern else [])])
        safe = "".join(c if c.isalnum() or c in "-_.@" else "_" for c in name)
        files[f"steps/{safe}.json"] = dumps_workload(step.workload)
    publish(folder, STUDY, files)


def read_study(folder: Path) -> SavedStudy | None:
    """What :func:`save_study` wrote in ``folder``, if it did."""
    text = read_published(folder, STUDY, ("study.json",)).get("study.json")
    return None if text is None else read_json(SavedStudy, text, str(folder / "study.json"))
