"""Speed of a simulated step in seconds, samples and operations; one multiply-accumulate counts as two operations."""

from __future__ import annotations

from dataclasses import dataclass

from ..simulator.result import SimResult
from ..workloads.errors import InputError

__all__ = ["Throughput", "throughput"]

_GIGA = 1e9


@dataclass(frozen=True, slots=True, kw_only=True)
class Throughput:
    """``effective`` counts kept multiply-accumulates, ``dense_equivalent`` those of the dense step.

    ``utilization`` is the effective share of the peak, ``array_busy`` the share of the cycles in which the array
    issues, on padding too.
    """

    seconds: float
    samples_per_s: float
    effective_gops: float
    dense_equivalent_gops: float
    peak_gops: float
    utilization: float
    array_busy: float


def throughput(result: SimResult, cycles: int | None = None) -> Throughput:
    """Speed of one training step, or of the same work done in ``cycles``, where its ops overlap."""
    spec, total = result.spec, result.cycles.total if cycles is None else cycles
    if not total:
        raise InputError(f"workload {result.workload.model!r} has no work: a step of no cycles has no throughput")
    seconds = total / spec.clock_hz
    return Throughput(
        seconds=seconds,
        samples_per_s=result.workload.batch / seconds,
        effective_gops=2 * result.counts.macs / seconds / _GIGA,
        dense_equivalent_gops=2 * result.dense_macs / seconds / _GIGA,
        peak_gops=2 * spec.macs_per_cycle * spec.clock_hz / _GIGA,
        utilization=result.counts.macs / (total * spec.macs_per_cycle),
        array_busy=result.cycles.compute / total,
    )
