"""How long a product takes as a command: the array's own cycles, and those around them."""

from __future__ import annotations

from collections.abc import Mapping

from ...workloads.gemm import Gemm
from ...workloads.sparsity import NMPattern
from ..stce.mapping import ArrayMapping, Dataflow
from ..stce.time import array_cycles
from .spaces import Target

__all__ = ["product_cycles"]


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
    pe = target.spec.pe
    # its run registers, a bit of a factor a cycle (hdl/blocks/run_setup.py)
    setup = array.rows.bit_length() + max(pe.accumulators, pe.add_latency).bit_length() + 4
    # taken, set up, from start to cycle 0, and until the array is seen to be quiet
    return 1 + setup + 2 + array.read_latency + array_cycles(target.spec, gemm, mapping).total
