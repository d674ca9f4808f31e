"""What of a space cannot be built, by constraint; where nothing can, which constraint kills it, and what comes nearest.

A refused row breaks one constraint or several: its ``reason`` holds a part for each, divided by "; ", that starts with
the constraint's name, as in "lut: 1,402,113 over 1,182,240 of xcvu9p". A part without a name is of the machine itself;
a row that does not run for another reason goes by its status.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from math import inf
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ...workloads.errors import InputError
from ..words import percent
from .levels import LEFT_OUT, REFUSED, RUNS, Axes, codes, require_columns

__all__ = ["MACHINE", "Broken", "Infeasible", "Nearest", "Refusal", "broken", "infeasible"]

MACHINE = "machine"
"""What a reason without a constraint's name is counted under."""

_NAME = re.compile(r"([A-Za-z_][\w.-]*): ")
_AMOUNT = r"([\d,]*\.?\d+(?:e[+-]?\d+)?)"
_LIMIT = re.compile(rf": {_AMOUNT}[^\d]*? (over|under) {_AMOUNT}(?:.* and over {_AMOUNT}$)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Broken:
    """A constraint that a row breaks, in its own words. ``excess``: the share by which it misses the limit, such as
    0.19 for 19 % over; None where the reason has no amounts."""

    constraint: str
    reason: str
    excess: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """What one constraint refuses: ``rows`` of them, ``alone`` of which break no other one, ``share`` of all rows.

    ``point`` and ``reason``: of the row that misses it by least, of those that break it alone if there are any.
    """

    constraint: str
    rows: int
    alone: int
    share: float
    point: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Nearest:
    """The row that comes nearest. ``values``: of its axes. ``breaks``: the constraints in its way, none where it runs.
    ``changed``, ``steps``: axes that differ from the point asked about, and steps along them; None where none was."""

    point: int
    values: dict[str, Any]
    breaks: tuple[Broken, ...]
    changed: int | None
    steps: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Infeasible:
    """What of ``rows`` cannot be built. ``statuses``: rows by status. ``refusals``: by constraint, most rows first.

    ``kills``: where no row runs or may run, the smallest sets of constraints of which every row breaks one; empty
    otherwise. ``nearest``: None where something runs and no point was asked about.
    """

    rows: int
    statuses: dict[str, int]
    refusals: tuple[Refusal, ...]
    kills: tuple[tuple[str, ...], ...]
    nearest: Nearest | None

    def words(self) -> tuple[str, ...]:
        """A sentence each for the whole, every constraint, what kills the space, and what comes nearest."""
        run, left = self.statuses.get(RUNS, 0), self.statuses.get(LEFT_OUT, 0)
        undecided = f", {left:,} were left out by their bound" if left else ""
        said = [f"Of {self.rows:,} points {run:,} run{undecided} and {self.rows - run - left:,} cannot be built."]
        for r in self.refusals:
            least = f"the least at point {r.point}: {r.reason}"
            said.append(f"{r.constraint} refuses {r.rows:,} ({percent(r.share)}), {r.alone:,} of them alone; {least}.")
        for kill in self.kills:
            if len(kill) == 1:
                said.append(f"{kill[0]} refuses every point: nothing runs until it gives way.")
            else:
                said.append(f"{', '.join(kill[:-1])} and {kill[-1]} refuse every point between them.")
        if self.nearest is not None:
            said.append(self._said(self.nearest))
        return tuple(said)

    def _said(self, nearest: Nearest) -> str:
        at = ", ".join(f"{name} {value}" for name, value in nearest.values.items())
        away = ""
        if nearest.changed is not None:
            away = f" (axes changed: {nearest.changed}, steps: {nearest.steps})"
        if not nearest.breaks:
            return f"The nearest that runs is point {nearest.point}{away}: {at}."
        breaks = "; ".join(f"{b.constraint}{f' by {percent(b.excess)}' if b.excess else ''}" for b in nearest.breaks)
        return f"None runs; point {nearest.point}{away} comes nearest and misses {breaks}: {at}."


def broken(status: str, reason: str) -> tuple[Broken, ...]:
    """The constraints that a row of this status and reason breaks; none where it runs or was left out."""
    if status in (RUNS, LEFT_OUT):
        return ()
    if status != REFUSED:
        return (Broken(constraint=status, reason=reason or status, excess=None),)
    parts: list[str] = []
    for part in reason.split("; "):
        # A message may have a semicolon of its own; what goes on after it starts with no constraint.
        if parts and not _NAME.match(part):
            parts[-1] += f"; {part}"
        else:
            parts.append(part)
    return tuple(_broken(part) for part in parts)


def infeasible(frame: pd.DataFrame, axes: Axes, near: Mapping[str, Any] | None = None) -> Infeasible:
    """What of the points of ``frame`` cannot be built and why.

    ``near``: a value of every axis; asks for the point nearest to it that runs, by axes changed, then steps. Where none
    runs, the nearest is a row that breaks the fewest constraints, by the least excess in all, then as near as may be.
    """
    require_columns(frame, ("point", "status", "reason"))
    kinds, of = _kinds(frame)
    numbers = frame["point"].to_numpy()
    statuses = {str(status): int(n) for status, n in frame["status"].value_counts().items()}
    feasible = statuses.get(RUNS, 0) + statuses.get(LEFT_OUT, 0)
    patterns = {tuple(sorted({b.constraint for b in kind})) for kind in kinds}
    return Infeasible(
        rows=len(frame),
        statuses=statuses,
        refusals=_refusals(kinds, of, numbers),
        kills=_kills(patterns) if len(frame) and not feasible else (),
        nearest=_nearest(frame, axes, near, kinds, of),
    )


def _broken(part: str) -> Broken:
    name = _NAME.match(part)
    limit = _LIMIT.search(part)
    excess = None
    if name is not None and limit is not None:
        amount, *limits = (float(found.replace(",", "")) for found in limit.group(1, 3, 4) if found is not None)
        # Of two limits the one that it misses by more.
        excess = max(abs(amount - allowed) / allowed if allowed else inf for allowed in limits)
    return Broken(constraint=MACHINE if name is None else name[1], reason=part, excess=excess)


def _kinds(frame: pd.DataFrame) -> tuple[list[tuple[Broken, ...]], NDArray[np.int64]]:
    """What is broken, each once, and which of it each row breaks."""
    status, statuses = pd.factorize(frame["status"])
    reason, reasons = pd.factorize(frame["reason"])
    pairs, of = np.unique(status.astype(np.int64) * max(1, len(reasons)) + reason, return_inverse=True)
    split = [divmod(int(pair), max(1, len(reasons))) for pair in pairs]
    return [broken(str(statuses[s]), str(reasons[r])) for s, r in split], np.asarray(of, np.int64)


def _refusals(
    kinds: list[tuple[Broken, ...]], of: NDArray[np.int64], numbers: NDArray[np.int64]
) -> tuple[Refusal, ...]:
    counts = np.bincount(of, minlength=len(kinds))
    first = np.full(len(kinds), np.iinfo(np.int64).max)
    np.minimum.at(first, of, numbers)
    rows: dict[str, int] = {}
    alone: dict[str, int] = {}
    least: dict[str, tuple[bool, float, int, str]] = {}
    for kind, count, point in zip(kinds, counts.tolist(), first.tolist(), strict=True):
        single = len({b.constraint for b in kind}) == 1
        for name in {b.constraint for b in kind}:
            rows[name] = rows.get(name, 0) + count
            alone[name] = alone.get(name, 0) + count * single
        for b in kind:
            miss = (not single, inf if b.excess is None else b.excess, point, b.reason)
            least[b.constraint] = min(miss, least.get(b.constraint, miss))
    return tuple(
        Refusal(
            constraint=name,
            rows=rows[name],
            alone=alone[name],
            share=rows[name] / len(of),
            point=least[name][2],
            reason=least[name][3],
        )
        for name in sorted(rows, key=lambda name: (-rows[name], name))
    )


def _kills(patterns: set[tuple[str, ...]]) -> tuple[tuple[str, ...], ...]:
    names = sorted({name for pattern in patterns for name in pattern})
    for size in range(1, len(names) + 1):
        found = [some for some in combinations(names, size) if all(set(some) & set(p) for p in patterns)]
        if found:
            return tuple(found)
    return ()


def _nearest(
    frame: pd.DataFrame,
    axes: Axes,
    near: Mapping[str, Any] | None,
    kinds: list[tuple[Broken, ...]],
    of: NDArray[np.int64],
) -> Nearest | None:
    running = np.flatnonzero(frame["status"] == RUNS)
    if not len(frame) or (near is None and len(running)):
        return None
    positions = codes(frame, axes)
    changed = steps = np.zeros(len(frame), np.int64)
    if near is not None:
        missing = [name for name in axes if name not in near]
        if missing:
            raise InputError(f"the point asked about has no value of {', '.join(missing)}")
        own = codes(pd.DataFrame({name: [near[name]] for name in axes}), axes)[0]
        changed, steps = (positions != own).sum(1), np.abs(positions - own).sum(1)
    number = np.asarray(frame["point"])
    if len(running):
        order = np.lexsort((number[running], steps[running], changed[running]))
        row = int(running[order[0]])
    else:
        # A row that was left out breaks nothing that is known, and may not run all the same.
        many = np.array([len({b.constraint for b in kind}) or inf for kind in kinds])[of]
        excess = np.array([sum(inf if b.excess is None else b.excess for b in kind) for kind in kinds])[of]
        row = int(np.lexsort((number, steps, changed, excess, many))[0])
        if np.isinf(many[row]):
            return None
    return Nearest(
        point=int(number[row]),
        values={name: values[positions[row, i]] for i, (name, values) in enumerate(axes.items())},
        breaks=kinds[of[row]],
        changed=None if near is None else int(changed[row]),
        steps=None if near is None else int(steps[row]),
    )
