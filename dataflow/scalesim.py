"""SCALE-Sim v3's accounting of a dense GEMM, to reproduce its numbers: folds one after another, no drain, no overlap.

`cycles` of SCALE-Sim is its last cycle index + 1 with unlimited bandwidth; docs/validation.md compares it with ours.
"""

from __future__ import annotations

from ..workloads.errors import InputError, require_int
from ..workloads.gemm import Gemm

__all__ = ["scalesim_cycles"]


def scalesim_cycles(gemm: Gemm, rows: int, cols: int, dataflow: str) -> int:
    """Cycles of ``gemm`` on ``rows`` x ``cols`` under dataflow ``os``, ``ws`` or ``is``."""
    require_int("rows", rows, 1, 2**20)
    require_int("cols", cols, 1, 2**20)
    folds = {
        "os": (gemm.m, gemm.n, rows + cols + gemm.k - 2),
        "ws": (gemm.k, gemm.n, 2 * rows + cols + gemm.m - 2),
        "is": (gemm.k, gemm.m, 2 * rows + cols + gemm.n - 2),
    }
    if dataflow not in folds:
        raise InputError(f"dataflow {dataflow!r} is unknown to the scalesim convention: choose one of os, ws, is")
    down, across, fold = folds[dataflow]
    return gemm.groups * -(-down // rows) * -(-across // cols) * fold
