"""The directory of a run: everything about one result, written whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..dataflow.config_io import dumps_spec
from ..workloads.errors import InputError
from ..workloads.io import dumps_workload
from .frames import csv_text, energy_frame, ops_frame
from .level import AnyResult, step_of
from .plots import layers_figure, roofline_figure
from .system import result_dict
from .theme import THEMES

__all__ = ["FILES", "require_replaceable", "save_run"]

_FIGURES = {"layers": layers_figure, "roofline": roofline_figure}
FILES = (
    "result.json", "ops.csv", "ops.parquet", "energy.csv", "workload.json", "machine.toml",
    *(f"{name}{'' if theme == 'light' else '-' + theme}.png" for name in _FIGURES for theme in THEMES),
)  # fmt: skip
"""Names of the files that :func:`save_run` writes; a step without matrix ops has no roofline."""


def save_run(result: AnyResult, directory: Path, command: str) -> list[Path]:
    """Write ``result`` into ``directory``; returns the files written.

    A directory that an earlier run wrote is replaced, and files beside weft's own are kept; any other directory that is
    not empty is refused. ``command`` is what to run for the same result.
    """
    place = Path(os.path.realpath(directory))
    require_replaceable(place, directory)
    try:
        with _beside(place) as part:
            _write(result, part, result_dict(result, command))
            _move(part, place)
    except OSError as error:
        raise InputError(f"{directory}: cannot be written: {error.strerror or error}") from None
    return [place / name for name in FILES if (place / name).exists()]


def require_replaceable(place: Path, shown: Path) -> None:
    try:
        if place.exists() and not place.is_dir():
            raise InputError(f"{shown}: is a file; results need a directory")
        if place.is_dir() and any(place.iterdir()) and not _is_ours(place):
            raise InputError(f"{shown}: is not empty and was not written by weft; choose a new directory")
    except OSError as error:
        raise InputError(f"{shown}: cannot be read: {error.strerror}") from None


def _is_ours(place: Path) -> bool:
    try:
        found = json.loads((place / "result.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(found, dict) and "weft_version" in found


@contextmanager
def _beside(place: Path) -> Iterator[Path]:
    """An empty directory on the same file system, removed in the end if it is still there."""
    path = place.with_name(f".{place.name}.{os.getpid()}.part")
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _write(result: AnyResult, folder: Path, document: dict[str, Any]) -> None:
    step = step_of(result)
    text = json.dumps(document, indent=1, allow_nan=False)
    (folder / "result.json").write_text(text + "\n", encoding="utf-8")
    (folder / "workload.json").write_bytes(dumps_workload(step.workload))
    (folder / "machine.toml").write_text(dumps_spec(step.spec), encoding="utf-8")
    ops = ops_frame(result)
    (folder / "ops.csv").write_text(csv_text(ops), encoding="utf-8")
    ops.to_parquet(folder / "ops.parquet")
    (folder / "energy.csv").write_text(csv_text(energy_frame(result)), encoding="utf-8")
    for name, draw in _FIGURES.items():
        if name == "roofline" and not step.counts.macs:
            continue
        for theme in THEMES:
            suffix = "" if theme == "light" else f"-{theme}"
            draw(result, theme).savefig(folder / f"{name}{suffix}.png")


def _move(part: Path, place: Path) -> None:
    """Put ``part`` where ``place`` is; whatever else was there stays."""
    if not place.exists() or not any(place.iterdir()):
        part.replace(place)
        return
    old = place.with_name(f".{place.name}.{os.getpid()}.old")
    place.replace(old)
    try:
        part.replace(place)
    except BaseException:
        old.replace(place)
        raise
    for entry in old.iterdir():
        if entry.name not in FILES:
            entry.replace(place / entry.name)
    shutil.rmtree(old, ignore_errors=True)
