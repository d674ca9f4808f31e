"""What a study says of a scheme beside its accuracy and the cost of a step: the other tracks of BiBench.

BiBench (Qin et al., ICML 2023, arXiv 2301.11233) judges binarisation by learning task, neural architecture, corruption
robustness, training consumption, theoretical complexity and hardware inference. Task and architecture are data and
model of a row; the rest is here, of the very steps and trainings that the row is made of.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from ..simulator.result import SimResult
from ..workloads.gemm import Pass
from .complexity import bit_operations, parameter_bits
from .energy import energy
from .footprint import footprint

__all__ = ["Tracks", "corrupted_accuracy", "tracks"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tracks:
    """Of a row that the machine runs; the names are those of `StudyRow`."""

    bit_operations: float
    parameter_bits: int
    image_cycles: float
    image_joules: float
    luts: int | None
    lut_share: float | None
    blocks: str


def tracks(steps: Sequence[SimResult]) -> Tracks:
    """From the steps of all phases, in order: complexity and inference are those of the last, blocks those of all."""
    last = steps[-1]
    work, word = last.workload, last.spec.pe.operand
    used = footprint(steps)
    forward = last.select(Pass.FF)
    return Tracks(
        bit_operations=bit_operations(work, word),
        parameter_bits=parameter_bits(work, word),
        image_cycles=sum(r.cycles.total for r in forward) / work.batch,
        image_joules=energy(last).by_pass[Pass.FF] / work.batch,
        luts=used.lut_sites,
        lut_share=None if used.lut_sites is None or used.of is None else used.lut_sites / used.of,
        blocks=" ".join(used.blocks),
    )


def corrupted_accuracy(found: Mapping[str, Sequence[float]]) -> float:
    """Mean over corruptions and strengths, each as much as any other."""
    return fmean(accuracy for each in found.values() for accuracy in each)
