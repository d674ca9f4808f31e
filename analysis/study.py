"""Accuracy beside cost: every scheme trained, and the very model that was trained simulated, phase by phase.

A scheme that makes a step twice as fast and needs three times the steps is slower. The time of a scheme is therefore
also given as time to accuracy: the cycles of all steps, each by its phase, up to the end of the first epoch after which
the accuracy on the validation set is within ``below`` of that of dense training. The test set is reported, never aimed
at and never chosen by.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING

from ..dataflow.accelerator import AcceleratorSpec
from ..dataflow.schedule import schedule
from ..simulator.result import SimResult
from ..simulator.step import simulate
from ..workloads.errors import InputError, require_int
from ..workloads.gemm import GEMM_PASSES, Pass
from ..workloads.schemes.annotate import annotate
from ..workloads.schemes.scheme import SCHEMES, scheme
from ..workloads.sparsity import NMPattern
from ..workloads.step import Measured, Workload
from .energy import energy
from .energy_table import load_table
from .tariff import tariff
from .trainings import Planned, Progress, TrainedPhase, Training, planned, run_trainings

if TYPE_CHECKING:
    from ..workloads.training import TrainSpec

__all__ = [
    "REFERENCE", "PhaseCost", "Study", "StudyRow", "StudySpec", "aggregate", "cycles_until", "first_reached",
    "measured_of", "pareto", "run_study", "trained_steps",
]  # fmt: skip

REFERENCE = "dense"
SimulateStep = Callable[["TrainSpec", TrainedPhase, tuple[Measured, ...]], SimResult]


@dataclass(frozen=True, slots=True, kw_only=True)
class StudySpec:
    """What a study trains and on what machine it places it.

    Every model under every scheme and pattern with seeds 0 .. ``seeds`` - 1, and dense beside them whether it is named
    or not. ``epochs``: None for what is usual for the model. ``below``: how far below the mean dense accuracy on the
    validation set the target of the time to accuracy lies, as a share (0.005 is half a point).
    """

    data: str
    models: tuple[str, ...]
    schemes: tuple[str, ...]
    patterns: tuple[NMPattern, ...]
    seeds: int
    machine: AcceleratorSpec
    epochs: int | None = None
    below: float = 0.005

    def __post_init__(self) -> None:
        require_int("seeds", self.seeds, 1, 1000)
        for what, names in (("model", self.models), ("scheme", self.schemes), ("pattern", self.patterns)):
            if not names:
                raise InputError(f"a study needs a {what}")
            twice = next((name for name in names if list(names).count(name) > 1), None)
            if twice is not None:
                raise InputError(f"{what} {str(twice)!r} is named twice")
        for name in self.schemes:
            scheme(name)
        if not 0.0 <= self.below <= 1.0:
            raise InputError(f"the target must be 0 to 100 points below dense, not {100 * self.below:g}")

    def groups(self) -> Iterator[tuple[str, str, NMPattern | None]]:
        """Model, scheme and pattern of every row, dense first; a scheme without a pattern comes once."""
        for model in self.models:
            yield model, REFERENCE, None
            for pattern in self.patterns:
                for name in SCHEMES:
                    if name in self.schemes and name != REFERENCE:
                        yield model, name, pattern


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """A finished study. ``steps``: of every row that the machine runs, the step of its longest phase."""

    spec: StudySpec
    rows: tuple[StudyRow, ...]
    trainings: tuple[Training, ...]
    steps: dict[tuple[str, str, str | None], SimResult]


def run_study(spec: StudySpec, folder: Path, jobs: int = 1, progress: Progress | None = None) -> Study:
    """Train what ``folder`` does not hold yet, simulate, and put it side by side; see :func:`.run_trainings`."""
    tariff(load_table(spec.machine.technology), spec.machine)  # refuses what it cannot charge before the work
    plans: dict[tuple[str, str, NMPattern | None], list[Planned]] = {}
    flat = planned(_specs(spec))
    for plan in flat:
        plans.setdefault((plan.spec.model, plan.spec.scheme, plan.spec.pattern), []).append(plan)
    done = run_trainings(flat, folder, jobs, progress)
    place, rows, steps = _placer(spec.machine), [], {}
    reference: dict[str, dict[int, Training]] = {}
    baseline: dict[str, StudyRow] = {}
    for group in spec.groups():
        model, name, pattern = group
        found = {plan.spec.seed: done[plan.key] for plan in plans[group]}
        trained = {seed: one for seed, one in found.items() if isinstance(one, Training)}
        reference.setdefault(model, trained)
        costs, unplaced, step = _costs(plans[group][0].spec, trained, place)
        if step is not None:
            steps[model, name, None if pattern is None else str(pattern)] = step
        row = aggregate(
            group, found, costs, reference=reference[model], baseline=baseline.get(model), below=spec.below,
            clock_hz=spec.machine.clock_hz, unplaced=unplaced,
        )  # fmt: skip
        baseline.setdefault(model, row)
        rows.append(row)
    trainings = tuple(one for one in done.values() if isinstance(one, Training))
    return Study(spec=spec, rows=tuple(rows), trainings=trainings, steps=steps)


def _specs(spec: StudySpec) -> Iterator[TrainSpec]:
    from ..workloads.training import plan

    for model, name, pattern in spec.groups():
        for seed in range(spec.seeds):
            made = plan(model, data=spec.data, scheme=name, pattern=pattern, epochs=spec.epochs, seed=seed)
            # `plan` leaves the pattern out where a scheme has no use for one.
            yield made if made.pattern == pattern else replace(made, pattern=pattern)


def _placer(machine: AcceleratorSpec) -> SimulateStep:
    """Simulates the step of a phase of a training, each kind of step once."""
    from ..workloads.training import step_workload

    traced: dict[tuple[str, str, NMPattern | None], Workload] = {}
    known: dict[Workload, SimResult] = {}

    def place(spec: TrainSpec, phase: TrainedPhase, measured: tuple[Measured, ...]) -> SimResult:
        wide = scheme(spec.scheme).wide
        key = (spec.model, spec.scheme if wide else "", spec.pattern if wide else None)
        if key not in traced:
            traced[key] = step_workload(spec)
        step = annotate(traced[key], phase.scheme, phase.pattern, measured)
        if step not in known:
            known[step] = simulate(schedule(step, machine))
        return known[step]

    return place


def _costs(
    spec: TrainSpec, trained: Mapping[int, Training], place: SimulateStep
) -> tuple[dict[int, tuple[PhaseCost, ...]], str, SimResult | None]:
    """Cost of every phase by seed; or why the machine cannot run one; and the step of the longest phase."""
    costs: dict[int, tuple[PhaseCost, ...]] = {}
    longest: tuple[int, SimResult] | None = None
    try:
        for seed, one in trained.items():
            made = []
            for i, phase in enumerate(one.phases):
                result = place(spec, phase, measured_of(list(trained.values()), i))
                made.append(
                    PhaseCost(
                        steps=phase.steps, scheme=phase.scheme, cycles=result.cycles.total,
                        pattern=None if phase.pattern is None else str(phase.pattern), joules=energy(result).joules,
                    )
                )  # fmt: skip
                if longest is None or phase.steps > longest[0]:
                    longest = (phase.steps, result)
            costs[seed] = tuple(made)
    except InputError as error:
        return {}, str(error), None
    return costs, "", longest[1] if longest else None


def measured_of(trainings: Sequence[Training], phase: int) -> tuple[Measured, ...]:
    """What the trainings of one row found in phase number ``phase``: means over the seeds, by layer.

    Densities and flip rates are taken in the last step, so only the last phase has them.
    """
    dense = [t.phases[min(phase, len(t.phases) - 1)].kept_dense for t in trainings]
    last = all(phase == len(t.phases) - 1 for t in trainings)
    layers: dict[str, None] = {}
    for training, kept in zip(trainings, dense, strict=True):
        layers.update(dict.fromkeys([*training.layers, *kept]))
    made = []
    for name in layers:
        found = [t.layers[name] for t in trainings if name in t.layers] if last else []
        made.append(
            Measured(
                layer=name,
                density={p: fmean(f.density[p] for f in found) for p in GEMM_PASSES} if found else {},
                flip_rate=fmean(f.flip_rate for f in found) if found else None,
                sad=fmean(f.sad for f in found) if found else None,
                kept_dense={p: why for kept in dense for p, why in kept.get(name, {}).items()},
            )
        )
    return tuple(made)


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


def pareto(points: Sequence[tuple[float, float]]) -> set[int]:
    """Points that no other beats: at most their time and at least their accuracy, and better in one of them."""
    return {
        i
        for i, (x, y) in enumerate(points)
        if not any(u <= x and v >= y and (u < x or v > y) for u, v in points)
    }  # fmt: skip


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
        model=model, scheme=name, pattern=None if pattern is None else str(pattern), seeds=len(found),
        trained=len(trained), failed={seed: why for seed, why in found.items() if isinstance(why, str)},
        unplaced=unplaced,
    )  # fmt: skip
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
        row, target=target, reached=len(steps), steps=fmean(one.steps[-1] for one in ends),
        validation=fmean(validation), validation_sd=_deviation(validation),
        accuracy=fmean(final), accuracy_sd=_deviation(final),
        loss=fmean(losses) if losses else None, loss_sd=_deviation(losses),
        steps_to_target=fmean(steps) if all_reached else None,
        density_ff=fmean(one.density[Pass.FF] for one in ends), density_bp=fmean(one.density[Pass.BP] for one in ends),
        density_wu=fmean(one.density[Pass.WU] for one in ends),
        flip_rate=fmean(one.flip_rate for one in ends), sad=fmean(one.sad for one in ends),
        kept_dense=_exceptions(ends),
    )  # fmt: skip
    if not costs:
        return row
    cycles = fmean(float(Fraction(cycles_until(c, trained_steps(c)), trained_steps(c))) for c in costs.values())
    joules = fmean(sum(p.joules * p.steps for p in c) / trained_steps(c) for c in costs.values())
    until = [cycles_until(costs[seed], step) for seed, step in reached.items() if step is not None]
    base = baseline.cycles if baseline else cycles
    time = fmean(until) if all_reached and until else None
    dense_time = baseline.cycles_to_target if baseline else time
    return replace(
        row, cycles=cycles, seconds=cycles / clock_hz, joules=joules, speedup=base / cycles if base else None,
        cycles_to_target=time, seconds_to_target=None if time is None else time / clock_hz,
        seconds_to_target_sd=None if time is None else _deviation([cycles / clock_hz for cycles in until]),
        time_speedup=dense_time / time if time and dense_time else None, phases=next(iter(costs.values())),
    )  # fmt: skip


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
