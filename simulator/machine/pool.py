"""Pooling of the machine, forward and backward, on images [n, *image, channels] of FP32, rounded as in `vector.py`.

Positions outside of the image take part in nothing. A backward pass adds, at each position of the image, what its
windows give it, in order of the windows from -0.0; a position that gets nothing is -0.0.
"""

from __future__ import annotations

from itertools import product as every
from typing import Any

import numpy as np
import numpy.typing as npt

from ...workloads.errors import InputError
from ...workloads.im2col import Window
from ..array import canonical
from ..kernels.pool import average, give_back, largest, share_out

__all__ = [
    "adaptive_average_pool",
    "adaptive_average_pool_backward",
    "average_pool",
    "average_pool_backward",
    "max_pool",
    "max_pool_backward",
]

Single = npt.NDArray[np.float32]
Taps = npt.NDArray[np.uint8]
Places = npt.NDArray[np.int64]

MINUS_ZERO = np.float32(-0.0)
OUTSIDE = -1
MOST_TAPS = 256
"""The tap that a maximum came from is a byte in memory."""


def max_pool(x: Single, window: Window) -> tuple[Single, Taps]:
    """The largest of each window, the first of equals, and the tap that it stands at.

    Of ``x`` float32 [n, *image, channels]: float32 and uint8 [n, *positions, channels]. Taps are looked at in order;
    one that is larger than all before it, or the first NaN, takes their place.
    """
    if window.taps > MOST_TAPS:
        raise InputError(f"window has {window.taps} taps; a pool takes {MOST_TAPS} at most")
    places = _places(window)
    if (places == OUTSIDE).all(axis=1).any():
        raise InputError(f"{window} has a position outside of the image; its padding must be below its kernel")
    flat = _flat("x", x, window.image)
    shape = len(x), len(places), x.shape[-1]
    y, taps = np.empty(shape, np.float32), np.empty(shape, np.uint8)
    largest(flat, places, y, taps)
    whole = len(x), *window.positions, x.shape[-1]
    return canonical(y).reshape(whole), taps.reshape(whole)


def max_pool_backward(gradient: Single, taps: Taps, window: Window) -> Single:
    """Each gradient to where its maximum stood; float32 and uint8 [n, *positions, c] to float32 [n, *image, c]."""
    flat, places = _flat("gradient", gradient, window.positions), _places(window)
    stood = _flat("taps", taps, window.positions)
    if stood.shape != flat.shape or stood.dtype != np.uint8:
        raise InputError(f"taps must be uint8 {list(gradient.shape)}, not {taps.dtype} {list(taps.shape)}")
    if stood.max(initial=0) >= window.taps or (places[np.arange(len(places))[:, None], stood] == OUTSIDE).any():
        raise InputError("taps holds one that is not in its window, or outside of the image; take those of max_pool")
    out = np.full((len(flat), np.prod(window.image, dtype=int), flat.shape[-1]), MINUS_ZERO)
    give_back(flat, places, stood, out)
    return canonical(out).reshape(len(gradient), *window.image, -1)


def average_pool(x: Single, window: Window, *, count_padding: bool = True) -> Single:
    """The sum of each window in order of its taps, times float32(1 / n): float32 [n, *image, c] to [n, *positions, c].

    n are the taps, or without ``count_padding`` those of them inside the image.
    """
    return _average(x, window.image, window.positions, _places(window), _shares(window, count_padding))


def average_pool_backward(gradient: Single, window: Window, *, count_padding: bool = True) -> Single:
    """float32(1 / n) of each gradient to all of its window; float32 [n, *positions, c] to [n, *image, c]."""
    places, shares = _places(window), _shares(window, count_padding)
    return _share_out(gradient, window.image, window.positions, places, shares)


def adaptive_average_pool(x: Single, positions: tuple[int, ...]) -> Single:
    """The means of ``positions`` parts of an image, float32 [n, *image, c] to [n, *positions, c]; (1, 1) is all of it.

    Part i of p of a side of s is from floor(i s / p) to ceil((i + 1) s / p). Sums run in order inside a part, row by
    row, times float32(1 / n).
    """
    image = x.shape[1:-1]
    return _average(x, image, positions, *_parts(image, positions))


def adaptive_average_pool_backward(gradient: Single, image: tuple[int, ...]) -> Single:
    """float32(1 / n) of each gradient to all of its part; float32 [n, *positions, c] to [n, *image, c]."""
    positions = gradient.shape[1:-1]
    return _share_out(gradient, image, positions, *_parts(image, positions))


def _average(x: Single, image: tuple[int, ...], positions: tuple[int, ...], places: Places, shares: Single) -> Single:
    flat = _flat("x", x, image)
    y = np.empty((len(flat), len(places), flat.shape[-1]), np.float32)
    average(flat, places, shares, y)
    return canonical(y).reshape(len(x), *positions, -1)


def _share_out(
    gradient: Single, image: tuple[int, ...], positions: tuple[int, ...], places: Places, shares: Single
) -> Single:
    flat = _flat("gradient", gradient, positions)
    out = np.full((len(flat), np.prod(image, dtype=int), flat.shape[-1]), MINUS_ZERO)
    share_out(flat, places, shares, out)
    return canonical(out).reshape(len(gradient), *image, -1)


def _places(window: Window) -> Places:
    """Pixel of the image at each tap of each position, [positions, taps]."""
    if min(window.positions) < 1:
        raise InputError(f"{window} has no position; its kernel must fit into the padded image")
    padded = np.full(window.padded, OUTSIDE, np.int64)
    padded[window.inside()] = np.arange(np.prod(window.image)).reshape(window.image)
    return np.stack([padded[read].ravel() for read in window.reads()], axis=-1)


def _shares(window: Window, count_padding: bool) -> Single:
    """float32(1 / n) of each position, [positions]."""
    places = _places(window)
    counts = np.full(len(places), window.taps) if count_padding else np.count_nonzero(places != OUTSIDE, axis=1)
    if not counts.all():
        raise InputError(f"{window} has a position outside of the image; its padding must be below its kernel")
    shares: Single = (1 / counts).astype(np.float32)
    return shares


def _parts(image: tuple[int, ...], positions: tuple[int, ...]) -> tuple[Places, Single]:
    """Pixels of the parts of an image, [positions, most of a part], and float32(1 / n) of each."""
    if len(image) != len(positions) or any(not 1 <= p <= s for p, s in zip(positions, image, strict=False)):
        raise InputError(f"positions are {positions} of an image {image}; each must be from 1 to the image's side")
    pixels = np.arange(np.prod(image)).reshape(image)
    held = []
    for at in every(*map(range, positions)):
        sides = zip(at, image, positions, strict=True)
        held.append(pixels[tuple(slice(i * s // p, -(-(i + 1) * s // p)) for i, s, p in sides)].ravel())
    places = np.full((len(held), max(map(len, held))), OUTSIDE, np.int64)
    for row, part in zip(places, held, strict=True):
        row[: len(part)] = part
    return places, np.array([1 / len(part) for part in held]).astype(np.float32)


def _flat(name: str, value: npt.NDArray[Any], middle: tuple[int, ...]) -> npt.NDArray[Any]:
    """[n, *middle, c] as [n, product of middle, c]."""
    if value.shape[1:-1] != middle:
        raise InputError(f"{name} is {list(value.shape)}, but must be [n, {', '.join(map(str, middle))}, channels]")
    return np.ascontiguousarray(value).reshape(len(value), -1, value.shape[-1])
