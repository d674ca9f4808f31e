"""A step on machines that differ in how much they have of one resource: each timed once, in bulk where that can be.

Under the objective cycles more DRAM bandwidth or more room never makes a step slower, so the least that is enough is
found by bisection:

- a mapping takes ``max(issue, bytes / rate)`` a phase, the rate rounded down, and work beside the array likewise: none
  grows with the rate, nor does the least of them, nor a sum over ops of such least values;
- capacities only say which mappings fit, and whatever fits less room fits more (`dataflow/batch/memory.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NoReturn

from ..dataflow.accelerator import AcceleratorSpec
from ..dataflow.batch.evaluate import Status, evaluate
from ..dataflow.batch.step import require_bulk
from ..dataflow.engines import ours_alone
from ..dataflow.objective import Objective
from ..simulator.step import simulate
from ..workloads.errors import InputError
from ..workloads.step import Workload
from .resources import Resource, Scale, Setting
from .scheduling import scheduled

__all__ = ["Point", "Timed", "Way", "meets", "slowness"]

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


_Cost = tuple[int, int]
"""Cycles and DRAM bytes."""


class Timed:
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
        self._bulk = ours_alone(spec) and _in_bulk(workload)
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
        found = evaluate(self.workload, machines, self._goal)
        columns = (found.status.tolist(), found.cycles.tolist(), found.dram_bytes.tolist())
        return [self._of(*each) for each in zip(machines, *columns, strict=True)]

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


class Way:
    """A total of the resource, split in the best of some ways."""

    def __init__(self, timed: Timed, scales: Sequence[Scale]) -> None:
        self._timed, self._scales = timed, scales
        self.least = min(scale.least for scale in scales)
        self.most = min(scale.most for scale in scales)

    def at(self, totals: Iterable[int]) -> list[Point]:
        """The step at each total; of equally fast splits the first."""
        offered = [[scale.at(total) for scale in self._scales if total >= scale.least] for total in totals]
        self._timed.points(setting for each in offered for setting in each)
        return [min(self._timed.points(each), key=slowness) for each in offered]

    def top(self) -> tuple[int, Point]:
        """The most that there may be, or the most of its halves at which the step's time fits 64 bits."""
        total = self.most
        while total >= self.least:
            (point,) = self.at([total])
            # Just below 64 bits a search leaves out mappings that it cannot bound, perhaps the fastest.
            clear = max(total // _CLEAR, self.least)
            if point.cycles is not None and point.cycles <= slowness(self.at([clear])[0]):
                return total, point
            total //= 2
        self._timed.refuse(self.at([self.most])[0].setting)

    def enough(self, bound: int, high: int) -> int:
        """The least total of at most ``bound`` cycles; ``high`` is one."""
        low = self.least
        if meets(self.at([low])[0], bound):
            return low
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if meets(self.at([middle])[0], bound) else (middle, high)
        return high


def slowness(point: Point) -> float:
    return float("inf") if point.cycles is None else point.cycles


def meets(point: Point, bound: int) -> bool:
    return point.cycles is not None and point.cycles <= bound
