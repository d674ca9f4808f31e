"""The vector unit one number at a time, as docs/design/accelerator.md has it: NumPy scalars and Python's `math`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from .machine import MINUS_ZERO, NAN, Places, in_order

__all__ = [
    "average_pool_back_reference",
    "average_pool_reference",
    "batch_norm_back_reference",
    "batch_norm_reference",
    "gelu_back_reference",
    "gelu_reference",
    "layer_norm_back_reference",
    "layer_norm_reference",
    "max_pool_back_reference",
    "max_pool_reference",
    "softmax_back_reference",
    "softmax_reference",
]

F = np.float32
Single = npt.NDArray[np.float32]
Taps = npt.NDArray[np.uint8]
ONE = F(1)


def in_double(function: Callable[[float], float], x: np.float32) -> np.float32:
    """Of one number in double precision, rounded to FP32."""
    if np.isnan(x):
        return NAN
    try:
        return F(function(float(x)))
    except OverflowError:
        return F(np.inf)


def one_nan(values: Single) -> Single:
    """Float32 of any shape with a single NaN."""
    return np.array([NAN if np.isnan(value) else value for value in values.ravel()], F).reshape(values.shape)


def moments(line: list[np.float32], eps: float) -> tuple[np.float32, np.float32, np.float32]:
    """Mean, variance and 1 / deviation of numbers in order."""
    share = F(1 / len(line))
    mean = in_order(line) * share
    variance = in_order((value - mean) * (value - mean) for value in line) * share
    return mean, variance, ONE / np.sqrt(variance + F(eps))


def columns(made: list[tuple[np.float32, np.float32, np.float32]]) -> tuple[Single, Single, Single]:
    """All first ones, all second, all third, with a single NaN."""
    first, second, third = (one_nan(np.array(values, F)) for values in zip(*made, strict=True))
    return first, second, third


def batch_norm_reference(x: Single, weight: Single, bias: Single, eps: float) -> tuple[Single, Single, Single, Single]:
    """y [rows, channels], and mean, variance, 1 / deviation [channels] of float32 ``x``."""
    made = [moments(list(x[:, c]), eps) for c in range(x.shape[1])]
    y = np.empty_like(x)
    for r, c in np.ndindex(x.shape):
        mean, _, s = made[c]
        y[r, c] = ((x[r, c] - mean) * s) * weight[c] + bias[c]
    return one_nan(y), *columns(made)


def batch_norm_back_reference(g: Single, x: Single, mean: Single, s: Single, weight: Single) -> tuple[Single, ...]:
    """Gradients of input, scale and bias; float32 [rows, channels], the others [channels]."""
    rows, channels = x.shape
    dx, gw, gb, share = np.empty_like(x), np.empty_like(s), np.empty_like(s), F(1 / rows)
    for c in range(channels):
        xhat = [(x[r, c] - mean[c]) * s[c] for r in range(rows)]
        gb[c] = in_order(g[:, c])
        gw[c] = in_order(g[r, c] * xhat[r] for r in range(rows))
        for r in range(rows):
            dx[r, c] = (weight[c] * s[c]) * ((g[r, c] - gb[c] * share) - xhat[r] * (gw[c] * share))
    return one_nan(dx), gw, gb


def layer_norm_reference(x: Single, weight: Single, bias: Single, eps: float) -> tuple[Single, Single, Single, Single]:
    """y [rows, channels], and mean, variance, 1 / deviation [rows] of float32 ``x``."""
    made = [moments(list(row), eps) for row in x]
    y = np.empty_like(x)
    for r, c in np.ndindex(x.shape):
        mean, _, s = made[r]
        y[r, c] = ((x[r, c] - mean) * s) * weight[c] + bias[c]
    return one_nan(y), *columns(made)


def layer_norm_back_reference(g: Single, x: Single, mean: Single, s: Single, weight: Single) -> tuple[Single, ...]:
    """Gradients of input, scale and bias; float32 [rows, channels], ``mean``, ``s`` [rows], the others [channels]."""
    rows, channels = x.shape
    dx, share = np.empty_like(x), F(1 / channels)
    xhat = [[(x[r, c] - mean[r]) * s[r] for c in range(channels)] for r in range(rows)]
    for r in range(rows):
        h = [g[r, c] * weight[c] for c in range(channels)]
        average = in_order(h) * share
        met = in_order(h[c] * xhat[r][c] for c in range(channels)) * share
        for c in range(channels):
            dx[r, c] = s[r] * ((h[c] - average) - xhat[r][c] * met)
    gw = [in_order(g[r, c] * xhat[r][c] for r in range(rows)) for c in range(channels)]
    return one_nan(dx), np.array(gw, F), np.array([in_order(g[:, c]) for c in range(channels)], F)


def softmax_reference(x: Single) -> Single:
    """Along the rows of float32 [rows, n]."""
    y = np.empty_like(x)
    for r, row in enumerate(x):
        largest = NAN if np.isnan(row).any() else F(max(row))
        e = [in_double(math.exp, value - largest) for value in row]
        whole = ONE / in_order(e)
        y[r] = [value * whole for value in e]
    return one_nan(y)


def softmax_back_reference(g: Single, y: Single) -> Single:
    """Along the rows of float32 [rows, n]."""
    dx = np.empty_like(y)
    for r in range(len(y)):
        met = in_order(a * b for a, b in zip(g[r], y[r], strict=True))
        dx[r] = [b * (a - met) for a, b in zip(g[r], y[r], strict=True)]
    return one_nan(dx)


def inner(x: np.float32) -> np.float32:
    """Of GELU by tanh."""
    cube = (x * x) * x
    return in_double(math.tanh, F(math.sqrt(2 / math.pi)) * (x + F(0.044715) * cube))


def gelu_reference(x: Single, by_tanh: bool) -> Single:
    """Of float32 [n]."""
    root = F(math.sqrt(0.5))
    inside = [inner(value) if by_tanh else in_double(math.erf, value * root) for value in x]
    return one_nan(np.array([(F(0.5) * value) * (ONE + at) for value, at in zip(x, inside, strict=True)], F))


def gelu_back_reference(g: Single, x: Single, by_tanh: bool) -> Single:
    """Of float32 [n]."""
    out = []
    for gradient, value in zip(g, x, strict=True):
        square = value * value
        if by_tanh:
            t = inner(value)
            slope = F(math.sqrt(2 / math.pi)) * (ONE + F(3 * 0.044715) * square)
            out.append(gradient * (F(0.5) * (ONE + t) + ((F(0.5) * value) * (ONE - t * t)) * slope))
        else:
            below = F(0.5) * (ONE + in_double(math.erf, value * F(math.sqrt(0.5))))
            density = F(1 / math.sqrt(2 * math.pi)) * in_double(math.exp, F(-0.5) * square)
            out.append(gradient * (below + value * density))
    return one_nan(np.array(out, F))


def window_of(places: Places, size: tuple[int, int], row: int, col: int) -> Iterator[tuple[int, int, int]]:
    """Tap, row and column of the image that a window has inside it, in order."""
    for kh, kw in np.ndindex(places.kernel, places.kernel):
        y, z = places.met(row, kh), places.met(col, kw)
        if 0 <= y < size[0] and 0 <= z < size[1]:
            yield kh * places.kernel + kw, y, z


def max_pool_reference(x: Single, places: Places) -> tuple[Single, Taps]:
    """Of float32 [n, h, w, c], float32 and uint8."""
    n, h, w, channels = x.shape
    y = np.empty((n, places.count(h), places.count(w), channels), F)
    at = np.empty(y.shape, np.uint8)
    for image, row, col, c in np.ndindex(y.shape):
        inside = list(window_of(places, (h, w), row, col))
        best, *rest = [(x[image, i, j, c], tap) for tap, i, j in inside]
        for value, tap in rest:
            if value > best[0] or (np.isnan(value) and not np.isnan(best[0])):
                best = value, tap
        y[image, row, col, c], at[image, row, col, c] = best
    return one_nan(y), at


def max_pool_back_reference(g: Single, at: Taps, places: Places, size: tuple[int, int]) -> Single:
    """Of float32 and uint8 [n, rows, cols, c], float32 [n, *size, c]."""
    out = np.full((len(g), *size, g.shape[-1]), MINUS_ZERO)
    for image, row, col, c in np.ndindex(g.shape):
        for tap, i, j in window_of(places, size, row, col):
            if tap == at[image, row, col, c]:
                out[image, i, j, c] += g[image, row, col, c]
    return one_nan(out)


def average_pool_reference(x: Single, places: Places, count_padding: bool) -> Single:
    """Of float32 [n, h, w, c]."""
    n, h, w, channels = x.shape
    y = np.empty((n, places.count(h), places.count(w), channels), F)
    for image, row, col, c in np.ndindex(y.shape):
        terms = [x[image, i, j, c] for _, i, j in window_of(places, (h, w), row, col)]
        y[image, row, col, c] = in_order(terms) * F(1 / (places.kernel**2 if count_padding else len(terms)))
    return one_nan(y)


def average_pool_back_reference(g: Single, places: Places, size: tuple[int, int], count_padding: bool) -> Single:
    """Of float32 [n, rows, cols, c], float32 [n, *size, c]."""
    out = np.full((len(g), *size, g.shape[-1]), MINUS_ZERO)
    for image, row, col, c in np.ndindex(g.shape):
        inside = list(window_of(places, size, row, col))
        for _, i, j in inside:
            out[image, i, j, c] += g[image, row, col, c] * F(1 / (places.kernel**2 if count_padding else len(inside)))
    return one_nan(out)
