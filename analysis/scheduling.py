"""The offline scheduler with the energy table of its machine: what needs prices gets them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ..dataflow.accelerator import AcceleratorSpec
from ..dataflow.batch.evaluate import Evaluated, evaluate
from ..dataflow.constraint import MappingFile
from ..dataflow.objective import Objective
from ..dataflow.prices import Pricing
from ..dataflow.schedule import Schedule, schedule
from ..simulator.shape_choice import chosen_by_shape
from ..workloads.step import Workload
from .tariff import prices, shared_prices

__all__ = ["evaluated", "prices_for", "scheduled"]


def scheduled(
    workload: Workload,
    spec: AcceleratorSpec,
    objective: Objective | str = Objective.THRIFT,
    progress: Callable[[int, int], None] | None = None,
    mapping: MappingFile | None = None,
    by_shape: bool = False,
) -> Schedule:
    """`dataflow.schedule.schedule` under any objective; energy by the table that ``spec`` names. ``by_shape``: mappings
    are chosen again by the shapes of their transfers (`chosen_by_shape`), which the system level knows."""
    found = schedule(workload, spec, objective, prices_for(spec, objective), progress, mapping)
    return chosen_by_shape(found) if by_shape else found


def prices_for(spec: AcceleratorSpec, objective: Objective | str) -> Pricing | None:
    """What ``objective`` pays on ``spec``, by the table that it names; None where it asks for no energy."""
    return prices(spec) if objective in tuple(Objective) and Objective(objective).priced else None


def evaluated(
    workload: Workload,
    machines: Iterable[AcceleratorSpec],
    objective: Objective | str = Objective.THRIFT,
    *,
    amounts: bool = False,
) -> Evaluated:
    """`dataflow.batch.evaluate.evaluate` under any objective; energy by the table that each machine names."""
    return evaluate(workload, machines, objective, shared_prices(), amounts=amounts)
