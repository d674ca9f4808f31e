"""Kernels of the work beside the array, `dataflow/beside.py` and `pregenerate.py` by rows of numbers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..integers import ceil_div
from ..jit import bare, inlined
from ..problem import RATE, MemoryMachine
from .points import lanes_of, memory_of
from .step import Step

__all__ = ["beyond", "joined_cycles", "update_bytes", "update_cycles", "vector_cycles", "vector_work"]


@inlined
def _written(step: Step, first: int, last: int, engine: NDArray[np.int64]) -> int:
    """Bytes of the forms that somebody reads where products stand, `packing.with_forms`; of those that are not placed
    yet, none."""
    size = 0
    for n in range(first, last):
        read = False
        for i in range(step.forms[n, 1], step.forms[n, 2]):
            read |= engine[step.readers[i, 0]] == step.readers[i, 1]
        if read:
            size += step.forms[n, 0]
    return int(size)


@inlined
def update_bytes(step: Step, update: int, engine: NDArray[np.int64]) -> int:
    """DRAM bytes of an update; ``engine``, int64 [places]: where products stand, 0 on the STCE, 1 on the XNOR engine,
    -1 where nobody knows, of which it is the least that it can be."""
    return int(step.updates[update, 2]) + _written(step, step.updates[update, 7], step.updates[update, 8], engine)


@inlined
def vector_work(step: Step, vector: int, engine: NDArray[np.int64]) -> tuple[int, int, int]:
    """Elements of vector work, its DRAM bytes and those read; ``engine``, int64 [places]: as of `update_bytes`."""
    row = step.vectors[vector]
    edge = row[5] >= 0 and engine[row[5]] != 0
    elements, size, read = (0, row[6], row[7]) if edge else (row[0], row[1], row[3])
    return int(elements), int(size) + _written(step, row[8], row[9], engine), int(read)


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


@bare
def update_cycles(
    step: Step, v: NDArray[np.int64], depth: int, engine: NDArray[np.int64], cycles: NDArray[np.int64]
) -> None:
    """`beside.update_cost` of every update in cycles, int64 [updates], on a machine, int64 [28]; ``depth``: of the
    pipeline; ``engine``: as of `update_bytes`."""
    y, lanes = memory_of(v), lanes_of(v)[0]
    for n in range(len(step.updates)):
        elements, trips, begin, end = step.updates[n, 0], step.updates[n, 1], step.updates[n, 3], step.updates[n, 4]
        size = update_bytes(step, n, engine)
        sore = 0
        for i in range(begin, end):
            sore += _copies_cycles(y, lanes, depth, step.patterns[i])
        cycles[n] = max(sore, (ceil_div(elements, lanes) + depth) * trips, ceil_div(size * RATE, y.rate))


@bare
def vector_cycles(step: Step, v: NDArray[np.int64], engine: NDArray[np.int64]) -> tuple[int, int]:
    """Cycles and DRAM bytes of all vector work on a machine, int64 [28], of what is joined to products those of its
    traffic alone; ``engine``: as of `update_bytes`."""
    y, lanes = memory_of(v), lanes_of(v)[1]
    cycles = moved = 0
    for n in range(len(step.vectors)):
        elements, size, _ = vector_work(step, n, engine)
        times = step.vectors[n, 2]
        own = ceil_div(step.vectors[n, 13] if elements else 0, lanes) if step.vectors[n, 11] < 0 else 0
        cycles += times * max(own, ceil_div(size * RATE, y.rate))
        moved += times * size
    return cycles, moved


@inlined
def beyond(lanes: int, product: int, alone: int) -> int:
    """`beside._beyond`."""
    return max(lanes - product, 0) + min(min(lanes, product), alone)


@inlined
def joined_cycles(step: Step, vector: int, v: NDArray[np.int64], product: int, engine: NDArray[np.int64]) -> int:
    """What the lanes of vector work, joined to a product of so many cycles, take beyond its own traffic on a machine,
    int64 [28], of `beside.joined_lanes`; ``engine``, int64 [places]: as of `update_bytes`."""
    y, lanes = memory_of(v), lanes_of(v)[1]
    _, size, _ = vector_work(step, vector, engine)
    before, elements = step.vectors[vector, 12], step.vectors[vector, 13]
    alone = ceil_div(y.out_half, 4 * lanes)
    first, last = ceil_div(before, lanes), ceil_div(before + elements, lanes)
    added = beyond(last, product, alone) - beyond(first, product, alone)
    return int(max(added - ceil_div(size * RATE, y.rate), 0))
