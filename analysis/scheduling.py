"""The offline scheduler with the energy table of its machine: what needs prices gets them."""

from __future__ import annotations

from collections.abc import Callable

from ..dataflow.accelerator import AcceleratorSpec
from ..dataflow.constraint import MappingFile
from ..dataflow.objective import Objective
from ..dataflow.schedule import Schedule, schedule
from ..workloads.step import Workload
from .tariff import prices

__all__ = ["scheduled"]


def scheduled(
    workload: Workload,
    spec: AcceleratorSpec,
    objective: Objective | str = Objective.THRIFT,
    progress: Callable[[int, int], None] | None = None,
    mapping: MappingFile | None = None,
) -> Schedule:
    """`dataflow.schedule.schedule` under any objective; energy by the table that ``spec`` names."""
    priced = objective in tuple(Objective) and Objective(objective).priced
    return schedule(workload, spec, objective, prices(spec) if priced else None, progress, mapping)
