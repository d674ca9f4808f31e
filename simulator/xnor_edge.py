"""What stands behind the south edge of the XNOR engine: a sum becomes a sign, a number of the machine, or itself.

docs/design/xnor.md, "Results". Constants are those of a channel, which is a column n of C[m, n].
"""

from __future__ import annotations

from fractions import Fraction
from math import ceil, floor
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..dataflow.stce.spec import PESpec
from ..dataflow.xnor.spec import SUM_BITS
from ..workloads.errors import InputError
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


def fold(gamma: Single, beta: Single, mean: Single, deviation: Single) -> Threshold:
    """Batch norm and sign as a threshold, exactly: whether ``gamma (s - mean) / deviation + beta >= 0``.

    All float32 [n], a channel each, and rational numbers as they are; ``deviation`` is the root that divides, above 0.
    """
    named = {"gamma": gamma, "beta": beta, "mean": mean, "deviation": deviation}
    for name, values in named.items():
        if values.dtype != np.float32 or values.ndim != 1 or len(values) != len(gamma):
            raise InputError(f"{name} must be float32 [{len(gamma)}], not {values.dtype} {list(values.shape)}")
        if not np.isfinite(values).all():
            raise InputError(f"{name} must be finite, not {values[~np.isfinite(values)][0]}")
    if not (deviation > 0).all():
        raise InputError(f"deviation must be above 0, not {deviation[deviation <= 0][0]}: add the norm's epsilon")
    found = [_folded(*map(Fraction, map(float, channel))) for channel in zip(gamma, beta, mean, deviation, strict=True)]
    return Threshold(np.array([at for at, _ in found], np.int32), np.array([flip for _, flip in found], np.bool_))


def _folded(gamma: Fraction, beta: Fraction, mean: Fraction, deviation: Fraction) -> tuple[int, bool]:
    if gamma == 0:
        return LEAST, beta < 0
    where = mean - beta * deviation / gamma
    if gamma > 0:
        at = ceil(where)
        return (LEAST, True) if at > MOST else (max(at, LEAST), False)
    return max(min(floor(where), MOST), LEAST), True


def signs(sums: Sums, threshold: Threshold) -> npt.NDArray[np.bool_]:
    """The bit of every sum, bool [m, n]: True for +1."""
    return np.where(threshold.flip, sums <= threshold.at, sums >= threshold.at)


def scaled(sums: Sums, alpha: Single, pe: PESpec) -> Half:
    """``sums`` times ``alpha`` float32 [n], rounded to FP32 and then to the machine's format."""
    return narrow(sums.astype(np.float32) * alpha, pe)
