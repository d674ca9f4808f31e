"""Batch norm and layer norm of the machine, forward and backward, each operation with its roundings.

All is FP32, rounded as in `vector.py`. Positions are rows, channels columns: an image [n, *image, channels] is
[positions, channels] here. Means are sums in order times float32(1 / n).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ...workloads.errors import InputError
from ..array import canonical
from ..kernels.vector import column_products, column_sums, row_products, row_sums

__all__ = [
    "NormGradients",
    "Normed",
    "batch_norm",
    "batch_norm_backward",
    "frozen_norm_backward",
    "inverse_deviation",
    "layer_norm",
    "layer_norm_backward",
    "normalise",
    "running",
    "running_variance",
]

Single = npt.NDArray[np.float32]

_quiet = np.errstate(all="ignore")
ONE = np.float32(1)


class Normed(NamedTuple):
    """What a norm leaves, float32: y [rows, channels]; of each column or row mean, variance, s = 1 / deviation."""

    y: Single
    mean: Single
    variance: Single
    s: Single


class NormGradients(NamedTuple):
    """All float32: of the input [rows, channels], of the scale and of the bias [channels]."""

    x: Single
    weight: Single
    bias: Single


@_quiet
def batch_norm(x: Single, weight: Single, bias: Single, eps: float) -> Normed:
    """Training: `normalise` of ``x`` by the statistics of its own columns; float32 [rows, channels], [channels].

    mean = mean of x; variance = mean of (x - mean)^2, a second trip; s as `inverse_deviation`.
    """
    share = np.float32(1 / len(x))
    average = _columns(x) * share
    apart = x - average
    variance = _columns(apart, apart) * share
    s = inverse_deviation(variance, eps)
    return Normed(canonical(((apart * s) * weight) + bias), canonical(average), canonical(variance), s)


@_quiet
def normalise(x: Single, mean: Single, s: Single, weight: Single, bias: Single) -> Single:
    """(((x - mean) s) weight) + bias; float32 [rows, channels], the others [channels]. Inference, by running values."""
    return canonical((((x - mean) * s) * weight) + bias)


@_quiet
def inverse_deviation(variance: Single, eps: float) -> Single:
    """1 / sqrt(variance + eps), float32 of any shape: root and quotient correctly rounded, eps to FP32."""
    return canonical(np.asarray(ONE / np.sqrt(variance + np.float32(eps))))


@_quiet
def running(held: Single, new: Single, momentum: float) -> Single:
    """(1 - momentum) held + momentum new; float32 [channels]. Both constants are rounded from double."""
    return canonical(np.float32(1 - momentum) * held + np.float32(momentum) * new)


@_quiet
def running_variance(held: Single, variance: Single, momentum: float, count: int) -> Single:
    """`running` of ``variance`` float32(count / (count - 1)), of so many positions; float32 [channels]."""
    if count < 2:
        raise InputError(f"count is {count}; a running variance needs 2 positions or more")
    return running(held, variance * np.float32(count / (count - 1)), momentum)


@_quiet
def batch_norm_backward(gradient: Single, x: Single, mean: Single, s: Single, weight: Single) -> NormGradients:
    """Of `batch_norm`; ``gradient`` and ``x`` float32 [rows, channels], the others [channels].

    xhat = (x - mean) s; gb = sum of g; gw = sum of g xhat; dx = (weight s) ((g - gb / n) - xhat (gw / n)), where / n
    is a product with float32(1 / n).
    """
    share = np.float32(1 / len(x))
    xhat = (x - mean) * s
    bias, scale = _columns(gradient), _columns(gradient, xhat)
    made = (weight * s) * ((gradient - bias * share) - xhat * (scale * share))
    return NormGradients(canonical(made), canonical(scale), canonical(bias))


@_quiet
def frozen_norm_backward(gradient: Single, x: Single, mean: Single, s: Single, weight: Single) -> NormGradients:
    """Of `normalise` by values that the input did not make: as `batch_norm_backward`, but dx = (weight s) g.

    ``gradient`` and ``x`` float32 [rows, channels], the others [channels].
    """
    bias, scale = _columns(gradient), _columns(gradient, (x - mean) * s)
    return NormGradients(canonical((weight * s) * gradient), canonical(scale), canonical(bias))


@_quiet
def layer_norm(x: Single, weight: Single, bias: Single, eps: float) -> Normed:
    """As `batch_norm`, by the statistics of each row of ``x``, float32 [rows, channels]; the others [channels]."""
    share = np.float32(1 / x.shape[1])
    average = _rows(x) * share
    apart = x - average[:, None]
    variance = _rows(apart, apart) * share
    s = inverse_deviation(variance, eps)
    y = canonical(((apart * s[:, None]) * weight) + bias)
    return Normed(y, canonical(average), canonical(variance), s)


@_quiet
def layer_norm_backward(gradient: Single, x: Single, mean: Single, s: Single, weight: Single) -> NormGradients:
    """Of `layer_norm`; float32 [rows, channels], ``mean`` and ``s`` [rows], ``weight`` [channels].

    xhat = (x - mean) s; h = g weight; dx = s ((h - mean of h) - xhat (mean of h xhat)), means along the row; the
    gradients of weight and bias are sums in order of rows, of g xhat and of g.
    """
    share = np.float32(1 / x.shape[1])
    xhat = (x - mean[:, None]) * s[:, None]
    h = gradient * weight
    average, met = _rows(h) * share, _rows(h, xhat) * share
    made = s[:, None] * ((h - average[:, None]) - xhat * met[:, None])
    return NormGradients(canonical(made), canonical(_columns(gradient, xhat)), canonical(_columns(gradient)))


def _columns(x: Single, y: Single | None = None) -> Single:
    """Sums in order of the rows of ``x``, or of its products with ``y``."""
    out = np.empty(x.shape[1], np.float32)
    if y is None:
        column_sums(np.ascontiguousarray(x), out)
    else:
        column_products(np.ascontiguousarray(x), np.ascontiguousarray(y), out)
    return out


def _rows(x: Single, y: Single | None = None) -> Single:
    """The same along each row."""
    out = np.empty(len(x), np.float32)
    if y is None:
        row_sums(np.ascontiguousarray(x), out)
    else:
        row_products(np.ascontiguousarray(x), np.ascontiguousarray(y), out)
    return out
