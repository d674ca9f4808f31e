"""Accuracy beside cost: every scheme trained, and the very model that was trained simulated, phase by phase.

A scheme that makes a step twice as fast and needs three times the steps is slower. The time of a scheme is therefore
also given as time to accuracy: the cycles of all steps, each by its phase, up to the end of the first epoch after which
the accuracy on the validation set is within ``below`` of that of dense training. The test set is reported, never aimed
at and never chosen by.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from ..dataflow.accelerator import AcceleratorSpec
from ..dataflow.schedule import schedule
from ..simulator.result import SimResult
from ..simulator.shown import Shown
from ..simulator.step import simulate
from ..workloads.errors import InputError, require_int
from ..workloads.gemm import GEMM_PASSES
from ..workloads.schemes.annotate import annotate
from ..workloads.schemes.scheme import SCHEMES, scheme
from ..workloads.sparsity import NMPattern
from ..workloads.step import Measured, Workload
from ..workloads.words import named
from .energy import energy
from .energy_table import load_table
from .executor import Executor
from .study_rows import REFERENCE, PhaseCost, StudyRow, aggregate
from .study_tracks import tracks
from .tariff import tariff
from .trainings import Planned, Progress, TrainedPhase, Training, holds, planned, require_jobs, run_trainings

if TYPE_CHECKING:
    from ..workloads.training import TrainSpec

__all__ = ["REFERENCE", "Study", "StudySpec", "measured_of", "run_study"]

Group = tuple[str, str, NMPattern | None]
"""Model, scheme, pattern."""
SimulateStep = Callable[["TrainSpec", TrainedPhase, tuple[Measured, ...]], SimResult]


@dataclass(frozen=True, slots=True, kw_only=True)
class StudySpec:
    """What a study trains and on what machine it places it.

    Every model under every scheme and pattern with seeds 0 .. ``seeds`` - 1, and dense beside them whether it is named
    or not. ``epochs``: None for what is usual for the model. ``below``: how far below the mean dense accuracy on the
    validation set the target of the time to accuracy lies, as a share (0.005 is half a point). ``beside``: other models
    with their schemes, which stand in the table of every model and are compared with its dense training.
    """

    data: str
    models: tuple[str, ...]
    schemes: tuple[str, ...]
    patterns: tuple[NMPattern, ...]
    seeds: int
    machine: AcceleratorSpec
    epochs: int | None = None
    below: float = 0.005
    beside: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        require_int("seeds", self.seeds, 1, 1000)
        for what, names in (("model", self.models), ("scheme", self.schemes), ("pattern", self.patterns)):
            if not names:
                raise InputError(f"a study needs a {what}")
            twice = next((name for name in names if list(names).count(name) > 1), None)
            if twice is not None:
                raise InputError(f"{what} {str(twice)!r} is named twice")
        for name in (*self.schemes, *(name for _, name in self.beside)):
            scheme(name)
        for model, name in self.beside:
            if model in self.models:
                raise InputError(f"{model}:{name} stands beside no other model: {model!r} is one of the study's models")
        if not 0.0 <= self.below <= 1.0:
            raise InputError(f"the target must be 0 to 100 points below dense, not {100 * self.below:g}")

    def groups(self) -> Iterator[Group]:
        """Model, scheme and pattern of every row, dense first; a scheme without a pattern comes once."""
        for _, group in self.tables():
            yield group

    def tables(self) -> Iterator[tuple[str, Group]]:
        """:meth:`groups`, each with the model in whose table it stands; those beside a model come last."""
        ours = [name for name in SCHEMES if name in self.schemes]
        names = [name for name in dict.fromkeys([*ours, *self.schemes]) if name != REFERENCE]
        for model in self.models:
            yield model, (model, REFERENCE, None)
            for group in self._of([(model, name) for name in names]):
                yield model, group
            for group in self._of(self.beside):
                yield model, group

    def _of(self, pairs: Sequence[tuple[str, str]]) -> Iterator[Group]:
        yield from ((model, name, None) for model, name in pairs if not scheme(name).takes_pattern)
        for pattern in self.patterns:
            yield from ((model, name, pattern) for model, name in pairs if scheme(name).takes_pattern)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Study(Shown):
    """A finished study. ``steps``: of every row that the machine runs, the step of its longest phase. ``earlier``: how
    many of the trainings other sources made."""

    spec: StudySpec
    rows: tuple[StudyRow, ...]
    trainings: tuple[Training, ...]
    steps: dict[tuple[str, str, str | None], SimResult]
    earlier: int = 0

    def _said(self) -> str:
        spec = self.spec
        models = f"{len(spec.models)} model{'s' * (len(spec.models) != 1)}"
        return (
            f"{named(spec.data)}, {models}, {spec.seeds} seed{'s' * (spec.seeds != 1)} on {named(spec.machine.name)}: "
            f"{len(self.rows)} rows of {len(self.trainings)} trainings"
        )


def run_study(
    spec: StudySpec,
    folder: Path,
    jobs: int = 1,
    progress: Progress | None = None,
    *,
    keep: bool = False,
    executor: Executor | None = None,
) -> Study:
    """Train what ``folder`` does not hold yet, simulate, and put it side by side; see :func:`.run_trainings`."""
    require_jobs(jobs)
    tariff(load_table(spec.machine.technology), spec.machine)  # refuses what it cannot charge before the work
    plans: dict[Group, list[Planned]] = {}
    flat = planned(_specs(spec))
    for plan in flat:
        plans.setdefault((plan.spec.model, plan.spec.scheme, plan.spec.pattern), []).append(plan)
    done = run_trainings(flat, folder, jobs, progress, keep=keep, executor=executor)
    place, rows, steps = _placer(spec.machine), [], {}
    reference: dict[str, dict[int, Training]] = {}
    baseline: dict[str, StudyRow] = {}
    for table, group in spec.tables():
        model, name, pattern = group
        found = {plan.spec.seed: done[plan.key] for plan in plans[group]}
        trained = {seed: one for seed, one in found.items() if isinstance(one, Training)}
        reference.setdefault(table, trained)
        costs, unplaced, phases = _costs(plans[group][0].spec, trained, place)
        if phases:
            longest = max(phases, key=lambda phase: phase[0])[1]
            steps[model, name, None if pattern is None else str(pattern)] = longest
        row = aggregate(
            group,
            found,
            costs,
            reference=reference[table],
            baseline=baseline.get(table),
            below=spec.below,
            clock_hz=spec.machine.clock_hz,
            unplaced=unplaced,
            found_beside=tracks([step for _, step in phases]) if phases else None,
            table="" if table == model else table,
        )
        baseline.setdefault(table, row)
        rows.append(row)
    trainings = tuple(one for one in done.values() if isinstance(one, Training))
    earlier = sum(isinstance(done[plan.key], Training) and not holds(folder, plan) for plan in flat)
    return Study(spec=spec, rows=tuple(rows), trainings=trainings, steps=steps, earlier=earlier)


def _specs(spec: StudySpec) -> Iterator[TrainSpec]:
    from ..workloads.training import plan

    for model, name, pattern in dict.fromkeys(spec.groups()):
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
) -> tuple[dict[int, tuple[PhaseCost, ...]], str, list[tuple[int, SimResult]]]:
    """Cost of every phase by seed; or why the machine cannot run one; and by phase, of the first seed, how many steps
    it has and what one of them is."""
    costs: dict[int, tuple[PhaseCost, ...]] = {}
    phases: list[tuple[int, SimResult]] = []
    try:
        for seed, one in trained.items():
            made = []
            for i, phase in enumerate(one.phases):
                result = place(spec, phase, measured_of(list(trained.values()), i))
                made.append(
                    PhaseCost(
                        steps=phase.steps,
                        scheme=phase.scheme,
                        cycles=result.cycles.total,
                        pattern=None if phase.pattern is None else str(phase.pattern),
                        joules=energy(result).joules,
                    )
                )
                if not costs:
                    phases.append((phase.steps, result))
            costs[seed] = tuple(made)
    except InputError as error:
        return {}, str(error), []
    return costs, "", phases


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
