"""Closed forms of the array alone: one GEMM through the PEs, memory unlimited. docs/design/machine.md derives them.

`simulator/array.py` steps the same contract cycle by cycle; the tests hold both equal.
"""

from __future__ import annotations

from ...workloads.gemm import Gemm
from ..accelerator import AcceleratorSpec
from ..account import Cycles
from .dataflows import NUMBER, issuing, tiling, whole_length
from .mapping import ArrayMapping
from .pace import ArrayMachine, Executed, Tiling, array_machine

__all__ = ["array_cycles", "cycles_alone", "mapped_tiling"]


def mapped_tiling(x: ArrayMachine, mapping: Executed, rows: int, k: int, run: int) -> Tiling:
    """Pace of a mapping, for ``rows`` rows and contractions of ``k`` in runs of ``run``."""
    pattern = mapping.pattern
    return tiling(NUMBER[mapping.dataflow], x, pattern.keep, pattern.group, mapping.interleave, rows, k, run)


def cycles_alone(x: ArrayMachine, gemm: Gemm, mapping: Executed) -> Cycles:
    """Cycles of ``gemm``, its contraction in what ``x`` takes a cycle, with unlimited buffers and memory."""
    t = mapped_tiling(x, mapping, gemm.m, gemm.k, gemm.run)
    compute, stall = issuing(gemm.groups, gemm.m, gemm.n, x, t, gemm.m, gemm.n)
    length, port = whole_length(x, t, gemm.m, gemm.n, gemm.groups)
    return Cycles(compute=compute, interleave_stall=stall, port_stall=port, fill_drain=length - compute - stall - port)


def array_cycles(spec: AcceleratorSpec, gemm: Gemm, mapping: ArrayMapping) -> Cycles:
    """Cycles of ``gemm`` on the array of ``spec``, A flowing W2E and B N2S, with unlimited buffers and memory."""
    mapping.check(spec)
    return cycles_alone(array_machine(spec), gemm, mapping)
