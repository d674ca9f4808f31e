"""Leaky integrate-and-fire neurons at the edge of the XNOR engine, in integers (docs/design/xnor.md, "Neurons")."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ...workloads.errors import InputError, require_int
from ...workloads.levels import Levels
from ...workloads.one_line import OneLine
from .spec import SUM_BITS
from .words import largest_sum, require_exact

__all__ = ["MEMBRANE_BYTES", "MOST_LEAK", "Neurons", "largest_membrane", "require_membrane"]

MOST_LEAK = SUM_BITS - 1
"""An arithmetic shift by more makes nothing else of a membrane."""
MEMBRANE_BYTES = SUM_BITS // 8


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Neurons(OneLine):
    """Those of a layer: a membrane loses ``membrane >> leak`` a step, and fires from ``threshold`` of its channel on.

    ``threshold``: int32 [n], 1 at least: only then does what a reset takes away leave no more than there was.
    """

    leak: int
    threshold: npt.NDArray[np.int32]

    def __post_init__(self) -> None:
        require_int("leak", self.leak, 0, MOST_LEAK)
        at = self.threshold
        if at.ndim != 1 or at.dtype != np.int32 or not len(at):
            raise InputError(f"threshold must be int32 [n], one a channel, not {at.dtype} {list(at.shape)}")
        if (at < 1).any():
            c = int(np.flatnonzero(at < 1)[0])
            raise InputError(f"threshold of channel {c} must be 1 or more, not {at[c]}: a neuron fires from it on")

    def require_channels(self, n: int) -> None:
        """Refuse results of another number of channels."""
        if len(self.threshold) != n:
            raise InputError(f"threshold must be one a channel, {n} of them, not {len(self.threshold)}")


def largest_membrane(largest: int, leak: int, steps: int) -> int:
    """The most that a membrane can be before its reset, either way, of sums of at most ``largest``.

    A leak never makes a membrane larger, so a step adds ``largest`` at most; and of 2^leak ``largest`` it takes so much
    that a sum brings back no more.
    """
    return min(steps, 1 << leak) * largest


def require_membrane(k: int, a: Levels, b: Levels, leak: int, steps: int) -> None:
    """Refuse ``steps`` time steps of sums of ``k`` products whose membranes 32 bits may not hold."""
    require_exact(k, a, b)
    most = largest_sum(k, a, b)
    if largest_membrane(most, leak, steps) >= 1 << SUM_BITS - 1:
        fewer = ((1 << SUM_BITS - 1) - 1) // most
        raise InputError(
            f"membranes of {steps} time steps of {k} products of {a} by {b} may reach 2^{SUM_BITS - 1} at a leak of "
            f"{leak}, which {SUM_BITS} bits do not hold; take {fewer} time steps, or a leak of {fewer.bit_length() - 1}"
        )
