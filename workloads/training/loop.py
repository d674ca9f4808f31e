"""Training from the start, or on from a checkpoint."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from ..checkpoint import load_checkpoint
from ..data import ImageData, open_data
from ..errors import InputError, reading
from ..files import alone, remove_parts
from ..models.classifier import image_side
from ..strict import read_json
from ..user_code import is_user
from .control import controlled, device_of, threads_for
from .numerics import NumericsOf
from .run import CHECKPOINT, LOG, OLDER, RESULT, VERSION, Run
from .spec import TrainResult, TrainSpec
from .state import require_outline

__all__ = ["SAVE_EVERY", "resume", "train", "trained"]

SAVE_EVERY = 1000
"""Steps after which a checkpoint is written within an epoch too."""

_PATIENCE = 5.0
"""Seconds: a worker of a study ends a moment after the study that was killed."""

Progress = Callable[[int, int], None]


def train(
    spec: TrainSpec,
    folder: Path | None = None,
    *,
    device: str | None = None,
    progress: Progress | None = None,
    numerics: NumericsOf | None = None,
    model: nn.Module | None = None,
    beside: Progress | None = None,
) -> TrainResult:
    """Train from the start; with a ``folder``, write a checkpoint and the log there after every epoch.

    ``device`` is a GPU where there is one. ``progress`` is told the steps done and all steps. ``numerics`` is asked for
    the arithmetic that the spec names, if it is not PyTorch's. ``model`` is trained on, in place, instead of a fresh
    one; ``beside`` is called like ``progress`` and may change its weights; neither is kept in a folder. SIGINT ends the
    current step, writes the checkpoint and raises KeyboardInterrupt. A loss that is not finite, or a model that does
    not fit the data, is an :class:`InputError`; the last good checkpoint stays.
    """
    if folder is not None and (model is not None or beside is not None):
        raise InputError(f"{folder}: a training of a model in memory cannot be resumed; leave the folder out")
    _require_no_training(folder)
    data = open_data(spec.data, image_side(spec.model))
    with controlled(threads_for(data), device_of(device)) as stop:
        # What cannot be trained leaves no folder.
        run = Run(spec, data, folder, device_of(device), numerics, model)
        with _only(folder):
            _require_no_training(folder)
            run.save()
            return _finish(run, stop, progress, beside)


def _require_no_training(folder: Path | None) -> None:
    if folder is not None and (folder / CHECKPOINT).exists():
        raise InputError(f"{folder}: holds a training already; resume it, or name another folder")


def _only(folder: Path | None) -> AbstractContextManager[None]:
    """Two trainings in one folder would write the same checkpoint; one that is just being killed is waited for."""
    return nullcontext() if folder is None else alone(folder, "training", _PATIENCE)


def resume(
    folder: Path,
    asked: dict[str, Any] | None = None,
    *,
    device: str | None = None,
    progress: Progress | None = None,
    numerics: NumericsOf | None = None,
) -> TrainResult:
    """Go on with the training in ``folder`` where its checkpoint was written; a finished one is returned as it is.

    ``asked`` are fields of :class:`TrainSpec` that the caller expects; one that differs is refused with both values.
    Data may have moved to another place, but must be the same data. A checkpoint runs no code that it alone names: the
    model of a user's file must be among what is ``asked``.
    """
    path = _checkpoint(folder)
    with _only(folder):
        for name in (CHECKPOINT, LOG, RESULT):
            remove_parts(folder / name)
        state, own = load_checkpoint(path, VERSION, *OLDER), device_of(device)
        spec, data = _of_state(folder, state, asked or {}, resumed=True)
        with controlled(state["threads"], own) as stop:
            run = _loaded(folder, state, Run(spec, data, folder, own, numerics))
            run.save_log()
            return _finish(run, stop, progress)


def trained(folder: Path, asked: dict[str, Any] | None = None, numerics: NumericsOf | None = None) -> Run:
    """The finished training in ``folder``, on the CPU; nothing is trained or written. The others as of `resume`."""
    state, cpu = load_checkpoint(_checkpoint(folder), VERSION, *OLDER), device_of("cpu")
    spec, data = _of_state(folder, state, asked or {}, resumed=False)
    with controlled(state["threads"], cpu):
        run = _loaded(folder, state, Run(spec, data, None, cpu, numerics))
    if run.step < run.steps:
        raise InputError(
            f"{folder}: its training is in step {run.step} of {run.steps}; finish it first: weft train --resume "
            f"{shlex.quote(str(folder))}"
        )
    return run


def _checkpoint(folder: Path) -> Path:
    if not (folder / CHECKPOINT).is_file():
        raise InputError(f"{folder}: is not the folder of a training: it holds no {CHECKPOINT}")
    return folder / CHECKPOINT


def _of_state(
    folder: Path, state: dict[str, Any], asked: dict[str, Any], *, resumed: bool
) -> tuple[TrainSpec, ImageData]:
    path = folder / CHECKPOINT
    with _of_checkpoint(path):
        require_outline(state)
    text = _as_now_called(state["spec"], OLDER.get(state["version"], {}), path)
    _require_named(folder, text, asked, resumed=resumed)
    written = read_json(TrainSpec, text, str(path))
    spec = _expected(folder, written, asked)
    data = open_data(spec.data, image_side(spec.model))
    if data.fingerprint != state["data"]:
        raise InputError(
            f"{folder}: was trained on other data than {spec.data!r} holds now: SHA-256 {state['data'][:12]}..., "
            f"now {data.fingerprint[:12]}..."
        )
    return spec, data


def _loaded(folder: Path, state: dict[str, Any], run: Run) -> Run:
    with _of_checkpoint(folder / CHECKPOINT), reading("it", "a checkpoint of this training"):
        run.load(state)
    return run


def _as_now_called(spec: str, names: Mapping[str, str], path: Path) -> str:
    """The spec of a checkpoint, its optimizer under the name that it has now."""
    if not names:
        return spec
    with reading(str(path), "a checkpoint of a training"):
        found = json.loads(spec)
        found["optimizer"] = names[found["optimizer"]]
    return json.dumps(found)


def _require_named(folder: Path, spec: str, asked: dict[str, Any], *, resumed: bool) -> None:
    """Refuse a checkpoint that names code which the user does not: to read its spec may be to run it.

    The message names the command that resumes the training, or that classifies by it.
    """
    with reading(f"{folder / CHECKPOINT}", "a checkpoint of a training"):
        written = {name: text for name, text in json.loads(spec).items() if isinstance(text, str) and is_user(text)}
    if any(asked.get(name) != text for name, text in written.items()):
        given = {name: shlex.quote(written[name]) for name in ("model", "scheme", "data") if name in written}
        if resumed and "model" in given:
            given = {"": given.pop("model"), **given}
        options = " ".join(f"--{name} {text}" if name else text for name, text in given.items())
        where = shlex.quote(str(folder))
        command = f"weft train {options} --resume {where}" if resumed else f"weft classify {where} {options}"
        raise InputError(
            f"{folder}: its checkpoint names code to run, {next(iter(written.values()))!r}; only what you name "
            f"yourself is run: {command}"
        )


@contextmanager
def _of_checkpoint(path: Path) -> Iterator[None]:
    """What is wrong inside a checkpoint is told with its path."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{path}: is no checkpoint of this training: {error}") from error


def _expected(folder: Path, spec: TrainSpec, asked: dict[str, Any]) -> TrainSpec:
    """``spec`` of the folder if it is what was asked for."""
    for name, wanted in asked.items():
        own = getattr(spec, name)
        if name == "options":
            wanted = {**own, **wanted}  # others are those that are usual for the model
        moved = name == "data" and str(wanted).partition(":")[0] == own.partition(":")[0]
        if wanted != own and not moved:
            raise InputError(
                f"{folder}: holds a training with {name.replace('_', ' ')} {_shown(own)}, not {_shown(wanted)}; "
                "leave it out, or train in another folder"
            )
    return replace(spec, data=asked.get("data", spec.data))


def _shown(value: Any) -> str:
    return "none" if value is None else f"{value!s}"


def _finish(
    run: Run, stop: Callable[[], bool], progress: Progress | None, beside: Progress | None = None
) -> TrainResult:
    """The loop."""
    while run.step < run.steps:
        run.advance()
        if beside is not None:
            beside(run.step, run.steps)
        if progress is not None:
            progress(run.step, run.steps)
        ended = run.step % run.per_epoch == 0
        if ended:
            run.end_epoch()
        stopping = stop() and run.step < run.steps
        if ended or stopping or run.step % SAVE_EVERY == 0:
            run.save()
        if stopping:
            raise KeyboardInterrupt
    return run.result()
