"""A classifier trained, shrunk, and trained on a little."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, assert_never

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..data import ImageData, open_data
from ..errors import InputError, require_int
from ..models.classifier import image_side, scores
from ..models.module import module_source
from ..models.supernet import SuperNet
from ..one_line import OneLine
from ..step import Workload
from ..trace import trace_step, trace_use
from ..training.control import controlled, threads_for
from ..training.loop import train
from ..training.model import new_model
from ..training.plan import plan
from ..training.run import Run
from ..training.spec import TrainSpec
from ..words import named
from .channels import pruned_channels
from .factors import cut_pairs, factored, paired, parameter_count
from .form import Asked
from .tokens import fewer_tokens
from .trained import ordered_dropout, rank_pruning

__all__ = ["Layer", "Shrunk", "shrink"]

_SLOWER = 0.1
"""Of the learning rate of the training, that of the tuning (assumed)."""
_OF_PAIRS = 0.5
"""Of the usual learning rate, that of pairs of factors trained as such: `mlp` diverges at the usual one."""
_SHORTER = 4
"""Epochs of a training are so many times those of the tuning unless told (assumed)."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Layer:
    """Shapes of a weight before and after; two of them where it became two factors, none where it is gone."""

    name: str
    before: tuple[int, ...]
    after: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Shrunk(OneLine):
    """A shrunk model.

    Accuracies are of the test set: of the model as it was ``trained``, right after it was ``cut``, and ``tuned``.
    ``parameters`` before and after; ``spec`` is of the training, ``tuning`` of what came behind the cut.
    """

    asked: Asked
    spec: TrainSpec
    tuning: TrainSpec
    trained: float
    cut: float
    tuned: float
    parameters: tuple[int, int]
    layers: tuple[Layer, ...]
    shape: tuple[int, int, int]
    module: nn.Module = field(repr=False, compare=False)

    def step(self, use: str = "train", batch: int | None = None) -> Workload:
        """What the small model does in one step, of training or (``infer``) of use, dense, on ``batch`` images; as many
        as it trained on, or one, if none."""
        if use not in ("train", "infer"):
            raise InputError(f"a shrunk classifier is there to train or to infer, not to {use}")
        if batch is not None:
            require_int("batch", batch, 1, 2**20)
        count = batch or (self.spec.batch if use == "train" else 1)
        pixels = torch.empty(count, *self.shape, device="meta")
        source = module_source(self.module, pixels, _loss)
        made = trace_step(source, optimizer=self.spec.optimizer) if use == "train" else trace_use(source, "infer")
        return replace(made, model=f"{self.spec.model} {self.asked}")

    def _said(self) -> str:
        before, after = self.parameters
        return (
            f"{named(self.spec.model)} on {named(self.spec.data)}, {self.asked}: {before:,} to {after:,} parameters, "
            f"{100 * self.trained:.2f} % of the test images as trained, {100 * self.cut:.2f} cut, "
            f"{100 * self.tuned:.2f} tuned"
        )


def _loss(output: Any) -> Tensor:
    found = scores(output)
    return functional.cross_entropy(found, torch.zeros(len(found), dtype=torch.long, device=found.device))


def shrink(
    model: str,
    by: Asked | str,
    *,
    tune: int | None = None,
    device: str | None = None,
    progress: Progress | None = None,
    **others: Any,
) -> Shrunk:
    """Train ``model``, shrink it ``by`` a form such as ``channels@0.5``, and train it on for ``tune`` epochs at a tenth
    of the rate; a quarter of the training's if None.

    ``others``: as `plan` takes them, but for a scheme. SIGINT raises KeyboardInterrupt.
    """
    asked = Asked.read(by) if isinstance(by, str) else by
    if asked.form.name == "slice":
        raise InputError(
            f"{asked} is of a residual stream of a model of text, characters; {model!r} takes channels@0.5"
        )
    spec = plan(model, scheme="dense", **others)
    if asked.form.name == "maestro" and others.get("learning_rate") is None:
        spec = replace(spec, learning_rate=_OF_PAIRS * spec.learning_rate)
    tune = max(spec.epochs // _SHORTER, 1) if tune is None else tune
    require_int("epochs of tuning", tune, 1, 10**6)
    tuning = replace(spec, epochs=tune, learning_rate=_SLOWER * spec.learning_rate)
    data = open_data(spec.data, image_side(model))
    with controlled(threads_for(data), torch.device("cpu")):
        fresh = new_model(spec, data)
        before, parameters = _shapes(fresh), parameter_count(fresh)
        whole = _started(spec, fresh, asked)
    per_epoch, done = len(data.train.labels) // spec.batch, 0

    def told(step: int, _: int) -> None:
        if progress is not None:
            progress(done + step, per_epoch * (spec.epochs + tune))

    found = train(spec, device=device, progress=told, model=whole, beside=_beside(whole, spec, asked))
    done = per_epoch * spec.epochs
    found.technique.detach()
    with controlled(threads_for(data), torch.device("cpu")):
        small = _cut(found.model.cpu(), data, asked)
        cut = _accuracy(tuning, data, small)
    tuned = train(tuning, device=device, progress=told, model=small)
    tuned.technique.detach()
    return Shrunk(
        asked=asked,
        spec=spec,
        tuning=tuning,
        trained=found.accuracy,
        cut=cut,
        tuned=tuned.accuracy,
        parameters=(parameters, parameter_count(small)),
        layers=_compared(before, _shapes(small)),
        shape=data.shape,
        module=small.cpu().eval(),
    )


def _started(spec: TrainSpec, model: nn.Module, asked: Asked) -> nn.Module:
    if isinstance(model, SuperNet):
        raise InputError(f"model {spec.model!r} shrinks by itself, to its sub-networks; choose another")
    return paired(model) if asked.form.name == "maestro" else model


def _beside(model: nn.Module, spec: TrainSpec, asked: Asked) -> Progress | None:
    match asked.form.name:
        case "channels" | "scales" | "rank" | "tokens" | "core" | "slice":
            return None
        case "trp":
            return rank_pruning(model, spec, asked.share)
        case "maestro":
            return ordered_dropout(model, spec)
        case _:
            assert_never(asked.form.name)


def _cut(model: nn.Module, data: ImageData, asked: Asked) -> nn.Module:
    match asked.form.name:
        case "channels" | "scales":
            pixels = torch.zeros(2, *data.shape)
            return pruned_channels(model, pixels, asked.share, together=asked.form.name == "scales", output=scores)
        case "rank" | "trp":
            return factored(model, asked.share)
        case "maestro":
            return cut_pairs(model, asked.share)
        case "tokens" | "core":
            return fewer_tokens(model, asked.form.name, asked.share)
        case "slice":
            raise AssertionError("refused before")
        case _:
            assert_never(asked.form.name)


def _accuracy(spec: TrainSpec, data: ImageData, model: nn.Module) -> float:
    """Of the test images, as `train` measures it."""
    run = Run(spec, data, None, torch.device("cpu"), model=model)
    _, accuracy = run.measure("test", data.test)
    run.technique.detach()
    return accuracy


def _shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Of weights of two axes or more, by the path of their layer."""
    return {
        name.removesuffix(".weight"): tuple(p.shape)
        for name, p in model.named_parameters()
        if name.endswith(".weight") and p.dim() > 1
    }


def _compared(before: dict[str, tuple[int, ...]], after: dict[str, tuple[int, ...]]) -> tuple[Layer, ...]:
    rows = []
    for name, shape in before.items():
        places = (name, f"{name}.first", f"{name}.second")
        rows.append(Layer(name, shape, tuple(after[place] for place in places if place in after)))
    return tuple(rows)
