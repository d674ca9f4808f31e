"""The neurons behind the XNOR engine word by word, to be read beside docs/design/xnor.md: Python integers, a memory a
column, one read and one write for every word that leaves."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .array import ReferenceRun

__all__ = ["neuron_reference"]


def neuron_reference(
    run: ReferenceRun, cols: int, leak: int, threshold: list[int], memories: list[list[int]]
) -> npt.NDArray[Any]:
    """Spikes, bool [m, n], of the sums of ``run``, in the order in which they leave the ``cols`` columns of the array.

    ``memories``: of each column its membranes, in the order in which its words leave; changed in place, empty ones
    begin with 0.
    """
    m, n = run.result.shape
    spikes = np.zeros((m, n), bool)
    for column, memory in enumerate(memories):
        words = sorted((int(run.left[row, at]), row, at) for row in range(m) for at in range(column, n, cols))
        memory.extend([0] * (len(words) - len(memory)))
        for address, (_, row, at) in enumerate(words):
            u = memory[address]
            # // rounds down, as an arithmetic shift does
            u = u - u // 2**leak + int(run.result[row, at])
            if u >= threshold[at]:
                spikes[row, at] = True
                u -= threshold[at]
            memory[address] = u
    return spikes
