"""A comparison as one JSON document, and as a folder: its own JSON and picture, and the folder of every run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from .compare import Comparison, LossLedger, loss_ledger
from .promise import Promise, promises
from .records import to_dict

__all__ = ["comparison_dict", "ledgers", "require_free_for_comparison", "save_comparison"]

_DOCUMENT, _FIGURE, _PROMISE = "comparison.json", "comparison", "promise"

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
        "promises": {name: _promise_dict(found) for name, found in promises(comparison).items()},
    }


def _ledger_dict(ledger: LossLedger) -> dict[str, Any]:
    rows = [{"item": r.item, "cycles": float(r.cycles), "dense_cycles": float(r.dense_cycles)} for r in ledger.rows]
    return {"speedup": ledger.speedup, "ideal_speedup": ledger.ideal_speedup, "rows": rows}


def _promise_dict(found: Promise) -> dict[str, Any]:
    losses = [{"item": o.item, "cycles": float(o.cycles), "times": float(o.times)} for o in found.losses]
    return {
        "dense_cycles": found.dense,
        "thinned_cycles": float(found.thinned),
        "promised_cycles": float(found.promised),
        "cycles": found.measured,
        "losses": losses,
    }


def require_free_for_comparison(folder: Path, schemes: Sequence[str], draw_all: bool = False) -> None:
    """Refuse before the work what :func:`save_comparison` would refuse after it."""
    from .pictures import LIGHT, picture_names
    from .publish import require_free
    from .save import require_free_for_run
    from .theme import THEMES

    themes = THEMES if draw_all else LIGHT
    require_free(folder, (_DOCUMENT, *(name for stem in (_FIGURE, _PROMISE) for name in picture_names(stem, themes))))
    for scheme in schemes:
        require_free_for_run(folder / scheme, draw_all)


def save_comparison(comparison: Comparison, folder: Path, command: str, *, draw_all: bool = False) -> None:
    """Write ``comparison.json``, ``comparison.png``, ``promise.png`` where a scheme promises anything, and a folder a
    scheme, as `save_run` does but without pictures.

    ``draw_all``: those of the runs and those for dark pages too. What an earlier comparison wrote there goes.
    """
    from .figures import comparison_figure, promise_figure
    from .pictures import LIGHT, pictures
    from .publish import MANIFEST, RUN, manifest_of, publish
    from .save import run_files
    from .theme import THEMES

    require_free_for_comparison(folder, [r.workload.scheme for r in comparison.results], draw_all)
    document = json.dumps(comparison_dict(comparison, command), indent=1, allow_nan=False) + "\n"
    drawn = pictures(_FIGURE, partial(comparison_figure, comparison), THEMES if draw_all else LIGHT)
    if promises(comparison):
        drawn |= pictures(_PROMISE, partial(promise_figure, comparison), THEMES if draw_all else LIGHT)
    files = {_DOCUMENT: document.encode(), **drawn}
    for result in comparison.results:
        own = run_files(result, command, THEMES if draw_all else ())
        own[MANIFEST] = manifest_of(RUN, own)
        files |= {f"{result.workload.scheme}/{name}": data for name, data in own.items()}
    publish(folder, "comparison", files)
