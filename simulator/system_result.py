"""What the system level finds: when ops run, what engines do and wait for, what buffers hold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from ..dataflow.integers import ceil_div
from ..workloads.one_line import OneLine
from ..workloads.words import named, seconds
from .memory import MemoryNeed
from .result import SimResult
from .row_misses import Beyond
from .shown import Shown

__all__ = ["EngineUse", "Intervals", "Occupancy", "Overlapped", "Record", "SystemResult"]

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineUse:
    """Time of one engine by what it did or waited for; the parts add up to the length of the step.

    ``fill_drain`` and ``dependency`` (an op that must end first) are product engines' alone. ``idle``: nothing to do.
    """

    busy: int = 0
    fill_drain: int = 0
    dram: int = 0
    sore: int = 0
    dependency: int = 0
    idle: int = 0

    @property
    def total(self) -> int:
        """Length of the step."""
        return sum(getattr(self, f.name) for f in fields(self))


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Intervals(OneLine):
    """When an engine worked, in order; int64 [intervals] each. ``channel`` is the number of who asked
    (`channels.channels`), ``moved`` bytes, of DRAM only.
    """

    op: Int64
    channel: Int64
    start: Int64
    end: Int64
    moved: Int64


@dataclass(frozen=True, slots=True, kw_only=True, repr=False, eq=False)
class Occupancy(OneLine):
    """Halves of a buffer in use from ``time`` on, until the next one; int64 [changes] each."""

    time: Int64
    halves: Int64


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Record(OneLine):
    """What happened: every service by engine, every change by buffer."""

    timeline: dict[str, Intervals]
    buffers: dict[str, Occupancy]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False, eq=False)
class Overlapped(OneLine):
    """Tasks that ran side by side, of a step or of none (`SystemResult`); int64 [ops], times in 1/rate cycles."""

    start: Int64
    end: Int64
    engines: dict[str, EngineUse]
    record: Callable[[], Record | None]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False, eq=False)
class SystemResult(Shown, Overlapped):
    """One step with its ops overlapped. Times are integers in 1/``rate`` cycles.

    ``step`` is the same schedule op after op: its actions and bytes are those of this run too. ``start`` is when the
    first load of an op is asked for, ``end`` when its last result is stored; int64 [ops]. ``record`` tells all that
    happened, a hundred bytes a phase, made anew in every call; None of a step with too many phases. ``beyond``: by op,
    what DRAM does beyond a stream of its bytes (`row_misses.py`). ``by_shape`` is the schedule's.
    """

    step: SimResult
    rate: int
    memory: MemoryNeed
    beyond: Callable[[], Sequence[Beyond]]
    by_shape: bool = False

    @property
    def cycles(self) -> int:
        """Whole cycles of the step."""
        return ceil_div(int(self.end.max()), self.rate)

    @property
    def dram_share_of_peak(self) -> float:
        """Bytes moved over those of ``dram.bytes_per_second`` in the time that DRAM was busy."""
        spec, busy = self.step.spec, self.engines["DRAM"].busy
        moved = self.step.counts.dram_bytes
        return moved * spec.clock_hz * self.rate / (busy * spec.dram.bytes_per_second) if busy else 0.0

    @property
    def seconds(self) -> float:
        """Time of the step."""
        return self.cycles / self.step.spec.clock_hz

    def _said(self) -> str:
        step = self.step
        took = f"{self.cycles:,} cycles, {seconds(self.seconds)} with ops overlapped"
        return f"{step.workload.title} on {named(step.spec.name)}: {took}"
