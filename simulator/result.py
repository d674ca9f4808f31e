"""What a simulated step took: integers by op, pass and cause. Joules and seconds are made from it in `analysis/`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

from ..dataflow.accelerator import AcceleratorSpec
from ..dataflow.account import Counts, Cycles, total
from ..dataflow.constraint import MappingFile
from ..dataflow.engine import Engine
from ..dataflow.engines import engine_of
from ..dataflow.mapping import Mapping
from ..dataflow.objective import Objective
from ..dataflow.placement import Constrained
from ..dataflow.residency import Residency
from ..workloads.gemm import Pass
from ..workloads.one_line import OneLine
from ..workloads.step import MatrixOp, Op, UpdateOp, Workload
from ..workloads.words import named, seconds
from .shown import Shown

__all__ = ["OpResult", "SimResult"]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class OpResult(OneLine):
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

    def _said(self) -> str:
        size = f" {self.op.gemm}" if isinstance(self.op, MatrixOp) else ""
        kind = self.op.kind if isinstance(self.op, UpdateOp) else self.op.op
        return f"{self.op.pass_} {named(self.op.name)}, {kind}{size}: {self.cycles.total:,} cycles"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class SimResult(Shown):
    """One training step on one machine, op after op; ``mapping``: the rules that restricted its schedule;
    ``residency``: what stays on chip, where the machine has memory for it."""

    workload: Workload
    spec: AcceleratorSpec
    objective: Objective
    ops: tuple[OpResult, ...]
    mapping: MappingFile | None = None
    residency: Residency | None = None

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
    def engines(self) -> tuple[Engine, ...]:
        """Those that products of the step are on, in the order in which they come."""
        return tuple(dict.fromkeys(engine_of(r.mapping, self.spec) for r in self.ops if r.mapping is not None))

    def peak(self, r: OpResult) -> int:
        """Multiply-accumulates a cycle of the engine that an op is on; those of the array where it is on none."""
        return self.spec.array.pes if r.mapping is None else engine_of(r.mapping, self.spec).peak

    def ideal_cycles(self, ops: Iterable[OpResult]) -> Fraction:
        """Cycles that the kept multiply-accumulates of ``ops`` take at the peaks of the engines that they are on."""
        macs: dict[int, int] = {}
        for r in ops:
            peak = self.peak(r)
            macs[peak] = macs.get(peak, 0) + r.counts.macs
        return sum((Fraction(n, peak) for peak, n in macs.items()), Fraction(0))

    @property
    def utilization(self) -> float:
        """Share of their engines' peaks that real (kept) multiply-accumulates reach over the whole step."""
        return float(self.ideal_cycles(self.ops) / self.cycles.total)

    def _said(self) -> str:
        cycles = self.cycles.total
        took = f"{cycles:,} cycles, {seconds(cycles / self.spec.clock_hz)}"
        return f"{self.workload.title} on {named(self.spec.name)}: {took}"
