"""Kernels of what a step does on one machine, columns as `amounts.COUNTED`: of its products by their mappings, of its
updates and vector work."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..jit import bare, inlined
from ..macro_tiles import Tile
from ..prices import FREE
from ..problem import MemoryMachine, Problem, pairs
from ..stce.cost import Form, cost_of
from ..stce.pace import ArrayMachine
from .amounts import COUNTED
from .beside import update_bytes, vector_work
from .step import Step

__all__ = ["count_product", "count_update", "count_vector"]

_MACS, _SELECTS, _W2E, _N2S = (COUNTED[name] for name in ("macs", "selects", "w2e_words", "n2s_pairs"))
_OUTPUT, _WRITTEN = COUNTED["output_words"], COUNTED["written_words"]
_BUFFER, _FILLED = COUNTED["buffer_bytes"], COUNTED["filled_bytes"]
_READ, _WRITE = COUNTED["dram_read_bytes"], COUNTED["dram_write_bytes"]
_COMPARES, _UPDATES, _ELEMENTS = (COUNTED[name] for name in ("sore_compares", "updates", "vector_elements"))
_COMPUTE = COUNTED["compute"]


@inlined
def _comparators(inputs: int) -> int:
    """`engine_time._comparators`."""
    p, last = 0, inputs - 1
    while last > 0:
        p, last = p + 1, last >> 1
    return 0 if p == 0 else (p * p - p + 4) * (1 << p) // 4 - 1


@inlined
def _compares(keep: int, group: int, network: int) -> int:
    """`engine_time.compares_per_group`."""
    return _comparators(group) + _comparators(keep) if network else group * keep


@bare
def count_product(
    p: Problem, x: ArrayMachine, y: MemoryMachine, form: Form, tile: Tile, counts: NDArray[np.int64]
) -> None:
    """What a product does under a mapping that fits: `Stce.counted` or `Xnor.counted`, whose macs are pairs of words
    here, and its cycles that compute; ``counts``: int64 [counted]."""
    cost = cost_of(p, x, y, form, tile, FREE)
    all_, moved, results = cost.op.totals, cost.moved, p.groups * p.rows * p.cols
    counts[:] = 0
    counts[_MACS] = results * (pairs(p.k, p.run, p.keep, p.group) if p.keep else p.k)
    counts[_SELECTS] = counts[_MACS] if p.keep else 0
    counts[_W2E], counts[_N2S], counts[_OUTPUT] = moved.w2e_words, moved.n2s_pairs, moved.output_words
    # Written s times and read back s - 1 times.
    counts[_WRITTEN] = (moved.output_words + results) // 2
    counts[_BUFFER], counts[_FILLED] = all_.read_bytes + all_.write_bytes, all_.read_bytes
    counts[_READ], counts[_WRITE] = all_.read_bytes, all_.write_bytes
    counts[_COMPARES] = all_.sore_groups * _compares(p.keep, p.group, y.sore_network) if p.keep else 0
    counts[_COMPUTE] = cost.compute


@bare
def count_update(
    step: Step, update: int, y: MemoryMachine, engine: NDArray[np.int64], counts: NDArray[np.int64]
) -> None:
    """What an update does, `beside.update_cost`, into int64 [counted]; ``engine``: as of `beside.update_bytes`."""
    counts[:] = 0
    elements, size, read = step.updates[update, 0], update_bytes(step, update, engine), step.updates[update, 5]
    counts[_UPDATES], counts[_READ], counts[_WRITE] = elements, read, size - read
    for n in range(step.updates[update, 3], step.updates[update, 4]):
        counts[_COMPARES] += step.patterns[n, 4] * _compares(step.patterns[n, 0], step.patterns[n, 1], y.sore_network)


@bare
def count_vector(step: Step, vector: int, engine: NDArray[np.int64], counts: NDArray[np.int64]) -> None:
    """What vector work does, `beside.vector_cost`, into int64 [counted]; ``engine``: as of `beside.update_bytes`."""
    counts[:] = 0
    elements, size, read = vector_work(step, vector, engine)
    counts[_ELEMENTS], counts[_READ], counts[_WRITE] = elements, read, size - read
