"""A sweep of `weft compare` as one JSON document, a table, a page of Markdown and a folder."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import asdict, fields
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from ..dataflow.config_io import spec_hash
from ..workloads.errors import printable
from ..workloads.words import named
from .compare_sweep import Sweep, SweepRow
from .frames import csv_text
from .pictures import LIGHT, picture_names, pictures
from .publish import publish, require_free
from .theme import THEMES
from .words import joules, seconds

__all__ = [
    "refusals",
    "require_free_for_sweep",
    "save_sweep",
    "sweep_dict",
    "sweep_frame",
    "sweep_markdown",
    "sweep_provenance",
]

_DOCUMENT, _TABLES, _FIGURE = "sweep.json", tuple(f"sweep.{kind}" for kind in ("csv", "md", "parquet")), "sweep"
_COLUMNS = (
    "machine",
    "batch",
    "scheme",
    "N:M",
    "step",
    "samples/s",
    "speed-up",
    "by MACs",
    "ideal",
    "utilisation",
    "energy",
    "above bound",
)


def sweep_dict(sweep: Sweep, command: str = "") -> dict[str, Any]:
    """The JSON of a sweep: where it comes from, and its rows."""
    return {
        "weft_version": version("weft"),
        "command": command,
        "model": sweep.model,
        "objective": str(sweep.objective),
        "machines": [
            {"machine": name, "spec": spec.name, "spec_hash": spec_hash(spec)} for name, spec in sweep.machines.items()
        ],
        "layer_patterns": [str(rule) for rule in sweep.rules],
        "rows": [asdict(row) for row in sweep.rows],
    }


def sweep_frame(sweep: Sweep) -> pd.DataFrame:
    """One row a combination, in order, columns as the fields of `SweepRow`; numbers of one that cannot run are
    missing."""
    kinds = {"int": "int64", "int | None": "Int64", "float | None": "float64"}
    types = {f.name: kinds[str(f.type)] for f in fields(SweepRow) if str(f.type) in kinds}
    return pd.DataFrame.from_records([asdict(row) for row in sweep.rows]).astype(types)


def sweep_provenance(sweep: Sweep) -> str:
    """One line: model, machines with their hashes, objective, and the patterns of some layers."""
    machines = ", ".join(f"{named(name)} ({spec_hash(spec)})" for name, spec in sweep.machines.items())
    rules = f"; N:M by layer: {', '.join(map(str, sweep.rules))}" if sweep.rules else ""
    return printable(f"{named(sweep.model)} on {machines}, scheduled for {sweep.objective.aim}{rules}")


def refusals(sweep: Sweep) -> dict[str, list[str]]:
    """By the reason why they cannot run, the combinations in words; those of one machine and batch together."""
    found: dict[str, dict[tuple[str, int], list[SweepRow]]] = {}
    for row in sweep.rows:
        if row.reason:
            found.setdefault(row.reason, {}).setdefault((row.machine, row.batch), []).append(row)
    return {reason: [_where(sweep, at, rows) for at, rows in groups.items()] for reason, groups in found.items()}


def _where(sweep: Sweep, at: tuple[str, int], rows: Sequence[SweepRow]) -> str:
    machine, batch = at
    runs = "" if len(rows) == len(sweep.groups[at]) else f": {', '.join(row.run for row in rows)}"
    return f"{machine}, batch {batch}{runs}"


def sweep_markdown(sweep: Sweep) -> str:
    """Where it comes from, the table, and under it what cannot run, with the reason."""
    lines = [*(["---"] * 4), *(["---:"] * (len(_COLUMNS) - 4))]
    table = [_COLUMNS, lines, *(_cells(row) for row in sweep.rows)]
    parts = [f"{sweep_provenance(sweep)}.", "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in table)]
    notes = [f"- {printable('; '.join(names))}: {printable(why)}" for why, names in refusals(sweep).items()]
    return "\n\n".join([*parts, *(["\n".join(notes)] if notes else [])]) + "\n"


def _cell(text: str) -> str:
    return printable(text).replace("|", "\\|")


def _cells(row: SweepRow) -> list[str]:
    def number(value: float | None, form: str, scale: float = 1.0, after: str = "") -> str:
        return "-" if value is None else f"{scale * value:{form}}{after}"

    return [
        row.machine,
        str(row.batch),
        row.scheme,
        row.pattern or "",
        "cannot run" if row.seconds is None else seconds(row.seconds),
        number(row.samples_per_s, ",.4g" if (row.samples_per_s or 0) < 1000 else ",.0f"),
        number(row.speedup, ".3f", after="x"),
        number(row.mac_speedup, ".2f", after="x"),
        number(row.ideal_speedup, ".2f", after="x"),
        number(row.utilization, ".1f", 100, " %"),
        "-" if row.energy_j is None else joules(row.energy_j),
        number(row.gap, ".1f", 100, " %"),
    ]


def _names(draw_all: bool) -> tuple[str, ...]:
    return _DOCUMENT, *_TABLES, *picture_names(_FIGURE, THEMES if draw_all else LIGHT)


def require_free_for_sweep(folder: Path, draw_all: bool = False) -> None:
    """Refuse before the work what :func:`save_sweep` would refuse after it."""
    require_free(folder, _names(draw_all))


def save_sweep(sweep: Sweep, folder: Path, command: str, *, draw_all: bool = False) -> None:
    """Write ``sweep.json``, ``.csv``, ``.parquet``, ``.md`` and a picture, with ``draw_all`` for dark pages too."""
    from .figures import sweep_figure

    frame, table = sweep_frame(sweep), io.BytesIO()
    frame.to_parquet(table, index=False)
    texts = (csv_text(frame, index=False).encode(), sweep_markdown(sweep).encode(), table.getvalue())
    document = json.dumps(sweep_dict(sweep, command), indent=1, allow_nan=False) + "\n"
    files = {_DOCUMENT: document.encode(), **dict(zip(_TABLES, texts, strict=True))}
    drawn = pictures(_FIGURE, partial(sweep_figure, sweep), THEMES if draw_all else LIGHT)
    publish(folder, "sweep", files | drawn)
