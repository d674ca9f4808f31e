"""im2col and its inverse on NumPy arrays: what makes a convolution a matrix product, channels innermost."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Window", "fold", "unfold"]

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A convolution kernel on an image of the size ``image``, an entry a spatial dimension; none in a linear layer.

    ``padding`` is on both sides.
    """

    image: tuple[int, ...] = ()
    kernel: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()

    @property
    def taps(self) -> int:
        """Elements of the kernel."""
        return prod(self.kernel)

    @property
    def positions(self) -> tuple[int, ...]:
        """Places of the kernel, in each dimension."""
        sizes = zip(self.image, self.kernel, self.stride, self.padding, self.dilation, strict=True)
        return tuple((size + 2 * pad - dilation * (k - 1) - 1) // step + 1 for size, k, step, pad, dilation in sizes)

    @property
    def padded(self) -> tuple[int, ...]:
        """Size of the image with its padding."""
        return tuple(size + 2 * pad for size, pad in zip(self.image, self.padding, strict=True))

    def reads(self) -> Iterator[tuple[slice, ...]]:
        """By tap, the places of the padded image that it reads, one for each position."""
        each = list(zip(self.positions, self.stride, self.dilation, strict=True))
        for tap in product(*map(range, self.kernel)):
            yield tuple(
                slice(at * dilation, at * dilation + (count - 1) * step + 1, step)
                for at, (count, step, dilation) in zip(tap, each, strict=True)
            )

    def inside(self) -> tuple[slice, ...]:
        """The image in the padded one."""
        return tuple(slice(pad, pad + size) for size, pad in zip(self.image, self.padding, strict=True))


def unfold(x: Array, window: Window) -> Array:
    """``x`` [samples, channels, *image] of any dtype as [samples x positions, taps, channels]."""
    padded = np.zeros((*x.shape[:2], *window.padded), x.dtype)
    padded[:, :, *window.inside()] = x
    by_tap = np.stack([padded[:, :, *read] for read in window.reads()])
    made = np.moveaxis(by_tap, (0, 2), (-2, -1))
    return made.reshape(-1, window.taps, x.shape[1])


def fold(columns: Array, window: Window) -> Array:
    """The adjoint: of ``columns`` [samples x positions, taps, channels] an image [samples, channels, *image].

    Every element is the sum, in the order of the taps and in the dtype of ``columns``, of what reads it.
    """
    channels = columns.shape[-1]
    by_tap = np.moveaxis(columns.reshape(-1, *window.positions, window.taps, channels), (-2, -1), (0, 2))
    padded = np.zeros((*by_tap.shape[1:3], *window.padded), columns.dtype)
    for part, read in zip(by_tap, window.reads(), strict=True):
        padded[:, :, *read] += part
    return np.ascontiguousarray(padded[:, :, *window.inside()])
