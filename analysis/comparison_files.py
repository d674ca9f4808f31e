"""A comparison as one JSON document, and as a folder: its own JSON and picture, and the folder of every run."""

from __future__ import annotations

import io
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..workloads.io import write_atomically
from .compare import Comparison, LossLedger, loss_ledger
from .records import to_dict

__all__ = ["comparison_dict", "ledgers", "require_folder", "save_comparison"]

_SHARED = ("weft_version", "model", "batch", "objective")
_OF_RUN = ("spec_hash", "macs", "dense_macs", "passes", "stalls", "dense_layers")


def ledgers(comparison: Comparison) -> dict[str, LossLedger]:
    """Loss ledger of every scheme against the dense run; none without a dense run."""
    dense = comparison.baseline
    if dense.workload.scheme != "dense":
        return {}
    return {r.workload.scheme: loss_ledger(r, dense) for r in comparison.results if r is not dense}


def comparison_dict(comparison: Comparison, command: str = "") -> dict[str, Any]:
    """The JSON of a comparison: one entry a scheme, without its ops, and the loss ledgers."""
    runs = [to_dict(result) for result in comparison.results]
    return {
        **{key: runs[0][key] for key in _SHARED},
        "command": command,
        "baseline": comparison.baseline.workload.scheme,
        "schemes": [
            {**asdict(row), **{key: run[key] for key in _OF_RUN}}
            for row, run in zip(comparison.rows, runs, strict=True)
        ],
        "ledgers": {name: _ledger_dict(ledger) for name, ledger in ledgers(comparison).items()},
    }


def _ledger_dict(ledger: LossLedger) -> dict[str, Any]:
    rows = [{"item": r.item, "cycles": float(r.cycles), "dense_cycles": float(r.dense_cycles)} for r in ledger.rows]
    return {"speedup": ledger.speedup, "ideal_speedup": ledger.ideal_speedup, "rows": rows}


def require_folder(directory: Path, names: tuple[str, ...] = ()) -> None:
    """Refuse before the work what `save_run` (``names`` empty) or `save_comparison` would refuse after it."""
    from .save import require_replaceable

    for place in [directory / name for name in names] or [directory]:
        require_replaceable(place, place)


def save_comparison(comparison: Comparison, directory: Path, command: str) -> None:
    """Write ``directory``: a folder a scheme (see `save_run`), ``comparison.json`` and ``comparison.png``."""
    from .plots import comparison_figure
    from .save import save_run
    from .theme import THEMES

    for result in comparison.results:
        save_run(result, directory / result.workload.scheme, command)
    for theme in THEMES:
        picture = io.BytesIO()
        comparison_figure(comparison, theme).savefig(picture, format="png")
        suffix = "" if theme == "light" else f"-{theme}"
        write_atomically(directory / f"comparison{suffix}.png", picture.getvalue())
    text = json.dumps(comparison_dict(comparison, command), indent=1, allow_nan=False) + "\n"
    write_atomically(directory / "comparison.json", text.encode())
