"""What a sweep came to, in a document: counts, what refuses points, which axis mattered, what would help next."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from ...workloads.errors import InputError
from .advice import advise
from .axes import Axis
from .front import front_of
from .importance import importance
from .infeasible import broken, infeasible
from .levels import REFUSED, RUNS
from .plan import Plan
from .table import batches

__all__ = ["summary"]

_SHOWN = 4096
"""Values of an axis that are listed; of more the first and the last."""
_LOOKED_AT = 2**17
"""Points that importances and advice are made of at most: all of them, or as many evenly spaced."""


def summary(plan: Plan, paths: Sequence[Path], front: pa.Table) -> dict[str, Any]:
    """The document: JSON values only."""
    statuses, refusing = _counts(paths)
    frame, varied = _frame(plan, paths), [axis for axis in plan.axes.axes if len(axis.values) > 1]
    mattered, methods = _importances(plan, frame, [axis.name for axis in varied])
    return {
        "weft_version": version("weft"),
        "model": ", ".join(Path(model).name if digest else model for model, digest in plan.models.items()),
        "machine": ", ".join(plan.bases),
        "axes": {axis.name: _values(axis) for axis in plan.axes.axes},
        "tied": plan.axes.tied,
        "sampler": plan.space.sampler,
        "seed": plan.space.seed,
        "objectives": [{"name": m.name, "direction": m.direction, "unit": m.unit} for m in plan.objectives],
        "points": plan.size,
        "statuses": dict(sorted(statuses.items())),
        "refused_by": dict(sorted(refusing.items())),
        "front": front.num_rows,
        "looked_at": len(frame),
        "importances": mattered,
        "importance_methods": methods,
        "advice": _advice(plan, frame, varied),
    }


def _counts(paths: Sequence[Path]) -> tuple[Counter[str], Counter[str]]:
    """Points by status, and by each constraint that they break."""
    statuses, refusing = Counter[str](), Counter[str]()
    for batch in batches(paths, ("status", "reason")):
        pairs = Counter(zip(batch["status"].to_pylist(), batch["reason"].to_pylist(), strict=True))
        for (status, reason), count in pairs.items():
            statuses[status] += count
            if status == REFUSED:
                for name in {one.constraint for one in broken(status, reason)}:
                    refusing[name] += count
    return statuses, refusing


def _frame(plan: Plan, paths: Sequence[Path]) -> pd.DataFrame:
    """Points, evenly spaced where there are very many."""
    names = [axis.name for axis in plan.axes.axes]
    columns = dict.fromkeys(
        ["point", "status", "reason", "cycles", "bound_cycles", *names, *(m.name for m in plan.objectives)]
    )
    step = max(1, -(-plan.size // _LOOKED_AT))
    frames = []
    for batch in batches(paths, tuple(columns)):
        frame = batch.to_pandas()
        frames.append(frame[frame["point"] % step == 0])
    found: pd.DataFrame = pd.concat(frames, ignore_index=True)
    text = [name for name in found if isinstance(found[name].dtype, pd.CategoricalDtype)]
    return found.astype(dict.fromkeys(text, object))


def _importances(
    plan: Plan, frame: pd.DataFrame, axes: list[str]
) -> tuple[dict[str, list[dict[str, Any]]], dict[str, list[str]]]:
    """Shares by objective, and in words by which method, or why there are none; not of what the machine says itself."""
    shares, words = dict[str, list[dict[str, Any]]](), dict[str, list[str]]()
    for m in plan.objectives:
        if m.early:
            continue
        try:
            known = frame[m.name] > 0
            found = importance(frame[known | (frame["status"] != RUNS)], axes, m.name)
        except InputError as error:
            words[m.name] = [str(error)]
            continue
        shares[m.name] = [{"axis": " x ".join(e.axes), "share": e.share} for e in found.effects if e.share > 0]
        words[m.name] = list(found.words())
    return shares, words


def _advice(plan: Plan, frame: pd.DataFrame, varied: list[Axis]) -> list[str]:
    """Sentences: of the front, or of why there is none."""
    axes = {
        axis.name: list(axis.values) if len(axis.values) <= _SHOWN else sorted(set(frame[axis.name])) for axis in varied
    }
    try:
        if (frame["status"] == RUNS).any():
            ways = {m.name: m.direction for m in plan.objectives}
            # The best by the first objective come first.
            first = plan.objectives[0]
            front = front_of(frame, ways).sort_values(first.name, ascending=first.direction == "min", kind="stable")
            return list(advise(frame, axes, ways, front["point"].tolist()).words())
        return list(infeasible(frame, axes).words())
    except InputError as error:
        return [str(error)]


def _values(axis: Axis) -> list[Any]:
    return list(axis.values) if len(axis.values) <= _SHOWN else [axis.values[0], axis.values[-1]]
