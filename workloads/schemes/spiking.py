"""Spiking networks: activations of 0 and 1 under ternary weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..sparsity import NMPattern
from ..spiking import LIF, surrogate
from .description import Scheme
from .estimated import Estimated, EstimatedOptions
from .estimator import Estimator, Few
from .layer import SparseLayer
from .nm import require_share
from .technique import Options
from .ternary import Ternary

__all__ = ["Events", "Fires", "Spiking", "SpikingOptions"]


@dataclass(frozen=True, slots=True)
class Fires(Estimator):
    """1[x >= v], the neuron of one time step, whose gradient is the triangle g 0.3 / v max(0, 1 - |x / v - 1|)."""

    threshold: float

    def few(self, x: Tensor) -> Few:
        # NaN stays NaN, so that a training sees it.
        return Few(values=torch.where(x.isnan(), x, (x >= self.threshold).to(x.dtype)))

    def gradient(self, g: Tensor, x: Tensor) -> Tensor:
        return g * surrogate(x / self.threshold - 1) / self.threshold


class Events(Estimator):
    """Spikes that neurons of the model fired, as they are; anything else is refused."""

    def few(self, x: Tensor) -> Few:
        wrong = (x != 0) & (x != 1) & ~x.isnan()
        if not x.is_meta and bool(wrong.any()):
            raise InputError(
                f"scheme 'spiking': a layer behind LIF neurons is given {float(x[wrong][0]):g}, but spikes are 0 or 1; "
                "put nothing between a neuron and a layer that changes them, as an average pool does"
            )
        return Few(values=x)


@dataclass(frozen=True, slots=True, kw_only=True)
class SpikingOptions(EstimatedOptions):
    """``threshold``: v, of all activations of a model without neurons of its own; ``norm`` stands before them."""

    threshold: float = 1.0

    def __post_init__(self) -> None:
        EstimatedOptions.__post_init__(self)
        require_share("threshold", self.threshold, 1e-3, 1e3)


class Spiking(Estimated):
    """Ternary weights as of BitNet b1.58, spikes for activations.

    A model with LIF neurons (`workloads/spiking.py`) fires by itself. In any other one every input of a layer at work
    becomes a neuron of one time step, with the neuron and the triangle of IIR-SNN.
    """

    options_type: ClassVar[type[Options]] = SpikingOptions
    options: SpikingOptions

    def __init__(self, model: nn.Module, chosen: Scheme, pattern: NMPattern | None, **others: Any) -> None:
        self.own_neurons = any(isinstance(module, LIF) for module in model.modules())
        super().__init__(model, chosen, pattern, **others)

    def weight_estimator(self) -> Estimator:
        return Ternary(median=False)

    def activation_estimator(self) -> Estimator:
        return Events() if self.own_neurons else Fires(self.options.threshold)

    def prepared(self, layer: SparseLayer, x: Tensor, conv: Any) -> tuple[Tensor, Any]:
        return (x, conv) if self.own_neurons else super().prepared(layer, x, conv)
