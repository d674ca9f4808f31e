"""A row of a study: the trainings of one scheme on one model, and what they cost on the machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from statistics import fmean, stdev
from typing import Any

from ..workloads.errors import InputError
from ..workloads.gemm import GEMM_PASSES, Pass
from ..workloads.sparsity import NMPattern
from .study_tracks import Tracks, corrupted_accuracy
from .trainings import Training

__all__ = [
    "REFERENCE",
    "PhaseCost",
    "StudyRow",
    "aggregate",
    "by_table",
    "cycles_until",
    "first_reached",
    "joules_until",
    "row_name",
    "trained_steps",
]

REFERENCE = "dense"


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

    ``table``: the model in whose table the row stands, beside whose dense training it is put, where that is another.
    ``corrupted``: of the test set, the mean over corruptions and strengths, of which ``noise``, ``blur`` and
    ``contrast`` are a third each. ``seed_seconds_to_target``: None for a training that never came there.
    ``training_seconds``, ``training_joules``: of all steps, on the machine. ``bit_operations``, ``image_cycles`` and
    ``image_joules``: of the forward pass of one image, in the step of the last phase; ``parameter_bits`` as that reads
    them. ``luts``: sites of the ``blocks`` that its steps use; ``lut_share`` of the device; None if any is uncounted.
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
    table: str = ""
    corrupted: float | None = None
    corrupted_sd: float | None = None
    noise: float | None = None
    blur: float | None = None
    contrast: float | None = None
    seed_seconds_to_target: dict[int, float | None] | None = None
    joules_to_target: float | None = None
    training_seconds: float | None = None
    training_joules: float | None = None
    bit_operations: float | None = None
    parameter_bits: int | None = None
    image_cycles: float | None = None
    image_joules: float | None = None
    luts: int | None = None
    lut_share: float | None = None
    blocks: str = ""

    @property
    def reference(self) -> bool:
        """Whether its table is compared with it."""
        return self.scheme == REFERENCE and not self.table


def by_table(rows: Sequence[StudyRow]) -> dict[str, list[StudyRow]]:
    """Rows by the model in whose table they stand, in their order."""
    found: dict[str, list[StudyRow]] = {}
    for row in rows:
        found.setdefault(row.table or row.model, []).append(row)
    return found


def row_name(row: StudyRow) -> str:
    """Scheme and pattern, and the model where it stands in the table of another."""
    model = f"{row.model} " if row.table else ""
    return model + row.scheme + (f" {row.pattern}" if row.pattern else "")


def first_reached(training: Training, target: float) -> int | None:
    """Steps until the end of the first epoch with at least ``target`` validation accuracy; None if there is none."""
    pairs = zip(training.steps, training.validation, strict=True)
    return next((step for step, accuracy in pairs if accuracy >= target), None)


def cycles_until(phases: Sequence[PhaseCost], step: int) -> int:
    """Cycles of the first ``step`` steps of a training, each at the cost of its phase."""
    return sum(phase.cycles * steps for phase, steps in _until(phases, step))


def joules_until(phases: Sequence[PhaseCost], step: int) -> float:
    """Joules of the first ``step`` steps of a training, each at the cost of its phase."""
    return sum(phase.joules * steps for phase, steps in _until(phases, step))


def _until(phases: Sequence[PhaseCost], step: int) -> list[tuple[PhaseCost, int]]:
    """How many of the first ``step`` steps each phase has."""
    total = trained_steps(phases)
    if not 0 <= step <= total:
        raise InputError(f"step must be from 0 to {total}, not {step}")
    made, begin = [], 0
    for phase in phases:
        made.append((phase, max(0, min(step - begin, phase.steps))))
        begin += phase.steps
    return made


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
    found_beside: Tracks | None = None,
    table: str = "",
) -> StudyRow:
    """One row: ``found`` is the training or the reason for its failure by seed, ``costs`` those of its phases.

    ``reference`` are the dense trainings by seed and ``baseline`` their row, None when this is it. ``found_beside``:
    what else is known of its steps. ``table``: the model of the dense trainings where it is another.
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
        table=table,
    )
    if not trained:
        return row
    target = fmean(one.validation[-1] for one in reference.values()) - below if reference else None
    reached = {} if target is None else {seed: first_reached(one, target) for seed, one in trained.items()}
    steps = [step for step in reached.values() if step is not None]
    all_reached = len(steps) == len(found)
    ends = list(trained.values())
    row = replace(
        _with_accuracy(row, trained, reference),
        target=target,
        reached=len(steps),
        steps=fmean(one.steps[-1] for one in ends),
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
    row = _costed(row, costs, reached if all_reached else None, baseline, clock_hz)
    seconds = {s: None if at is None else cycles_until(costs[s], at) / clock_hz for s, at in reached.items()}
    return replace(row, seed_seconds_to_target=seconds, **({} if found_beside is None else asdict(found_beside)))


def _with_accuracy(row: StudyRow, trained: Mapping[int, Training], reference: Mapping[int, Training]) -> StudyRow:
    """``row`` with what its trainings reached at their ends, by seed beside the dense ones of ``reference``."""
    ends = list(trained.values())
    final, validation = [one.accuracy for one in ends], [one.validation[-1] for one in ends]
    losses = [reference[s].accuracy - one.accuracy for s, one in trained.items() if s in reference]
    return replace(
        row,
        validation=fmean(validation),
        validation_sd=_deviation(validation),
        accuracy=fmean(final),
        accuracy_sd=_deviation(final),
        loss=fmean(losses) if losses else None,
        loss_sd=_deviation(losses),
        **_under_corruption(ends),
    )


def _under_corruption(trainings: Sequence[Training]) -> dict[str, Any]:
    """Means over the seeds, of all and of each kind; nothing if a training was not looked at so."""
    if not all(one.corrupted for one in trainings):
        return {}
    every = [corrupted_accuracy(one.corrupted) for one in trainings]
    kinds = {name: fmean(fmean(one.corrupted[name]) for one in trainings) for name in trainings[0].corrupted}
    return {"corrupted": fmean(every), "corrupted_sd": _deviation(every), **kinds}


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
    spent = [joules_until(costs[seed], step) for seed, step in steps.items()]
    whole = [(cycles_until(c, trained_steps(c)), joules_until(c, trained_steps(c))) for c in costs.values()]
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
        joules_to_target=fmean(spent) if spent else None,
        training_seconds=fmean(each for each, _ in whole) / clock_hz,
        training_joules=fmean(each for _, each in whole),
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
