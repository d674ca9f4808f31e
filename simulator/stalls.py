"""When the array stands still: receivers that are not ready, and inputs that are not there (docs/design/machine.md)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..workloads.errors import InputError
from .kernels.drain import delay, stretch, taken_at

__all__ = ["Bools", "clocked", "require_stalls"]

Bools = npt.NDArray[np.bool_]
Int64 = npt.NDArray[np.int64]


def require_stalls(cols: int, ready: Bools | None, hold: Bools | None) -> None:
    """Refuse what does not say for each cycle and column whether a word is taken, bool [cycles, array columns], and for
    each cycle whether the array is held, bool [cycles]."""
    if ready is not None and (ready.dtype != np.bool_ or ready.ndim != 2 or ready.shape[1] != cols):
        raise InputError(
            f"ready must be bool [cycles, {cols}], a column for each of the array, "
            f"not {ready.dtype} {list(ready.shape)}"
        )
    if hold is not None and (hold.dtype != np.bool_ or hold.ndim != 1):
        raise InputError(f"hold must be bool [cycles], not {hold.dtype} {list(hold.shape)}")


def clocked(left: Int64, leaves: Int64, total: int, cols: int, ready: Bools | None, hold: Bools | None) -> int:
    """Turn ``left`` int64 [m, n] from array cycles into clock cycles; cycles in which the array stood still.

    ``leaves`` are the array cycles in which a word leaves column 0 of ``cols``, ``total`` all array cycles of the run.
    """
    if ready is None and hold is None:
        return 0
    taken = np.ones((0, cols), np.bool_) if ready is None else ready
    held = np.zeros(0, np.bool_) if hold is None else hold
    runs = np.empty(total, np.int64)
    stretch(leaves, taken, held, runs)
    delay(left, runs, taken)
    return int(taken_at(taken, runs[-1], min(cols, left.shape[1]) - 1)) + 1 - total
