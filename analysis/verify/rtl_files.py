"""A training on the RTL as a folder: a JSON document that is kept up step by step, and a picture at the end.

A training that was broken off is gone on with: bits of RTL and model are equal, so the model alone makes the steps
that the document has, whose losses must be those written there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...workloads.errors import InputError, shorten
from ...workloads.strict import read_json, read_text
from ..pictures import LIGHT, pictures
from ..publish import publish, require_free
from .rtl_train import RtlStep, RtlTrainer, RtlTraining

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["RtlRecord", "go_on", "record", "require_free_for_rtl_training", "save_record", "save_rtl_training"]

_KIND, _DOCUMENT, _PICTURE = "rtl-train", "rtl-train.json", "rtl-train"
_NAME = 30
"""Characters of a model's name that a picture has room for."""
Setting = str | int | float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RtlRecord:
    """A training so far: of ``asked`` steps those that are done, the machine's counters over them, and at its end the
    ``accuracy`` of `RtlTraining`. ``settings`` decide every bit of it."""

    __pydantic_config__ = {"extra": "forbid"}

    weft_version: str
    settings: dict[str, Setting]
    asked: int
    steps: tuple[RtlStep, ...]
    instructions: int
    commands: int
    window: int
    counters: dict[str, int] = field(default_factory=dict)
    accuracy: float | None = None


def record(trainer: RtlTrainer, result: RtlTraining | None = None) -> RtlRecord:
    """What ``trainer`` has done; with its ``result``, all that was asked."""
    return RtlRecord(
        weft_version=version("weft"),
        settings=_settings(trainer),
        asked=trainer.asked,
        steps=tuple(trainer.made),
        instructions=trainer.instructions,
        commands=trainer.commands,
        window=trainer.compiled.window,
        counters=dict(trainer.counters),
        accuracy=None if result is None else result.accuracy,
    )


def require_free_for_rtl_training(folder: Path) -> None:
    """Refuse before the work what saving would refuse after it."""
    require_free(folder, (_DOCUMENT, f"{_PICTURE}.png"))


def go_on(trainer: RtlTrainer, folder: Path) -> int:
    """Let ``trainer`` make by the model alone the steps that ``folder`` has of the same training; how many they are.

    What lies there of another training is no concern; steps whose losses are not the model's are an InputError.
    """
    path = folder / _DOCUMENT
    if not path.is_file():
        return 0
    found = read_json(RtlRecord, read_text(path), str(path))
    if found.accuracy is not None or (found.weft_version, found.settings) != (version("weft"), _settings(trainer)):
        return 0
    steps = found.steps[: trainer.asked]
    for number, (step, wrong) in enumerate(zip(steps, trainer.repeat(steps, found.counters), strict=True), 1):
        if wrong is not None:
            raise InputError(
                f"{path}: the loss of step {number} is {step.model_loss!r} there, but {wrong!r} by the model; "
                "take another folder to begin anew"
            )
    return len(steps)


def save_record(trainer: RtlTrainer, folder: Path) -> None:
    """The document as it stands after a step."""
    publish(folder, _KIND, {_DOCUMENT: _text(record(trainer))})


def save_rtl_training(trainer: RtlTrainer, result: RtlTraining, folder: Path) -> None:
    """The document and ``rtl-train.png``."""
    files = {_DOCUMENT: _text(record(trainer, result)), **pictures(_PICTURE, _drawn(trainer, result), LIGHT)}
    publish(folder, _KIND, files)


def _text(found: RtlRecord) -> bytes:
    return (json.dumps(asdict(found), indent=1, allow_nan=False) + "\n").encode()


def _drawn(trainer: RtlTrainer, result: RtlTraining) -> Any:
    from ..figures import rtl_training_figure

    spec, cycles = trainer.work.spec, result.steps[-1].cycles
    pattern = "" if spec.pattern is None else f" {spec.pattern}"
    steps, model = len(result.steps), shorten(Path(spec.model).name, _NAME)
    title = f"{steps:,} step{'s' if steps > 1 else ''} in RTL: every bit and every cycle is the model's"
    subtitle = (
        f"{model} on {spec.data}, {spec.scheme}{pattern}, batch {spec.batch}, on {trainer.target.spec.name}: "
        f"{cycles:,} cycles a step, {result.accuracy:.1%} of the test images right"
    )

    def draw(theme: str) -> Figure:
        return rtl_training_figure(result.steps, title, subtitle, theme)

    return draw


def _settings(trainer: RtlTrainer) -> dict[str, Setting]:
    spec, sgd = trainer.work.spec, trainer.settings
    found: Mapping[str, Setting] = {
        "model": spec.model,
        "data": spec.data,
        "scheme": spec.scheme,
        "pattern": None if spec.pattern is None else str(spec.pattern),
        "batch": spec.batch,
        "seed": spec.seed,
        "learning_rate": sgd.rate,
        "momentum": sgd.momentum,
        "loss_scale": trainer.loss_scale,
        "machine": trainer.target.spec.name,
        "hash": trainer.target.hash,
    }
    return dict(found)
