"""A training between two steps: what a checkpoint holds, and how a step changes it."""

from __future__ import annotations

import csv
import io
import json
import math
import time
from contextlib import AbstractContextManager
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..checkpoint import digest, save_checkpoint
from ..data import ImageData, Images, augmented, normalised, order
from ..errors import InputError
from ..files import write_atomically
from ..host import Host
from ..models.classifier import scores
from ..models.supernet import SuperNet
from ..schemes import attach
from ..schemes.float8 import Float8, require_roundable
from ..schemes.technique import Technique
from ..strict import dump_json
from ..update_rule import ADAMW, NESTEROV
from .control import this_host
from .model import new_model
from .numerics import NumericsOf, Replaced, require_replaceable
from .seeds import AUGMENT, ORDER, STEP, generator_of, seed_of
from .spec import EpochLog, TrainResult, TrainSpec, to_dict
from .state import require_state
from .supernet import estimated, on_path, paths_of, require_stateless

__all__ = ["CHECKPOINT", "LOG", "OLDER", "RESULT", "VERSION", "Run"]

CHECKPOINT, LOG, RESULT = "checkpoint.pt", "log.csv", "result.json"
VERSION = 3
OLDER = {2: {"sgd": NESTEROV.name, "adam": ADAMW.name}}
"""Versions that are read too, each with the rules that it called by other names: what it trained was these."""

_TEST_BATCH = 256


class Run:
    """A training between two steps: everything that a checkpoint holds, and how a step changes it."""

    def __init__(
        self,
        spec: TrainSpec,
        data: ImageData,
        folder: Path | None,
        device: torch.device,
        numerics_of: NumericsOf | None = None,
        model: nn.Module | None = None,
    ) -> None:
        """``model``: what is trained, of the spec's name but of other shapes; None for the spec's own."""
        self.spec, self.data, self.folder, self.device = spec, data, folder, device
        images = len(data.train.labels)
        self.per_epoch = images // spec.batch
        if not self.per_epoch:
            raise InputError(f"batch {spec.batch} is larger than the {images} training images of {spec.data!r}")
        self.steps = self.per_epoch * spec.epochs
        self.model = new_model(spec, data) if model is None else model
        self._try_model()
        self.model.to(device)
        self.replaced = self._replaced(numerics_of)
        self.technique = attach(self.model, spec.scheme, spec.pattern, seed=spec.seed, steps=self.steps, **spec.options)
        if spec.amp == "fp8":
            self._require_fp8()
        if isinstance(self.model, SuperNet):
            require_stateless(self.technique)
        elif spec.paths > 1:
            raise InputError(
                f"paths must be 1 for model {spec.model!r}, not {spec.paths}: only a super-network has several"
            )
        if self.replaced is not None:
            self.replaced.attach(self.technique)
        self.optimizer = _optimizer(spec, self.model)
        self.scaler = torch.amp.GradScaler(device.type, enabled=spec.scales_loss)
        self.step = 0
        self.log: list[EpochLog] = []
        self.hosts = [this_host()]
        self.start_epoch()

    def _require_fp8(self) -> None:
        require_roundable(self.model)
        if self.technique.scheme.levels:
            raise InputError(
                f"amp 'fp8' rounds real operands, but scheme {self.spec.scheme!r} has operands of few values: leave "
                "amp out"
            )

    def _replaced(self, numerics_of: NumericsOf | None) -> Replaced | None:
        """Who computes in PyTorch's place, if anybody."""
        if self.spec.numerics == "torch":
            return None
        require_replaceable(self.spec, self.device)
        if numerics_of is None:
            raise InputError(f"numerics {self.spec.numerics!r} must be given where a training begins or goes on")
        return Replaced(self.spec, self.model, self.data, numerics_of(self.spec.numerics))

    def rate(self, step: int) -> float:
        """Learning rate of ``step`` (from 0)."""
        return self.spec.rate(*self.technique.clock(step))

    def start_epoch(self) -> None:
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
        rate = self.rate(step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.model.train()
        torch.manual_seed(seed_of(spec, STEP, step))
        self.technique.before_step(step)
        value, found = (self._by_torch if self.replaced is None else self._by_others)(pixels, labels)
        self.technique.after_step(step, self.optimizer)
        self.loss_sum += value
        self.correct += int((found.argmax(1) == labels).sum())
        self.step += 1
        self.seconds += time.perf_counter() - begun

    def _by_torch(self, pixels: Tensor, labels: Tensor) -> tuple[float, Tensor]:
        """Forward, backward and update by PyTorch: the loss and the scores."""
        self.optimizer.zero_grad(set_to_none=True)
        if isinstance(self.model, SuperNet):
            (path, side), *others = paths_of(self.spec, self.step, self.model.sides)
            with on_path(self.model, self.technique, path, side):
                found, value = self._descend(pixels, labels)
            for path, side in others:
                with on_path(self.model, self.technique, path, side):
                    self._descend(pixels, found.softmax(1))
        else:
            found, value = self._descend(pixels, labels)
        self.scaler.unscale_(self.optimizer)
        self.technique.adjust_gradients(self.step)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return value, found

    def _descend(self, pixels: Tensor, targets: Tensor) -> tuple[Tensor, float]:
        """Add the gradient of the cross-entropy to ``targets``, classes or their probabilities; scores and loss."""
        with self._autocast():
            found = self._scores(pixels, f"in step {self.step + 1} on {self.spec.batch}").float()
            loss = self._loss(found, targets)
        torch.autograd.backward(self.scaler.scale(loss))
        return found.detach(), loss.item()

    def _by_others(self, pixels: Tensor, labels: Tensor) -> tuple[float, Tensor]:
        """The same in other numerics."""
        assert self.replaced is not None, "chosen by advance"
        begun = self.replaced.begin(pixels)
        found = torch.from_numpy(begun.scores).requires_grad_()
        loss = self._loss(found, labels)
        self.optimizer.zero_grad(set_to_none=True)
        self.replaced.finish(begun, loss, found, self.optimizer, self.scaler)
        return loss.item(), found.detach()

    def _loss(self, found: Tensor, targets: Tensor) -> Tensor:
        loss = functional.cross_entropy(found, targets, label_smoothing=self.spec.label_smoothing)
        self.require_finite(math.isfinite(loss.item()), self.step + 1, f"the loss is {loss.item()}")
        return loss

    def estimate(self) -> None:
        """Estimate the statistics of the batch norms anew, from training images as they are."""
        with torch.no_grad(), self._autocast():
            estimated(self.model, self.data, self.device)

    def _batch(self) -> tuple[Tensor, Tensor]:
        epoch, number = divmod(self.step, self.per_epoch)
        train, spec = self.data.train, self.spec
        if self._order is None:
            self._order = order(len(train.labels), generator_of(spec, ORDER, epoch))
        index = self._order[number * spec.batch : (number + 1) * spec.batch]
        pixels = augmented(self.data, train.fetch(index), generator_of(spec, AUGMENT, self.step))
        return normalised(self.data, pixels).to(self.device), train.labels[index].to(self.device)

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.spec.amp == "fp8":
            return Float8()
        dtype = torch.float16 if self.spec.amp == "fp16" else torch.bfloat16
        return torch.autocast(self.device.type, dtype, enabled=self.spec.amp is not None)

    def require_finite(self, fine: bool, number: int, what: str) -> None:
        """Stop the training unless all is ``fine`` with step ``number`` (from 1)."""
        if fine:
            return
        rate = self.rate(max(number - 1, 0))
        scale = f", loss scale {self.scaler.get_scale():g}" if self.scaler.is_enabled() else ""
        kept = "" if self.folder is None else f"; {self.folder / CHECKPOINT} holds the last good state"
        raise InputError(
            f"training diverged in step {number} of {self.steps} (epoch {-(-number // self.per_epoch)}): {what}, at "
            f"learning rate {rate:.3g}{scale}{kept}; train with a smaller learning rate"
        )

    def end_epoch(self) -> None:
        """Validate, and write a line of the log."""
        begun, spec = time.perf_counter(), self.spec
        if isinstance(self.model, SuperNet):
            self.estimate()
        validation_loss, validation_accuracy = self.measure("validation", self.data.validation)
        images = self.per_epoch * spec.batch
        self.log.append(
            EpochLog(
                epoch=self.step // self.per_epoch,
                step=self.step,
                loss=self.loss_sum / self.per_epoch,
                train_accuracy=self.correct / images,
                validation_loss=validation_loss,
                validation_accuracy=validation_accuracy,
                learning_rate=self.rate(self.step - 1),
                seconds=self.seconds + time.perf_counter() - begun,
                **_means(self.technique),
            )
        )
        self.start_epoch()

    def measure(self, name: str, images: Images) -> tuple[float, float]:
        """Mean cross-entropy and accuracy over the set of ``images`` called ``name``."""
        self.model.eval()
        loss, correct = 0.0, 0
        with torch.no_grad(), self._autocast():
            for index in torch.split(torch.arange(len(images.labels)), _TEST_BATCH):
                labels = images.labels[index].to(self.device)
                pixels = normalised(self.data, images.fetch(index)).to(self.device)
                if self.replaced is None:
                    found = self._scores(pixels, f"in the {name} after step {self.step} on {len(index)}").float()
                else:
                    found = self.replaced.scores(pixels)
                loss += functional.cross_entropy(found, labels, reduction="sum").item()
                correct += int((found.argmax(1) == labels).sum())
        loss, count = loss / len(images.labels), len(images.labels)
        self.require_finite(math.isfinite(loss), self.step, f"the loss on the {name} set is {loss} after it")
        return loss, correct / count

    def save(self) -> None:
        """Write the checkpoint, then the log that follows from it; a state that is not finite replaces nothing."""
        finite = all(bool(torch.isfinite(held).all()) for held in self.model.state_dict().values())
        self.require_finite(finite, self.step, "a weight is not finite after it")
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
            "version": VERSION,
            "spec": dump_json(TrainSpec, self.spec).decode(),
            "data": self.data.fingerprint,
            "threads": torch.get_num_threads(),
            "step": self.step,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "technique": self.technique.state_dict(),
            "log": [asdict(row) for row in self.log],
            "hosts": [asdict(host) for host in self.hosts],
            "epoch": {"loss_sum": self.loss_sum, "correct": self.correct, "seconds": self.seconds},
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on from ``state``, which is refused where this training could not have written it."""
        require_state(
            state,
            self.state(),
            optimizer=self.optimizer,
            rule=self.spec.rule,
            rate=self.rate,
            per_epoch=self.per_epoch,
            steps=self.steps,
            row=EpochLog,
            weights={name: layer.weight for name, layer in self.technique.layers.items()},
            planes=self.technique.planes,
        )
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
        test_loss, accuracy = self.measure("test", self.data.test)
        data = self.data
        images = (len(data.train.labels), len(data.validation.labels), len(data.test.labels))
        found = TrainResult(
            spec=self.spec,
            log=tuple(self.log),
            test_loss=test_loss,
            accuracy=accuracy,
            images=images,
            digest=digest(dict(self.model.state_dict())),
            device=str(self.device),
            hosts=tuple(self.hosts),
            kept_dense=dict(self.technique.kept_dense),
            folder=self.folder,
            model=self.model,
            technique=self.technique,
            measure=self.measure,
        )
        if self.folder is not None:
            text = json.dumps(to_dict(found), indent=1, allow_nan=False) + "\n"
            write_atomically(self.folder / RESULT, text.encode())
        return found


def _optimizer(spec: TrainSpec, model: nn.Module) -> torch.optim.Optimizer:
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.dim() > 1], "weight_decay": spec.weight_decay},
        {"params": [p for p in trained if p.dim() < 2], "weight_decay": 0.0},
    ]
    by = spec.rule.trained
    made: torch.optim.Optimizer = getattr(torch.optim, by.optimizer)(groups, spec.learning_rate, **by.settings)
    return made


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
