"""What would help next: single steps from the points of a front, the edges of the space, and constraints in the way.

A step moves one axis to the next value of the space; on an axis without an order (`levels.ordered`) to any other.
What a step gives is read from rows that exist, or asked of whoever evaluates; nothing is extrapolated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ...workloads.errors import InputError
from ..words import percent
from .front import Direction, Objectives, front_of
from .infeasible import broken
from .levels import REFUSED, RUNS, Axes, cells, codes, number, ordered, require_columns

__all__ = ["Advice", "Border", "Evaluate", "Move", "PointAdvice", "Relaxation", "advise"]

Evaluate: TypeAlias = Callable[[dict[str, Any]], Mapping[str, Any]]
"""A point's row, with the columns of a sweep, from the values of its axes."""

_OFTEN = 0.5
"""Share of the front at an edge from which words advise to widen the space. Assumed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """One axis one step on, and what it makes of each objective: before and after, by name. ``objective``: the one
    that no other step from there improves as much, by the share of ``before``."""

    axis: str
    old: Any
    new: Any
    objective: str
    values: dict[str, tuple[float, float]]

    @property
    def change(self) -> float:
        """After over before, less one; infinite from zero."""
        return _change(*self.values[self.objective])

    def words(self) -> str:
        """What is moved, what it gives and what it costs."""
        pairs = {name: f"{name} {number(a)} to {number(b)}" for name, (a, b) in self.values.items() if a != b}
        first = pairs.pop(self.objective)
        also = f"; {', '.join(pairs.values())}" if pairs else ""
        return f"{self.axis} {self.old} to {self.new}: {first}{also}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PointAdvice:
    """What helps one point. ``moves``: for each objective that a step improves, the step that does most.

    ``gap``: cycles over the bound, less one, which is all that another schedule could save; None without a bound.
    ``unknown``: steps from it that no row tells of, because they were left out or never made.
    """

    point: int
    moves: tuple[Move, ...]
    gap: float | None
    unknown: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Border:
    """``points`` of the ``of`` points of the front have the first or last value of an axis."""

    axis: str
    value: Any
    points: int
    of: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Relaxation:
    """What a constraint keeps out a step away from the front: ``rows`` that break it alone.

    ``joins``: how many of them no point of the front dominates, with unknown objectives taken for the best there may
    be. The others are of the one among these that would improve most on the best of the front: ``objective`` from
    ``before`` to ``after``, at least where ``bound`` says that only a bound is known; None where none does for sure.
    """

    constraint: str
    rows: int
    joins: int
    point: int
    reason: str
    objective: str | None
    before: float | None
    after: float | None
    bound: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """Points in the order asked for; ``borders`` most points first; ``never``: values of axes that no point of the
    front has; ``relaxations`` the largest improvement first."""

    points: tuple[PointAdvice, ...]
    borders: tuple[Border, ...]
    never: dict[str, tuple[Any, ...]]
    relaxations: tuple[Relaxation, ...]

    def words(self, most: int = 3) -> tuple[str, ...]:
        """Sentences for ``most`` points, and for what holds of the whole front."""
        said = []
        for p in self.points[:most]:
            each = {(move.axis, move.new): move for move in reversed(p.moves)}  # the same step may be best twice
            moves = [f"Point {p.point}, {move.words()}." for move in reversed(each.values())]
            said += moves or [f"Point {p.point}: no single step that is known improves an objective."]
            if p.gap is not None:
                said.append(f"Point {p.point} takes {percent(p.gap)} more cycles than its bound.")
        for b in self.borders:
            if b.points >= _OFTEN * b.of:
                said.append(
                    f"{b.points} of {b.of} points of the front have {b.axis} at its end, {b.value}: widen the axis."
                )
        for axis, values in self.never.items():
            said.append(f"No point of the front has {axis} {', '.join(map(str, values))}.")
        return (*said, *(_relaxed(relaxation) for relaxation in self.relaxations))


def advise(
    frame: pd.DataFrame,
    axes: Axes,
    objectives: Objectives,
    points: Sequence[int] | None = None,
    evaluate: Evaluate | None = None,
) -> Advice:
    """What would help next, from all rows of a sweep over ``axes``.

    ``points``: whom to advise, numbers of points that run; None for all of the front. ``evaluate`` is asked for every
    step from them that no row tells of, each once.
    """
    require_columns(frame, ("point", "status", "reason", *objectives))
    front = front_of(frame, objectives)
    if not len(front):
        raise InputError("no point runs, so there is no front to advise on: `infeasible` says why")
    sweep = _Sweep(frame, axes, objectives)
    numbers = front["point"].tolist() if points is None else list(points)
    return Advice(
        points=tuple(sweep.point(number, evaluate) for number in numbers),
        borders=_borders(front, axes),
        never=_never(front, axes),
        relaxations=sweep.relaxations(front),
    )


class _Sweep:
    """Rows by where they are in the space."""

    def __init__(self, frame: pd.DataFrame, axes: Axes, objectives: Objectives) -> None:
        self.frame, self.axes, self.objectives = frame.reset_index(drop=True), axes, objectives
        self.names, self.values = list(axes), [list(values) for values in axes.values()]
        self.positions = codes(frame, axes)
        self.number = {int(point): row for row, point in reversed(list(enumerate(frame["point"])))}
        self.status = frame["status"].astype(str).to_numpy()
        self.asked: dict[tuple[int, ...], Mapping[str, Any]] = {}

    def steps(self, row: int) -> list[tuple[int, int]]:
        """Axis and position of every step from a row."""
        found = []
        for i, values in enumerate(self.values):
            own = int(self.positions[row, i])
            ends = (own - 1, own + 1) if ordered(values) else range(len(values))
            found += [(i, k) for k in ends if 0 <= k < len(values) and k != own]
        return found

    def neighbours(self, rows: Sequence[int]) -> dict[tuple[int, int, int], int]:
        """The first row, if there is one, at each step (row, axis, position) from ``rows``."""
        steps = [(row, i, k) for row in rows for i, k in self.steps(row)]
        wanted = self.positions[[row for row, _, _ in steps]]
        for at, (_, i, k) in enumerate(steps):
            wanted[at, i] = k
        keys = cells(np.concatenate([self.positions, wanted]), [len(values) for values in self.values])
        own, keys = keys[: len(self.positions)], keys[len(self.positions) :]
        order = np.argsort(own, kind="stable")
        place = np.searchsorted(own[order], keys)
        found = order[np.minimum(place, len(order) - 1)]
        same = own[found] == keys
        return {step: int(row) for step, row, is_it in zip(steps, found, same, strict=True) if is_it}

    def point(self, number: int, evaluate: Evaluate | None) -> PointAdvice:
        row = self.number.get(number)
        if row is None or self.status[row] != RUNS:
            raise InputError(
                f"point {number} {'is in no row' if row is None else 'does not run'}: choose one that runs"
            )
        there = self.neighbours([row])
        before, best, unknown = self.costs(self.frame.loc[row]), dict[str, Move](), 0
        for i, k in self.steps(row):
            at = there.get((row, i, k))
            after = self.after(row, i, k, at, evaluate)
            if after is None:
                unknown += at is None or self.status[at] not in (RUNS, REFUSED)
                continue
            for name, direction in self.objectives.items():
                move = Move(
                    axis=self.names[i],
                    old=self.values[i][self.positions[row, i]],
                    new=self.values[i][k],
                    objective=name,
                    values={each: (before[each], after[each]) for each in self.objectives},
                )
                if _better(after[name], best[name].values[name][1] if name in best else before[name], direction):
                    best[name] = move
        bound = int(self.cell("bound_cycles", row)) if {"bound_cycles", "cycles"} <= set(self.frame) else 0
        gap = int(self.cell("cycles", row)) / bound - 1 if bound > 0 else None
        return PointAdvice(point=number, moves=tuple(best.values()), gap=gap, unknown=unknown)

    def after(self, row: int, i: int, k: int, at: int | None, evaluate: Evaluate | None) -> dict[str, float] | None:
        """Objectives a step on, where they are known."""
        if at is not None and self.status[at] == RUNS:
            return self.costs(self.frame.loc[at])
        if evaluate is None or (at is not None and self.status[at] == REFUSED):
            return None
        key = tuple(k if j == i else int(own) for j, own in enumerate(self.positions[row]))
        if key not in self.asked:
            self.asked[key] = evaluate({n: v[p] for n, v, p in zip(self.names, self.values, key, strict=True)})
        found = self.asked[key]
        return self.costs(found) if found["status"] == RUNS else None

    def cell(self, name: str, row: int) -> Any:
        return self.frame[name].to_numpy()[row]

    def costs(self, row: Any) -> dict[str, float]:
        return {name: float(row[name]) for name in self.objectives}

    def relaxations(self, front: pd.DataFrame) -> tuple[Relaxation, ...]:
        """By constraint, what it alone keeps out a step from the front."""
        near = set(self.neighbours([self.number[int(point)] for point in front["point"]]).values())
        rows: dict[str, list[tuple[int, str]]] = {}
        for row in sorted(near):
            if self.status[row] == REFUSED:
                breaks = broken(REFUSED, str(self.cell("reason", row)))
                if len({b.constraint for b in breaks}) == 1:
                    rows.setdefault(breaks[0].constraint, []).append((row, str(self.cell("reason", row))))
        found = [self.relaxed(name, own, front) for name, own in rows.items()]
        return tuple(sorted(found, key=lambda r: (-_gain(r), -r.joins, r.constraint)))

    def relaxed(self, constraint: str, rows: list[tuple[int, str]], front: pd.DataFrame) -> Relaxation:
        signs = {name: 1.0 if direction == "min" else -1.0 for name, direction in self.objectives.items()}
        points = np.stack([sign * front[name].to_numpy(float) for name, sign in signs.items()], axis=1)
        joins: list[Relaxation] = []
        none = Relaxation(
            constraint=constraint,
            rows=len(rows),
            joins=0,
            point=int(self.cell("point", rows[0][0])),
            reason=rows[0][1],
            objective=None,
            before=None,
            after=None,
            bound=False,
        )
        for row, reason in rows:
            known, bounds = self.known(row)
            best = np.array([sign * known[name] if name in known else -np.inf for name, sign in signs.items()])
            if _dominated(best, points):
                continue
            joins.append(replace(none, point=int(self.cell("point", row)), reason=reason))
            for i, (name, sign) in enumerate(signs.items()):
                lead = float(points[:, i].min())
                if name in known and best[i] < lead:
                    it = replace(joins[-1], objective=name, before=sign * lead, after=known[name], bound=name in bounds)
                    joins[-1] = max(joins[-1], it, key=_gain)
        return replace(max(joins, key=_gain, default=none), joins=len(joins))

    def known(self, row: int) -> tuple[dict[str, float], set[str]]:
        """Objectives of a refused row, which are zero or no number where unknown; those that are bounds."""
        found = {name: float(self.cell(name, row)) for name in self.objectives}
        found = {name: value for name, value in found.items() if np.isfinite(value) and value > 0}
        bound = float(self.cell("bound_cycles", row)) if "bound_cycles" in self.frame else 0.0
        if "cycles" in self.objectives and "cycles" not in found and bound > 0:
            return {**found, "cycles": bound}, {"cycles"}
        return found, set()


def _better(value: float, than: float, direction: Direction) -> bool:
    return value < than if direction == "min" else value > than


def _change(before: float, after: float) -> float:
    return after / before - 1 if before else float(np.copysign(np.inf, after - before))


def _dominated(costs: NDArray[np.float64], points: NDArray[np.float64]) -> bool:
    return bool(((points <= costs).all(1) & (points < costs).any(1)).any())


def _gain(relaxation: Relaxation) -> float:
    if relaxation.before is None or relaxation.after is None:
        return 0.0
    return abs(_change(relaxation.before, relaxation.after))


def _borders(front: pd.DataFrame, axes: Axes) -> tuple[Border, ...]:
    found = []
    for name, values in axes.items():
        if len(values) > 1 and ordered(values):
            for value in (values[0], values[-1]):
                points = int((front[name] == value).sum())
                found += [Border(axis=name, value=value, points=points, of=len(front))] * (points > 0)
    return tuple(sorted(found, key=lambda border: -border.points))


def _never(front: pd.DataFrame, axes: Axes) -> dict[str, tuple[Any, ...]]:
    positions = codes(front, axes)
    found = {}
    for i, (name, values) in enumerate(axes.items()):
        seen = set(positions[:, i].tolist())
        rest = tuple(value for k, value in enumerate(values) if k not in seen)
        if rest:
            found[name] = rest
    return found


def _relaxed(relaxation: Relaxation) -> str:
    r = relaxation
    said = f"{r.constraint} alone keeps out {r.rows} of the points a step from the front; {r.joins} might join it"
    if r.objective is not None:
        assert r.before is not None and r.after is not None, "what improves has a before and an after"
        most = "at best" if r.bound else "as much as"
        gain = f"{r.objective} from {number(r.before)} to {most} {number(r.after)}"
        return f"{said}: {gain} at point {r.point} ({r.reason})."
    return f"{said}, such as point {r.point} ({r.reason})." if r.joins else f"{said}."
