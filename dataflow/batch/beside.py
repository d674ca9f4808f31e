"""Kernels of the work beside the array, `dataflow/beside.py` and `pregenerate.py` by rows of numbers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..integers import ceil_div
from ..jit import inlined, kernel
from ..problem import RATE, MemoryMachine
from .points import lanes_of, memory_of
from .step import Step

__all__ = ["update_cycles", "vector_cycles"]


@inlined
def _sorted_depth(inputs: int) -> int:
    """Stages of an odd-even merge sort, as `engine_time.sore_latency` has it."""
    stages, last = 0, inputs - 1
    while last > 0:
        stages, last = stages + 1, last >> 1
    return stages * (stages + 1) // 2


@inlined
def _copies_cycles(y: MemoryMachine, wuve_lanes: int, depth: int, pattern: NDArray[np.int64]) -> int:
    """One pattern of `pregenerate.copies_cycles`."""
    keep, group, copies, blocks = pattern[0], pattern[1], pattern[2], pattern[3]
    a, b = y.sore_lanes, group
    while b:
        a, b = b, a % b
    in_tile = y.sore_lanes // a
    fill = ceil_div(in_tile * group * group, wuve_lanes)
    reduce = copies * ceil_div(in_tile * group, y.sore_lanes) * (1 if y.sore_network else group)
    tail = _sorted_depth(group) + _sorted_depth(keep) if y.sore_network else keep
    tiles = ceil_div(blocks, in_tile)
    return int(depth + fill + (tiles - 1) * max(fill, reduce) + reduce + tail)


@kernel
def update_cycles(step: Step, v: NDArray[np.int64], depth: int, cycles: NDArray[np.int64]) -> None:
    """`beside.update_cost` of every update in cycles, int64 [updates], on a machine, int64 [21]; ``depth``: of the
    pipeline."""
    y, lanes = memory_of(v), lanes_of(v)[0]
    for n in range(len(step.updates)):
        elements, trips, size, begin, end = step.updates[n, :5]
        sore = 0
        for i in range(begin, end):
            sore += _copies_cycles(y, lanes, depth, step.patterns[i])
        cycles[n] = max(sore, (ceil_div(elements, lanes) + depth) * trips, ceil_div(size * RATE, y.rate))


@kernel
def vector_cycles(step: Step, v: NDArray[np.int64]) -> tuple[int, int]:
    """Cycles and DRAM bytes of all vector work on a machine, int64 [21]."""
    y, lanes = memory_of(v), lanes_of(v)[1]
    cycles = moved = 0
    for n in range(len(step.vectors)):
        elements, size, times = step.vectors[n, :3]
        cycles += times * max(ceil_div(elements, lanes), ceil_div(size * RATE, y.rate))
        moved += times * size
    return cycles, moved
