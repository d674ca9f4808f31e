"""The array under back-pressure and held: from array cycles to clock cycles (docs/design/machine.md)."""

from __future__ import annotations

from typing import Any

from .jit import kernel


@kernel
def taken_at(ready: Any, t: int, c: int) -> int:
    """First cycle from ``t`` on in which column ``c`` is ready; after its last cycle ``ready`` [cycles, cols] is."""
    while t < len(ready) and not ready[t, c]:
        t += 1
    return t


@kernel
def moves_at(hold: Any, t: int) -> int:
    """First cycle from ``t`` on in which ``hold`` [cycles] does not stand; after its last cycle it does not."""
    while t < len(hold) and hold[t]:
        t += 1
    return t


@kernel
def stretch(leaves: Any, ready: Any, hold: Any, runs: Any) -> None:
    """Write to ``runs`` int64 [array cycles] the clock cycle in which each array cycle runs.

    ``leaves`` int64, rising: array cycles in which a word leaves column 0; it leaves column ``c`` of ``ready``
    [cycles, cols] ``c`` array cycles later. No array cycle runs before every word of the one before is taken, nor right
    after a cycle of ``hold`` [cycles].
    """
    cols = ready.shape[1]
    first, last = 0, 0  # words at the array's edge: that furthest east, and the next to come to column 0
    t = 0
    for tick in range(len(runs)):
        runs[tick] = t
        while last < len(leaves) and leaves[last] <= tick:
            last += 1
        while first < last and tick - leaves[first] >= cols:
            first += 1
        latest = t
        for word in range(first, last):
            latest = max(latest, taken_at(ready, t, tick - leaves[word]))
        t = moves_at(hold, latest) + 1


@kernel
def delay(left: Any, runs: Any, ready: Any) -> None:
    """Turn the array cycle of each result in ``left`` int64 [m, n] into the clock cycle in which it is taken."""
    cols = ready.shape[1]
    for row in range(left.shape[0]):
        for column in range(left.shape[1]):
            left[row, column] = taken_at(ready, runs[left[row, column]], column % cols)
