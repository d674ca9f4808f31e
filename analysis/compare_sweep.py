"""Every combination of machines, batches, schemes and N:M patterns, beside the dense step of its machine and batch.

A combination that cannot run is a row with the reason; what none of them could run with is refused before the first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from ..dataflow.accelerator import AcceleratorSpec
from ..dataflow.constraint import MappingFile
from ..dataflow.objective import Objective
from ..simulator.memory import require_room
from ..simulator.result import SimResult
from ..simulator.step import simulate
from ..workloads.errors import InputError
from ..workloads.one_line import OneLine
from ..workloads.schemes.annotate import annotate, require_layers
from ..workloads.schemes.policies import Policy
from ..workloads.schemes.scheme import scheme
from ..workloads.sparsity import LayerPattern, LayerPatterns
from ..workloads.step import MatrixOp, Workload
from ..workloads.words import named
from .compare import compare
from .scheduling import scheduled

__all__ = ["BASELINE", "Sweep", "SweepRow", "bound_of", "sweep"]

Asked = LayerPatterns | Policy
"""Patterns by layer, or what chooses them."""

BASELINE = "dense"


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepRow:
    """One combination; with a ``reason`` why it cannot run, numbers are None.

    What has the name of a field of `ComparisonRow` is the same. ``speedup`` and ``saving`` (with its
    band) are over the dense step of the same machine and batch, None where that cannot run.
    ``bound_cycles``: :func:`bound_of`; ``gap``: the share of it by which the step takes longer.
    """

    machine: str
    batch: int
    scheme: str
    pattern: str | None
    reason: str = ""
    cycles: int | None = None
    seconds: float | None = None
    samples_per_s: float | None = None
    speedup: float | None = None
    mac_speedup: float | None = None
    ideal_speedup: float | None = None
    utilization: float | None = None
    energy_j: float | None = None
    energy_low_j: float | None = None
    energy_high_j: float | None = None
    saving: float | None = None
    saving_low: float | None = None
    saving_high: float | None = None
    bound_cycles: int | None = None
    gap: float | None = None

    @property
    def run(self) -> str:
        """Scheme and pattern."""
        return f"{self.scheme} {self.pattern}" if self.pattern else self.scheme


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Sweep(OneLine):
    """Rows by machine, then by batch, the dense step first; ``rules``: the patterns of some layers in all of them."""

    model: str
    objective: Objective
    machines: Mapping[str, AcceleratorSpec]
    rules: tuple[LayerPattern, ...]
    rows: tuple[SweepRow, ...]

    @property
    def groups(self) -> dict[tuple[str, int], list[SweepRow]]:
        """Rows by machine and batch."""
        found: dict[tuple[str, int], list[SweepRow]] = {}
        for row in self.rows:
            found.setdefault((row.machine, row.batch), []).append(row)
        return found

    def _said(self) -> str:
        refused = sum(bool(row.reason) for row in self.rows)
        cannot = f", {refused} of which cannot run" if refused else ""
        return f"{named(self.model)} on {', '.join(map(named, self.machines))}: {len(self.rows)} combinations{cannot}"


def sweep(
    steps: Mapping[int, Workload | str],
    machines: Mapping[str, AcceleratorSpec],
    schemes: Sequence[str],
    patterns: Sequence[Asked],
    objective: Objective | str = Objective.THRIFT,
    mapping: MappingFile | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Sweep:
    """Simulate every combination; a scheme that makes nothing N:M comes once for all ``patterns``.

    ``steps``: by batch, the step or why it cannot be traced. ``machines``: by the name of their rows. Refused are a
    rule of ``patterns`` or ``mapping`` that matches no layer, and steps of which none could be traced.
    """
    goal, runs = Objective.named(objective), list(_runs(schemes, patterns))
    model = _model(steps, runs, mapping)
    rows: list[SweepRow] = []
    for machine, spec in machines.items():
        for batch, step in steps.items():
            baseline: SimResult | None = None
            for name, asked in runs:
                row = SweepRow(machine=machine, batch=batch, scheme=name, pattern=_usual(asked))
                try:
                    result = _simulated(step, name, asked, spec, goal, mapping)
                    baseline = result if name == BASELINE else baseline
                    rows.append(_filled(row, result, baseline))
                except InputError as refused:
                    rows.append(replace(row, reason=str(refused)))
                if progress is not None:
                    progress(len(rows), len(machines) * len(steps) * len(runs))
    rules = next((asked.rules for _, asked in runs if isinstance(asked, LayerPatterns)), ())
    return Sweep(model=model, objective=goal, machines=dict(machines), rules=rules, rows=tuple(rows))


def _runs(schemes: Sequence[str], patterns: Sequence[Asked]) -> Iterator[tuple[str, Asked | None]]:
    """Schemes with the patterns that make a difference to their step, dense first."""
    for name in dict.fromkeys((BASELINE, *schemes)):
        for asked in patterns if scheme(name).sparse else (None,):
            yield name, asked


def _usual(asked: Asked | None) -> str | None:
    """What is asked for all layers, in words."""
    if isinstance(asked, Policy):
        return str(asked)
    return None if asked is None or asked.usual is None else str(asked.usual)


def _model(
    steps: Mapping[int, Workload | str], runs: Sequence[tuple[str, Asked | None]], mapping: MappingFile | None
) -> str:
    """That of the steps; refuses what is wrong in all of them alike."""
    traced = next((step for step in steps.values() if isinstance(step, Workload)), None)
    if traced is None:
        raise InputError(next((str(why) for why in steps.values()), "a sweep needs the step of one batch at least"))
    for asked in (asked for _, asked in runs if isinstance(asked, LayerPatterns)):
        require_layers(traced, asked)
    if mapping is not None:
        mapping.constraints(traced)
    return traced.model


def _simulated(
    step: Workload | str,
    name: str,
    asked: Asked | None,
    spec: AcceleratorSpec,
    goal: Objective,
    mapping: MappingFile | None,
) -> SimResult:
    if isinstance(step, str):
        raise InputError(step)
    rules = asked.patterns(step) if isinstance(asked, Policy) else asked
    for pattern in () if rules is None else rules.patterns:
        spec.check_pattern(pattern)
    annotated = annotate(step, name, rules)
    require_room(annotated, spec)
    return simulate(scheduled(annotated, spec, goal, mapping=mapping))


def _filled(row: SweepRow, result: SimResult, baseline: SimResult | None) -> SweepRow:
    """``row`` with its numbers, as a comparison has them."""
    one, bound = compare([baseline or result, result]).rows[1], bound_of(result)
    saved = None if baseline is None else one.saving
    return replace(
        row,
        cycles=one.cycles,
        seconds=one.seconds,
        samples_per_s=one.samples_per_s,
        speedup=None if baseline is None else one.speedup,
        mac_speedup=one.mac_speedup,
        ideal_speedup=one.ideal_speedup,
        utilization=one.utilization,
        energy_j=one.energy_j,
        energy_low_j=one.energy_low_j,
        energy_high_j=one.energy_high_j,
        saving=None if saved is None else saved.share,
        saving_low=None if saved is None else saved.low,
        saving_high=None if saved is None else saved.high,
        bound_cycles=bound,
        gap=one.cycles / bound - 1 if bound else None,
    )


def bound_of(result: SimResult) -> int:
    """Cycles that the step takes whatever the mappings, its products run as they are, dense or N:M.

    Of a product at the peak of its engine, or with every operand moved once if that takes longer; of all else, which
    has no mapping, what it takes.
    """
    return sum(r.bound_cycles if isinstance(r.op, MatrixOp) else r.cycles.total for r in result.ops)
