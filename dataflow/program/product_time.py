"""How long a product takes as a command: the array's own cycles, and those around them."""

from __future__ import annotations

from collections.abc import Mapping

from ...workloads.gemm import Gemm
from ...workloads.sparsity import NMPattern
from ..stce.mapping import ArrayMapping, Dataflow
from ..stce.time import array_cycles
from .spaces import Target

__all__ = ["product_cycles"]

_AROUND = 6
"""Cycles from that in which a command is taken to cycle 0 of the array, and from its last one to `done`."""


def product_cycles(registers: Mapping[str, int], target: Target) -> int:
    """Cycles from that in which a product is taken to that in which it is done; every column delivers all its words."""
    r, array = registers, target.spec.array
    if r["stationary"]:
        gemm = Gemm(m=r["parts"] * r["interleave"], k=r["down"] * array.rows * r["group"], n=r["across"] * array.cols)
    else:
        run = (r["parts"] - 1) * r["group"] + r["rest"]
        gemm = Gemm(
            m=r["rows"] + (r["down"] - 1) * array.rows,
            k=r["runs"] * run,
            n=r["across"] * array.cols * r["interleave"],
            run=run,
        )
    mapping = ArrayMapping(
        dataflow=Dataflow.WS if r["stationary"] else Dataflow.OS,
        pattern=NMPattern(keep=r["keep"], group=r["group"]),
        interleave=r["interleave"],
    )
    return array_cycles(target.spec, gemm, mapping).total + _AROUND
