"""Training under a scheme, so that its accuracy stands beside its cycles: a plain loop that can be killed and resumed.

Every random number of a training depends on its seed and the number of the epoch or step alone. A resumed training
therefore ends in the same bits as one that was never interrupted, on the same machine with the same threads.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from .catalog import is_user
from .checkpoint import digest, load_checkpoint, save_checkpoint
from .data import BUNDLED, ImageData, Images, augmented, normalised, open_data, order
from .errors import InputError, nearest, reading, require_int
from .files import alone, remove_parts, write_atomically
from .host import Host, core_name, processor_name
from .models.classifier import SMALL_SIDE, classifier, image_side, scores
from .schemes import attach
from .schemes.capture import StepGemm, observed
from .schemes.scheme import phase_at, scheme, widening
from .schemes.technique import Technique
from .sigint import asked_to_stop
from .sparsity import NMPattern
from .step import OPTIMIZERS, Workload
from .strict import dump_json, read_json
from .training_state import require_outline, require_state

__all__ = [
    "AMP",
    "CapturedStep",
    "EpochLog",
    "TrainResult",
    "TrainSpec",
    "capture_step",
    "new_model",
    "plan",
    "resume",
    "step_workload",
    "to_dict",
    "train",
]

AMP = ("fp16", "bf16")
"""Types of mixed precision: float16 with loss scaling, bfloat16."""

CHECKPOINT, LOG, RESULT = "checkpoint.pt", "log.csv", "result.json"
SAVE_EVERY = 1000
"""Steps after which a checkpoint is written within an epoch too."""

_PATIENCE = 5.0
"""Seconds: a worker of a study ends a moment after the study that was killed."""
_VERSION = 2
_CAPTURE_SCALE = 2.0**10
_TEST_BATCH = 256
_WEIGHTS, _ORDER, _AUGMENT, _STEP = range(4)
"""What random numbers are for; each purpose has its own."""

Progress = Callable[[int, int], None]
Option = int | float | bool | str


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSpec:
    """All that decides a training; :func:`plan` fills in what is usual.

    ``sgd`` is SGD with Nesterov momentum 0.9, ``adam`` is AdamW (arXiv 1711.05101). The learning rate rises linearly
    over the share ``warmup`` of the steps and falls to zero along a cosine (arXiv 1608.03983). ``weight_decay`` is on
    tensors of two or more dimensions. ``options`` are those of the scheme's technique.
    """

    __pydantic_config__ = {"extra": "forbid"}

    model: str
    data: str
    scheme: str
    pattern: NMPattern | None
    epochs: int
    batch: int
    optimizer: Literal["sgd", "adam"]
    learning_rate: float
    weight_decay: float
    warmup: float = 0.1
    label_smoothing: float = 0.0
    amp: Literal["fp16", "bf16"] | None = None
    seed: int = 0
    options: dict[str, Option] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require_int("epochs", self.epochs, 1, 10**6)
        require_int("batch", self.batch, 1, 2**20)
        require_int("seed", self.seed, 0, 2**32 - 1)
        _require_number("learning rate", self.learning_rate, 0.0, 1e6, above=True)
        _require_number("weight decay", self.weight_decay, 0.0, 1e6)
        _require_number("warm-up", self.warmup, 0.0, 1.0)
        _require_number("label smoothing", self.label_smoothing, 0.0, 1.0)
        if self.optimizer not in OPTIMIZERS:
            raise InputError(f"optimizer {self.optimizer!r} is unknown: {nearest(self.optimizer, OPTIMIZERS)}")
        if self.amp is not None and self.amp not in AMP:
            raise InputError(f"amp {self.amp!r} is unknown: {nearest(self.amp, AMP)}")
        scheme(self.scheme)
        own = sorted(self.options.keys() & {"model", "name", "pattern", "seed", "steps"})
        if own:
            raise InputError(f"option {own[0]!r} is none of scheme {self.scheme!r}: the training sets it itself")

    def rate(self, step: int, steps: int) -> float:
        """Learning rate of ``step`` (from 0) of ``steps``."""
        rising = round(self.warmup * steps)
        if step < rising:
            return self.learning_rate * (step + 1) / rising
        return self.learning_rate * 0.5 * (1.0 + math.cos(math.pi * (step - rising) / (steps - rising)))


def _require_number(where: str, value: float, low: float, high: float, *, above: bool = False) -> None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not low <= value <= high or (above and value == low):
        bound = f"above {low:g}" if above else f"from {low:g}"
        raise InputError(f"{where} must be a number {bound} to {high:g}, not {value!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochLog:
    """One epoch: mean training loss and accuracy over its steps, the validation set after it, and the layers at work.

    ``seconds`` include the validation. ``learning_rate``, ``flip_rate`` and ``sad`` are of the last step. Densities, of
    the weights in FF and BP and of the gradient in WU, and the two rates are means over all weights of the layers that
    the technique makes sparse.
    """

    epoch: int
    step: int
    loss: float
    train_accuracy: float
    validation_loss: float
    validation_accuracy: float
    learning_rate: float
    seconds: float
    flip_rate: float
    sad: float
    density_ff: float
    density_bp: float
    density_wu: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainResult:
    """A finished training.

    ``accuracy`` and ``test_loss`` are of the test set, which is looked at once, after the last epoch; nothing is chosen
    by it. ``images``: in the training, validation and test set. ``hosts``: where it ran, one after the other.
    ``digest``: SHA-256 of the trained parameters and buffers. ``technique``: still at work on ``model``; its
    ``detach()`` leaves the model with its dense master weights. ``folder``: where checkpoint and log lie.
    """

    spec: TrainSpec
    log: tuple[EpochLog, ...]
    test_loss: float
    accuracy: float
    images: tuple[int, int, int]
    digest: str
    device: str
    hosts: tuple[Host, ...]
    kept_dense: dict[str, str]
    folder: Path | None
    model: nn.Module = field(repr=False, compare=False)
    technique: Technique = field(repr=False, compare=False)

    @property
    def validation(self) -> float:
        """Share of the validation images that are classified right after the last epoch."""
        return self.log[-1].validation_accuracy

    @property
    def seconds(self) -> float:
        """Time of all epochs."""
        return sum(row.seconds for row in self.log)


@dataclass(frozen=True, slots=True)
class _Recipe:
    optimizer: Literal["sgd", "adam"]
    epochs: int
    learning_rate: float


# Epochs so that one dense training takes seconds, or on mnist5k up to a minute, of one core; rates as docs/training.md
# says, "How rates were chosen".
_RECIPES = {
    "digits": {
        "mlp": _Recipe("sgd", 40, 0.2), "resnet9": _Recipe("sgd", 12, 0.1), "vit_s": _Recipe("adam", 40, 2e-3),
    },
    "mnist5k": {
        "mlp": _Recipe("sgd", 20, 0.05), "resnet9": _Recipe("sgd", 4, 0.1), "vit_s": _Recipe("adam", 20, 2e-3),
    },
}  # fmt: skip
_TRANSFORMERS = ("vit_s", "vit_b_16", "swin_t", "convnext_t")
_USUAL = {"sgd": _Recipe("sgd", 30, 0.1), "adam": _Recipe("adam", 30, 2e-3)}
_DECAYS = {"sgd": 5e-4, "adam": 0.05}
_USUAL_PATTERN = NMPattern(keep=2, group=8)


def plan(
    model: str,
    *,
    data: str = "digits",
    scheme: str = "bdwp",
    pattern: NMPattern | None = None,
    epochs: int | None = None,
    batch: int | None = None,
    optimizer: Literal["sgd", "adam"] | None = None,
    learning_rate: float | None = None,
    weight_decay: float | None = None,
    **others: Any,
) -> TrainSpec:
    """A training with what is usual for the model and the data in the place of every ``None``; 2:8 if sparse."""
    base = model.partition("@")[0]
    usual = _RECIPES.get(data, {}).get(base) or _USUAL["adam" if base in _TRANSFORMERS else "sgd"]
    rule = optimizer or usual.optimizer
    # An optimizer that does not exist is refused by the spec.
    rate = usual.learning_rate if rule == usual.optimizer else _USUAL.get(rule, usual).learning_rate
    return TrainSpec(
        model=model, data=data, scheme=scheme, pattern=_pattern_of(scheme, pattern),
        epochs=usual.epochs if epochs is None else epochs,
        batch=(64 if data in BUNDLED else 128) if batch is None else batch,
        optimizer=rule,
        learning_rate=rate if learning_rate is None else learning_rate,
        weight_decay=_DECAYS.get(rule, 0.0) if weight_decay is None else weight_decay,
        **others,
    )  # fmt: skip


def _pattern_of(name: str, pattern: NMPattern | None) -> NMPattern | None:
    chosen = scheme(name)
    return (pattern or _USUAL_PATTERN) if chosen.sparse or chosen.unstructured else None


def new_model(spec: TrainSpec, data: ImageData | None = None) -> nn.Module:
    """The model of a training before its first step; ``data`` saves opening it again."""
    data = data or open_data(spec.data, image_side(spec.model))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_number(spec, _WEIGHTS))
        widen = widening(spec.scheme, spec.pattern, spec.options.get("density"))
        return classifier(spec.model, data.shape, data.classes, widen)


def step_workload(spec: TrainSpec) -> Workload:
    """One step of the very model that :func:`train` trains, dense, as the machine takes it."""
    from .catalog import trace_module

    data = open_data(spec.data, image_side(spec.model))
    pixels = torch.empty(spec.batch, *data.shape, device="meta")
    labels = torch.zeros(spec.batch, dtype=torch.long, device="meta")

    def loss(output: Any) -> Tensor:
        return functional.cross_entropy(scores(output), labels)

    traced = trace_module(new_model(spec, data), pixels, loss=loss, optimizer=spec.optimizer)
    return replace(traced, model=spec.model)


def train(
    spec: TrainSpec, folder: Path | None = None, *, device: str | None = None, progress: Progress | None = None
) -> TrainResult:
    """Train from the start; with a ``folder``, write a checkpoint and the log there after every epoch.

    ``device`` is a GPU where there is one. ``progress`` is told the steps done and all steps. SIGINT ends the current
    step, writes the checkpoint and raises KeyboardInterrupt. A loss that is not finite, or a model that does not fit
    the data, is an :class:`InputError`; the last good checkpoint stays.
    """
    _require_no_training(folder)
    data = open_data(spec.data, image_side(spec.model))
    with _controlled(_threads(data), _device(device)) as stop:
        # What cannot be trained leaves no folder.
        run = _Run(spec, data, folder, _device(device))
        with _only(folder):
            _require_no_training(folder)
            run.save()
            return _finish(run, stop, progress)


def _require_no_training(folder: Path | None) -> None:
    if folder is not None and (folder / CHECKPOINT).exists():
        raise InputError(f"{folder}: holds a training already; resume it, or name another folder")


def _only(folder: Path | None) -> AbstractContextManager[None]:
    """Two trainings in one folder would write the same checkpoint; one that is just being killed is waited for."""
    return nullcontext() if folder is None else alone(folder, "training", _PATIENCE)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CapturedStep:
    """The GEMMs of one step of a training, in the order in which they were made.

    ``step`` (from 1) of ``steps``; ``loss``: of its batch; ``loss_scale``: what gradients are multiplied by;
    ``left_out``: why the products of other layers with a weight could not be seen.
    """

    spec: TrainSpec
    step: int
    steps: int
    loss: float
    loss_scale: float
    gemms: tuple[StepGemm, ...]
    left_out: dict[str, str]


def capture_step(spec: TrainSpec, progress: Progress | None = None) -> CapturedStep:
    """Train on the CPU, as ``spec`` says, and write down the GEMMs of a step: the last one with the most N:M passes.

    That step is in FP16 mixed precision with a loss scale of 2^10, whatever the ones before it were in.
    """
    data, device = open_data(spec.data, image_side(spec.model)), torch.device("cpu")
    with _controlled(_threads(data), device) as stop:
        run = _Run(spec, data, None, device)
        phases = run.technique.phases

        def sparse_passes(step: int) -> int:
            phase = phase_at(phases, step, run.steps)
            return len(scheme(phase.scheme).sparse) if phase.pattern else 0

        chosen = max(range(run.steps), key=lambda step: (sparse_passes(step), step))
        while run.step < chosen:
            run.advance()
            if run.step % run.per_epoch == 0:
                run._start_epoch()
            if progress is not None:
                progress(run.step, chosen + 1)
            if stop():
                raise KeyboardInterrupt
        run.spec = replace(spec, amp="fp16")
        run.scaler = torch.amp.GradScaler("cpu", init_scale=_CAPTURE_SCALE)
        loss = run.loss_sum
        with observed(run.model, run.technique) as (gemms, left_out):
            run.advance()
        for gemm in gemms:
            finite = np.isfinite(gemm.left).all() and np.isfinite(gemm.right).all()
            run._require_finite(bool(finite), run.step, f"an operand of {gemm.layer} in {gemm.pass_} overflows FP16")
        return CapturedStep(
            spec=spec, step=run.step, steps=run.steps, loss=run.loss_sum - loss, loss_scale=_CAPTURE_SCALE,
            gemms=tuple(gemms), left_out=left_out,
        )  # fmt: skip


def resume(
    folder: Path,
    asked: dict[str, Any] | None = None,
    *,
    device: str | None = None,
    progress: Progress | None = None,
) -> TrainResult:
    """Go on with the training in ``folder`` where its checkpoint was written; a finished one is returned as it is.

    ``asked`` are fields of :class:`TrainSpec` that the caller expects; one that differs is refused with both values.
    Data may have moved to another place, but must be the same data. A checkpoint runs no code that it alone names: the
    model of a user's file must be among what is ``asked``.
    """
    path = folder / CHECKPOINT
    if not path.is_file():
        raise InputError(f"{folder}: is not the folder of a training: it holds no {CHECKPOINT}")
    with _only(folder):
        for name in (CHECKPOINT, LOG, RESULT):
            remove_parts(folder / name)
        return _resumed(folder, load_checkpoint(path, _VERSION), asked or {}, device, progress)


def _resumed(
    folder: Path, state: dict[str, Any], asked: dict[str, Any], device: str | None, progress: Progress | None
) -> TrainResult:
    path = folder / CHECKPOINT
    with _of_checkpoint(path):
        require_outline(state)
    written = read_json(TrainSpec, state["spec"], str(path))
    if is_user(written.model) and "model" not in asked:
        raise InputError(
            f"{folder}: its checkpoint names code to run, {written.model!r}; only what you name yourself is run: "
            f"weft train {shlex.quote(written.model)} --resume {shlex.quote(str(folder))}"
        )
    spec = _expected(folder, written, asked)
    data = open_data(spec.data, image_side(spec.model))
    if data.fingerprint != state["data"]:
        raise InputError(
            f"{folder}: was trained on other data than {spec.data!r} holds now: SHA-256 {state['data'][:12]}..., "
            f"now {data.fingerprint[:12]}..."
        )
    with _controlled(state["threads"], _device(device)) as stop:
        run = _Run(spec, data, folder, _device(device))
        with _of_checkpoint(path), reading("it", "a checkpoint of this training"):
            run.load(state)
        run.save_log()
        return _finish(run, stop, progress)


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
        moved = name == "data" and str(wanted).partition(":")[0] == own.partition(":")[0]
        if wanted != own and not moved:
            raise InputError(
                f"{folder}: holds a training with {name.replace('_', ' ')} {_shown(own)}, not {_shown(wanted)}; "
                "leave it out, or train in another folder"
            )
    return replace(spec, data=asked.get("data", spec.data))


def _shown(value: Any) -> str:
    return "none" if value is None else f"{value!s}"


def _finish(run: _Run, stop: Callable[[], bool], progress: Progress | None) -> TrainResult:
    """The loop."""
    while run.step < run.steps:
        run.advance()
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


def to_dict(result: TrainResult) -> dict[str, Any]:
    """A finished training as one JSON document."""
    spec = {**asdict(result.spec), "pattern": None if result.spec.pattern is None else str(result.spec.pattern)}
    return {
        "spec": spec, "accuracy": result.accuracy, "test_loss": result.test_loss, "validation": result.validation,
        "images": dict(zip(("training", "validation", "test"), result.images, strict=True)),
        "seconds": result.seconds, "device": result.device, "hosts": [asdict(host) for host in result.hosts],
        "digest": result.digest, "sparse_layers": list(result.technique.layers), "kept_dense": result.kept_dense,
        "folder": None if result.folder is None else str(result.folder), "log": [asdict(row) for row in result.log],
    }  # fmt: skip


class _Run:
    """A training between two steps: everything that a checkpoint holds, and how a step changes it."""

    def __init__(self, spec: TrainSpec, data: ImageData, folder: Path | None, device: torch.device) -> None:
        self.spec, self.data, self.folder, self.device = spec, data, folder, device
        images = len(data.train.labels)
        self.per_epoch = images // spec.batch
        if not self.per_epoch:
            raise InputError(f"batch {spec.batch} is larger than the {images} training images of {spec.data!r}")
        self.steps = self.per_epoch * spec.epochs
        self.model = new_model(spec, data)
        self._try_model()
        self.model.to(device)
        self.technique = attach(self.model, spec.scheme, spec.pattern, seed=spec.seed, steps=self.steps, **spec.options)
        self.optimizer = _optimizer(spec, self.model)
        self.scaler = torch.amp.GradScaler(device.type, enabled=spec.amp == "fp16")
        self.step = 0
        self.log: list[EpochLog] = []
        self.hosts = [_host()]
        self._start_epoch()

    def _start_epoch(self) -> None:
        self.loss_sum, self.correct, self.seconds = 0.0, 0, 0.0
        self._order: Tensor | None = None

    def _try_model(self) -> None:
        """Refuse a model that does not fit the data before anything is written; lazy layers get their shapes."""
        pixels = normalised(self.data, self.data.train.fetch(torch.arange(min(2, self.spec.batch))))
        self.model.eval()
        with torch.no_grad():
            found = self._scores(pixels, "on")
        if found.shape != (len(pixels), self.data.classes):
            raise InputError(
                f"model {self.spec.model!r} gives {tuple(found.shape)} for {len(pixels)} images; expected "
                f"{(len(pixels), self.data.classes)}, a score for each class of {self.spec.data!r}"
            )
        if not any(p.requires_grad for p in self.model.parameters()):
            raise InputError(f"model {self.spec.model!r} has no parameter to train")

    def _scores(self, pixels: Tensor, when: str) -> Tensor:
        """What the model makes of ``pixels``; its own errors become one that names it."""
        try:
            return scores(self.model(pixels))
        except InputError:
            raise
        except Exception as error:
            first = "\n".join(str(error).strip().splitlines()[:6])[:500]
            raise InputError(
                f"model {self.spec.model!r} fails {when} images of {' x '.join(map(str, self.data.shape))}: "
                f"{type(error).__name__}: {first}"
            ) from error

    def advance(self) -> None:
        """One step: forward, backward and update on the next batch."""
        begun, spec, step = time.perf_counter(), self.spec, self.step
        pixels, labels = self._batch()
        rate = spec.rate(step, self.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.model.train()
        torch.manual_seed(_number(spec, _STEP, step))
        self.technique.before_step(step)
        with self._autocast():
            found = self._scores(pixels, f"in step {step + 1} on {spec.batch}")
            loss = functional.cross_entropy(found.float(), labels, label_smoothing=spec.label_smoothing)
        value = loss.item()
        self._require_finite(math.isfinite(value), step + 1, f"the loss is {value}")
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(self.scaler.scale(loss))
        self.scaler.unscale_(self.optimizer)
        self.technique.adjust_gradients(step)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.technique.after_step(step, self.optimizer)
        self.loss_sum += value
        self.correct += int((found.argmax(1) == labels).sum())
        self.step += 1
        self.seconds += time.perf_counter() - begun

    def _batch(self) -> tuple[Tensor, Tensor]:
        epoch, number = divmod(self.step, self.per_epoch)
        train, spec = self.data.train, self.spec
        if self._order is None:
            self._order = order(len(train.labels), _generator(spec, _ORDER, epoch))
        index = self._order[number * spec.batch : (number + 1) * spec.batch]
        pixels = augmented(self.data, train.fetch(index), _generator(spec, _AUGMENT, self.step))
        return normalised(self.data, pixels).to(self.device), train.labels[index].to(self.device)

    def _autocast(self) -> torch.autocast:
        dtype = torch.float16 if self.spec.amp == "fp16" else torch.bfloat16
        return torch.autocast(self.device.type, dtype, enabled=self.spec.amp is not None)

    def _require_finite(self, fine: bool, number: int, what: str) -> None:
        """Stop the training unless all is ``fine`` with step ``number`` (from 1)."""
        if fine:
            return
        rate = self.spec.rate(max(number - 1, 0), self.steps)
        scale = f", loss scale {self.scaler.get_scale():g}" if self.scaler.is_enabled() else ""
        kept = "" if self.folder is None else f"; {self.folder / CHECKPOINT} holds the last good state"
        raise InputError(
            f"training diverged in step {number} of {self.steps} (epoch {-(-number // self.per_epoch)}): {what}, at "
            f"learning rate {rate:.3g}{scale}{kept}; train with a smaller learning rate"
        )

    def end_epoch(self) -> None:
        """Validate, and write a line of the log."""
        begun, spec = time.perf_counter(), self.spec
        validation_loss, validation_accuracy = self._measure("validation", self.data.validation)
        images = self.per_epoch * spec.batch
        self.log.append(
            EpochLog(
                epoch=self.step // self.per_epoch, step=self.step, loss=self.loss_sum / self.per_epoch,
                train_accuracy=self.correct / images, validation_loss=validation_loss,
                validation_accuracy=validation_accuracy, learning_rate=spec.rate(self.step - 1, self.steps),
                seconds=self.seconds + time.perf_counter() - begun, **_means(self.technique),
            )
        )  # fmt: skip
        self._start_epoch()

    def _measure(self, name: str, images: Images) -> tuple[float, float]:
        """Mean cross-entropy and accuracy over the set of ``images`` called ``name``."""
        self.model.eval()
        loss, correct = 0.0, 0
        with torch.no_grad(), self._autocast():
            for index in torch.split(torch.arange(len(images.labels)), _TEST_BATCH):
                labels = images.labels[index].to(self.device)
                pixels = normalised(self.data, images.fetch(index)).to(self.device)
                found = self._scores(pixels, f"in the {name} after step {self.step} on {len(index)}").float()
                loss += functional.cross_entropy(found, labels, reduction="sum").item()
                correct += int((found.argmax(1) == labels).sum())
        loss, count = loss / len(images.labels), len(images.labels)
        self._require_finite(math.isfinite(loss), self.step, f"the loss on the {name} set is {loss} after it")
        return loss, correct / count

    def save(self) -> None:
        """Write the checkpoint, then the log that follows from it; a state that is not finite replaces nothing."""
        finite = all(bool(torch.isfinite(held).all()) for held in self.model.state_dict().values())
        self._require_finite(finite, self.step, "a weight is not finite after it")
        if self.folder is None:
            return
        save_checkpoint(self.folder / CHECKPOINT, self.state())
        self.save_log()

    def save_log(self) -> None:
        """Write the log unless it is there: a process may have been killed between its checkpoint and its log."""
        assert self.folder is not None
        path, text = self.folder / LOG, _csv(self.log)
        if not path.is_file() or path.read_bytes() != text:
            write_atomically(path, text)

    def state(self) -> dict[str, Any]:
        """All that decides how the training goes on."""
        return {
            "version": _VERSION, "spec": dump_json(TrainSpec, self.spec).decode(), "data": self.data.fingerprint,
            "threads": torch.get_num_threads(), "step": self.step, "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(), "scaler": self.scaler.state_dict(),
            "technique": self.technique.state_dict(), "log": [asdict(row) for row in self.log],
            "hosts": [asdict(host) for host in self.hosts],
            "epoch": {"loss_sum": self.loss_sum, "correct": self.correct, "seconds": self.seconds},
        }  # fmt: skip

    def load(self, state: dict[str, Any]) -> None:
        """Go on from ``state``, which is refused where this training could not have written it."""
        require_state(
            state, self.state(), optimizer=self.optimizer, rule=self.spec.optimizer,
            rate=lambda step: self.spec.rate(step, self.steps), per_epoch=self.per_epoch, steps=self.steps,
            row=EpochLog, weights={name: layer.weight for name, layer in self.technique.layers.items()},
        )  # fmt: skip
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.scaler.is_enabled():
            self.scaler.load_state_dict(state["scaler"])
        self.technique.load_state_dict(state["technique"])
        self.step, self.log = state["step"], [EpochLog(**row) for row in state["log"]]
        before = [Host(**host) for host in state["hosts"]]
        self.hosts = before if self.hosts[0] == before[-1] else before + self.hosts
        for name, value in state["epoch"].items():
            setattr(self, name, value)

    def result(self) -> TrainResult:
        """Test, and write what came of the training."""
        test_loss, accuracy = self._measure("test", self.data.test)
        data = self.data
        images = (len(data.train.labels), len(data.validation.labels), len(data.test.labels))
        found = TrainResult(
            spec=self.spec, log=tuple(self.log), test_loss=test_loss, accuracy=accuracy, images=images,
            digest=digest(dict(self.model.state_dict())), device=str(self.device), hosts=tuple(self.hosts),
            kept_dense=dict(self.technique.kept_dense), folder=self.folder, model=self.model, technique=self.technique,
        )  # fmt: skip
        if self.folder is not None:
            text = json.dumps(to_dict(found), indent=1, allow_nan=False) + "\n"
            write_atomically(self.folder / RESULT, text.encode())
        return found


def _host() -> Host:
    return Host(
        processor=processor_name(), core=core_name(), vector=torch.backends.cpu.get_cpu_capability(),
        torch=str(torch.__version__), threads=torch.get_num_threads(),
    )  # fmt: skip


def _optimizer(spec: TrainSpec, model: nn.Module) -> torch.optim.Optimizer:
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.dim() > 1], "weight_decay": spec.weight_decay},
        {"params": [p for p in trained if p.dim() < 2], "weight_decay": 0.0},
    ]
    if spec.optimizer == "sgd":
        return torch.optim.SGD(groups, spec.learning_rate, momentum=0.9, nesterov=True)
    return torch.optim.AdamW(groups, spec.learning_rate)


def _means(technique: Technique) -> dict[str, float]:
    """Rates and densities over all weights of the layers at work."""
    found = technique.metrics()
    sizes = {name: technique.layers[name].weight.numel() for name in found}
    return {
        key: sum(getattr(found[name], key) * size for name, size in sizes.items()) / max(sum(sizes.values()), 1)
        for key in ("flip_rate", "sad", "density_ff", "density_bp", "density_wu")
    }


def _csv(log: list[EpochLog]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, [f.name for f in fields(EpochLog)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in log)
    return text.getvalue().encode()


def _number(spec: TrainSpec, purpose: int, index: int = 0) -> int:
    """Seed of the random numbers for one purpose in one epoch or step."""
    return int(np.random.SeedSequence((spec.seed, purpose, index)).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _generator(spec: TrainSpec, purpose: int, index: int) -> torch.Generator:
    return torch.Generator().manual_seed(_number(spec, purpose, index))


def _threads(data: ImageData) -> int:
    """One thread for small images: threads cost more than they bring there, and sums do not depend on the machine's."""
    return 1 if data.shape[1] <= SMALL_SIDE else torch.get_num_threads()


def _device(name: str | None) -> torch.device:
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"device {name!r} is unknown; choose cpu or cuda") from None
    if device.type not in ("cpu", "cuda") or (device.type == "cuda" and not torch.cuda.is_available()):
        raise InputError(f"device {name!r} is not there; choose cpu")
    return device


@contextmanager
def _controlled(threads: int, device: torch.device) -> Iterator[Callable[[], bool]]:
    """Repeatable arithmetic, random numbers of our own, and SIGINT as a wish: yields whether it came."""
    gpu = device.type == "cuda"
    if gpu:
        # cuBLAS sums in a fixed order only with a workspace of fixed size (cuBLAS manual, results reproducibility).
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    strict, warns = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    threads_before = torch.get_num_threads()
    # Some CUDA kernels have no repeatable form; there PyTorch warns once and goes on.
    torch.use_deterministic_algorithms(True, warn_only=gpu)
    torch.set_num_threads(threads)
    try:
        with torch.random.fork_rng(devices=[device] if gpu else []), asked_to_stop() as stop:
            yield stop
    finally:
        torch.use_deterministic_algorithms(strict, warn_only=warns)
        torch.set_num_threads(threads_before)
