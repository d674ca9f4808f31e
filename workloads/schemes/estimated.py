"""Training with operands of few values: what techniques share that differ in their estimators alone.

FF: Y = s_x (X_q W_q) s_w, BP: dX' = (s_w dY) W_q^T, WU: dW' = X_q^T (s_x dY), of which the estimators make dX and dW.
X_q and W_q are the few values of :class:`.estimator.Few`, s_x and s_w their scales; master weights stay in FP32.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import InputError, nearest
from ..gemm import Pass
from ..levels import Levels
from ..operand import Role
from .attended import Attended
from .attention import Part
from .estimator import Estimator, Few
from .layer import SparseLayer
from .scheme import scheme
from .technique import Options, Technique

__all__ = ["EPSILON", "Estimated", "EstimatedOptions"]

EPSILON = 1e-5
"""Beneath the variance of a row, and under scales that are divided by; BiPer's and BitNet's repositories have it so."""

_NORMS = ("layer", "std", "none")


@dataclass(frozen=True, slots=True, kw_only=True)
class EstimatedOptions(Options):
    """``norm``: what every row of activations goes through before it is brought to few values.

    ``layer``: (x - mean) / deviation, without parameters; ``std``: x / deviation; ``none``: nothing.
    """

    norm: str = "layer"

    def __post_init__(self) -> None:
        if self.norm not in _NORMS:
            raise InputError(f"option 'norm' is {self.norm!r}: {nearest(str(self.norm), _NORMS)}")


class Estimated(Technique):
    """A technique that is its two estimators; as it stands, both leave everything as it is.

    They are asked for at every use, so they may depend on the options, the step and the phase. What they make must be
    what ``levels`` of the scheme says.
    """

    options_type: ClassVar[type[Options]] = EstimatedOptions
    options: Any
    scales = frozenset((Pass.BP, Pass.WU))
    planes = 2

    def weight_estimator(self) -> Estimator:
        """For the weights of all layers at work."""
        return Estimator()

    def weight_estimator_of(self, layer: SparseLayer) -> Estimator:
        """For the weight of one layer, where it depends on what is known of the layer."""
        return self.weight_estimator()

    def activation_estimator(self) -> Estimator:
        """For the inputs of all layers at work."""
        return Estimator()

    def inputs_estimator(self, layer: SparseLayer) -> Estimator:
        """For the inputs of one layer at work; as it stands, that of all."""
        return self.activation_estimator()

    def levels_of(self, layer: SparseLayer) -> dict[Role, Levels]:
        """Levels of the operands of FF of a layer at work, in the current phase."""
        return scheme(self.phase.scheme).levels.get(Pass.FF, {})

    def attention_estimators(self) -> dict[Part, Estimator]:
        """For the parts of attention that the scheme names (`Scheme.attention`), of any module; the others stay.

        Each comes as [..., rows, contraction]: queries and keys as [..., tokens, width], the map as [..., queries,
        keys], values as [..., width, tokens]; a scale is [..., rows, 1].
        """
        return {}

    def __init__(self, model: nn.Module, *given: Any, **settings: Any) -> None:
        super().__init__(model, *given, **settings)
        self.attended: Attended | None = None
        if self.scheme.attention:
            try:
                self.attended = Attended(model, self.scheme.name, self.attention_estimators)
                self.attended.install()
            except InputError:
                self.detach()
                raise

    def detach(self) -> None:
        if self.attended is not None:
            self.attended.uninstall()
        super().detach()

    # What a technique may choose, chosen.

    def forward_weight(self, layer: SparseLayer, weight: Tensor) -> Tensor:
        few = self.weight_estimator_of(layer).few(layer.canonical(weight))
        planes = tuple(
            Few(values=layer.stored(p.values), scale=None if p.scale is None else _by_output(layer, p.scale))
            for p in few.planes
        )
        if few.more:
            layer.planes = planes
            return layer.stored(few.whole)
        layer.scale = planes[0].scale
        return planes[0].values

    def prepared(self, layer: SparseLayer, x: Tensor, conv: Any) -> tuple[Tensor, Any]:
        return (_normed(layer, x, self.options.norm) if layer.passes else x), conv

    def activation(self, layer: SparseLayer, x: Tensor) -> Few:
        if not layer.passes:
            return Few(values=x)
        few = self.inputs_estimator(layer).few(_rows(layer, x))
        if few.more:
            raise InputError(
                f"scheme {self.scheme.name!r} brings an activation to a sum of {len(few.planes)} planes; a weight may "
                "be one, an activation is one Few without more"
            )
        scale = few.scale
        if scale is not None and not layer.kind.convolution:
            scale = scale.reshape(*x.shape[:-1], 1)
        return Few(values=few.values.reshape(x.shape), scale=scale)

    def activation_gradient(self, layer: SparseLayer, g: Tensor, x: Tensor) -> Tensor:
        if not layer.passes:
            return g
        return self.inputs_estimator(layer).gradient(_rows(layer, g), _rows(layer, x)).reshape(x.shape)

    def weight_gradient(self, layer: SparseLayer, g: Tensor, weight: Tensor) -> Tensor:
        if Pass.FF not in layer.passes:
            return g
        made = self.weight_estimator_of(layer).gradient(layer.canonical(g.to(weight.dtype)), layer.canonical(weight))
        return layer.stored(made)

    def marks(self, weight: Tensor) -> Tensor:
        return torch.stack((weight > 0, weight < 0))


def _normed(layer: SparseLayer, x: Tensor, norm: str) -> Tensor:
    inner = x.shape[1:] if layer.kind.convolution else x.shape[-1:]
    if norm == "layer":
        return functional.layer_norm(x, inner, eps=EPSILON).to(x.dtype)
    if norm == "none":
        return x
    dims = tuple(range(-len(inner), 0))
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    return (wide / (wide.var(dims, keepdim=True, correction=int(prod(inner) > 1)) + EPSILON).sqrt()).to(x.dtype)


def _rows(layer: SparseLayer, x: Tensor) -> Tensor:
    return x if layer.kind.convolution else x.reshape(-1, x.shape[-1])


def _by_output(layer: SparseLayer, scale: Tensor) -> Tensor:
    """[groups, out, 1, 1] or [1, 1, 1, 1] as what the layer's output is multiplied by."""
    groups, outputs, _, _ = layer.shape
    flat = scale.expand(groups, outputs, 1, 1).reshape(groups * outputs)
    return flat.reshape(-1, *[1] * (layer.weight.dim() - 2)) if layer.kind.convolution else flat
