"""Roofline of a step: what every matrix op reaches, under the array's peak and the memory's slope."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import inf

from ..simulator.result import OpResult, SimResult
from ..workloads.gemm import Pass
from ..workloads.step import MatrixOp
from .op_groups import OpGroup

__all__ = ["Roofline", "RooflinePoint", "farthest_below", "group_point", "roofline"]

_GIGA = 1e9


@dataclass(frozen=True, slots=True, kw_only=True)
class RooflinePoint:
    """One matrix op, or several that are alike, in multiply-accumulates of the dense product: a sparse op may pass the
    dense peak.

    ``intensity``: MAC per DRAM byte moved. ``gmacs``: achieved GMAC/s. ``roof_gmacs``: what its pattern and its
    intensity allow. ``speedup``: dense multiply-accumulates per kept one.
    """

    name: str
    pass_: Pass
    intensity: float
    gmacs: float
    roof_gmacs: float
    speedup: float
    cycles: int
    memory_bound: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Roofline:
    """Ceilings in GMAC/s and GB/s, and the ops under them. ``sparse_gmacs`` is the peak times the best ``speedup``;
    ``others``: name and peak of the engines that ops are on besides that of ``peak_gmacs``, the largest."""

    peak_gmacs: float
    sparse_gmacs: float
    gbytes_per_s: float
    points: tuple[RooflinePoint, ...]
    others: tuple[tuple[str, float], ...] = ()

    def roof(self, intensity: float) -> float:
        """GMAC/s that a dense op of ``intensity`` can reach."""
        return min(self.peak_gmacs, intensity * self.gbytes_per_s)


def multiplies(r: OpResult) -> bool:
    """Whether an op has a place on a roofline of multiply-accumulates."""
    return isinstance(r.op, MatrixOp) and r.cycles.total > 0 and r.counts.macs > 0


def roofline(result: SimResult) -> Roofline:
    """Roofline of the matrix ops of a step; its peak is that of the largest engine that any is on."""
    spec = result.spec
    bandwidth = float(spec.dram_bytes_per_cycle) * spec.clock_hz / _GIGA
    placed = [r for r in result.ops if multiplies(r)]
    peaks = [result.peak(r) * spec.clock_hz / _GIGA for r in placed]
    points = tuple(
        _point((r,), r.op.name, peak, bandwidth, spec.clock_hz) for r, peak in zip(placed, peaks, strict=True)
    )
    names = {engine.name: engine.peak * spec.clock_hz / _GIGA for engine in result.engines}
    peak = max(peaks, default=spec.array.pes * spec.clock_hz / _GIGA)
    best = max((p.speedup for p in points), default=1.0)
    return Roofline(
        peak_gmacs=peak,
        sparse_gmacs=peak * best,
        gbytes_per_s=bandwidth,
        points=points,
        others=tuple((name, own) for name, own in names.items() if own < peak),
    )


def group_point(result: SimResult, group: OpGroup) -> RooflinePoint | None:
    """Ops that are alike as one point; None of what has no place on a roofline."""
    if not multiplies(group.first):
        return None
    spec = result.spec
    bandwidth = float(spec.dram_bytes_per_cycle) * spec.clock_hz / _GIGA
    return _point(group.ops, group.label, result.peak(group.first) * spec.clock_hz / _GIGA, bandwidth, spec.clock_hz)


def farthest_below(points: Iterable[RooflinePoint], most: int = 4, least: float = 0.005) -> list[RooflinePoint]:
    """Those that lose most cycles below their own roof, of which each loses the share ``least`` of all cycles."""
    given = list(points)
    lost = {id(p): p.cycles * (1 - p.gmacs / p.roof_gmacs) for p in given}
    worst = sorted(given, key=lambda p: -lost[id(p)])[:most]
    return [p for p in worst if lost[id(p)] >= least * sum(q.cycles for q in given)]


def _point(ops: Sequence[OpResult], name: str, peak: float, bandwidth: float, clock_hz: int) -> RooflinePoint:
    moved, cycles = sum(r.counts.dram_bytes for r in ops), sum(r.cycles.total for r in ops)
    dense = sum(r.dense_macs for r in ops)
    intensity = dense / moved if moved else inf
    speedup = dense / sum(r.counts.macs for r in ops)
    return RooflinePoint(
        name=name,
        pass_=Pass(ops[0].op.pass_),
        intensity=intensity,
        speedup=speedup,
        cycles=cycles,
        gmacs=dense * clock_hz / cycles / _GIGA,
        roof_gmacs=min(peak * speedup, intensity * bandwidth),
        memory_bound=intensity * bandwidth < peak * speedup,
    )
