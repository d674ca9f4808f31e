"""A row of a study: the trainings of one scheme on one model, and what they cost on the machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from statistics import fmean, stdev
from typing import TYPE_CHECKING

from ..workloads.errors import InputError
from ..workloads.gemm import GEMM_PASSES, Pass
from ..workloads.sparsity import NMPattern
from .trainings import Training

if TYPE_CHECKING:
    pass

__all__ = ["PhaseCost", "StudyRow", "aggregate", "cycles_until", "first_reached", "trained_steps"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseCost:
    """A stretch of training steps of one kind: ``cycles`` and ``joules`` of one of them."""

    steps: int
    scheme: str
    pattern: str | None
    cycles: int
    joules: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyRow:
    """One model under one scheme and pattern. Shares, not points or percent; None where there is nothing to say.

    ``trained`` of ``seeds`` trainings came to an end; ``failed`` says why others did not. ``*_sd`` are standard
    deviations of a sample of seeds. ``validation`` and ``accuracy``: of the validation and of the test set, after the
    last epoch. ``loss``: dense accuracy minus this one, seed by seed. ``cycles``, ``joules`` and
    ``speedup`` (over dense): of a step, the mean over all steps of the training. ``reached``: trainings that came to
    the target; only if all did are ``*_to_target`` and ``time_speedup`` (over dense) given.
    ``unplaced``: why the machine cannot run it. Densities and ``sad`` are those of the last step, ``flip_rate`` is the
    mean of the last steps of all epochs.
    """

    model: str
    scheme: str
    pattern: str | None
    seeds: int
    trained: int
    failed: dict[int, str]
    validation: float | None = None
    validation_sd: float | None = None
    accuracy: float | None = None
    accuracy_sd: float | None = None
    loss: float | None = None
    loss_sd: float | None = None
    target: float | None = None
    reached: int = 0
    steps: float | None = None
    steps_to_target: float | None = None
    cycles: float | None = None
    seconds: float | None = None
    joules: float | None = None
    speedup: float | None = None
    cycles_to_target: float | None = None
    seconds_to_target: float | None = None
    seconds_to_target_sd: float | None = None
    time_speedup: float | None = None
    unplaced: str = ""
    density_ff: float | None = None
    density_bp: float | None = None
    density_wu: float | None = None
    flip_rate: float | None = None
    sad: float | None = None
    phases: tuple[PhaseCost, ...] = ()
    kept_dense: dict[str, str] | None = None


def first_reached(training: Training, target: float) -> int | None:
    """Steps until the end of the first epoch with at least ``target`` validation accuracy; None if there is none."""
    pairs = zip(training.steps, training.validation, strict=True)
    return next((step for step, accuracy in pairs if accuracy >= target), None)


def cycles_until(phases: Sequence[PhaseCost], step: int) -> int:
    """Cycles of the first ``step`` steps of a training, each at the cost of its phase."""
    total = sum(phase.steps for phase in phases)
    if not 0 <= step <= total:
        raise InputError(f"step must be from 0 to {total}, not {step}")
    cycles, begin = 0, 0
    for phase in phases:
        cycles += phase.cycles * max(0, min(step - begin, phase.steps))
        begin += phase.steps
    return cycles


def trained_steps(phases: Sequence[PhaseCost]) -> int:
    """Steps of a whole training."""
    return sum(phase.steps for phase in phases)


def aggregate(
    group: tuple[str, str, NMPattern | None],
    found: Mapping[int, Training | str],
    costs: Mapping[int, tuple[PhaseCost, ...]],
    *,
    reference: Mapping[int, Training],
    baseline: StudyRow | None,
    below: float,
    clock_hz: int,
    unplaced: str = "",
) -> StudyRow:
    """One row: ``found`` is the training or the reason for its failure by seed, ``costs`` those of its phases.

    ``reference`` are the dense trainings by seed and ``baseline`` their row, None when this is it.
    """
    model, name, pattern = group
    trained = {seed: one for seed, one in found.items() if isinstance(one, Training)}
    row = StudyRow(
        model=model,
        scheme=name,
        pattern=None if pattern is None else str(pattern),
        seeds=len(found),
        trained=len(trained),
        failed={seed: why for seed, why in found.items() if isinstance(why, str)},
        unplaced=unplaced,
    )
    if not trained:
        return row
    target = fmean(one.validation[-1] for one in reference.values()) - below if reference else None
    reached = {} if target is None else {seed: first_reached(one, target) for seed, one in trained.items()}
    steps = [step for step in reached.values() if step is not None]
    all_reached = len(steps) == len(found)
    losses = [reference[s].accuracy - one.accuracy for s, one in trained.items() if s in reference]
    ends = list(trained.values())
    final, validation = [one.accuracy for one in ends], [one.validation[-1] for one in ends]
    row = replace(
        row,
        target=target,
        reached=len(steps),
        steps=fmean(one.steps[-1] for one in ends),
        validation=fmean(validation),
        validation_sd=_deviation(validation),
        accuracy=fmean(final),
        accuracy_sd=_deviation(final),
        loss=fmean(losses) if losses else None,
        loss_sd=_deviation(losses),
        steps_to_target=fmean(steps) if all_reached else None,
        density_ff=fmean(one.density[Pass.FF] for one in ends),
        density_bp=fmean(one.density[Pass.BP] for one in ends),
        density_wu=fmean(one.density[Pass.WU] for one in ends),
        flip_rate=fmean(one.flip_rate for one in ends),
        sad=fmean(one.sad for one in ends),
        kept_dense=_exceptions(ends),
    )
    if not costs:
        return row
    return _costed(row, costs, reached if all_reached else None, baseline, clock_hz)


def _costed(
    row: StudyRow,
    costs: Mapping[int, tuple[PhaseCost, ...]],
    reached: Mapping[int, int | None] | None,
    baseline: StudyRow | None,
    clock_hz: int,
) -> StudyRow:
    """``row`` with what its trainings take on the machine; ``reached``: the step of each at the target, if all did."""
    cycles = fmean(float(Fraction(cycles_until(c, trained_steps(c)), trained_steps(c))) for c in costs.values())
    joules = fmean(sum(p.joules * p.steps for p in c) / trained_steps(c) for c in costs.values())
    steps = {} if reached is None else {seed: step for seed, step in reached.items() if step is not None}
    until = [cycles_until(costs[seed], step) for seed, step in steps.items()]
    base = baseline.cycles if baseline else cycles
    time = fmean(until) if until else None
    dense_time = baseline.cycles_to_target if baseline else time
    return replace(
        row,
        cycles=cycles,
        seconds=cycles / clock_hz,
        joules=joules,
        speedup=base / cycles if base else None,
        cycles_to_target=time,
        seconds_to_target=None if time is None else time / clock_hz,
        seconds_to_target_sd=None if time is None else _deviation([cycles / clock_hz for cycles in until]),
        time_speedup=dense_time / time if time and dense_time else None,
        phases=next(iter(costs.values())),
    )


def _deviation(values: Sequence[float]) -> float | None:
    return stdev(values) if len(values) > 1 else None


def _exceptions(trainings: Sequence[Training]) -> dict[str, str]:
    """Why layers, or some of their passes, were kept dense in some phase."""
    made: dict[str, str] = {}
    for training in trainings:
        for phase in training.phases:
            for name, reasons in phase.kept_dense.items():
                whole = len(reasons) == len(GEMM_PASSES) and len(set(reasons.values())) == 1
                named = [f"{p}: {why}" for p, why in reasons.items()]
                made.setdefault(name, next(iter(reasons.values())) if whole else "; ".join(named))
    return made
