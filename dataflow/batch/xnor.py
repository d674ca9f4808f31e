"""XNOR engines of many machines, each once: what a product takes there depends on it and on the memory around it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..xnor.spec import ADD_LATENCY, SUM_BITS
from .points import COLUMN, alike_together
from .step import Step

__all__ = ["Engines", "engines_of_rows", "in_parts"]

_AT_ONCE = 8192
"""Machines whose products on XNOR engines are known at a time: tens of megabytes of a step of a hundred products."""


class Engines(NamedTuple):
    """XNOR engines of some machines. ``of``, int64 [points]: which one a machine has, -1 for none. ``rows``, int64
    [engines, 28]: each as if it were the array of a `Point`. ``solved``, int64 [engines]: 1 once its products are
    placed. ``placed``, int64 [engines, places, 4 + counted]: status, cycles, bytes and problem of every place, and what
    is done there; ``cost``, float64 [engines, places], by price."""

    of: NDArray[np.int64]
    rows: NDArray[np.int64]
    solved: NDArray[np.int64]
    placed: NDArray[np.int64]
    cost: NDArray[np.float64]


def engines_of_rows(step: Step, rows: NDArray[np.int64], own: NDArray[np.int64], counted: int) -> Engines:
    """Those of the machines ``own``, int64 [machines], numbers of ``rows``, int64 [points, 28], in the order of
    `alike_together`; none where no product of the step runs on one. ``counted``: columns of the counts, 0 for none."""
    of, kinds = np.full(len(rows), -1, np.int64), np.empty((0, len(COLUMN)), np.int64)
    if _taken(step):
        kinds, which = np.unique(_as_arrays(rows[own]), axis=0, return_inverse=True)
        order = alike_together(kinds)
        of[own], kinds = np.argsort(order)[which.reshape(-1)], kinds[order]
    shape = len(kinds), len(step.places)
    return Engines(
        of,
        kinds,
        np.zeros(len(kinds), np.int64),
        np.empty((*shape, 4 + counted), np.int64),
        np.empty(shape, np.float64),
    )


def in_parts(step: Step, own: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """``own``, int64 [machines], in parts whose `Engines` do not take too much memory."""
    size = _AT_ONCE if _taken(step) else max(len(own), 1)
    for first in range(0, len(own), size):
        yield own[first : first + size]


def _taken(step: Step) -> bool:
    """Whether an XNOR engine runs any product of a step."""
    return bool((step.places[:, 3] >= 0).any())


def _as_arrays(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """The XNOR engines of machines as `Xnor.machine`, `memory` and `limits` have them; SORE, which has no part in their
    products, is the same everywhere."""
    made = np.zeros_like(rows)
    given = {
        "R": "xnor_rows",
        "C": "xnor_cols",
        "Lm": "xnor_popcount_latency",
        "accumulators": "xnor_accumulators",
        "dense_words": "xnor_dense_words",
        "weight_pairs": "xnor_weight_words",
        "max_group": "xnor_weight_words",
    }
    for name in ("west_half", "north_half", "out_half", "rate"):
        given[name] = name
    for name, of in given.items():
        made[:, COLUMN[name]] = rows[:, COLUMN[of]]
    for name, value in {
        "w": 1,
        "La": ADD_LATENCY,
        "Lr": 1,
        "word_bits": SUM_BITS,
        "sum_bits": SUM_BITS,
        "sore_lanes": 1,
    }.items():
        made[:, COLUMN[name]] = value
    return made
