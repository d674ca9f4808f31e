"""How much of a resource a step needs to be within a share of what any amount of it would give.

Under the objective cycles more DRAM bandwidth or more room never makes a step slower (`grown.py`), so the least that is
enough is found by bisection, and one step less is not. That does not hold of the array, whose edges are ragged on small
layers, nor under thrift, which takes a slower mapping for fewer bytes. There a stated grid is swept, and the asymptote
is the best of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from math import isfinite

from ..dataflow.accelerator import AcceleratorSpec
from ..dataflow.objective import Objective
from ..simulator.shown import Shown
from ..workloads.errors import InputError
from ..workloads.step import Workload
from ..workloads.words import named
from .grown import Point, Timed, Way, meets, slowness
from .knee import knee
from .resources import Resource, own_scale, shapes, splits
from .words import run_name

__all__ = ["BEST_SHAPE", "BEST_SPLIT", "OWN_SPLIT", "RATE", "SQUARES", "Line", "Need", "need"]

RATE, OWN_SPLIT, BEST_SPLIT = "bandwidth", "own proportions", "best split"
BEST_SHAPE, SQUARES = "best shape", "squares"
"""Names of lines."""

_FROM, _TO = 10, Fraction(1001, 1000)
"""Times of the asymptote between which a curve is shown and its knee looked for: outside it is a straight line."""
_POINTS, _EVERY = 65, 4
"""Points of a curve, and of how many one is split in the best way too: some hundred machines each."""
_AN_OCTAVE = 8
"""Points of a swept grid in which the resource doubles."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One way of growing a resource.

    ``points`` ascend in size. ``least`` is the smallest that is near enough to ``asymptote``; ``below`` the next
    smaller one tried, which is not, None if there is none; ``stays`` the smallest from which on every larger one that
    runs is near enough, None if the largest is not. ``knee``: by `knee.knee`, of the points from ten times to 1.001
    times the asymptote's cycles, where bisected the smallest as fast as that; None if they do not bend, and of the best
    split.
    """

    name: str
    points: tuple[Point, ...]
    asymptote: Point
    least: Point
    below: Point | None
    stays: Point | None
    knee: Point | None


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Need(Shown):
    """What a step needs of a resource to be at most ``within`` (a share) slower than at the ``asymptote``.

    ``own`` is the machine as it is. ``exact``: the least is that of all values, not of a grid. The first of ``lines``
    is the answer; of buffers it is the machine's own proportions, beside them the best split; of an array the best
    shape, beside it squares, which are measured by the best square.
    """

    workload: Workload
    spec: AcceleratorSpec
    objective: Objective
    resource: Resource
    within: float
    exact: bool
    own: Point
    lines: tuple[Line, ...]

    @property
    def asymptote(self) -> Point:
        """What the answer is measured by."""
        return self.lines[0].asymptote

    @property
    def least(self) -> Point:
        """The answer: the least that is near enough."""
        return self.lines[0].least

    @property
    def knee(self) -> Point | None:
        """Where the first line bends."""
        return self.lines[0].knee

    @property
    def bound(self) -> int:
        """The most cycles that are near enough."""
        return _bound(self.asymptote, self.within)

    def machine(self, point: Point | None = None) -> AcceleratorSpec:
        """The machine with that much, by default with the least that is near enough."""
        return self.resource.machine(self.spec, (point or self.least).setting)

    def seconds(self, point: Point) -> float | None:
        """Of a step; None if it does not run."""
        return None if point.cycles is None else point.cycles / self.spec.clock_hz

    def slower(self, point: Point, line: Line | None = None) -> float | None:
        """By which share a step takes longer than at the asymptote, of the first line if of none."""
        fastest = (line or self.lines[0]).asymptote.cycles
        return None if point.cycles is None or not fastest else point.cycles / fastest - 1

    def _said(self) -> str:
        least = self.resource.amount(self.least.size)
        work = self.workload
        what = f"{named(work.model)}, batch {work.batch}, {run_name(work)} on {self.spec.name}"
        return f"{what}: {least} of {self.resource.words} within {100 * self.within:g} %"


def need(
    workload: Workload,
    spec: AcceleratorSpec,
    resource: Resource | str,
    within: float = 0.01,
    objective: Objective | str = Objective.CYCLES,
    progress: Callable[[str], None] | None = None,
) -> Need:
    """The least ``resource`` (``"dram"``, ``"buffers"`` or ``"array"``) with which a step takes at most ``within``, a
    share, longer than with the most of it; the curve and its knee beside it.

    ``objective``: ``cycles``, or ``thrift``, under which a grid is swept. ``progress`` is told what has been done.
    """
    goal, kind = Objective.named(objective), Resource.named(resource)
    if goal.priced:
        raise InputError(f"objective {goal} does not look for the least time, which is compared; use cycles or thrift")
    if not (isfinite(within) and 0 < within <= 1):
        raise InputError(f"within must be above 0 % and at most 100 %, not {100 * within:g} %; 1 % is usual")
    timed = Timed(workload, spec, kind, goal, progress)
    if kind is Resource.ARRAY:
        lines = _of_array(timed, within)
    elif goal is Objective.CYCLES:
        lines = _bisected(timed, within)
    else:
        lines = _swept(timed, within)
    (own,) = timed.points([kind.of(spec)])
    exact = goal is Objective.CYCLES and kind is not Resource.ARRAY
    return Need(
        workload=workload, spec=spec, objective=goal, resource=kind, within=within, exact=exact, own=own, lines=lines
    )


def _bound(asymptote: Point, within: float) -> int:
    # As it is written: 0.01 is a hundredth.
    return _times(asymptote, 1 + Fraction(str(within)))


def _times(asymptote: Point, factor: int | Fraction) -> int:
    assert asymptote.cycles is not None, "an asymptote runs"
    return int(asymptote.cycles * factor)


def _bisected(timed: Timed, within: float) -> tuple[Line, ...]:
    """Of what never makes a step slower."""
    own = Way(timed, [own_scale(timed.resource, timed.spec)])
    high, asymptote = own.top()
    bound = _bound(asymptote, within)
    least = own.enough(bound, high)
    last = own.enough(_times(asymptote, _TO), high)
    totals = _geometric(own.enough(_times(asymptote, _FROM), last), last)
    if timed.resource is Resource.DRAM:
        return (_bent(own, _exact(own, RATE, least, totals, asymptote), totals),)
    best, some = Way(timed, splits(timed.spec)), [*totals[:-1:_EVERY], totals[-1]]
    return (
        _bent(own, _exact(own, OWN_SPLIT, least, totals, asymptote), totals),
        _exact(best, BEST_SPLIT, best.enough(bound, least), some, asymptote),
    )


def _geometric(first: int, last: int) -> list[int]:
    """Whole numbers from one to the other in even proportions."""
    step = (last / first) ** (1 / (_POINTS - 1))
    return sorted({first, last, *(min(round(first * step**n), last) for n in range(_POINTS))})


def _exact(way: Way, name: str, least: int, totals: Sequence[int], asymptote: Point) -> Line:
    (found,) = way.at([least])
    return Line(
        name=name,
        points=tuple(way.at(sorted({*totals, least}))),
        asymptote=asymptote,
        least=found,
        below=way.at([least - 1])[0] if least > way.least else None,
        stays=found,
        knee=None,
    )


def _bent(way: Way, line: Line, totals: Sequence[int]) -> Line:
    """With its knee, at the least total that is as fast."""
    at = knee([(total, slowness(point)) for total, point in zip(totals, way.at(totals), strict=True)])
    if at is None:
        return line
    (found,) = way.at([way.enough(_times(way.at([totals[at]])[0], 1), totals[at])])
    return replace(line, points=tuple(sorted({*line.points, found}, key=lambda point: point.size)), knee=found)


def _swept(timed: Timed, within: float) -> tuple[Line, ...]:
    """Of a grid in which the total doubles every `_AN_OCTAVE` points."""
    way = Way(timed, [own_scale(timed.resource, timed.spec)])
    count = _AN_OCTAVE * (way.most.bit_length() - way.least.bit_length() + 1)
    totals = {min(round(way.least * 2 ** (n / _AN_OCTAVE)), way.most) for n in range(count + 1)}
    points = way.at(sorted(totals))
    return (_line(timed, RATE if timed.resource is Resource.DRAM else OWN_SPLIT, points, within),)


def _of_array(timed: Timed, within: float) -> tuple[Line, ...]:
    """Of all of `shapes`; the best shape of a size is the fastest of those with no more PEs."""
    squares, powers = map(timed.points, shapes())
    best = list[Point]()
    for point in sorted({*squares, *powers}, key=lambda point: (point.size, slowness(point), point.setting)):
        if not best or slowness(point) < slowness(best[-1]):
            best.append(point)
    return _line(timed, BEST_SHAPE, best, within), _line(timed, SQUARES, squares, within)


def _line(timed: Timed, name: str, points: Sequence[Point], within: float) -> Line:
    """Of points that were all tried, ascending; those far from the asymptote, or that do not run, are left out."""
    asymptote = min(points, key=lambda point: (slowness(point), point.size))
    if asymptote.cycles is None:
        timed.refuse(points[-1].setting)
    bound = _bound(asymptote, within)
    runs = [point for point in points if point.cycles is not None]
    near = [meets(point, bound) for point in runs]
    first = near.index(True)
    stays = next((i + 1 for i in reversed(range(len(runs))) if not near[i]), 0)
    return Line(
        name=name,
        points=tuple(runs[_first(runs, asymptote, _FROM) :]),
        asymptote=asymptote,
        least=runs[first],
        below=runs[first - 1] if first else None,
        stays=runs[stays] if stays < len(runs) else None,
        knee=_bend(runs, asymptote),
    )


def _bend(points: Sequence[Point], asymptote: Point) -> Point | None:
    """The knee between `_FROM` and `_TO` times the asymptote."""
    shown = points[_first(points, asymptote, _FROM) : _first(points, asymptote, _TO) + 1]
    at = knee([(point.size, slowness(point)) for point in shown])
    return None if at is None else shown[at]


def _first(points: Sequence[Point], asymptote: Point, factor: int | Fraction) -> int:
    """Number of the first point that takes at most ``factor`` times the asymptote's cycles; the asymptote, or one as
    fast, is among them."""
    bound = _times(asymptote, factor)
    return next(i for i, point in enumerate(points) if meets(point, bound))
