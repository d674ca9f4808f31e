"""What a scheme of few values adds to the products of a layer, as data: norms, roundings, scales, their gradients.

Importing this must not import torch, so that saved workloads open quickly.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from ..errors import require_int
from ..operand import Role

__all__ = ["NORM_ALONE", "UNDECLARED", "ScaleOf", "VectorWork"]


class ScaleOf(StrEnum):
    """What has one scale: an FP32 number that is made of the data, but for the last one."""

    LAYER = "layer"
    FILTER = "filter"
    """An output of the layer."""
    ROW = "row"
    """A token of a linear layer, an image of a convolution."""
    CONSTANT = "constant"
    """The layer, by a number that is known beforehand."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorWork:
    """How a tensor of the layer is brought to few values in FF, and its gradient in BP (activations) or WU (weights).

    ``norm``: rows of activations are normalised first, which reads and writes the tensor, and backward reads it and its
    gradient and writes one. ``looks``: how often all of the tensor is gone over before its first value is known, for a
    scale that values are divided by, say. ``scale``: what has a scale beside the values; the results of FF are
    multiplied by it, and dY once more, of weights for BP, of activations for WU. ``gradient``: how often gradient and
    tensor are gone over for the gradient that goes on; 0: straight through.
    """

    norm: bool = False
    looks: int = 0
    scale: ScaleOf | None = None
    gradient: int = 1

    def __post_init__(self) -> None:
        require_int("looks of vector work", self.looks, 0, 64)
        require_int("gradient of vector work", self.gradient, 0, 64)


UNDECLARED: Final = {
    Role.WEIGHT: VectorWork(looks=1, scale=ScaleOf.FILTER),
    Role.ACTIVATION: VectorWork(norm=True, looks=1, scale=ScaleOf.ROW),
}
"""Taken for operands with levels of which a scheme says nothing: as much as the schemes here have, and no less."""

NORM_ALONE: Final = VectorWork(norm=True, gradient=0)
"""Taken for activations of which a scheme of few values says nothing, and which have no levels."""
