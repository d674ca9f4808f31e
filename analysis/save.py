"""The folder of a run: everything about one result, of one run at any time."""

from __future__ import annotations

import io
import json
from collections.abc import Collection
from functools import partial
from pathlib import Path

from ..dataflow.config_io import dumps_spec
from ..workloads.io import dumps_workload
from .dram_time import dram_over_time
from .figures import dram_figure, energy_figure, layers_figure, roofline_figure
from .frames import csv_text, energy_frame, ops_frame
from .level import AnyResult, step_of
from .pictures import LIGHT, picture_names, pictures
from .publish import MANIFEST, RUN, publish, require_free
from .system import result_dict
from .theme import THEMES

__all__ = ["require_free_for_run", "run_files", "save_run"]

_FILES = ("result.json", "ops.csv", "ops.parquet", "energy.csv", "workload.json", "machine.toml")
_MAPPING = "mapping.toml"
_FIGURES = {"layers": layers_figure, "roofline": roofline_figure, "energy": energy_figure, "dram": dram_figure}
"""By the names of their files."""


def require_free_for_run(folder: Path, draw_all: bool = False, mapped: bool = False) -> None:
    """Refuse before the work what :func:`save_run` would refuse after it; ``mapped``: there are rules for mappings."""
    drawn = [name for stem in _FIGURES for name in picture_names(stem, THEMES if draw_all else LIGHT)]
    require_free(folder, (*_FILES, *drawn, *([_MAPPING] if mapped else [])), alone=True)


def save_run(result: AnyResult, folder: Path, command: str, *, draw_all: bool = False) -> list[Path]:
    """Write ``result`` into ``folder``; returns the files written.

    ``command`` is what to run for the same result. ``draw_all``: pictures for dark pages too. The files of an earlier
    run are replaced and all else in the folder is kept; a folder that is not empty and holds no results is refused.
    """
    require_free_for_run(folder, draw_all, step_of(result).mapping is not None)
    files = run_files(result, command, THEMES if draw_all else LIGHT)
    publish(folder, RUN, files)
    return [folder / name for name in (*files, MANIFEST)]


def run_files(result: AnyResult, command: str, themes: Collection[str]) -> dict[str, bytes]:
    """What is written of a run, by name, with pictures of ``themes``; a step without matrix ops has no roofline, one of
    more phases than are kept no DRAM over time."""
    step, ops, parquet = step_of(result), ops_frame(result), io.BytesIO()
    ops.to_parquet(parquet)
    document = json.dumps(result_dict(result, command), indent=1, allow_nan=False) + "\n"
    made = {
        "result.json": document.encode(),
        "ops.csv": csv_text(ops).encode(),
        "ops.parquet": parquet.getvalue(),
        "energy.csv": csv_text(energy_frame(result)).encode(),
        "workload.json": dumps_workload(step.workload),
        "machine.toml": dumps_spec(step.spec).encode(),
    }
    if step.mapping is not None:
        made[_MAPPING] = step.mapping.text.encode()
    for stem, draw in _FIGURES.items():
        if (stem != "roofline" or step.counts.macs) and (stem != "dram" or dram_over_time(result) is not None):
            made |= pictures(stem, partial(draw, result), themes)
    return made
