"""The offline scheduler: for every op of a step, the mapping of least cost, chosen before the run by exact cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from functools import lru_cache
from typing import Literal, assert_never

from ..workloads.errors import InputError, require_choice
from ..workloads.gemm import Gemm
from ..workloads.sparsity import NMPattern
from ..workloads.step import MatrixOp, Workload
from .accelerator import AcceleratorSpec
from .array_time import array_machine
from .constraint import Constraint, MappingFile, refusal
from .cost import FITS, TOO_LONG, Problem, memory_machine, problem_of, too_long
from .engine_time import compares_per_group
from .fallback import with_fallback
from .mapping import COMPACT, ArrayMapping, Dataflow, Mapping
from .placement import Constrained, Placement, evaluate
from .search import CYCLES, EDP, ENERGY, FREE_SPACE, NOTHING, THRIFT, TIE, Found, Limits, Prices, search

__all__ = ["Objective", "Prices", "Schedule", "best_mapping", "schedule"]

FREE = Prices(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)


class Objective(StrEnum):
    """What the scheduler minimises, op by op."""

    THRIFT = "thrift"
    """Of the mappings within 1/128 of the least cycles (`search.TIE`) the one that moves the fewest DRAM bytes."""
    CYCLES = "cycles"
    """Cycles; of equally fast mappings the one that moves the fewest DRAM bytes. Never slower on more bandwidth."""
    ENERGY = "energy"
    EDP = "edp"

    @property
    def priced(self) -> bool:
        """Whether it needs the energy of each action."""
        return self in (Objective.ENERGY, Objective.EDP)

    @property
    def aim(self) -> str:
        """What it asks for, in words."""
        match self:
            case Objective.THRIFT:
                return f"the fewest DRAM bytes within 1/{TIE} of the least cycles"
            case Objective.CYCLES:
                return "the least cycles"
            case Objective.ENERGY:
                return "the least energy"
            case Objective.EDP:
                return "the least energy x time"
            case _:
                assert_never(self)


_CODE = {Objective.THRIFT: THRIFT, Objective.CYCLES: CYCLES, Objective.ENERGY: ENERGY, Objective.EDP: EDP}


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """The offline choice for every op; ``placements`` has ``None`` for work that is not a GEMM."""

    workload: Workload
    spec: AcceleratorSpec
    objective: Objective
    placements: tuple[Placement | None, ...]
    mapping: MappingFile | None = None
    """The rules that it was made under."""
    fallback: Workload | None = None
    """``workload`` as it is run, if some of its N:M ops run dense."""

    @property
    def as_run(self) -> Workload:
        """The ops that are placed."""
        return self.fallback or self.workload


def schedule(
    workload: Workload,
    spec: AcceleratorSpec,
    objective: Objective | str = Objective.THRIFT,
    prices: Callable[[MatrixOp], Prices] | None = None,
    progress: Callable[[int, int], None] | None = None,
    mapping: MappingFile | None = None,
) -> Schedule:
    """Choose the best mapping of every op, of those that the rules of ``mapping`` allow; ops of equal shape are
    searched once.

    ``prices`` gives the picojoules of an op's actions; the objectives energy and edp need it. ``progress`` is called
    with the ops done and all ops.
    """
    goal = _objective(objective)
    if goal.priced and prices is None:
        raise InputError(f"objective {goal} needs the energy of each action; pass prices, or use weft.schedule")
    scheduler = _Scheduler(spec, goal, prices, mapping)
    asked = [None] * len(workload.ops) if mapping is None else mapping.constraints(workload)
    fixed = {i for i, wanted in enumerate(asked) if wanted is not None}
    for done, (op, wanted) in enumerate(zip(workload.ops, asked, strict=True), start=1):
        if isinstance(op, MatrixOp):
            scheduler.place(op, wanted)
        if progress is not None:
            progress(done, len(workload.ops))
    as_run = with_fallback(workload, spec, scheduler.place, scheduler.cost, fixed)
    placements = tuple(
        scheduler.place(op, wanted) if isinstance(op, MatrixOp) else None
        for op, wanted in zip(as_run.ops, asked, strict=True)
    )
    return Schedule(
        workload=workload, spec=spec, objective=goal, placements=placements, mapping=mapping,
        fallback=None if as_run is workload else as_run,
    )  # fmt: skip


class _Scheduler:
    """Placements of ops, those of equal shape searched once."""

    def __init__(
        self,
        spec: AcceleratorSpec,
        goal: Objective,
        prices: Callable[[MatrixOp], Prices] | None,
        mapping: MappingFile | None,
    ) -> None:
        self._spec, self._goal, self._mapping = spec, goal, mapping
        self._prices = prices if goal.priced else None
        self._known: dict[tuple[object, ...], Placement] = {}
        self._costs: dict[int, float] = {}

    def place(self, op: MatrixOp, wanted: Constraint | None = None) -> Placement:
        """The best placement of an op, of those that are wanted."""
        price = self._prices(op) if self._prices is not None else FREE
        key = (op.gemm, op.sparse, op.a.elements, op.b.elements, op.c.elements, price, wanted)
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = _placed(op, self._spec, self._goal, price, wanted, self._mapping)
            self._costs[id(found)] = _cost(found, self._goal, op, self._spec, price)
        return found

    @property
    def cost(self) -> Callable[[Placement], float] | None:
        """What of a placement is minimised under an objective with prices."""
        return None if self._prices is None else lambda placement: self._costs[id(placement)]


def _placed(
    op: MatrixOp,
    spec: AcceleratorSpec,
    goal: Objective,
    price: Prices,
    wanted: Constraint | None,
    mapping: MappingFile | None,
) -> Placement:
    """The best placement, of those that are wanted beside what it is without that."""
    free = evaluate(op, spec, best_mapping(op, spec, goal, price))
    if wanted is None or mapping is None:
        return free
    try:
        found = evaluate(op, spec, best_mapping(op, spec, goal, price, wanted))
    except InputError as error:
        raise InputError(f"{mapping.source}: {error}") from None
    than = Constrained(asked=str(wanted), free_cycles=free.cycles.total, free_dram_bytes=free.counts.dram_bytes)
    return replace(found, constrained=than)


def _cost(placement: Placement, goal: Objective, op: MatrixOp, spec: AcceleratorSpec, price: Prices) -> float:
    """What the objective minimises."""
    match goal:
        case Objective.THRIFT | Objective.CYCLES:
            return placement.cycles.total
        case Objective.ENERGY | Objective.EDP:
            energy = _energy_pj(placement, op, spec, price)
            return energy if goal is Objective.ENERGY else energy * placement.cycles.total
        case _:
            assert_never(goal)


def _energy_pj(placement: Placement, op: MatrixOp, spec: AcceleratorSpec, price: Prices) -> float:
    """Picojoules of a placement."""
    c = placement.counts
    groups = c.sore_compares / compares_per_group(op.sparse.pattern, spec) if op.sparse and c.sore_compares else 0
    return (
        price.fixed
        + c.dram_bytes * (price.dram_byte + price.buffer_byte)
        + c.w2e_words * price.w2e_word
        + c.n2s_pairs * price.n2s_pair
        + c.output_words * price.output_word
        + groups * price.sore_group
    )


def _objective(text: Objective | str) -> Objective:
    return Objective(require_choice("objective", text, tuple(Objective)))


def best_mapping(
    op: MatrixOp, spec: AcceleratorSpec, objective: Objective, price: Prices = FREE, wanted: Constraint | None = None
) -> Mapping:
    """Cheapest mapping of ``op`` in the space that dataflow/search.py states, or of those that are ``wanted``."""
    if op.sparse is not None:
        spec.check_pattern(op.sparse.pattern)
        roles: tuple[Literal["a", "b"], ...] = (op.sparse.operand,)
    else:
        roles = ("b", "a")
    problems = tuple(problem_of(op, role, spec.wuve.pregenerate) for role in roles)

    def searched(wanted: Constraint | None) -> Mapping | None:
        chosen = [i for i, role in enumerate(roles) if wanted is None or wanted.n2s in (None, role)]
        if not chosen:
            return None
        index, mapping = _search(tuple(problems[i] for i in chosen), spec, objective, price, wanted)
        return None if mapping is None else replace(mapping, n2s=roles[chosen[index]])

    mapping = searched(wanted)
    if mapping is None and wanted is not None and searched(None) is not None:
        raise InputError(refusal(op, spec, wanted, bool(problems[0].online), searched))
    if mapping is None:
        raise InputError(
            f"no tile of {op.name!r} ({op.gemm}) fits the buffers of {spec.name!r}: one array tile needs the operands "
            f"of one N:M group and its results; with {_enough(problems, spec)} one fits"
        )
    return mapping


_ROOM = 2**26
"""Bytes of a buffer that is never what a tile lacks: an array tile of the largest array takes less."""


def _enough(problems: tuple[Problem, ...], spec: AcceleratorSpec) -> str:
    """The buffers to enlarge for any tile at all, each to the least power of two times its size."""
    given = spec.buffers
    chosen, enlarged = replace(given, w2e_bytes=_ROOM, n2s_bytes=_ROOM, output_bytes=_ROOM), list[str]()
    for field in fields(given):
        size = getattr(given, field.name)
        while size < _ROOM:
            tried = replace(spec, buffers=replace(chosen, **{field.name: size}))
            if _search(problems, tried, Objective.CYCLES, FREE)[1] is not None:
                break
            size *= 2
        chosen = replace(chosen, **{field.name: size})
        if size > getattr(given, field.name):
            enlarged.append(f"buffers.{field.name} = {size}")
    return " and ".join(enlarged)


@lru_cache(maxsize=16384)
def _search(
    problems: tuple[Problem, ...],
    spec: AcceleratorSpec,
    objective: Objective,
    price: Prices,
    wanted: Constraint | None = None,
) -> tuple[int, Mapping | None]:
    """Index of the best role and its mapping; the first of equals wins."""
    x, y = array_machine(spec), memory_machine(spec)
    limits = Limits(spec.pe.accumulators, spec.pe.dense_words, spec.pe.weight_pairs, spec.pe.max_group)
    spaces = [FREE_SPACE if wanted is None else wanted.only(p) for p in problems]
    found = [
        NOTHING if only is None else search(p, x, y, limits, price, _CODE[objective], only)
        for p, only in zip(problems, spaces, strict=True)
    ]
    best = min(range(len(found)), key=lambda i: _rank(found[i], objective))
    f, p = found[best], problems[best]
    if f.status == TOO_LONG:
        raise too_long(p)
    if f.status != FITS:
        return best, None
    return best, Mapping(
        array=ArrayMapping(
            dataflow=Dataflow.WS if f.ws else Dataflow.OS,
            pattern=NMPattern(keep=f.keep, group=f.group),
            interleave=f.interleave,
        ),
        gemm=Gemm(m=p.rows, k=p.k, n=p.cols, groups=p.groups, run=p.run),
        n2s="b",
        tile_rows=f.tile.rows,
        tile_cols=f.tile.cols,
        resident=bool(f.tile.resident),
        order="mn" if f.tile.rows_slow else "nm",
        compact=COMPACT[f.tile.compact],
    )


def _rank(found: Found, objective: Objective) -> tuple[int, float, int]:
    """Roles in order of merit: those that fit, then those that could be too long; by cost, of equally fast by bytes."""
    order = {FITS: 0, TOO_LONG: 1}.get(found.status, 2)
    match objective:
        case Objective.THRIFT:
            return order, found.units, 0
        case Objective.CYCLES:
            return order, found.units, found.moved
        case Objective.ENERGY | Objective.EDP:
            return order, found.key, 0
        case _:
            assert_never(objective)
