"""How a tensor is brought to few values in FF, and what stands for the derivative of that in BP and WU."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Estimator", "Few", "Real", "sign"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Few:
    """A tensor as ``scale`` times ``values``, few of which differ.

    ``values``: of the shape and dtype of the tensor, any. ``scale``: of as many dimensions, 1 along the contraction of
    FF, so that it can be left out of the product: [groups, out, 1, 1] or [1, 1, 1, 1] of a weight, [rows, 1, ...] of an
    activation; None for 1. ``more``: what is added to it, where a weight is a sum of planes, each with a scale of its
    own; an activation is one.
    """

    values: Tensor
    scale: Tensor | None = None
    more: tuple[Few, ...] = ()

    @property
    def planes(self) -> tuple[Few, ...]:
        """The planes of the sum, each without ``more``; of a tensor that is no sum, itself."""
        own = Few(values=self.values, scale=self.scale) if self.more else self
        return own, *(plane for more in self.more for plane in more.planes)

    @property
    def whole(self) -> Tensor:
        """The sum of scale times values, of the shape and dtype of the values."""
        parts = [few.values if few.scale is None else few.values * few.scale for few in self.planes]
        return sum(parts[1:], start=parts[0]).to(self.values.dtype)


class Estimator:
    """A tensor brought to few values, and its gradient; as it stands, left as it is.

    A weight comes as [groups, out, in, taps] (`SparseLayer.canonical`), an activation as [rows, ...]: a row is a token
    of a linear layer [in], or an image of a convolution [in, *positions]. All are of one float dtype.
    """

    def few(self, x: Tensor) -> Few:
        """The few values of ``x`` and their scale; of any shape, as above."""
        return Few(values=x)

    def gradient(self, g: Tensor, x: Tensor) -> Tensor:
        """What goes on to ``x`` of ``g``, the gradient of scale times values: of its shape and dtype.

        As it stands, straight through.
        """
        return g


class Real(Estimator):
    """Real numbers: nothing is brought to anything."""


def sign(x: Tensor) -> Tensor:
    """-1 or +1, in the dtype of ``x``, of any shape; that of 0 is +1, NaN stays NaN, so that a training sees it."""
    return torch.where(x >= 0, 1.0, torch.where(x < 0, -1.0, x)).to(x.dtype)
