"""Speed of a simulated step in seconds, samples and operations; one multiply-accumulate counts as two operations."""

from __future__ import annotations

from dataclasses import dataclass

from ..workloads.errors import InputError
from .level import AnyResult, cycles_of, step_of

__all__ = ["Throughput", "throughput"]

_GIGA = 1e9


@dataclass(frozen=True, slots=True, kw_only=True)
class Throughput:
    """``effective`` counts kept multiply-accumulates, ``dense_equivalent`` those of the dense step.

    ``peak_gops`` is that of all engines that products of the step are on, ``utilization`` the share of the time that
    they would take at the peak of the engine of each, ``array_busy`` the share of the cycles in which the array
    issues, on padding too.
    """

    seconds: float
    samples_per_s: float
    effective_gops: float
    dense_equivalent_gops: float
    peak_gops: float
    utilization: float
    array_busy: float


def throughput(result: AnyResult) -> Throughput:
    """Speed of one training step, in the time that it takes at the level of ``result``."""
    step, total = step_of(result), cycles_of(result)
    spec = step.spec
    if not total:
        raise InputError(f"workload {step.workload.model!r} has no work: a step of no cycles has no throughput")
    seconds = total / spec.clock_hz
    peak = sum(engine.peak for engine in step.engines) or spec.array.pes
    return Throughput(
        seconds=seconds,
        samples_per_s=step.workload.batch / seconds,
        effective_gops=2 * step.counts.macs / seconds / _GIGA,
        dense_equivalent_gops=2 * step.dense_macs / seconds / _GIGA,
        peak_gops=2 * peak * spec.clock_hz / _GIGA,
        utilization=float(step.ideal_cycles(step.ops) / total),
        array_busy=step.cycles.compute / total,
    )
