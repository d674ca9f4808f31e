"""A part of a sweep: its points as machines and work, refused, scheduled or left out, a row each."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, assert_never

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ...dataflow.accelerator import AcceleratorSpec
from ...dataflow.batch.columns import points_from_columns
from ...dataflow.batch.evaluate import Status, evaluate
from ...dataflow.batch.front import front, lower_bounds
from ...dataflow.batch.points import points_of
from ...dataflow.batch.step import require_bulk
from ...dataflow.engines import ours_alone, outside_engines
from ...dataflow.objective import Objective
from ...hdl.flow.devices import DEVICES
from ...simulator.memory import memory_need
from ...simulator.step import simulate
from ...workloads.errors import InputError
from ...workloads.step import Workload
from ..area_by_shape import areas
from ..clocks import closes
from ..energy import energy
from ..scheduling import scheduled
from ..synthesised import AREA_TARGETS, AreaTarget
from ..tariff import shared_prices
from .axes import WORK, machine_fields
from .energy import joules
from .levels import REFUSED, RUNS
from .machines import Fleet
from .measures import Known, Measure, sign
from .plan import Plan
from .reasons import REASONS, STATUSES, each, outside, too_large
from .work import Work, step_at, work_at

__all__ = ["Columns", "evaluate_points"]

Columns = dict[str, NDArray[Any]]
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
    """Points as they are worked out, struct of arrays. ``works`` and ``work``: what they work on, and which of it each,
    int64 [points]; ``reasons``: texts [points], what is against each, "" while nothing is; ``over``: bool [points] by
    resource, what a device has too little of."""

    values: Columns
    out: Columns
    machines: Fleet
    works: list[Work]
    work: NDArray[np.int64]
    reasons: NDArray[np.object_]
    over: dict[str, NDArray[np.bool_]] = field(default_factory=dict)
    steps_to_target: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))

    def open(self) -> NDArray[np.int64]:
        """Those that nothing is against."""
        return np.flatnonzero(self.reasons == "")

    def made(self) -> NDArray[np.bool_]:
        """Whether there is a machine, bool [points]."""
        return np.asarray(self.machines.refused == "", bool)

    def refuse(self, at: NDArray[np.int64], why: ArrayLike) -> None:
        """Say why the points ``at`` are refused: a text, or texts [at]."""
        before = self.reasons[at]
        self.reasons[at] = np.where(before == "", "", before + "; ") + np.asarray(why, object)


def evaluate_points(plan: Plan, values: Columns, best: NDArray[np.float64] | None = None) -> Columns:
    """Rows of points whose axes have ``values``: status, reason, and the measures that the space asks for.

    ``best``: float64 [points, objectives], less is better, of points elsewhere that rule others out, where the space
    prunes.
    """
    rows = _rows(plan, values)
    _known_early(plan, rows)
    _refuse_over(plan, rows, early=True)
    for group, at in _groups(plan, rows).items():
        _run(plan, rows, group, at, best)
    _derive(rows)
    _refuse_over(plan, rows, early=False)
    refused = rows.reasons != ""
    rows.out["status"][refused], rows.out["reason"][refused] = REFUSED, rows.reasons[refused]
    return rows.out


def _rows(plan: Plan, values: Columns) -> _Rows:
    n = len(next(iter(values.values())))
    out: Columns = {"status": np.full(n, "", object), "reason": np.full(n, "", object)}
    floats = [*_FLOATS, *(name for known, names in _FLOATS_OF.items() if _wants(plan, known) for name in names)]
    out |= {name: np.zeros(n, np.int64) for name in _INTEGERS} | {name: np.full(n, np.nan) for name in floats}
    machines = Fleet(plan.bases, plan.space.arch, values, n)
    first, which = machines.kinds("model", "seq", "batch", "scheme", "nm")
    works = [work_at(plan.space, plan.models, machines.values(int(i))) for i in first]
    # Of a scheme without a pattern all patterns are the same work.
    own = {work: number for number, work in enumerate(dict.fromkeys(works))}
    work = np.array([own[one] for one in works], np.int64)[which]
    reasons = np.array([f"machine: {why}" if why else "" for why in machines.refused], object)
    return _Rows(values, out, machines, list(own), work, reasons)


def _groups(plan: Plan, rows: _Rows) -> dict[_Group, NDArray[np.int64]]:
    """Points that nothing is against, int64 [points] each, ascending."""
    at, found = rows.open(), dict[_Group, list[NDArray[np.int64]]]()
    if not len(at):
        return {}
    # Engines of others may be of any of a machine.
    names = tuple(rows.values) if outside_engines() else (*WORK, "clock_hz")
    first, which = rows.machines.kinds(*names, rows=at)
    order = np.argsort(which, kind="stable")
    parts = np.split(at[order], np.cumsum(np.bincount(which, minlength=len(first)))[:-1])
    for i, own in zip(first.tolist(), parts, strict=True):
        spec = rows.machines.at(i)
        goal = str(rows.values["objective"][i]) if "objective" in rows.values else plan.space.objective
        group = _Group(rows.works[rows.work[i]], goal, rows.machines.arch(i), spec.clock_hz, ours_alone(spec))
        found.setdefault(group, []).append(own)
    return {group: np.sort(np.concatenate(own)) for group, own in found.items()}


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
    made, of = rows.made(), rows.machines.column
    second = of("xnor.rows") * of("xnor.cols")
    pes = of("array.rows") * of("array.cols") + np.nan_to_num(second)
    one = of("buffers.w2e_bytes") + of("buffers.n2s_bytes") + of("buffers.output_bytes")
    rows.out["pes"][made] = pes[made]
    # Every engine has buffers of its own.
    rows.out["buffer_bytes"][made] = np.where(np.isnan(second), one, 2 * one)[made]
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
    try:
        step = step_at(group.work)
    except InputError as error:
        rows.refuse(at, f"step: {error}")
        return
    out = rows.out
    if not (group.alone and _in_bulk(step)):
        for i, spec in zip(at, rows.machines.some(at), strict=True):
            _one(out, int(i), step, spec, group.goal)
        return
    # What a machine may do without, such as a unit for trees, has no part in a point.
    rules = machine_fields()
    own = [name for name in rows.values if name not in WORK and rules[name].table in ("", "xnor")]
    fields = {name: _plain(rows.values[name][at]) for name in own}
    if Objective.named(group.goal).priced or not fields:
        points = points_of(rows.machines.some(at), shared_prices())
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
            priced = joules(made, rows.machines.some(at))
            out["joules"][at] = priced.joules
            out["reason"][at] = [f"joules: {why}" if why else "" for why in priced.reasons]
    out["cycles"][at], out["dram_bytes"][at] = cycles, moved
    out["status"][at] = STATUSES[status]
    against = status != Status.RUNS
    out["reason"][at[against]] = REASONS[status[against]]


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
    made, has = rows.made(), DEVICES[device].has
    rows.out["area_inferred"] = np.zeros(len(made), bool)
    first, which = rows.machines.kinds("arch")
    for kind, i in enumerate(first):
        at, base = np.flatnonzero(made & (which == kind)), plan.bases[rows.machines.arch(int(i))]
        if not len(at):
            continue
        columns = {field: rows.values[field][at] for field in fields}
        found = areas(base, columns or {"array.rows": np.full(len(at), base.array.rows)}, device)
        for resource in _RESOURCES:
            rows.out[resource][at] = getattr(found, resource)
        rows.out["area_inferred"][at] = found.inferred
        unknown = found.reason != ""
        rows.refuse(at[unknown], "area: " + found.reason[unknown])
    for resource in _RESOURCES:
        used, there = rows.out[resource], getattr(has, resource)
        rows.over[resource] = used > there
        at = np.flatnonzero(rows.over[resource])
        said = each(used[at], partial(too_large, resource, f"{there:,} of {DEVICES[device].name}"))
        limit = plan.space.constraints.most.get(resource)
        if limit is not None:
            said = np.where(used[at] > limit, said + f" and over {limit:,.6g}", said)
        rows.refuse(at, said)


def _clocks(rows: _Rows, device: AreaTarget) -> None:
    """Refuse machines of which not every block was routed at their clock."""
    at = rows.open()
    first, which = rows.machines.kinds("arch", "clock_hz", "array", "pe", "sore", "wuve", "xnor", "tree", rows=at)
    said = [closes(rows.machines.at(int(i)), device) for i in first]
    why = np.array(["" if one.verdict else f"clock: {one.reason}" for one in said], object)[which]
    rows.refuse(at[why != ""], why[why != ""])


def _require_dram(rows: _Rows) -> None:
    """Refuse points whose step needs more DRAM than the machine has."""
    at = rows.open()
    # What a step needs depends on no size of a machine but on formats, copies and engines.
    wanted = (*WORK, "pe.format", "wuve.pregenerate", "xnor", "gather", "dram.capacity_bytes")
    first, which = rows.machines.kinds(*wanted, rows=at)
    why, needs = np.full(len(first), "", object), dict[tuple[Work, str, bool, object, object], int]()
    for kind, i in enumerate(first.tolist()):
        spec, work = rows.machines.at(i), rows.works[rows.work[i]]
        capacity = spec.dram.capacity_bytes
        if capacity is None:
            continue
        key = (work, spec.pe.format, spec.wuve.pregenerate, spec.xnor, spec.gather)
        if key not in needs:
            needs[key] = memory_need(step_at(work), spec).total
        if needs[key] > capacity:
            why[kind] = f"dram: the step needs {needs[key]:,} bytes, over {capacity:,}"
    rows.refuse(at[why[which] != ""], why[which][why[which] != ""])


def _accuracies(plan: Plan, rows: _Rows) -> None:
    assert plan.trained is not None, "only asked with a study"
    accuracies, steps, why = [], [], []
    for work in rows.works:
        accuracy, taken, refused = np.nan, None, ""
        try:
            accuracy, taken = plan.trained.of(work.model, work.scheme, work.nm)
        except InputError as error:
            refused = str(error)
        accuracies.append(accuracy)
        steps.append(np.nan if taken is None else taken)
        why.append(refused)
    rows.out["accuracy"][:] = np.array(accuracies)[rows.work]
    rows.steps_to_target = np.array(steps, np.float64)[rows.work]
    reasons = np.array(why, object)[rows.work]
    rows.refuse(np.flatnonzero(reasons != ""), reasons[reasons != ""])


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
    rows.out[m.name] = np.where(rows.made(), rows.machines.column(m.name), 0.0)
    return rows.out[m.name]


def _derive(rows: _Rows) -> None:
    """Measures that are made of others."""
    out, runs = rows.out, rows.out["status"] == RUNS
    clocks, ran = rows.machines.column("clock_hz"), set(rows.work[runs].tolist())
    of_works = [step_at(work).batch if number in ran else 0 for number, work in enumerate(rows.works)]
    batches = np.array(of_works, np.float64)[rows.work]
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
            asked = rows.made() if early else rows.out["status"] == RUNS
            held = found <= limit if side == "most" else found >= limit
            if side == "most" and name in rows.over:
                # The device is the one that says so.
                asked = asked & ~rows.over[name]
            at = np.flatnonzero(asked & ~held)
            amounts = np.asarray(found, np.float64)[at]
            rows.refuse(at, each(amounts, partial(outside, m, word, limit)))
