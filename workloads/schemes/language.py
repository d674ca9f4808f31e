"""Binary and ternary transformers of language generation: weights, activations and attention of few values."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from .attention import Part
from .binary import Clipped
from .estimated import EPSILON, Estimated
from .estimator import Estimator, Few, sign

__all__ = [
    "BinaryRow",
    "BinaryTransformer",
    "FilterMean",
    "FilterTernary",
    "TernaryRow",
    "TernaryTransformer",
    "UnitRow",
]


class FilterMean(Estimator):
    """s sign(W) with s = mean |W| of every filter; straight through, and nothing is clipped."""

    def few(self, x: Tensor) -> Few:
        return Few(values=sign(x), scale=x.abs().mean((2, 3), keepdim=True))


class FilterTernary(Estimator):
    """s round(clip(W / s, -1, 1)) with s = 4/3 mean |W| of every filter; straight through, and nothing is clipped."""

    def few(self, x: Tensor) -> Few:
        scale = (4 / 3) * x.abs().mean((2, 3), keepdim=True)
        return Few(values=(x / scale.clamp_min(EPSILON)).clamp(-1, 1).round(), scale=scale)


def _step(x: Tensor, times: float) -> Tensor:
    """``times`` the mean |x| of every row."""
    return (times * x.abs().mean(-1, keepdim=True)).clamp_min(EPSILON)


@dataclass(frozen=True, slots=True)
class BinaryRow(Estimator):
    """s sign(x) with s = 2 mean |x| of every row; dx = g 1[|x| <= s]."""

    def few(self, x: Tensor) -> Few:
        return Few(values=sign(x), scale=_step(x, 2))

    def gradient(self, g: Tensor, x: Tensor) -> Tensor:
        return g * (x.abs() <= _step(x, 2))


class TernaryRow(BinaryRow):
    """s clip(round(x / s), -1, 1) with s = 2 mean |x| of every row; dx = g 1[|x| <= s]."""

    __slots__ = ()

    def few(self, x: Tensor) -> Few:
        scale = _step(x, 2)
        return Few(values=(x / scale).round().clamp(-1, 1), scale=scale)


class UnitRow(Estimator):
    """s clip(round(x / s), 0, 1) of x >= 0, with s = 4 mean x of every row; dx = g 1[x <= s]."""

    def few(self, x: Tensor) -> Few:
        scale = _step(x, 4)
        return Few(values=(x / scale).round().clamp(0, 1), scale=scale)

    def gradient(self, g: Tensor, x: Tensor) -> Tensor:
        return g * (x <= _step(x, 4))


class BinaryTransformer(Estimated):
    """Binary and ternary natural language generation (Liu et al., ACL 2023, arXiv 2306.01841; repository
    facebookresearch/Ternary_Binary_Transformer), its binary form.

    There a step s of activations is learned for each layer, from these means of the first batch on; here it is the mean
    of every row, at every use. Values of attention are signs without a step, which would be one of tokens to come.
    """

    def weight_estimator(self) -> Estimator:
        return FilterMean()

    def activation_estimator(self) -> Estimator:
        return BinaryRow()

    def attention_estimators(self) -> dict[Part, Estimator]:
        row = self.activation_estimator()
        return {Part.QUERY: row, Part.KEY: row, Part.MAP: UnitRow(), Part.VALUE: Clipped()}


class TernaryTransformer(BinaryTransformer):
    """The same with weights, inputs of layers, queries and keys of three values."""

    def weight_estimator(self) -> Estimator:
        return FilterTernary()

    def activation_estimator(self) -> Estimator:
        return TernaryRow()
