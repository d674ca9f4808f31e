"""What a simulated step took: integers by op, pass and cause. Joules and seconds are made from it in `analysis/`."""

from __future__ import annotations

from dataclasses import dataclass

from ..dataflow.accelerator import AcceleratorSpec
from ..dataflow.account import Counts, Cycles, total
from ..dataflow.constraint import MappingFile
from ..dataflow.mapping import Mapping
from ..dataflow.objective import Objective
from ..dataflow.placement import Constrained
from ..workloads.gemm import Pass
from ..workloads.step import MatrixOp, Op, Workload

__all__ = ["OpResult", "SimResult"]


@dataclass(frozen=True, slots=True, kw_only=True)
class OpResult:
    """One op of the step. ``bound_cycles``: what no mapping of the op can beat; 0 for work that is not a GEMM."""

    op: Op
    mapping: Mapping | None
    cycles: Cycles
    counts: Counts
    bound_cycles: int = 0
    constrained: Constrained | None = None

    @property
    def dense_macs(self) -> int:
        """Multiply-accumulates of the dense op."""
        return self.op.gemm.macs if isinstance(self.op, MatrixOp) else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SimResult:
    """One training step on one machine, op after op; ``mapping``: the rules that restricted its schedule."""

    workload: Workload
    spec: AcceleratorSpec
    objective: Objective
    ops: tuple[OpResult, ...]
    mapping: MappingFile | None = None

    def select(self, pass_: Pass) -> tuple[OpResult, ...]:
        """Ops of one pass, in order."""
        return tuple(r for r in self.ops if r.op.pass_ == pass_)

    @property
    def cycles(self) -> Cycles:
        """Cycles of the step by cause."""
        return total(Cycles, (r.cycles for r in self.ops))

    @property
    def counts(self) -> Counts:
        """Actions of the step."""
        return total(Counts, (r.counts for r in self.ops))

    @property
    def dense_macs(self) -> int:
        """Multiply-accumulates of the dense step."""
        return sum(r.dense_macs for r in self.ops)

    @property
    def utilization(self) -> float:
        """Share of the array's peak that real (kept) multiply-accumulates reach over the whole step."""
        return self.counts.macs / (self.cycles.total * self.spec.macs_per_cycle)
