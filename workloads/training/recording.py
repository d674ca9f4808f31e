"""Masks of the network that a training ended with: of the weights of its scheme, and of inputs that hold zeros."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ..checkpoint import digest
from ..data import ImageData, normalised, open_data
from ..errors import InputError, require_int
from ..gemm import Pass
from ..models.classifier import classifier, image_side, scores
from ..models.source import ModelSource
from ..models.vision import image_inputs, pixel_loss
from ..recorded import Recorded
from ..schemes.groups import GroupMagnitude
from ..schemes.scheme import scheme, widening
from ..schemes.technique import Technique
from ..step import Workload
from .control import controlled, threads_for
from .loop import train, trained
from .spec import TrainSpec

__all__ = ["SAID", "TOKENS", "hearing", "inputs_seen", "linear_layers", "record", "record_folder", "recorded_step"]

TOKENS = 256
"""Rows of an input that are kept unless told; images, of a classifier."""
SAID = "exactly zero"

Mask = npt.NDArray[np.bool_]
Kept = Callable[[str, Tensor], Tensor]
"""Of the input [..., inputs] of a layer: which elements are kept; bool of that shape."""


def record(
    spec: TrainSpec,
    *,
    tokens: int = TOKENS,
    device: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Recorded:
    """Train as ``spec`` says and keep the masks of the weights that its scheme left, and of inputs of linear layers
    that hold zeros, over ``tokens`` rows of the test set. SIGINT raises KeyboardInterrupt."""
    _require(spec, tokens)
    found = train(spec, device=device, progress=progress)
    data = open_data(spec.data, image_side(spec.model))
    return _recorded(found.model.cpu(), found.technique, spec, data, found.accuracy, tokens)


def record_folder(folder: Path, *, tokens: int = TOKENS, asked: dict[str, Any] | None = None) -> Recorded:
    """The same of the finished training in ``folder``; ``asked`` as of `resume`."""
    run = trained(folder, asked)
    _require(run.spec, tokens)
    with controlled(threads_for(run.data), torch.device("cpu")):
        _, accuracy = run.measure("test", run.data.test)
        return _recorded(run.model, run.technique, run.spec, run.data, accuracy, tokens)


def recorded_step(recorded: Recorded, batch: int | None = None) -> Workload:
    """A call of the very model that was recorded, on ``batch`` images, 1 if none, dense."""
    from ..trace import trace_use

    about = recorded.about
    channels, height, width = about.shape
    source = ModelSource(
        name=about.model,
        title=about.model,
        build=partial(classifier, about.model, (channels, height, width), about.classes, about.widen),
        inputs=partial(image_inputs, name=about.model, default=1, shape=(channels, height, width)),
        loss=pixel_loss,
    )
    return trace_use(source, "infer", batch=batch)


def _require(spec: TrainSpec, tokens: int) -> None:
    require_int("tokens to record", tokens, 1, 2**20)
    if scheme(spec.scheme).levels:
        raise InputError(
            f"scheme {spec.scheme!r} has operands of few values and leaves no zeros to record: choose one of N:M or "
            "without a pattern, such as erk"
        )


def _recorded(
    model: nn.Module, technique: Technique, spec: TrainSpec, data: ImageData, accuracy: float, tokens: int
) -> Recorded:
    masks: list[tuple[str, Literal["weight", "input"], Mask]] = [
        (layer.name, "weight", _mask(layer.canonical(layer.operand(Pass.FF)) != 0))
        for layer in technique.layers.values()
        if Pass.FF in layer.passes
    ]
    with inputs_seen(model, lambda _, x: x != 0, tokens) as seen, torch.no_grad():
        model.eval()
        scores(model(normalised(data, data.test.fetch(torch.arange(min(tokens, len(data.test.labels)))))))
    # An input without a zero says nothing.
    masks += [(name, "input", mask) for name, mask in seen.items() if not mask.all()]
    if not masks:
        raise InputError(f"{spec.model!r} under {spec.scheme!r} has no zeros to record, in weights or inputs")
    return Recorded.made(
        masks,
        model=spec.model,
        data=spec.data,
        scheme=spec.scheme,
        pattern=spec.pattern,
        weights=digest(dict(model.state_dict())),
        examples=data.fingerprint,
        shape=data.shape,
        classes=data.classes,
        widen=widening(spec.scheme, spec.pattern, spec.options.get("density")),
        said=SAID,
        score=accuracy,
        kept_dense=dict(technique.kept_dense),
        groups=technique.shape if isinstance(technique, GroupMagnitude) else None,
        level=technique.scheme.level,
    )


def _mask(canonical: Tensor) -> Mask:
    """[groups, outputs, inputs, taps] as lines of the machine, whose channels lie side by side."""
    groups, outputs, inputs, taps = canonical.shape
    found: Mask = canonical.transpose(2, 3).reshape(groups * outputs, taps * inputs).cpu().numpy()
    return found


@contextmanager
def hearing(
    layers: Iterable[tuple[str, nn.Module]], hear: Callable[[str, nn.Module, tuple[Any, ...]], Any]
) -> Iterator[None]:
    """While it is open, ``hear`` gets path, layer and arguments before every call of one of ``layers``; what it returns
    takes the place of the arguments, unless that is None."""
    hooks = [module.register_forward_pre_hook(partial(hear, name)) for name, module in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def linear_layers(model: nn.Module) -> list[tuple[str, nn.Linear]]:
    """By their paths."""
    return [(name, module) for name, module in model.named_modules() if isinstance(module, nn.Linear)]


@contextmanager
def inputs_seen(model: nn.Module, kept: Kept, tokens: int) -> Iterator[dict[str, Mask]]:
    """While it is open, what ``kept`` says of the first ``tokens`` rows that every linear layer reads, by its path;
    bool [tokens, inputs], complete when it closes."""
    seen: dict[str, list[Tensor]] = {}
    found: dict[str, Mask] = {}

    def look(name: str, _: nn.Module, args: tuple[Any, ...]) -> None:
        rows = kept(name, args[0].detach()).flatten(0, -2)
        room = tokens - sum(map(len, seen.setdefault(name, [])))
        seen[name].append(rows[: max(room, 0)].cpu())

    with hearing(linear_layers(model), look):
        yield found
        found.update({name: torch.cat(rows).numpy() for name, rows in seen.items()})
