"""The machine's arithmetic one number at a time: loops over NumPy scalars, as docs/design/accelerator.md has it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..operand import Half, Word

__all__ = ["Places", "convolve_back_reference", "convolve_reference", "product_reference", "weight_gradient_reference"]

Single = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]
MINUS_ZERO, NAN = np.float32(-0.0), np.uint32(0x7FC00000).view(np.float32)


class Places(NamedTuple):
    """Of a square kernel on an image: its size, and how it moves, in both dimensions alike."""

    kernel: int
    stride: int
    padding: int
    dilation: int

    def count(self, size: int) -> int:
        """Positions along an image of ``size``."""
        return len(range(0, size + 2 * self.padding - self.dilation * (self.kernel - 1), self.stride))

    def met(self, at: int, tap: int) -> int:
        """Where in the image a tap of a position lies."""
        return at * self.stride + tap * self.dilation - self.padding


def in_order(terms: Iterable[np.float32]) -> np.float32:
    """Their sum from -0.0, one after the other."""
    total = MINUS_ZERO
    for term in terms:
        total = np.float32(total + term)
    return NAN if np.isnan(total) else total


def times(a: Word, b: Word) -> np.float32:
    """FP32 product of two numbers, rounded."""
    return np.float32(np.float32(a) * np.float32(b))


def product_reference(a: Half, b: Half, kept: Bool) -> Single:
    """C[m, n] of ``a`` [m, k] and ``b`` [k, n], of either operand type; ``kept`` bool [m, k, n] are the products."""
    (m, k), n = a.shape, b.shape[1]
    out = np.empty((m, n), np.float32)
    with np.errstate(all="ignore"):
        for i, j in np.ndindex(m, n):
            out[i, j] = in_order(times(a[i, step], b[step, j]) for step in range(k) if kept[i, step, j])
    return out


def convolve_reference(x: Half, weight: Half, places: Places, groups: int, kept: Bool) -> Single:
    """FF of ``x`` [n, h, w, c] with ``weight`` [o, kernel, kernel, c / groups], of either operand type."""
    n, h, w, c = x.shape
    inside, per_group = c // groups, len(weight) // groups
    out = np.empty((n, places.count(h), places.count(w), len(weight)), np.float32)

    def products(image: int, row: int, col: int, o: int) -> Iterator[np.float32]:
        for kh, kw, i in np.ndindex(places.kernel, places.kernel, inside):
            y, z = places.met(row, kh), places.met(col, kw)
            value = x[image, y, z, o // per_group * inside + i] if 0 <= y < h and 0 <= z < w else x.dtype.type(0)
            if kept[o, kh, kw, i]:
                yield times(value, weight[o, kh, kw, i])

    with np.errstate(all="ignore"):
        for at in np.ndindex(out.shape):
            out[at] = in_order(products(*at))
    return out


def convolve_back_reference(
    gradient: Half, weight: Half, places: Places, groups: int, kept: Bool, kept_gradient: Bool, size: tuple[int, int]
) -> Single:
    """BP to an image of ``size``; ``gradient`` [n, h, w, o], ``weight`` as in FF, of either operand type."""
    n, rows, cols, outputs = gradient.shape
    inside, per_group = weight.shape[-1], outputs // groups
    out = np.empty((n, *size, inside * groups), np.float32)

    def of_tap(image: int, row: int, col: int, tap: tuple[int, int], channel: int) -> Iterator[np.float32]:
        group, i = divmod(channel, inside)
        for o in range(group * per_group, (group + 1) * per_group):
            if kept[o, *tap, i] and kept_gradient[image, row, col, o]:
                yield times(gradient[image, row, col, o], weight[o, *tap, i])

    def meeting(image: int, y: int, z: int, channel: int) -> Iterator[np.float32]:
        for kh, kw in np.ndindex(places.kernel, places.kernel):
            for row, col in np.ndindex(rows, cols):
                if (places.met(row, kh), places.met(col, kw)) == (y, z):
                    yield in_order(of_tap(image, row, col, (kh, kw), channel))

    with np.errstate(all="ignore"):
        for at in np.ndindex(out.shape):
            out[at] = in_order(meeting(*at))
    return out


def weight_gradient_reference(x: Half, gradient: Half, places: Places, groups: int, kept_gradient: Bool) -> Single:
    """WU: ``x`` [n, h, w, c] and ``gradient`` [n, rows, cols, o], of either operand type."""
    _, h, w, c = x.shape
    outputs, inside = gradient.shape[-1], c // groups
    out = np.empty((outputs, places.kernel, places.kernel, inside), np.float32)

    def products(o: int, kh: int, kw: int, i: int) -> Iterator[np.float32]:
        for image, row, col in np.ndindex(gradient.shape[:-1]):
            y, z = places.met(row, kh), places.met(col, kw)
            channel = o // (outputs // groups) * inside + i
            value = x[image, y, z, channel] if 0 <= y < h and 0 <= z < w else x.dtype.type(0)
            if kept_gradient[image, row, col, o]:
                yield times(gradient[image, row, col, o], value)

    with np.errstate(all="ignore"):
        for at in np.ndindex(out.shape):
            out[at] = in_order(products(*at))
    return out
