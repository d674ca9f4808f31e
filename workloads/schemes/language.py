"""Binary and ternary transformers of language generation: weights, activations and attention of few values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from .attention import Part
from .binary import Clipped
from .estimated import EPSILON, Estimated, EstimatedOptions
from .estimator import Estimator, Few, sign
from .nm import require_share
from .technique import Options

__all__ = [
    "BinaryRow",
    "BinaryTransformer",
    "FilterMean",
    "FilterTernary",
    "TernaryRow",
    "TernaryTransformer",
    "TransformerOptions",
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


@dataclass(frozen=True, slots=True)
class BinaryRow(Estimator):
    """s sign(x) with s = 2 mean |x| of every row; dx = g 1[|x| <= s].

    ``whole``: a row is all but the first dimension, as inputs of layers come, an image of a convolution among them;
    else the last dimension alone, as the parts of attention come.
    """

    whole: bool = False

    def few(self, x: Tensor) -> Few:
        return Few(values=sign(x), scale=self.step(x, 2))

    def gradient(self, g: Tensor, x: Tensor) -> Tensor:
        return g * (x.abs() <= self.step(x, 2))

    def step(self, x: Tensor, times: float) -> Tensor:
        """``times`` the mean |x| of every row of ``x``, of any shape and float dtype; of its dimensions, 1 in a row."""
        dims = tuple(range(1, x.dim())) if self.whole else (-1,)
        return (times * x.abs().mean(dims, keepdim=True)).clamp_min(EPSILON)


class TernaryRow(BinaryRow):
    """s clip(round(x / s), -1, 1) with s = 2 mean |x| of every row; dx = g 1[|x| <= s]."""

    __slots__ = ()

    def few(self, x: Tensor) -> Few:
        scale = self.step(x, 2)
        return Few(values=(x / scale).round().clamp(-1, 1), scale=scale)


@dataclass(frozen=True, slots=True)
class UnitRow(Estimator):
    """s clip(round(x / s), 0, 1) of x >= 0, with s = ``times`` the mean of every row; dx = g 1[x <= s]."""

    times: float

    def few(self, x: Tensor) -> Few:
        scale = self._step(x)
        return Few(values=(x / scale).round().clamp(0, 1), scale=scale)

    def gradient(self, g: Tensor, x: Tensor) -> Tensor:
        return g * (x <= self._step(x))

    def _step(self, x: Tensor) -> Tensor:
        return (self.times * x.mean(-1, keepdim=True)).clamp_min(EPSILON)


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformerOptions(EstimatedOptions):
    """``map_step``: the step of the map of attention, over the mean of its row; from half a step on an element is 1."""

    map_step: float = 2.0

    def __post_init__(self) -> None:
        EstimatedOptions.__post_init__(self)
        require_share("map_step", self.map_step, 1e-6, 1e6)


class BinaryTransformer(Estimated):
    """Binary and ternary natural language generation (Liu et al., ACL 2023, arXiv 2306.01841; repository
    facebookresearch/Ternary_Binary_Transformer), its binary form.

    There a step s of activations is learned for each layer, from 2 mean |x| of the first batch on, and from 4 mean x of
    maps; here it is the mean of every row, at every use. Values of attention are signs without a step, which would be
    one of tokens to come.
    """

    options_type: ClassVar[type[Options]] = TransformerOptions
    options: TransformerOptions

    def weight_estimator(self) -> Estimator:
        return FilterMean()

    def activation_estimator(self) -> Estimator:
        return BinaryRow(whole=True)

    def attention_estimators(self) -> dict[Part, Estimator]:
        return _parts(BinaryRow(), self.options.map_step)


class TernaryTransformer(BinaryTransformer):
    """The same with weights, inputs of layers, queries and keys of three values."""

    def weight_estimator(self) -> Estimator:
        return FilterTernary()

    def activation_estimator(self) -> Estimator:
        return TernaryRow(whole=True)

    def attention_estimators(self) -> dict[Part, Estimator]:
        return _parts(TernaryRow(), self.options.map_step)


def _parts(row: Estimator, step: float) -> dict[Part, Estimator]:
    return {Part.QUERY: row, Part.KEY: row, Part.MAP: UnitRow(step), Part.VALUE: Clipped()}
