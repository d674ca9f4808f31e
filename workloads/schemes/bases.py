"""Weights of two binary planes with a scale each: DB-LLM's of 0 and 1, BinaryDM's of -1 and +1."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..gemm import Pass
from .estimated import EPSILON, Estimated, EstimatedOptions
from .estimator import Estimator, Few, sign
from .layer import SparseLayer
from .nm import require_share
from .technique import Options
from .ternary import Bytes

__all__ = ["BinaryDm", "DbLlm", "DbLlmBytes", "DualOptions", "DualPlanes", "Steps", "TwoBases", "first_scales"]


@dataclass(frozen=True, slots=True, eq=False)
class DualPlanes(Estimator):
    """a b + c d of b, d in {0, 1}: b = W >= (a + c) / 2, d = W - a b <= c / 2; straight through.

    ``up``, a > 0, and ``down``, c < 0, are [groups, out, 1, 1] of any float dtype. With a = -2 c, which training begins
    with, the values are -s, 0, s, 2 s and every weight takes the nearest.
    """

    up: Tensor
    down: Tensor

    def few(self, x: Tensor) -> Few:
        up, down = self.up.to(x.dtype), self.down.to(x.dtype)
        first = (x >= (up + down) / 2).to(x.dtype)
        second = (x - up * first <= down / 2).to(x.dtype)
        return Few(values=first, scale=self.up, more=(Few(values=second, scale=self.down),))


def first_scales(weight: Tensor) -> tuple[Tensor, Tensor]:
    """2 s and -s of every filter of ``weight`` [groups, out, in, taps] of any float dtype, s a third of the range of
    its values: the step of 2 bits."""
    size = ((weight.amax((2, 3), keepdim=True) - weight.amin((2, 3), keepdim=True)) / 3).clamp_min(EPSILON)
    return 2 * size, -size


@dataclass(frozen=True, slots=True, kw_only=True)
class DualOptions(EstimatedOptions):
    """``until``: share of the steps before weights are brought to planes; ``scale_rate``: the rate of the scales over
    that of the optimizer."""

    norm: str = "none"
    until: float = 0.5
    scale_rate: float = 1.0

    def __post_init__(self) -> None:
        EstimatedOptions.__post_init__(self)
        require_share("until", self.until, 0.0, 1.0)
        require_share("scale_rate", self.scale_rate, 0.0, 1e6)

    def schedule(self) -> dict[str, Any]:
        return {"until": self.until}


class DbLlm(Estimated):
    """DB-LLM (Chen et al., arXiv 2402.11960), its flexible dual binarization, equations as recalled.

    The scales are trained: their gradients are the sums of dW over what each multiplies, over the root of the weights
    of a filter, which is the step of LSQ, and take plain steps of the optimizer's rate. Weights are trained beside
    them, straight through; there they stay. Deviation-aware distillation is not part of it.
    """

    options_type: ClassVar[type[Options]] = DualOptions
    options: DualOptions

    def __init__(self, model: nn.Module, *args: Any, **kwargs: Any) -> None:
        self._slopes: dict[str, Tensor] = {}
        super().__init__(model, *args, **kwargs)

    def weight_estimator_of(self, layer: SparseLayer) -> DualPlanes:
        if "scales" not in layer.state:
            self._begin(layer)
        up, down = layer.state["scales"].to(layer.weight.device)
        return DualPlanes(up, down)

    def _begin(self, layer: SparseLayer) -> None:
        scales = torch.stack(first_scales(layer.canonical(layer.weight.detach())))
        for tied in self.layers.values():
            if tied.weight is layer.weight:
                tied.state["scales"] = scales

    def refresh(self, layer: SparseLayer) -> None:
        if Pass.FF in layer.passes and "scales" not in layer.state:
            self._begin(layer)

    def adjust_gradients(self, step: int) -> None:
        self._slopes = {}
        for layer in self.own_layers():
            gradient = layer.weight.grad
            if Pass.FF not in layer.passes or gradient is None or not bool(gradient.isfinite().all()):
                continue
            weight, g = (layer.canonical(x.detach()) for x in (layer.weight, gradient))
            planes = self.weight_estimator_of(layer).few(weight).planes
            size = sqrt(weight.shape[2] * weight.shape[3])
            self._slopes[layer.name] = torch.stack([(g * p.values).sum((2, 3), keepdim=True) / size for p in planes])

    def after_step(self, step: int, optimizer: torch.optim.Optimizer) -> None:
        rates = {id(p): float(group["lr"]) for group in optimizer.param_groups for p in group["params"]}
        for layer in self.own_layers():
            if layer.name not in self._slopes or id(layer.weight) not in rates:
                continue
            rate = rates[id(layer.weight)] * self.options.scale_rate
            up, down = layer.state["scales"].to(layer.weight.device) - rate * self._slopes[layer.name]
            scales = torch.stack((up.clamp_min(EPSILON), down.clamp_max(-EPSILON)))
            for tied in self.layers.values():
                if tied.weight is layer.weight:
                    tied.state["scales"] = scales
                    tied.forget()
        self._slopes = {}


class DbLlmBytes(DbLlm):
    """The same under activations of 8 bits a token."""

    def activation_estimator(self) -> Estimator:
        return Bytes()


class TwoBases(Estimator):
    """a sign(W) + c sign(R), R = W - a sign(W), a and c the mean |W| and |R| of every filter.

    dW = g (a p + c q (1 - a p)) with p = 1[|W| <= 1] and q = 1[|R| <= 1]: the sign's gradient is that of what is
    clipped to [-1, 1], and R depends on W twice.
    """

    @staticmethod
    def _residue(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        first = x.abs().mean((2, 3), keepdim=True)
        residue = x - first * sign(x)
        return first, residue, residue.abs().mean((2, 3), keepdim=True)

    def few(self, x: Tensor) -> Few:
        first, residue, second = self._residue(x)
        return Few(values=sign(x), scale=first, more=(Few(values=sign(residue), scale=second),))

    def gradient(self, g: Tensor, x: Tensor) -> Tensor:
        first, residue, second = self._residue(x)
        through = first * (x.abs() <= 1)
        return g * (through + second * (residue.abs() <= 1) * (1 - through))


@dataclass(frozen=True, slots=True)
class Steps(Estimator):
    """s clip(round(X / s), -2^(b-1), 2^(b-1) - 1) of ``bits`` b, s = 2 mean |X| / sqrt(2^(b-1) - 1) of every row,
    with which LSQ begins; the gradient is that of what is clipped."""

    bits: int

    def _scaled(self, x: Tensor) -> tuple[Tensor, Tensor, int]:
        most = 1 << (self.bits - 1)
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        size = wide.abs().mean(tuple(range(1, x.dim())), keepdim=True) * (2 / sqrt(most - 1))
        size = size.clamp_min(EPSILON)
        return wide / size, size, most

    def few(self, x: Tensor) -> Few:
        scaled, size, most = self._scaled(x)
        return Few(values=scaled.round().clamp(-most, most - 1).to(x.dtype), scale=size)

    def gradient(self, g: Tensor, x: Tensor) -> Tensor:
        scaled, _, most = self._scaled(x)
        return g * ((scaled >= -most) & (scaled <= most - 1))


class BinaryDm(Estimated):
    """BinaryDM's binarizer of several bases (Zheng et al., arXiv 2404.05662; repository Xingyu-Zheng/BinaryDM).

    There the scales of weights and the steps of activations are learned from where they begin here at every step;
    shortcuts around layers are the model's, and low-rank representation mimicking is not part of it.
    """

    def weight_estimator(self) -> Estimator:
        return TwoBases()

    def activation_estimator(self) -> Estimator:
        return Steps(4)
