"""How much of a resource a step needs to be within a share of what any amount of it would give.

Under the objective cycles more DRAM bandwidth or more room never makes a step slower, so the least that is enough is
found by bisection, and one step less is not:

- a mapping takes ``max(issue, bytes / rate)`` a phase, the rate rounded down, and work beside the array likewise: none
  grows with the rate, nor does the least of them, nor a sum over ops of such least values;
- capacities only say which mappings fit, and whatever fits less room fits more (`dataflow/batch/memory.py`).

Neither holds of the array, whose edges are ragged on small layers, nor under thrift, which takes a slower mapping for
fewer bytes. There a stated grid is swept, and the asymptote is the best of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import isfinite
from typing import NoReturn

from ..dataflow.accelerator import AcceleratorSpec
from ..dataflow.batch.evaluate import Status, evaluate
from ..dataflow.batch.step import require_bulk
from ..dataflow.engines import engines_of
from ..dataflow.objective import Objective
from ..simulator.shown import Shown
from ..simulator.step import simulate
from ..workloads.errors import InputError
from ..workloads.step import Workload
from ..workloads.words import named
from .knee import knee
from .resources import Resource, Scale, Setting, own_scale, shapes, splits
from .scheduling import scheduled
from .words import run_name

__all__ = ["BEST_SHAPE", "BEST_SPLIT", "OWN_SPLIT", "RATE", "SQUARES", "Line", "Need", "Point", "need"]

RATE, OWN_SPLIT, BEST_SPLIT = "bandwidth", "own proportions", "best split"
BEST_SHAPE, SQUARES = "best shape", "squares"
"""Names of lines."""

_FROM, _TO = 10, Fraction(1001, 1000)
"""Times of the asymptote between which a curve is shown and its knee looked for: outside it is a straight line."""
_POINTS, _EVERY = 65, 4
"""Points of a curve, and of how many one is split in the best way too: some hundred machines each."""
_AN_OCTAVE = 8
"""Points of a swept grid in which the resource doubles."""
_CLEAR = 4
"""How far from the edge of 64 bits no mapping is left out: its parts add up to less than so many times its time."""
_AT_ONCE = 256
"""Machines between two signs of progress."""


@dataclass(frozen=True, slots=True)
class Point:
    """A machine with so much of a resource: its fields, ``size`` in the resource's unit; of the step cycles and DRAM
    bytes, None if it does not run there."""

    setting: Setting
    size: int
    cycles: int | None
    dram_bytes: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One way of growing a resource.

    ``points`` ascend in size. ``least`` is the smallest that is near enough to ``asymptote``; ``below`` the next
    smaller one tried, which is not, None if there is none; ``stays`` the smallest from which on every larger one that
    runs is near enough, None if the largest is not. ``knee``: by `knee.knee`, of the points from ten times to 1.001
    times the asymptote's cycles, None if they do not bend.
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
    timed = _Timed(workload, spec, kind, goal, progress)
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


_Cost = tuple[int, int]
"""Cycles and DRAM bytes."""


class _Timed:
    """The step on machines that differ in a resource, each timed once."""

    def __init__(
        self,
        workload: Workload,
        spec: AcceleratorSpec,
        resource: Resource,
        goal: Objective,
        progress: Callable[[str], None] | None,
    ) -> None:
        self.workload, self.spec, self.resource = workload, spec, resource
        self._goal, self._progress = goal, progress
        self._bulk = len(engines_of(spec)) == 1 and _in_bulk(workload)
        self._known: dict[Setting, _Cost | None] = {}

    def points(self, settings: Iterable[Setting]) -> list[Point]:
        """The step on each of them."""
        asked = list(settings)
        missing = [setting for setting in dict.fromkeys(asked) if setting not in self._known]
        at_once = _AT_ONCE if self._bulk else 1
        for first in range(0, len(missing), at_once):
            some = missing[first : first + at_once]
            self._known.update(zip(some, self._costs(some), strict=True))
            if self._progress is not None:
                self._progress(f"{len(self._known):,} machines timed")
        costs = [self._known[setting] or (None, None) for setting in asked]
        return [Point(s, self.resource.size(s), *cost) for s, cost in zip(asked, costs, strict=True)]

    def refuse(self, setting: Setting) -> NoReturn:
        """Say why a machine that does not run does not."""
        scheduled(self.workload, self.resource.machine(self.spec, setting), self._goal)
        raise AssertionError(f"{setting} was said not to run, and does")

    def _costs(self, settings: Sequence[Setting]) -> list[_Cost | None]:
        machines = [self.resource.machine(self.spec, setting) for setting in settings]
        if not self._bulk:
            return [self._alone(machine) for machine in machines]
        found = [array.tolist() for array in evaluate(self.workload, machines, self._goal)]
        return [self._of(*each) for each in zip(machines, *found, strict=True)]

    def _of(self, machine: AcceleratorSpec, status: int, cycles: int, dram_bytes: int) -> _Cost | None:
        if status == Status.TOO_MANY:
            # Python's integers hold what the kernels' do not.
            return self._alone(machine)
        return (cycles, dram_bytes) if status == Status.RUNS else None

    def _alone(self, machine: AcceleratorSpec) -> _Cost | None:
        try:
            found = simulate(scheduled(self.workload, machine, self._goal))
        except InputError:
            return None
        return found.cycles.total, found.counts.dram_read_bytes + found.counts.dram_write_bytes


def _in_bulk(workload: Workload) -> bool:
    try:
        require_bulk(workload)
    except InputError:
        return False
    return True


class _Way:
    """A total of the resource, split in the best of some ways."""

    def __init__(self, timed: _Timed, scales: Sequence[Scale]) -> None:
        self._timed, self._scales = timed, scales
        self.least = min(scale.least for scale in scales)
        self.most = min(scale.most for scale in scales)

    def at(self, totals: Iterable[int]) -> list[Point]:
        """The step at each total; of equally fast splits the first."""
        offered = [[scale.at(total) for scale in self._scales if total >= scale.least] for total in totals]
        self._timed.points(setting for each in offered for setting in each)
        return [min(self._timed.points(each), key=_slowness) for each in offered]

    def top(self) -> tuple[int, Point]:
        """The most that there may be, or the most of its halves at which the step's time fits 64 bits."""
        total = self.most
        while total >= self.least:
            (point,) = self.at([total])
            # Just below 64 bits a search leaves out mappings that it cannot bound, perhaps the fastest.
            clear = max(total // _CLEAR, self.least)
            if point.cycles is not None and point.cycles <= _slowness(self.at([clear])[0]):
                return total, point
            total //= 2
        self._timed.refuse(self.at([self.most])[0].setting)

    def enough(self, bound: int, high: int) -> int:
        """The least total of at most ``bound`` cycles; ``high`` is one."""
        low = self.least
        if _meets(self.at([low])[0], bound):
            return low
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if _meets(self.at([middle])[0], bound) else (middle, high)
        return high


def _slowness(point: Point) -> float:
    return float("inf") if point.cycles is None else point.cycles


def _meets(point: Point, bound: int) -> bool:
    return point.cycles is not None and point.cycles <= bound


def _bisected(timed: _Timed, within: float) -> tuple[Line, ...]:
    """Of what never makes a step slower."""
    own = _Way(timed, [own_scale(timed.resource, timed.spec)])
    high, asymptote = own.top()
    bound = _bound(asymptote, within)
    least = own.enough(bound, high)
    last = own.enough(_times(asymptote, _TO), high)
    totals = _geometric(own.enough(_times(asymptote, _FROM), last), last)
    if timed.resource is Resource.DRAM:
        return (_exact(own, RATE, least, totals, asymptote),)
    best, some = _Way(timed, splits(timed.spec)), [*totals[:-1:_EVERY], totals[-1]]
    return (
        _exact(own, OWN_SPLIT, least, totals, asymptote),
        _exact(best, BEST_SPLIT, best.enough(bound, least), some, asymptote),
    )


def _geometric(first: int, last: int) -> list[int]:
    """Whole numbers from one to the other in even proportions."""
    step = (last / first) ** (1 / (_POINTS - 1))
    return sorted({first, last, *(min(round(first * step**n), last) for n in range(_POINTS))})


def _exact(way: _Way, name: str, least: int, totals: Sequence[int], asymptote: Point) -> Line:
    (found,) = way.at([least])
    return Line(
        name=name,
        points=tuple(way.at(sorted({*totals, least}))),
        asymptote=asymptote,
        least=found,
        below=way.at([least - 1])[0] if least > way.least else None,
        stays=found,
        knee=_bend(way.at(totals), asymptote),
    )


def _swept(timed: _Timed, within: float) -> tuple[Line, ...]:
    """Of a grid in which the total doubles every `_AN_OCTAVE` points."""
    way = _Way(timed, [own_scale(timed.resource, timed.spec)])
    count = _AN_OCTAVE * (way.most.bit_length() - way.least.bit_length() + 1)
    totals = {min(round(way.least * 2 ** (n / _AN_OCTAVE)), way.most) for n in range(count + 1)}
    points = way.at(sorted(totals))
    return (_line(timed, RATE if timed.resource is Resource.DRAM else OWN_SPLIT, points, within),)


def _of_array(timed: _Timed, within: float) -> tuple[Line, ...]:
    """Of all of `shapes`; the best shape of a size is the fastest of those with no more PEs."""
    squares, powers = map(timed.points, shapes())
    best = list[Point]()
    for point in sorted({*squares, *powers}, key=lambda point: (point.size, _slowness(point))):
        if not best or _slowness(point) < _slowness(best[-1]):
            best.append(point)
    return _line(timed, BEST_SHAPE, best, within), _line(timed, SQUARES, squares, within)


def _line(timed: _Timed, name: str, points: Sequence[Point], within: float) -> Line:
    """Of points that were all tried, ascending; those far from the asymptote, or that do not run, are left out."""
    asymptote = min(points, key=lambda point: (_slowness(point), point.size))
    if asymptote.cycles is None:
        timed.refuse(points[-1].setting)
    bound = _bound(asymptote, within)
    runs = [point for point in points if point.cycles is not None]
    near = [_meets(point, bound) for point in runs]
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
    at = knee([(point.size, _slowness(point)) for point in shown])
    return None if at is None else shown[at]


def _first(points: Sequence[Point], asymptote: Point, factor: int | Fraction) -> int:
    """Number of the first point that takes at most ``factor`` times the asymptote's cycles; the asymptote, or one as
    fast, is among them."""
    bound = _times(asymptote, factor)
    return next(i for i, point in enumerate(points) if _meets(point, bound))
