"""What a sweep came to, in a document: counts, what refuses points, the front's size, how much its points differ."""

from __future__ import annotations

from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa

from .axes import Axis
from .plan import Plan
from .table import batches

__all__ = ["summary"]

_SHOWN = 4096
"""Values of an axis that are listed; of more the first and the last."""


def summary(plan: Plan, paths: list[Path], front: pa.Table) -> dict[str, Any]:
    """The document: JSON values only."""
    space = plan.space
    statuses, refusing = Counter[str](), Counter[str]()
    for batch in batches(paths, ("status", "reason")):
        pairs = Counter(zip(batch["status"].to_pylist(), batch["reason"].to_pylist(), strict=True))
        for (status, reason), count in pairs.items():
            statuses[status] += count
            if status == "refused":
                for part in {part.partition(":")[0] for part in reason.split("; ")}:
                    refusing[part] += count
    return {
        "weft_version": version("weft"),
        "model": space.model,
        "machine": ", ".join(plan.bases),
        "axes": {axis.name: _values(axis) for axis in plan.axes.axes},
        "tied": plan.axes.tied,
        "sampler": space.sampler,
        "seed": space.seed,
        "objectives": [{"name": m.name, "direction": m.direction, "unit": m.unit} for m in plan.objectives],
        "points": plan.size,
        "statuses": dict(sorted(statuses.items())),
        "refused_by": dict(sorted(refusing.items())),
        "front": front.num_rows,
    }


def _values(axis: Axis) -> list[Any]:
    return list(axis.values) if len(axis.values) <= _SHOWN else [axis.values[0], axis.values[-1]]
