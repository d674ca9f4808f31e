"""Binary networks: weights and activations of -1 and +1, which differ in their gradients and scales.

A derivative of the sign is 0 or does not exist, so each stands for it with that of another function. ``g`` is the
gradient of what FF multiplied by, scale included.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, pi, sqrt
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import InputError, nearest
from ..levels import Levels
from ..operand import Role
from .estimated import Estimated, EstimatedOptions
from .estimator import Estimator, Few, sign
from .few import BIPER_REAL
from .layer import SparseLayer
from .layers import first_layer
from .nm import require_share
from .technique import Options

__all__ = [
    "Binary",
    "BinaryOptions",
    "BiPer",
    "BiPerOptions",
    "BiReal",
    "Clipped",
    "FilterSign",
    "FixedPoint",
    "LayerRoot",
    "Parabola",
    "ReSte",
    "ReSteOptions",
    "Root",
    "Sine",
    "XnorNet",
    "XnorOptions",
    "XnorSign",
    "root_derivative",
]

_EDGES = ("zero", "one")
_REAL = "real"
_INPUTS = {str(levels): levels for levels in Levels if levels not in (Levels.SPIKE, Levels.TERNARY)}
_REACH = 4.0
"""Deviations of a pixel that a number of few bits reaches to either side: of normalised data few are further out."""


class Clipped(Estimator):
    """sign(x), whose gradient is that of x clipped to [-1, 1]."""

    def few(self, x: Tensor) -> Few:
        return Few(values=sign(x))

    def gradient(self, g: Tensor, x: Tensor) -> Tensor:
        return g * (x.abs() <= 1)


class Parabola(Clipped):
    """sign(x), whose gradient is that of two parabolas: 2 + 2 x on [-1, 0), 2 - 2 x on [0, 1), 0 elsewhere (Bi-Real
    Net)."""

    def gradient(self, g: Tensor, x: Tensor) -> Tensor:
        return g * (2 - 2 * x.abs()).clamp_min(0)


class XnorSign(Estimator):
    """alpha sign(W) with alpha = mean |W| of every filter; dW = g (1 / n + alpha 1[|W| < 1]), n weights of a filter."""

    def few(self, x: Tensor) -> Few:
        return Few(values=sign(x), scale=_mean_of_filter(x))

    def gradient(self, g: Tensor, x: Tensor) -> Tensor:
        return g * (1 / (x.shape[2] * x.shape[3]) + _mean_of_filter(x) * (x.abs() < 1))


class FilterSign(XnorSign):
    """alpha sign(W) as above, its gradient that of W clipped to [-1, 1], without alpha (Bi-Real Net)."""

    def gradient(self, g: Tensor, x: Tensor) -> Tensor:
        return g * (x.abs() <= 1)


@dataclass(frozen=True, slots=True)
class FixedPoint(Estimator):
    """Numbers of ``bits`` bits from -4 to 4: s clip(round(x / s), -2^(bits - 1), 2^(bits - 1) - 1), s = 2^(3 - bits);
    straight through where it does not clip."""

    bits: int

    def few(self, x: Tensor) -> Few:
        most = 1 << self.bits - 1
        step = _REACH / most
        values = (x / step).round().clamp(-most, most - 1)
        return Few(values=values, scale=x.new_full((len(x), *[1] * (x.dim() - 1)), step))

    def gradient(self, g: Tensor, x: Tensor) -> Tensor:
        return g * (x.abs() <= _REACH)


def _mean_of_filter(x: Tensor) -> Tensor:
    """[groups, out, 1, 1] of a weight [groups, out, in, taps] of any float dtype."""
    return x.abs().mean((2, 3), keepdim=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class BinaryOptions(EstimatedOptions):
    """``edge``: what stands around the image of a padded convolution: ``zero``, which is no value of a binary operand,
    as in the repositories; ``one``, as a machine has it that counts every bit of a window.

    ``ends``: ``real``: the layers stay in full precision that the scheme names. Else all of them are binary, the first
    one reads signs (``binary``) or numbers of fixed point (``int2`` to ``int8``), and ``one`` is 0 there."""

    edge: str = "zero"
    ends: str = _REAL

    def __post_init__(self) -> None:
        EstimatedOptions.__post_init__(self)
        if self.edge not in _EDGES:
            raise InputError(f"option 'edge' is {self.edge!r}: {nearest(str(self.edge), _EDGES)}")
        if self.ends not in (_REAL, *_INPUTS):
            raise InputError(f"option 'ends' is {self.ends!r}: {nearest(str(self.ends), (_REAL, *_INPUTS))}")


class Binary(Estimated):
    """What binary networks share."""

    options_type: ClassVar[type[Options]] = BinaryOptions

    def __init__(self, model: nn.Module, *given: Any, **settings: Any) -> None:
        super().__init__(model, *given, **settings)
        self._first = first_layer(model)

    def full_precision(self) -> tuple[str, ...]:
        return super().full_precision() if self.options.ends == _REAL else ()

    def levels_of(self, layer: SparseLayer) -> dict[Role, Levels]:
        found, ends = super().levels_of(layer), self.options.ends
        return found if layer.name != self._first or ends == _REAL else {**found, Role.ACTIVATION: _INPUTS[ends]}

    def inputs_estimator(self, layer: SparseLayer) -> Estimator:
        levels = self.levels_of(layer).get(Role.ACTIVATION)
        return self.activation_estimator() if levels in (None, Levels.BINARY) else FixedPoint(levels.bits)

    def prepared(self, layer: SparseLayer, x: Tensor, conv: Any) -> tuple[Tensor, Any]:
        x, conv = super().prepared(layer, x, conv)
        if not layer.passes or not conv or conv[3] or self.options.edge == "zero":
            return x, conv
        # The sign of what is padded with 0 is +1.
        stride, padding, *others = conv
        pads = [size for size in reversed(padding) for _ in range(2)]
        return functional.pad(x, pads), (stride, (0,) * len(padding), *others)


@dataclass(frozen=True, slots=True, kw_only=True)
class XnorOptions(BinaryOptions):
    """``output_scale``: multiply outputs by K, the mean of the |x| that each is made of."""

    output_scale: bool = False


class XnorNet(Binary):
    """XNOR-Net (Rastegari et al., ECCV 2016, arXiv 1603.05279), equations as recalled.

    Y = K alpha (sign X * sign W); K by ``output_scale``: the mean of |X| over the channels, box-filtered with the
    kernel; in BP and WU it counts as a constant.
    """

    options_type: ClassVar[type[Options]] = XnorOptions
    options: XnorOptions

    def weight_estimator(self) -> Estimator:
        return XnorSign()

    def activation_estimator(self) -> Estimator:
        return Clipped()

    def gain(self, layer: SparseLayer, x: Tensor, conv: Any) -> Tensor | None:
        if not self.options.output_scale or not layer.passes:
            return None
        size = x.detach().abs()
        if not conv:
            return size.mean(-1, keepdim=True)
        kernel = layer.weight.shape[2:]
        box = size.new_full((1, 1, *kernel), 1 / layer.shape[3])
        found: Tensor = torch.ops.aten.convolution(size.mean(1, keepdim=True), box, None, *conv[:-1], 1)
        return found


class BiReal(Binary):
    """Bi-Real Net (Liu et al., ECCV 2018, arXiv 1808.00278; repository liuzechun/Bi-Real-net).

    The shortcut around every layer is a matter of the model, not of this.
    """

    def weight_estimator(self) -> Estimator:
        return FilterSign()

    def activation_estimator(self) -> Estimator:
        return Parabola()


def root_derivative(x: Tensor, order: float, least: float, most: float) -> Tensor:
    """Of sign(x) |x|^(1 / o) for ``least`` < |x| <= ``most``; its chord up to ``least``, 0 above ``most``.

    ``x`` and the result: any shape, of one float dtype.
    """
    size = x.abs()
    inside = size.clamp(least, most) ** (1 / order - 1) / order
    return torch.where(size <= least, least ** (1 / order - 1), inside) * (size <= most)


@dataclass(frozen=True, slots=True)
class Root(Estimator):
    """sign(x), whose gradient is that of the root of an ``order`` (ReSTE)."""

    order: float
    least: float
    most: float

    def few(self, x: Tensor) -> Few:
        return Few(values=sign(x))

    def gradient(self, g: Tensor, x: Tensor) -> Tensor:
        return g * root_derivative(x, self.order, self.least, self.most)


class LayerRoot(Root):
    """alpha sign(W) with alpha = mean |W| of the layer, through which the gradient goes too:
    dW = alpha g f'(W) + sign(W) / n sum(g sign(W)), n weights of the layer."""

    __slots__ = ()

    def few(self, x: Tensor) -> Few:
        return Few(values=sign(x), scale=x.abs().mean().reshape(1, 1, 1, 1))

    def gradient(self, g: Tensor, x: Tensor) -> Tensor:
        signs = sign(x)
        through = x.abs().mean() * g * root_derivative(x, self.order, self.least, self.most)
        return through + signs * ((g * signs).sum() / x.numel())


@dataclass(frozen=True, slots=True, kw_only=True)
class ReSteOptions(BinaryOptions):
    """``last_order``: o at the end; ``least`` and ``most``: m and t, between which the derivative is the root's."""

    last_order: float = 3.0
    least: float = 0.1
    most: float = 1.5

    def __post_init__(self) -> None:
        BinaryOptions.__post_init__(self)
        require_share("last_order", self.last_order, 1.0, 1e3)
        require_share("most", self.most, 1e-6, 1e6)
        require_share("least", self.least, 1e-6, self.most)


class ReSte(Binary):
    """ReSTE (Wu et al., ICCV 2023, arXiv 2308.06689; repository DravenALG/ReSTE).

    o = 1 + (1 - cos(pi e / 2)) (o_end - 1), where e is the share of the steps that are done; of epochs there.
    """

    options_type: ClassVar[type[Options]] = ReSteOptions
    options: ReSteOptions

    @property
    def order(self) -> float:
        """o of the current step."""
        return 1 + (1 - cos(pi * self.step / (2 * self.steps))) * (self.options.last_order - 1)

    def weight_estimator(self) -> Estimator:
        return LayerRoot(self.order, self.options.least, self.options.most)

    def activation_estimator(self) -> Estimator:
        return Root(self.order, self.options.least, self.options.most)


@dataclass(frozen=True, slots=True)
class Sine(Estimator):
    """sin(w W), or its sign, over sqrt(n) of the n weights of a filter; either way the gradient is that of the sine."""

    frequency: float
    signed: bool

    def few(self, x: Tensor) -> Few:
        wave = (self.frequency * x).sin()
        return Few(values=sign(wave) if self.signed else wave, scale=x.new_full((1, 1, 1, 1), self._scale(x)))

    def gradient(self, g: Tensor, x: Tensor) -> Tensor:
        return g * (self._scale(x) * self.frequency) * (self.frequency * x).cos()

    @staticmethod
    def _scale(x: Tensor) -> float:
        return 1 / sqrt(x.shape[2] * x.shape[3])


@dataclass(frozen=True, slots=True, kw_only=True)
class BiPerOptions(BinaryOptions):
    """``frequency``: w; ``real``: share of the steps of the first stage; ``tau``: weight of the regulariser."""

    frequency: float = 20.0
    real: float = 2 / 3
    tau: float = 0.0

    def __post_init__(self) -> None:
        BinaryOptions.__post_init__(self)
        require_share("frequency", self.frequency, 1e-3, 1e6)
        require_share("real", self.real, 0.0, 1.0)
        require_share("tau", self.tau, -1e3, 1e3)

    def schedule(self) -> dict[str, Any]:
        return {"real": self.real}


class BiPer(Binary):
    """BiPer (Vargas et al., CVPR 2024, arXiv 2404.01278; repository edmav4/BiPer).

    First stage: weights sin(w W), binary activations; second: weights sign(sin(w W)). The learned scale of a channel is
    1 / sqrt(n) here, and left to a batch norm behind. tau mean(sin^2(w W)) is added to the loss of each layer; off, as
    whether that or its negative is meant could not be settled.
    """

    options_type: ClassVar[type[Options]] = BiPerOptions
    options: BiPerOptions

    def weight_estimator(self) -> Estimator:
        return Sine(self.options.frequency, signed=self.phase.scheme != BIPER_REAL)

    def activation_estimator(self) -> Estimator:
        return Parabola()

    def adjust_gradients(self, step: int) -> None:
        if not self.options.tau:
            return
        frequency = self.options.frequency
        for layer in self.own_layers():
            weight = layer.weight
            if weight.grad is not None:
                slope = (2 * frequency * weight.detach()).sin() * (frequency / weight.numel())
                weight.grad.add_(slope, alpha=self.options.tau)
