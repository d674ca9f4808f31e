"""The offline scheduler: for every op of a step, the mapping of least cost, chosen before the run by exact cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from ..workloads.errors import InputError
from ..workloads.one_line import OneLine
from ..workloads.operand import Gathered
from ..workloads.step import MatrixOp, Workload
from ..workloads.words import named
from .accelerator import AcceleratorSpec
from .constraint import Constraint, MappingFile
from .engines import place
from .fallback import ungathered, with_fallback
from .fusion.fuse import require_rows
from .objective import Objective
from .packing import with_forms
from .placement import Constrained, Placement
from .prices import Pricing, unpriced
from .residency import Residency, resident

__all__ = ["Schedule", "schedule"]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Schedule(OneLine):
    """The offline choice for every op; ``placements`` has ``None`` for work that is not a GEMM."""

    workload: Workload
    spec: AcceleratorSpec
    objective: Objective
    placements: tuple[Placement | None, ...]
    mapping: MappingFile | None = None
    """The rules that it was made under."""
    fallback: Workload | None = None
    """``workload`` as it is run, if some of its N:M ops run dense, or some of its tensors are packed or on chip."""
    residency: Residency | None = None
    """What stays on chip, where the machine has memory for it."""
    by_shape: bool = False
    """Whether mappings were chosen again by the shapes of their transfers (`simulator/shape_choice.py`)."""

    @property
    def as_run(self) -> Workload:
        """The ops that are placed."""
        return self.fallback or self.workload

    def _said(self) -> str:
        cycles = [placement.cycles.total for placement in self.placements if placement is not None]
        return (
            f"{self.workload.title} on {named(self.spec.name)} by {self.objective}: "
            f"{len(cycles):,} products of {sum(cycles):,} cycles"
        )


def schedule(
    workload: Workload,
    spec: AcceleratorSpec,
    objective: Objective | str = Objective.THRIFT,
    prices: Pricing | None = None,
    progress: Callable[[int, int], None] | None = None,
    mapping: MappingFile | None = None,
) -> Schedule:
    """Choose the best mapping of every op, of those that the rules of ``mapping`` allow; ops of equal shape are
    searched once.

    ``prices`` gives the picojoules of an op's actions on an engine; the objectives energy and edp need it.
    ``progress`` is called with the ops done and all ops.
    """
    goal = Objective.named(objective)
    if goal.priced and prices is None:
        raise InputError(f"objective {goal} needs the energy of each action; pass prices, or use weft.schedule")
    require_rows(workload, spec)
    scheduler = _Scheduler(spec, goal, prices, mapping)
    asked = [None] * len(workload.ops) if mapping is None else mapping.constraints(workload)
    run = ungathered(workload, spec)
    fixed = {i for i, wanted in enumerate(asked) if wanted is not None}
    for done, (op, wanted) in enumerate(zip(run.ops, asked, strict=True), start=1):
        # Without a pattern an op may yet become dense, which says why.
        if isinstance(op, MatrixOp) and not isinstance(op.sparse, Gathered):
            scheduler.place(op, wanted)
        if progress is not None:
            progress(done, len(workload.ops))
    as_run = with_fallback(run, spec, scheduler.place, scheduler.cost, fixed)
    placements = tuple(
        scheduler.place(op, wanted) if isinstance(op, MatrixOp) else None
        for op, wanted in zip(as_run.ops, asked, strict=True)
    )
    as_run, residency = with_forms(as_run, placements, spec), None
    if spec.buffers.resident_bytes:
        as_run, placements, residency = resident(as_run, placements, spec, prices or unpriced)
    return Schedule(
        workload=workload,
        spec=spec,
        objective=goal,
        placements=placements,
        mapping=mapping,
        fallback=None if as_run is workload else as_run,
        residency=residency,
    )


class _Scheduler:
    """Placements of ops, those of equal shape searched once."""

    def __init__(
        self, spec: AcceleratorSpec, goal: Objective, prices: Pricing | None, mapping: MappingFile | None
    ) -> None:
        self._spec, self._goal, self._mapping = spec, goal, mapping
        self._prices = prices if goal.priced else None
        self._known: dict[tuple[object, ...], Placement] = {}

    def place(self, op: MatrixOp, wanted: Constraint | None = None) -> Placement:
        """The best placement of an op, of those that are wanted."""
        sides = tuple((side.elements, side.levels) for side in (op.a, op.b, op.c))
        key = (op.gemm, op.sparse, sides, op.c.dtype, wanted)
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = _placed(
                op, self._spec, self._goal, self._prices or unpriced, wanted, self._mapping
            )
        return found

    @property
    def cost(self) -> Callable[[Placement], float] | None:
        """What of a placement is minimised under an objective with prices."""
        return None if self._prices is None else lambda placement: placement.cost(self._goal)


def _placed(
    op: MatrixOp,
    spec: AcceleratorSpec,
    goal: Objective,
    pricing: Pricing,
    wanted: Constraint | None,
    mapping: MappingFile | None,
) -> Placement:
    """The best placement, of those that are wanted beside what it is without that."""
    free = place(op, spec, goal, pricing)
    if wanted is None or mapping is None:
        return free
    try:
        found = place(op, spec, goal, pricing, wanted)
    except InputError as error:
        raise InputError(f"{mapping.source}: {error}") from None
    than = Constrained(asked=str(wanted), free_cycles=free.cycles.total, free_dram_bytes=free.counts.dram_bytes)
    return replace(found, constrained=than)
