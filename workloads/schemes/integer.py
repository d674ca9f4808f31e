"""Integers of weights, as many bits a layer as it needs, under activations of 8 bits: quantisation-aware training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..errors import InputError, nearest
from ..levels import Levels
from ..operand import Role
from ..sparsity import LayerPatterns
from .estimated import Estimated, EstimatedOptions
from .estimator import Estimator, Few
from .layer import SparseLayer
from .technique import Options
from .ternary import Bytes

__all__ = ["Integer", "IntegerOptions", "Rounded"]


@dataclass(frozen=True, slots=True)
class Rounded(Estimator):
    """s round(W / s), s the largest |W| of each filter over the largest integer of ``levels``; straight through.

    Symmetric and a scale a filter, as HAWQ-V3 rounds weights (repository Zhen-Dong/HAWQ); of two bits -1, 0 and 1 are
    left.
    """

    levels: Levels

    def few(self, x: Tensor) -> Few:
        most = self.levels.values[-1]
        scale = x.abs().amax((2, 3), keepdim=True) / most
        # A filter of zeros, and one too small to be divided by, is zero whatever its scale.
        scale = torch.where(scale >= torch.finfo(x.dtype).tiny, scale, 1.0).to(x.dtype)
        return Few(values=(x / scale).round().clamp(-most, most), scale=scale)


@dataclass(frozen=True, slots=True, kw_only=True)
class IntegerOptions(EstimatedOptions):
    """``weights``: the integers of all weights, and rules for layers as ``--nm`` takes them: ``int8, 19=int4``."""

    norm: str = "none"
    weights: str = "int8"

    def __post_init__(self) -> None:
        EstimatedOptions.__post_init__(self)
        rules = self.rules
        if rules.usual is not None or any(rule.pattern not in rules.integers for rule in rules.rules):
            raise InputError(f"option 'weights' is {self.weights!r}: it takes integers by layer, as int8, 19=int4")

    @property
    def rules(self) -> LayerPatterns:
        """As rules."""
        return LayerPatterns.read([part.strip() for part in self.weights.split(",")])


class Integer(Estimated):
    """Weights rounded to integers of :class:`IntegerOptions`, activations to 8 bits by the largest of each row."""

    options_type: ClassVar[type[Options]] = IntegerOptions
    _chosen: Mapping[str, Levels] = MappingProxyType({})

    def __init__(self, model: nn.Module, *given: Any, **settings: Any) -> None:
        super().__init__(model, *given, **settings)
        names = {name: _names(layer) for name, layer in self.layers.items()}
        for rule in self.options.rules.rules:
            if not any(rule.matches(known) for known in names.values()):
                self.detach()
                raise InputError(f"option 'weights': rule {rule} matches no layer: {nearest(rule.layers, names)}")

    def weight_estimator(self) -> Estimator:
        return Rounded(Levels.INT8)

    def weight_estimator_of(self, layer: SparseLayer) -> Estimator:
        return Rounded(self._levels(layer))

    def activation_estimator(self) -> Estimator:
        return Bytes()

    def levels_of(self, layer: SparseLayer) -> dict[Role, Levels]:
        return {Role.WEIGHT: self._levels(layer), Role.ACTIVATION: Levels.INT8}

    def choose(self, levels: Mapping[str, Levels]) -> None:
        """From now on round the weights of these layers, by name, to these integers."""
        self._chosen = dict(levels)
        for layer in self.layers.values():
            layer.forget()

    def _levels(self, layer: SparseLayer) -> Levels:
        if layer.name in self._chosen:
            return self._chosen[layer.name]
        found = self.options.rules.of(_names(layer))
        return found if isinstance(found, Levels) else Levels.INT8


def _names(layer: SparseLayer) -> tuple[str, str]:
    return layer.name, f"{layer.name}.weight"
