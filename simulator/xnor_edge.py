"""What stands behind the south edge of the XNOR engine: a sum becomes a sign, a number of the machine, or itself.

docs/design/xnor.md, "Results". Constants are those of a channel, which is a column n of C[m, n].
"""

from __future__ import annotations

from fractions import Fraction
from math import isqrt
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..dataflow.stce.spec import PESpec
from ..dataflow.xnor.spec import SUM_BITS
from ..workloads.errors import InputError
from ..workloads.integer_network import Norm
from .operand import Half, narrow

__all__ = ["Threshold", "fold", "scaled", "signs"]

Sums = npt.NDArray[np.int32]
Single = npt.NDArray[np.float32]

LEAST, MOST = -(1 << SUM_BITS - 1), (1 << SUM_BITS - 1) - 1
"""A sum is above `LEAST`, so that a comparison with it is always true, or never."""


class Threshold(NamedTuple):
    """The bit of a channel: whether a sum is at least ``at``, or where ``flip`` at most; int32 and bool [n]."""

    at: Sums
    flip: npt.NDArray[np.bool_]


def fold(norm: Norm, scale: Single | None = None, bias: Single | None = None) -> Threshold:
    """Batch norm and sign as a threshold, exactly: whether ``gamma (x - mean) / sqrt(variance + epsilon) + beta >= 0``
    of ``x = scale s + bias``, where s is a sum.

    All are float32 [n], a channel each, and rational numbers as they are; neither the sum of variance and epsilon,
    which must be above 0, nor its root is rounded. ``scale`` is 1 and ``bias`` 0 if None.
    """
    gamma = norm.gamma
    scale, bias = np.ones_like(gamma) if scale is None else scale, np.zeros_like(gamma) if bias is None else bias
    named = {"gamma": gamma, "beta": norm.beta, "mean": norm.mean, "variance": norm.variance}
    named |= {"scale": scale, "bias": bias}
    for name, values in named.items():
        if values.dtype != np.float32 or values.ndim != 1 or len(values) != len(gamma):
            raise InputError(f"{name} must be float32 [{len(gamma)}], not {values.dtype} {list(values.shape)}")
        if not np.isfinite(values).all():
            raise InputError(f"{name} must be finite, not {values[~np.isfinite(values)][0]}")
    epsilon = Fraction(norm.epsilon)
    found = []
    for channel in zip(*named.values(), strict=True):
        g, b, mu, variance, alpha, shift = (Fraction(float(x)) for x in channel)
        if variance + epsilon <= 0:
            raise InputError(f"variance must be above 0 with its epsilon {norm.epsilon:g}, not {float(variance):g}")
        found.append(_folded(g, b, mu - shift, variance + epsilon, alpha))
    return Threshold(np.array([at for at, _ in found], np.int32), np.array([flip for _, flip in found], np.bool_))


def _folded(gamma: Fraction, beta: Fraction, mean: Fraction, variance: Fraction, scale: Fraction) -> tuple[int, bool]:
    slope = gamma * scale
    if slope == 0:
        return LEAST, _floor(-gamma * mean, beta, variance) < 0
    where, spread = mean / scale, beta / slope
    if slope > 0:
        at = -_floor(-where, spread, variance)
        return (LEAST, True) if at > MOST else (max(at, LEAST), False)
    return max(min(_floor(where, -spread, variance), MOST), LEAST), True


def _floor(p: Fraction, q: Fraction, v: Fraction) -> int:
    """Of ``p + q sqrt(v)``, with the root of an integer alone: (a + r) / d with integers a and d has the floor of
    (a + floor(r)) / d."""
    under = q * q * v
    denominator = p.denominator * under.denominator
    square = under.numerator * under.denominator * p.denominator**2
    root = isqrt(square)
    if q < 0:
        root = -root - (root * root != square)
    return (p.numerator * under.denominator + root) // denominator


def signs(sums: Sums, threshold: Threshold) -> npt.NDArray[np.bool_]:
    """The bit of every sum, bool [m, n]: True for +1."""
    return np.where(threshold.flip, sums <= threshold.at, sums >= threshold.at)


def scaled(sums: Sums, alpha: Single, pe: PESpec) -> Half:
    """``sums`` times ``alpha`` float32 [n], rounded to FP32 and then to the machine's format."""
    return narrow(sums.astype(np.float32) * alpha, pe.format)
