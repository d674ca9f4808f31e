"""The system level: ops overlap, with prefetch across them, engines side by side and one memory for all.

Times, uses and changes come from a recurrence in one pass; `processes.py` is the same as SimPy processes, its witness.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from functools import partial

import numpy as np
import numpy.typing as npt

from ..dataflow.integers import ceil_div
from ..dataflow.schedule import Schedule
from .channels import Names, engine_names
from .kernels.recurrence import run_tasks
from .kernels.tasks import BUFFERS, CAUSES, ENGINES_BESIDE, Log, Tasks
from .memory import require_capacity
from .order import Order
from .row_misses import row_misses
from .step import simulate
from .system_result import EngineUse, Intervals, Occupancy, Overlapped, Record, SystemResult
from .tasks import tasks_of
from .transfers import Transfers, by_shape

__all__ = [
    "MOST_LOGGED",
    "op_times",
    "overlapped",
    "phase_total",
    "require_same",
    "simulate_system",
    "step_time",
    "witnessed",
]

Int64 = npt.NDArray[np.int64]

MOST_LOGGED = 2**22
"""Phases of a step up to which all that happens is told: half a gigabyte."""

_CAUSES = ("busy", "fill_drain", "dram", "sore", "dependency")
"""Of `EngineUse`, in the order of the recurrence."""


def simulate_system(
    schedule: Schedule,
    order: Order | None = None,
    transfers: Transfers | None = None,
    progress: Callable[[int, int], None] | None = None,
    *,
    witness: bool = False,
) -> SystemResult:
    """Run a schedule with prefetch across ops, engines side by side and one memory for all.

    The memory is the one that ``dram.kind`` names, unless other ``transfers`` are given. Raises InputError where it is
    none that is known, and where the step exceeds the machine's DRAM capacity. ``witness``: as SimPy processes, which
    must come to the same and take minutes where the recurrence takes milliseconds; ``progress`` is called with the ops
    that they have done and all ops.
    """
    need = require_capacity(schedule.as_run, schedule.spec, schedule)
    used = transfers or by_shape(schedule.spec)
    tasks, names = tasks_of(schedule, order, used), engine_names(schedule.spec)
    found = witnessed(tasks, names, progress) if witness else overlapped(tasks, names)
    return SystemResult(
        step=simulate(schedule),
        rate=tasks.rate,
        start=found.start,
        end=found.end,
        engines=found.engines,
        memory=need,
        by_shape=schedule.by_shape,
        beyond=partial(row_misses, schedule, used),
        record=found.record,
    )


def overlapped(tasks: Tasks, names: Names) -> Overlapped:
    """Run tasks by the recurrence."""
    start, end, spent = _run(tasks)
    uses = _uses(spent, int(end.max()), names)
    return Overlapped(start=start, end=end, engines=uses, record=partial(_record, tasks, names))


def witnessed(tasks: Tasks, names: Names, progress: Callable[[int, int], None] | None = None) -> Overlapped:
    """Run tasks as SimPy processes."""
    from .processes import Processes  # SimPy is needed for nothing else

    system = Processes(tasks, names, progress)
    system.run()
    return Overlapped(
        start=system.start,
        end=system.end,
        engines=system.uses(),
        record=lambda: Record(system.timeline(), system.occupancy()),
    )


def require_same(result: Overlapped, witness: Overlapped) -> None:
    """Raise AssertionError unless both come to the same times, uses, services and changes of buffers."""
    pairs = [("start", result.start, witness.start), ("end", result.end, witness.end)]
    ours, theirs = result.record(), witness.record()
    if ours is not None and theirs is not None:
        for one, other in ((ours.timeline, theirs.timeline), (ours.buffers, theirs.buffers)):
            for name in one:
                columns = fields(one[name])
                pairs += [(name, getattr(one[name], f.name), getattr(other[name], f.name)) for f in columns]
    for name, found, expected in pairs:
        if not np.array_equal(found, expected):
            raise AssertionError(f"recurrence and processes disagree in {name}")
    if result.engines != witness.engines:
        raise AssertionError("recurrence and processes disagree in what engines do and wait for")


def step_time(schedule: Schedule, order: Order | None = None, transfers: Transfers | None = None) -> int:
    """Whole cycles of a step whose ops overlap: `simulate_system` without what happened in between."""
    tasks = tasks_of(schedule, order, transfers)
    return ceil_div(int(op_times(tasks)[1].max()), tasks.rate)


def op_times(tasks: Tasks) -> tuple[Int64, Int64]:
    """Start and end of every op, in 1/rate cycles; int64 [ops] each."""
    start, end, _ = _run(tasks)
    return start, end


def phase_total(tasks: Tasks) -> int:
    """Phases of all ops."""
    so_far = np.append(0, np.cumsum(tasks.times))
    return int((so_far[tasks.behind] - so_far[tasks.first]).sum())


def _run(tasks: Tasks, log: Log | None = None) -> tuple[Int64, Int64, Int64]:
    """Start and end of every op, and time by engine and cause."""
    ops = len(tasks.engine)
    start, end = np.zeros((2, ops), np.int64)
    spent = np.zeros((tasks.products + ENGINES_BESIDE, CAUSES), np.int64)
    finished = run_tasks(tasks, start, end, spent, log)
    if finished != ops:
        raise AssertionError(f"only {finished} of {ops} ops can ever start")
    return start, end, spent


def _record(tasks: Tasks, names: Names) -> Record | None:
    phases, ops = phase_total(tasks), len(tasks.engine)
    if phases > MOST_LOGGED:
        return None
    services, changes = phases + 3 * ops, 2 * (phases + ops)
    engines, buffers = tasks.products + ENGINES_BESIDE, tasks.products * BUFFERS
    log = Log(
        np.zeros((engines, services, 5), np.int64),
        np.zeros(engines, np.int64),
        np.zeros((buffers, changes, 2), np.int64),
        np.zeros(buffers, np.int64),
    )
    _run(tasks, log)
    return Record(_timeline(log, names), _occupancy(log, names))


def _uses(spent: Int64, total: int, names: Names) -> dict[str, EngineUse]:
    found = {}
    for name, times in zip(names.engines, spent.tolist(), strict=True):
        found[name] = EngineUse(**dict(zip(_CAUSES, times, strict=True)), idle=total - sum(times))
    return found


def _timeline(log: Log, names: Names) -> dict[str, Intervals]:
    return {
        name: Intervals(*rows[:count].T.copy())
        for name, rows, count in zip(names.engines, log.served, log.services, strict=True)
    }


def _occupancy(log: Log, names: Names) -> dict[str, Occupancy]:
    """Halves in use, from changes in any order; of one instant the last state counts."""
    found = {}
    for name, rows, count in zip(names.buffers, log.held, log.changes, strict=True):
        moments, place = np.unique(np.append(rows[:count, 0], 0), return_inverse=True)
        more = np.zeros(len(moments), np.int64)
        np.add.at(more, place, np.append(rows[:count, 1], 0))
        found[name] = Occupancy(time=moments, halves=np.cumsum(more))
    return found
