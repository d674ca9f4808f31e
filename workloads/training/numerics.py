"""A training in other arithmetic than PyTorch's: forward, backward and update are made elsewhere, as a `Graph` says.

Batches, initial weights, loss, learning rates, loss scaling and checkpoints are those of every training. Who computes
is given from above (`Numerics`), since nothing here may know a machine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ..data import ImageData
from ..errors import InputError, nearest
from ..gemm import GEMM_PASSES, Pass
from ..graph import BY_MAGNITUDE, Graph, annotated
from ..models.supernet import SuperNet
from ..schemes.annotate import annotate
from ..schemes.float8 import FORWARD, unscaled
from ..schemes.technique import Technique
from ..step import Measured, Workload
from ..tracing.graph import forward_graph, step_graph
from ..update_rule import UpdateRule
from .model import step_workload
from .spec import TrainSpec

__all__ = ["Begun", "Numerics", "NumericsOf", "Replaced", "require_replaceable"]

Single = npt.NDArray[np.float32]
Half = npt.NDArray[Any]

_DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp8": FORWARD}


class Begun(Protocol):
    """A step whose scores are there: float32 [batch, classes]."""

    @property
    def scores(self) -> Single: ...

    def gradients(self, gradient: Single) -> tuple[dict[str, Half], dict[str, Single]]:
        """Of the gradient of the scores, float32 of their shape: the gradients of the parameters, operands of any
        shape, theirs, and what buffers become, float32 of any shape."""
        ...


class Numerics(Protocol):
    """What computes: the products, the work between them, and the update."""

    @property
    def format(self) -> str:
        """Of operands: ``fp16``, ``bf16`` or ``fp8``."""
        ...

    def begin(self, graph: Graph, held: Mapping[str, Single], pixels: Single) -> Begun:
        """Begin a step with parameters and buffers by name and a batch, float32 of any shape; or do a forward pass."""
        ...

    def update(
        self, rule: UpdateRule, settings: Mapping[str, float], master: Single, gradient: Half, state: tuple[Single, ...]
    ) -> tuple[Single, ...]:
        """The new weight and state of a parameter, float32 of any shape; ``gradient`` is an operand, scaled.

        ``settings``: learning rate, inverse scale and what else the rule has, by the names that it has there; for a
        rule that counts them, the number of the step, from 1.
        """
        ...


NumericsOf = Callable[[str], Numerics]
"""The numerics that a `TrainSpec` names."""


def require_replaceable(spec: TrainSpec, device: torch.device) -> None:
    """Refuse what no other arithmetic than PyTorch's can train yet."""
    if spec.scheme not in BY_MAGNITUDE:
        raise InputError(
            f"numerics {spec.numerics!r} train no scheme {spec.scheme!r}: {nearest(spec.scheme, BY_MAGNITUDE)}"
        )
    decay = spec.options.get("decay", 2e-4 if spec.scheme == "srste" else 0.0)
    if decay:
        raise InputError(
            f"numerics {spec.numerics!r} have no decay of what a scheme drops, which WUVE does not know, but scheme "
            f"{spec.scheme!r} has {decay:g}: give --option decay=0"
        )
    if device.type != "cpu":
        raise InputError(f"numerics {spec.numerics!r} run on the CPU, not on {device.type}: give --device cpu")


class Replaced:
    """The model of a training at work in other numerics; its parameters and buffers stay those of ``model``."""

    def __init__(self, spec: TrainSpec, model: nn.Module, data: ImageData, numerics: Numerics) -> None:
        if isinstance(model, SuperNet):
            raise InputError(f"model {spec.model!r} is another network every step; numerics {spec.numerics!r} run one")
        self._spec, self._model, self._numerics = spec, model, numerics
        # Captured before a technique is attached, which multiplies in its own way.
        pixels = torch.empty(spec.batch, *data.shape)
        self._step = step_graph(model, pixels, name=spec.model)
        self._forward = forward_graph(model, pixels, name=spec.model)

    def attach(self, technique: Technique) -> None:
        """Keep of weights and gradients what ``technique``, which is at work on the model, would keep."""
        self._technique = technique
        asked = _annotated(self._spec, technique)
        self._step, self._forward = annotated(self._step, asked), annotated(self._forward, asked)

    def scores(self, pixels: Tensor) -> Tensor:
        """In evaluation mode, float32 [images, classes], of ``pixels`` float32 [images, ...], as many as there are."""
        found = []
        for part in torch.split(pixels, self._spec.batch):
            # Images do not meet in evaluation, so a batch can be filled up.
            full = torch.cat((part, part.new_zeros(self._spec.batch - len(part), *part.shape[1:])))
            begun = self._numerics.begin(self._forward, self._held(), full.numpy())
            found.append(torch.from_numpy(begun.scores[: len(part)]))
        return torch.cat(found)

    def _held(self) -> dict[str, Single]:
        named = (*self._model.named_parameters(), *self._model.named_buffers())
        return {name: tensor.detach().numpy() for name, tensor in named if tensor.is_floating_point()}

    def begin(self, pixels: Tensor) -> Begun:
        """Forward of a training step, ``pixels`` float32 [batch, ...]."""
        with unscaled():
            for layer in self._technique.layers.values():
                # The technique watches its masks where they are made.
                for pass_ in (Pass.FF, Pass.BP):
                    layer.operand(pass_, _DTYPES[self._numerics.format])
        return self._numerics.begin(self._step, self._held(), pixels.numpy())

    def finish(
        self, begun: Begun, loss: Tensor, found: Tensor, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler
    ) -> None:
        """Backward and update of a step whose ``loss``, a scalar, is made of the scores ``found`` [batch, classes],
        both float32."""
        torch.autograd.backward(scaler.scale(loss))
        assert found.grad is not None, "the loss is made of the scores"
        gradients, buffers = begun.gradients(found.grad.numpy())
        self._become(buffers)
        parameters = dict(self._model.named_parameters())
        for name, gradient in gradients.items():
            parameters[name].grad = torch.from_numpy(gradient.astype(np.float32))
        scaler.unscale_(optimizer)
        inverse = 1.0 / scaler.get_scale()

        def update(closure: object = None) -> None:
            self._update(optimizer, {parameters[name]: g for name, g in gradients.items()}, inverse)

        # The scaler calls it unless a gradient is not finite.
        own = optimizer.step
        optimizer.step = update  # type: ignore[method-assign, assignment]
        try:
            scaler.step(optimizer)
        finally:
            optimizer.step = own  # type: ignore[method-assign]
        scaler.update()

    def _become(self, buffers: Mapping[str, Single]) -> None:
        held = dict(self._model.named_buffers())
        for name, value in buffers.items():
            held[name].copy_(torch.from_numpy(value))
        for name in self._step.counters:
            held[name] += 1

    def _update(self, optimizer: torch.optim.Optimizer, gradients: Mapping[nn.Parameter, Half], inverse: float) -> None:
        rule = self._spec.rule
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                kept = optimizer.state[parameter]
                for held in rule.state:
                    if held.in_torch not in kept:
                        kept[held.in_torch] = torch.zeros_like(parameter)
                settings = {"rate": group["lr"], "inverse_scale": inverse, "weight_decay": group["weight_decay"]}
                if rule.trained.counts_steps:
                    kept["step"] = kept.get("step", torch.zeros(())) + 1
                    settings |= {"step": int(kept["step"]), "beta1": group["betas"][0], "beta2": group["betas"][1]}
                    settings["epsilon"] = group["eps"]
                else:
                    settings["momentum"] = group["momentum"]
                slots = [parameter.detach(), *(kept[held.in_torch] for held in rule.state)]
                master, *state = (slot.numpy() for slot in slots)
                made = self._numerics.update(rule, settings, master, gradients[parameter], tuple(state))
                with torch.no_grad():
                    # Through the parameter, so that PyTorch knows that it has changed.
                    for slot, new in zip([parameter, *slots[1:]], made, strict=True):
                        slot.copy_(torch.from_numpy(new))


def _annotated(spec: TrainSpec, technique: Technique) -> Workload:
    """The step under the scheme, with what the technique could not make sparse left dense."""
    measured = [
        Measured(layer=name, kept_dense=dict.fromkeys(GEMM_PASSES, why)) for name, why in technique.kept_dense.items()
    ]
    measured += [Measured(layer=name, kept_dense=layer.kept_dense) for name, layer in technique.layers.items()]
    return annotate(step_workload(spec), spec.scheme, spec.pattern, measured)
