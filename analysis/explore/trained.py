"""Accuracies of the points of a space: of a study by model, scheme and pattern, of a super-network by model."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ...workloads.errors import InputError
from ..study_files import read_study

__all__ = ["Trained", "inherited_by", "trained_by"]

Key = tuple[str, str, str]
"""Model, scheme, pattern."""


@dataclass(frozen=True, slots=True)
class Trained:
    """Of each training that has an end: accuracy on the test set, and steps to the study's target, None where not all
    seeds came there."""

    source: str
    rows: dict[Key, tuple[float, float | None]]
    inherited: bool = False
    """Whether they are of sub-networks, under whatever the super-network was trained by."""

    def of(self, model: str, scheme: str, nm: str) -> tuple[float, float | None]:
        """Of a point; refused with what there is."""
        key = (model, "", "") if self.inherited else (model, scheme, nm)
        found = self.rows.get(key)
        if found is None:
            name = " ".join(part for part in key if part)
            raise InputError(f"accuracy: {self.source} trained no {name}")
        return found


def trained_by(folder: Path) -> Trained:
    """What the study in ``folder`` trained."""
    study = read_study(folder)
    if study is None:
        raise InputError(f"{folder}: holds no study; `weft study -o {folder}` makes one")
    rows = {
        (row.model, row.scheme, row.pattern or ""): (row.accuracy, row.steps_to_target)
        for row in study.rows
        if row.accuracy is not None
    }
    if not rows:
        raise InputError(f"{folder}: the study has no training that came to its end, so no accuracies")
    return Trained(str(folder), rows)


def inherited_by(folder: Path, models: Iterable[str]) -> Trained:
    """Shares of validation images that sub-networks get right with the weights that they inherit from the
    super-network trained in ``folder``; what was not measured before is now."""
    from ...workloads.training import accuracies

    found = accuracies(folder, models)
    return Trained(str(folder), {(name, "", ""): (share, None) for name, share in found.items()}, inherited=True)
