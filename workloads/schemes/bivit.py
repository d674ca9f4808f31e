"""BiViT: binary vision transformers, whose maps of attention keep what is near the maximum of its row."""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, pi
from typing import ClassVar

import torch
from torch import Tensor

from ..errors import InputError, nearest
from ..gemm import Pass
from .attention import Part
from .binary import Binary, BinaryOptions, Clipped, FilterSign
from .estimator import Estimator, Few, sign
from .layer import SparseLayer
from .nm import require_share
from .technique import Options

__all__ = ["BiVit", "BiVitOptions", "RowSign", "SoftmaxAware"]

_SCALES = ("learned", "mean")
_FIRST, _SECOND, _LEAST = 0.9, 0.999, 1e-8
"""Adam's, as PyTorch has them; BiViT trains with Adam."""


@dataclass(frozen=True, slots=True)
class SoftmaxAware(Estimator):
    """1 where a > 0 is at least ``share`` of the maximum of its row, else 0; straight through to what the softmax made.

    ``scaled``: times the mean of what is kept, the best scale of a row; without it, as the paper's models run.
    """

    share: float
    scaled: bool

    def few(self, x: Tensor) -> Few:
        kept = (x >= self.share * x.amax(-1, keepdim=True)) & (x > 0)
        # NaN stays, so that a training sees it.
        values = torch.where(x.isnan(), x, kept.to(x.dtype))
        if not self.scaled:
            return Few(values=values)
        return Few(values=values, scale=(x * values).sum(-1, keepdim=True) / values.sum(-1, keepdim=True).clamp_min(1))


class RowSign(Clipped):
    """alpha sign(x) with alpha = mean |x| of every row; dx = alpha g 1[|x| <= 1]."""

    def few(self, x: Tensor) -> Few:
        return Few(values=sign(x), scale=x.abs().mean(-1, keepdim=True))

    def gradient(self, g: Tensor, x: Tensor) -> Tensor:
        return g * x.abs().mean(-1, keepdim=True) * (x.abs() <= 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class BiVitOptions(BinaryOptions):
    """``share``: of the maximum of a row of the map, from which on an element is 1; ``map_scale``: whether a row of the
    map has a scale; ``scales``: of the weights of a filter, ``learned`` from their mean |W| on, or that ``mean``;
    ``scale_rate``: of the first step of their learning, the paper's."""

    share: float = 0.25
    map_scale: bool = False
    scales: str = "learned"
    scale_rate: float = 5e-4

    def __post_init__(self) -> None:
        BinaryOptions.__post_init__(self)
        require_share("share", self.share, 0.0, 1.0)
        require_share("scale_rate", self.scale_rate, 0.0, 1.0)
        if self.scales not in _SCALES:
            raise InputError(f"option 'scales' is {self.scales!r}: {nearest(str(self.scales), _SCALES)}")


class BiVit(Binary):
    """BiViT (He et al., ICCV 2023, arXiv 2211.07091): text read, formulas not.

    The map of attention is 1 from a ``share`` of the maximum of its row on: the linear fit of the best threshold, which
    is half of the mean of what is kept. Queries, keys and values are signs, of the first two with the mean of their
    row; weights are s sign(W) with one s a filter that is trained: ds = sum of dW sign(W).
    """

    options_type: ClassVar[type[Options]] = BiVitOptions
    options: BiVitOptions

    def weight_estimator(self) -> Estimator:
        return FilterSign()

    def activation_estimator(self) -> Estimator:
        return Clipped()

    def attention_estimators(self) -> dict[Part, Estimator]:
        return {
            Part.QUERY: RowSign(),
            Part.KEY: RowSign(),
            Part.MAP: SoftmaxAware(self.options.share, self.options.map_scale),
            # Their mean along the tokens would be of tokens yet to come, where a mask hides these.
            Part.VALUE: Clipped(),
        }

    def prepare(self, layer: SparseLayer) -> None:
        if self.options.scales == "learned":
            mean = layer.canonical(layer.weight.detach()).float().abs().mean((2, 3)).reshape(-1)
            zero = torch.zeros_like(mean)
            layer.state.update(scale=mean, first=zero, second=zero.clone())

    def forward_weight(self, layer: SparseLayer, weight: Tensor) -> Tensor:
        made = super().forward_weight(layer, weight)
        if "scale" in layer.state and layer.scale is not None:
            learned = layer.state["scale"].to(weight.device, weight.dtype)
            layer.scale = learned.reshape(layer.scale.shape)
        return made

    def adjust_gradients(self, step: int) -> None:
        for layer in self.own_layers():
            if "scale" in layer.state and layer.weight.grad is not None and Pass.FF in layer.passes:
                weight, grad = (layer.canonical(x.detach()).float() for x in (layer.weight, layer.weight.grad))
                self._gradients[layer.name] = (grad * sign(weight)).sum((2, 3)).reshape(-1)

    def before_step(self, step: int) -> None:
        super().before_step(step)
        self._gradients: dict[str, Tensor] = {}

    def after_step(self, step: int, optimizer: torch.optim.Optimizer) -> None:
        """Adam at ``scale_rate`` along a cosine, as the paper trains everything, whatever the optimizer of the weights.

        A gradient that is not finite is left out, as a scaler leaves the step.
        """
        rate = self.options.scale_rate * 0.5 * (1 + cos(pi * step / self.steps))
        for name, grad in self._gradients.items():
            if not bool(torch.isfinite(grad).all()):
                continue
            state = {key: value.to(grad.device) for key, value in self.layers[name].state.items()}
            first = _FIRST * state["first"] + (1 - _FIRST) * grad
            second = _SECOND * state["second"] + (1 - _SECOND) * grad.square()
            unbiased = (second / (1 - _SECOND ** (step + 1))).sqrt() + _LEAST
            scale = state["scale"] - rate * (first / (1 - _FIRST ** (step + 1))) / unbiased
            self.layers[name].state.update(scale=scale, first=first, second=second)
