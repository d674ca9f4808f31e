"""Points of a front once more, at the system level: with ops overlapped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...dataflow.schedule import Schedule
from ...simulator.shape_choice import chosen_by_shape
from ...simulator.step import simulate
from ...simulator.system import simulate_system
from ...workloads.errors import InputError
from ..energy import energy
from ..scheduling import scheduled
from .machines import Machines
from .plan import Plan
from .space import Value
from .table import parquet_bytes, table_of
from .work import step_at, work_at

__all__ = ["Overlapped", "scheduled_at"]

AT_ONCE = 8
"""Points of a task: some seconds."""


@dataclass(frozen=True, slots=True)
class Overlapped:
    """Points of the front once more, with ops overlapped; ``points``: number and values of each."""

    plan: Plan
    points: tuple[tuple[int, dict[str, Value]], ...]

    def __call__(self, number: int) -> bytes:
        own = self.points[number * AT_ONCE : (number + 1) * AT_ONCE]
        rows = [_overlapped(scheduled_at(self.plan, at)) for _, at in own]
        columns = {name: np.array([row[name] for row in rows]) for name in rows[0]}
        columns["system_reason"] = columns["system_reason"].astype(object)
        return parquet_bytes(table_of(np.array([point for point, _ in own], np.int64), {}, columns))


def scheduled_at(plan: Plan, at: Mapping[str, Value]) -> Schedule:
    """The schedule of a point, by the values of its axes."""
    spec = Machines(plan.bases, tuple(at)).at(str(at.get("arch", plan.space.arch)), at)
    goal = str(at.get("objective", plan.space.objective))
    return scheduled(step_at(work_at(plan.space, plan.models, at)), spec, goal)


def _overlapped(chosen: Schedule) -> dict[str, Any]:
    clock = chosen.spec.clock_hz
    found = {"step_joules": np.nan, "system_cycles": 0, "system_seconds": np.nan, "system_gap": np.nan}
    said = []
    result = simulate(chosen)
    try:
        found["step_joules"] = energy(result).joules
    except InputError as error:
        said.append(f"joules: {error}")
    try:
        system = simulate_system(chosen_by_shape(chosen))
        found["system_cycles"], found["system_seconds"] = system.cycles, system.cycles / clock
        found["system_gap"] = system.cycles / result.cycles.total - 1
    except InputError as error:
        said.append(f"system: {error}")
    return {**found, "system_reason": "; ".join(said)}
