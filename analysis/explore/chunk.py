"""A part of a sweep: its points as machines and work, refused, scheduled or left out, a row each."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple, assert_never

import numpy as np
from numpy.typing import NDArray

from ...dataflow.accelerator import AcceleratorSpec
from ...dataflow.batch.columns import points_from_columns
from ...dataflow.batch.evaluate import Status, evaluate
from ...dataflow.batch.front import front, lower_bounds
from ...dataflow.batch.points import points_of
from ...dataflow.batch.step import require_bulk
from ...dataflow.engines import ours_alone
from ...dataflow.objective import Objective
from ...hdl.flow.devices import DEVICES
from ...simulator.memory import memory_need
from ...simulator.step import simulate
from ...workloads.errors import InputError
from ...workloads.step import Workload
from ..area_by_shape import areas
from ..clocks import Closes, closes
from ..energy import energy
from ..scheduling import scheduled
from ..synthesised import AREA_TARGETS, AreaTarget
from ..tariff import shared_prices
from .axes import WORK, machine_fields
from .energy import joules
from .levels import LEFT_OUT, REFUSED, RUNS
from .measures import Known, Measure, sign
from .plan import Plan
from .work import Machines, Work, step_at, work_at

__all__ = ["Columns", "evaluate_points"]

Columns = dict[str, NDArray[Any]]
_WORDS = {
    Status.NO_ROOM: ("no room", "no tile fits the buffers and registers"),
    Status.TOO_LONG: ("too long", "no mapping can be timed within 2^62 parts of a cycle"),
    Status.PATTERN: ("pattern", "groups of the pattern are longer than pe.max_group"),
    Status.TOO_SLOW: ("too slow", "DRAM gives less than a byte in 256 cycles"),
    Status.TOO_MANY: ("too many", "cycles leave 64 bits"),
    Status.UNPRICED: ("unpriced", "the energy table of the machine cannot charge it"),
    Status.LEFT_OUT: (LEFT_OUT, "its bound is no better than a point of the front"),
}
_INTEGERS = ("cycles", "bound_cycles", "dram_bytes", "pes", "buffer_bytes")
_FLOATS = ("seconds", "samples_per_second")
"""Of every point: integers are 0, others NaN, where they are not known."""
_RESOURCES = ("lut", "ff", "dsp", "bram", "uram")
_FLOATS_OF = {
    Known.ENERGY: ("joules", "watts", "edp", "samples_per_joule"),
    Known.AREA: (*_RESOURCES, "samples_per_second_per_lut"),
    Known.STUDY: ("accuracy", "seconds_to_target"),
}


class _Group(NamedTuple):
    """What points have in common that are scheduled together. ``alone``: machines without an engine of others, which
    are evaluated in bulk."""

    work: Work
    goal: str
    arch: str
    clock_hz: int
    alone: bool


@dataclass(slots=True)
class _Rows:
    """Points as they are worked out."""

    values: Columns
    out: Columns
    specs: list[AcceleratorSpec | None]
    works: list[Work]
    goals: list[str]
    archs: list[str]
    reasons: list[list[str]]
    steps_to_target: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))

    def open(self) -> NDArray[np.int64]:
        """Those that nothing is against."""
        return np.array([i for i, reasons in enumerate(self.reasons) if not reasons], np.int64)


def evaluate_points(plan: Plan, values: Columns, best: NDArray[np.float64] | None = None) -> Columns:
    """Rows of points whose axes have ``values``: status, reason, and the measures that the space asks for.

    ``best``: float64 [points, objectives], less is better, of points elsewhere that rule others out, where the space
    prunes.
    """
    rows = _made(plan, values)
    _known_early(plan, rows)
    _refuse_over(plan, rows, early=True)
    groups: dict[_Group, list[int]] = {}
    for i in rows.open():
        spec = rows.specs[i]
        assert spec is not None, "a row without a machine has a reason"
        group = _Group(rows.works[i], rows.goals[i], rows.archs[i], spec.clock_hz, ours_alone(spec))
        groups.setdefault(group, []).append(int(i))
    for group, numbers in groups.items():
        _run(plan, rows, group, np.array(numbers, np.int64), best)
    _derive(rows)
    _refuse_over(plan, rows, early=False)
    for i, reasons in enumerate(rows.reasons):
        if reasons:
            rows.out["status"][i], rows.out["reason"][i] = REFUSED, "; ".join(reasons)
    return rows.out


def _made(plan: Plan, values: Columns) -> _Rows:
    n = len(next(iter(values.values())))
    out: Columns = {"status": np.full(n, "", object), "reason": np.full(n, "", object)}
    floats = [*_FLOATS, *(name for known, names in _FLOATS_OF.items() if _wants(plan, known) for name in names)]
    out |= {name: np.zeros(n, np.int64) for name in _INTEGERS} | {name: np.full(n, np.nan) for name in floats}
    machines = Machines(plan.bases, tuple(values))
    rows = _Rows(values, out, [], [], [], [], [[] for _ in range(n)])
    names, lists = tuple(values), [column.tolist() for column in values.values()]
    for i, point in enumerate(zip(*lists, strict=True)):
        at = dict(zip(names, point, strict=True))
        rows.works.append(work_at(plan.space, plan.models, at))
        rows.goals.append(str(at.get("objective", plan.space.objective)))
        rows.archs.append(str(at.get("arch", plan.space.arch)))
        try:
            rows.specs.append(machines.at(rows.archs[i], at))
        except InputError as error:
            rows.specs.append(None)
            rows.reasons[i].append(f"machine: {error}")
    return rows


def _wants(plan: Plan, known: Known) -> bool:
    """Whether points have measures of a kind."""
    match known:
        case Known.MACHINE | Known.CYCLES:
            return True
        case Known.AREA:
            return plan.space.constraints.device is not None
        case Known.STUDY:
            return plan.trained is not None
        case Known.ENERGY:
            return plan.needs(known)
        case _:
            assert_never(known)


def _known_early(plan: Plan, rows: _Rows) -> None:
    """What is known without a schedule, and what of that is in the way."""
    limits = plan.space.constraints
    for i, spec in enumerate(rows.specs):
        if spec is not None:
            rows.out["pes"][i] = sum(
                engine.rows * engine.cols for engine in (spec.array, spec.xnor) if engine is not None
            )
            buffers = spec.buffers
            one = buffers.w2e_bytes + buffers.n2s_bytes + buffers.output_bytes
            rows.out["buffer_bytes"][i] = one * len(spec.engines)
    device = next((target for target in AREA_TARGETS if target == limits.device), None)
    if device is not None:
        _areas(plan, rows, device)
        if limits.clock:
            _clocks(rows, device)
    if limits.dram:
        _require_dram(rows)
    if plan.trained is not None:
        _accuracies(plan, rows)


def _run(plan: Plan, rows: _Rows, group: _Group, at: NDArray[np.int64], best: NDArray[np.float64] | None) -> None:
    """Schedule the points ``at``, which are a group."""
    specs = [spec for i in at if (spec := rows.specs[i]) is not None]
    try:
        step = step_at(group.work)
    except InputError as error:
        for i in at:
            rows.reasons[i].append(f"step: {error}")
        return
    out = rows.out
    if not (group.alone and _in_bulk(step)):
        for i, spec in zip(at, specs, strict=True):
            _one(out, int(i), step, spec, group.goal)
        return
    # What a machine may do without, such as a unit for trees, has no part in a point.
    rules = machine_fields()
    own = [name for name in rows.values if name not in WORK and rules[name].table in ("", "xnor")]
    fields = {name: _plain(rows.values[name][at]) for name in own}
    if Objective.named(group.goal).priced or not fields:
        points = points_of(specs, shared_prices())
    else:
        points = points_from_columns(plan.bases[group.arch], fields)
    if plan.space.prune and best is not None:
        costs, known = _costs(plan, rows, at, step, group.clock_hz, best)
        found = front(step, points, costs, group.goal, known=known)
        out["bound_cycles"][at] = found.bound
        status, cycles, moved = found.status, found.cycles, found.dram_bytes
    else:
        made = evaluate(step, points, group.goal, amounts="joules" in out)
        status, cycles, moved = made.status, made.cycles, made.dram_bytes
        out["bound_cycles"][at] = lower_bounds(step, points)
        if "joules" in out:
            priced = joules(made, specs)
            out["joules"][at] = priced.joules
            out["reason"][at] = [f"joules: {why}" if why else "" for why in priced.reasons]
    out["cycles"][at], out["dram_bytes"][at] = cycles, moved
    for i, one in zip(at, status, strict=True):
        if one == Status.RUNS:
            out["status"][i] = RUNS
        else:
            out["status"][i], out["reason"][i] = _WORDS[Status(one)]


def _plain(column: NDArray[Any]) -> NDArray[Any]:
    """Text as NumPy has it, int64 or bool as they are, [points]."""
    return column.astype(str) if column.dtype == object else column


def _in_bulk(step: Workload) -> bool:
    try:
        require_bulk(step)
    except InputError:
        return False
    return True


def _one(out: Columns, i: int, step: Workload, spec: AcceleratorSpec, goal: str) -> None:
    """A point by its own schedule."""
    try:
        result = simulate(scheduled(step, spec, goal))
    except InputError as error:
        out["status"][i], out["reason"][i] = REFUSED, f"schedule: {error}"
        return
    out["status"][i] = RUNS
    out["cycles"][i], out["dram_bytes"][i] = result.cycles.total, result.counts.dram_bytes
    if "joules" not in out:
        return
    try:
        out["joules"][i] = energy(result).joules
    except InputError as error:
        out["reason"][i] = f"joules: {error}"


def _areas(plan: Plan, rows: _Rows, device: AreaTarget) -> None:
    """What each machine takes of the device, and where that is more than it has, or not known."""
    fields = [name for name in rows.values if name not in WORK]
    rows.out["area_inferred"] = np.zeros(len(rows.specs), bool)
    made = np.array([spec is not None for spec in rows.specs])
    for name, base in plan.bases.items():
        at = np.flatnonzero(made & np.array([arch == name for arch in rows.archs]))
        if not len(at):
            continue
        columns = {field: rows.values[field][at] for field in fields}
        found = areas(base, columns or {"array.rows": np.full(len(at), base.array.rows)}, device)
        for resource in _RESOURCES:
            rows.out[resource][at] = getattr(found, resource)
        rows.out["area_inferred"][at] = found.inferred
        has = DEVICES[device].has
        for k, i in enumerate(at):
            if found.reason[k]:
                rows.reasons[i].append(f"area: {found.reason[k]}")
            for resource in _RESOURCES:
                used, there = rows.out[resource][i], getattr(has, resource)
                if used > there:
                    rows.reasons[i].append(f"{resource}: {used:,.0f}, over {there:,} of {DEVICES[device].name}")


def _clocks(rows: _Rows, device: AreaTarget) -> None:
    """Refuse machines of which not every block was routed at their clock."""
    said: dict[object, Closes] = {}
    for i in rows.open():
        spec = rows.specs[i]
        assert spec is not None, "a row without a machine has a reason"
        key = (spec.clock_hz, spec.array, spec.pe, spec.sore, spec.wuve, spec.xnor, spec.tree)
        if key not in said:
            said[key] = closes(spec, device)
        if not said[key].verdict:
            rows.reasons[i].append(f"clock: {said[key].reason}")


def _require_dram(rows: _Rows) -> None:
    """Refuse points whose step needs more DRAM than the machine has."""
    needs: dict[tuple[Work, str, bool, object], int] = {}
    for i in rows.open():
        spec = rows.specs[i]
        assert spec is not None, "a row without a machine has a reason"
        capacity = spec.dram.capacity_bytes
        if capacity is None:
            continue
        key = (rows.works[i], spec.pe.format, spec.wuve.pregenerate, spec.xnor)
        if key not in needs:
            needs[key] = memory_need(step_at(rows.works[i]), spec).total
        if needs[key] > capacity:
            rows.reasons[i].append(f"dram: the step needs {needs[key]:,} bytes, over {capacity:,}")


def _accuracies(plan: Plan, rows: _Rows) -> None:
    assert plan.trained is not None, "only asked with a study"
    rows.steps_to_target = np.full(len(rows.specs), np.nan)
    for i, work in enumerate(rows.works):
        try:
            accuracy, steps = plan.trained.of(work.model, work.scheme, work.nm)
        except InputError as error:
            rows.reasons[i].append(str(error))
            continue
        rows.out["accuracy"][i] = accuracy
        rows.steps_to_target[i] = np.nan if steps is None else steps


def _costs(
    plan: Plan, rows: _Rows, at: NDArray[np.int64], step: Workload, clock_hz: int, best: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Objectives but the timed one of the points ``at``; and ``best`` with its first column in their cycles."""
    timed = plan.timed()
    assert timed is not None, "a plan that prunes has one"
    rest = [m for m in plan.objectives if m is not timed]
    costs = np.array([sign(m) * column(plan, rows, m)[at] for m in rest], np.float64).reshape(len(rest), len(at)).T
    first, others = plan.objectives.index(timed), [plan.objectives.index(m) for m in rest]
    match timed.name:
        case "cycles":
            cycles = best[:, first]
        case "seconds":
            cycles = best[:, first] * clock_hz
        case _:
            cycles = -step.batch * clock_hz / best[:, first]
    return np.ascontiguousarray(costs), np.column_stack([cycles, best[:, others]])


def column(plan: Plan, rows: _Rows, m: Measure) -> NDArray[Any]:
    """A measure of every point; of a machine that is none, 0."""
    if m.name in rows.out:
        return rows.out[m.name]
    if m.name in rows.values:
        return rows.values[m.name]
    rows.out[m.name] = np.array([0 if spec is None else _field(spec, m.name) for spec in rows.specs], np.float64)
    return rows.out[m.name]


def _field(spec: AcceleratorSpec, path: str) -> float:
    found: Any = spec
    for name in path.split("."):
        found = getattr(found, name, None)
    return np.nan if found is None else float(found)


def _derive(rows: _Rows) -> None:
    """Measures that are made of others."""
    out, runs = rows.out, rows.out["status"] == RUNS
    clocks = np.array([np.nan if spec is None else spec.clock_hz for spec in rows.specs], np.float64)
    batches = np.array(
        [step_at(work).batch if ran else 0 for work, ran in zip(rows.works, runs, strict=True)], np.float64
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        out["seconds"][runs] = out["cycles"][runs] / clocks[runs]
        out["samples_per_second"][runs] = batches[runs] / out["seconds"][runs]
        if "joules" in out:
            out["watts"] = out["joules"] / out["seconds"]
            out["edp"] = out["joules"] * out["seconds"]
            out["samples_per_joule"][runs] = batches[runs] / out["joules"][runs]
        if "lut" in out:
            out["samples_per_second_per_lut"] = out["samples_per_second"] / out["lut"]
        if len(rows.steps_to_target):
            out["seconds_to_target"] = rows.steps_to_target * out["seconds"]


def _refuse_over(plan: Plan, rows: _Rows, *, early: bool) -> None:
    """Refuse points outside of the limits of measures that are known by now."""
    limits = plan.space.constraints
    known = {m.name: m for m in plan.asked}
    for side, named in (("most", limits.most), ("least", limits.least)):
        for name, limit in named.items():
            m = known[name]
            if early is not m.early:
                continue
            found, word = column(plan, rows, m), "over" if side == "most" else "under"
            asked = np.array([spec is not None for spec in rows.specs]) if early else rows.out["status"] == RUNS
            held = found <= limit if side == "most" else found >= limit
            for i in np.flatnonzero(asked & ~held):
                said = "is not known" if np.isnan(found[i]) else f"{found[i]:,.6g} {m.unit}, {word} {limit:,.6g}"
                rows.reasons[i].append(f"{name}: {said}")
