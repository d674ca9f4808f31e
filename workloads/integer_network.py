"""A trained network of few values as a machine has it: integers, and what becomes of the sums of each channel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from .errors import InputError
from .gemm import Gemm
from .im2col import Window, unfold
from .levels import Levels
from .one_line import OneLine

__all__ = ["Forward", "IntegerLayer", "IntegerNetwork", "Made", "Norm", "Product"]

Bytes = npt.NDArray[np.int8]
Single = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False, eq=False)
class Norm(OneLine):
    """Batch norm at inference: gamma (x - mean) / sqrt(variance + epsilon) + beta; float32 [channels]."""

    gamma: Single
    beta: Single
    mean: Single
    variance: Single
    epsilon: float


class Made(NamedTuple):
    """What leaves the edge of an engine: sums int32 and whether they pass their thresholds, bool; both [m, n].

    A sum of a layer without thresholds passes nothing.
    """

    sums: npt.NDArray[np.int32]
    passed: npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False, eq=False)
class IntegerLayer(OneLine):
    """A product of integers, then ``scale`` s + ``bias``, batch norm and sign, and a max pool on either side of it.

    ``weights``: int8 [k, n] in the order of `im2col.unfold`, whose ``window`` has no kernel in a linear layer.
    ``levels``: of inputs and weights. ``channels``: of an input, ``edge``: what stands around its image. ``scale``
    float32 [n] is that of inputs times that of weights, ``bias`` float32 [n]. Without a ``norm`` the sign is that of
    what it would norm. ``pool_first``: the pool stands in front of the norm, not behind it.
    """

    name: str
    weights: Bytes
    levels: tuple[Levels, Levels]
    window: Window
    channels: int
    edge: int
    scale: Single
    bias: Single
    norm: Norm | None
    pool: Window | None = None
    pool_first: bool = False

    def gemm(self, images: int) -> Gemm:
        """The product of so many images."""
        k, n = self.weights.shape
        run = self.channels if self.window.kernel else k
        return Gemm(m=images * prod(self.window.positions), k=k, n=n, run=run)

    def columns(self, x: Bytes) -> Bytes:
        """Inputs int8 [images, channels, *image] as what is multiplied, [m, k]."""
        window = self.window
        if not window.kernel:
            return x.reshape(len(x), -1)
        pads = [(0, 0), (0, 0), *((size, size) for size in window.padding)]
        bare = replace(window, image=window.padded, padding=(0,) * len(window.padding))
        return unfold(np.pad(x, pads, constant_values=self.edge), bare).reshape(-1, len(self.weights))

    def signs(self, passed: npt.NDArray[np.bool_], flip: npt.NDArray[np.bool_]) -> Bytes:
        """Bits [m, n] as what the next layer reads, -1 and +1, [images, n, *positions].

        The largest of a pool of signs is +1 where one is. Of sums whose bit is that they are small enough (``flip``
        [n]) a pool in front takes the largest, so that all of them must be.
        """
        channels = passed.shape[1]
        places = self.window.positions
        bits = np.moveaxis(passed.reshape(-1, *places, channels), -1, 1)
        if self.pool is not None:
            turned = (flip & self.pool_first).reshape(-1, *[1] * len(places))
            pooled = unfold(bits ^ turned, self.pool).any(axis=1)
            bits = np.moveaxis(pooled.reshape(len(bits), *self.pool.positions, channels), -1, 1) ^ turned
        return np.where(bits, 1, -1).astype(np.int8)


Product = Callable[[IntegerLayer, Bytes], tuple[Made, npt.NDArray[np.bool_]]]
"""Runs the product of a layer on [m, k] inputs; what leaves the edge, and which thresholds of [n] are flipped."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False, eq=False)
class Forward(OneLine):
    """Images run through a network: ``inputs`` of every layer, int8 [images, channels, ...], ``sums`` int32 and
    ``scores`` float64 of the last one, [images, classes]."""

    inputs: tuple[Bytes, ...]
    sums: npt.NDArray[np.int32]
    scores: npt.NDArray[np.float64]

    @property
    def classes(self) -> npt.NDArray[np.int64]:
        """Class of each image, int64 [images]: of equal scores the first, as of `torch.argmax`."""
        found: npt.NDArray[np.int64] = self.scores.argmax(axis=1)
        return found


@dataclass(frozen=True, slots=True, kw_only=True, repr=False, eq=False)
class IntegerNetwork(OneLine):
    """``layers`` in their order, and ``table``, int8 [channels, 256]: what stands for each value of a pixel."""

    table: Bytes
    layers: tuple[IntegerLayer, ...]

    def first_inputs(self, pixels: npt.NDArray[np.uint8]) -> Bytes:
        """Integers of images uint8 [images, channels, height, width], in their shape."""
        if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[1] != len(self.table):
            raise InputError(
                f"images must be uint8 [images, {len(self.table)}, height, width], not {pixels.dtype} "
                f"{list(pixels.shape)}"
            )
        return np.stack([table[pixels[:, c]] for c, table in enumerate(self.table)], axis=1)

    def run(self, pixels: npt.NDArray[np.uint8], product: Product) -> Forward:
        """Images uint8 [images, channels, height, width] through every layer, its product made by ``product``."""
        inputs = [self.first_inputs(pixels)]
        for layer in self.layers[:-1]:
            made, flip = product(layer, layer.columns(inputs[-1]))
            inputs.append(layer.signs(made.passed, flip))
        last = self.layers[-1]
        made, _ = product(last, last.columns(inputs[-1]))
        return self.forward(inputs, made.sums)

    def forward(self, inputs: Sequence[Bytes], sums: npt.NDArray[np.int32]) -> Forward:
        """What is made of the ``sums`` [images, classes] of the last layer; ``inputs`` as of `Forward`."""
        return Forward(inputs=tuple(inputs), sums=sums, scores=_scores(self.layers[-1], sums))


def _scores(last: IntegerLayer, sums: npt.NDArray[np.int32]) -> npt.NDArray[np.float64]:
    """Scale times sum is exact in float64 (24 bits by 29); what a bias or a norm adds is rounded there."""
    made: npt.NDArray[np.float64] = np.asarray(sums * last.scale.astype(np.float64) + last.bias, np.float64)
    if last.norm is None:
        return made
    norm = last.norm
    root = np.sqrt(norm.variance.astype(np.float64) + norm.epsilon)
    found = norm.gamma * ((made - norm.mean) / root) + norm.beta
    return found.astype(np.float64, copy=False)
