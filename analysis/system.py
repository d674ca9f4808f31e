"""A result of the system level as plain Python values: speed, what every engine waited for, memory, when ops ran."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import Any

from ..dataflow.integers import ceil_div
from ..simulator.system_result import EngineUse, SystemResult
from .level import AnyResult
from .records import to_dict

__all__ = ["WAITS", "result_dict", "spans", "system_dict", "use_shares"]

WAITS = tuple(f.name for f in fields(EngineUse))
"""What an engine does or waits for, as `EngineUse` names it."""


def use_shares(use: EngineUse) -> dict[str, float]:
    """Parts of the step by what an engine did; they add up to 1."""
    return {name: getattr(use, name) / use.total for name in WAITS}


def spans(result: SystemResult) -> list[tuple[int, int]]:
    """When each op starts and ends, in whole cycles of the overlapped step."""
    each = zip(result.start.tolist(), result.end.tolist(), strict=True)
    return [(start // result.rate, ceil_div(end, result.rate)) for start, end in each]


def result_dict(result: AnyResult, command: str = "") -> dict[str, Any]:
    """The JSON of a run at its level."""
    return system_dict(result, command) if isinstance(result, SystemResult) else to_dict(result, command)


def system_dict(result: SystemResult, command: str = "") -> dict[str, Any]:
    """The JSON of a run at the system level.

    ``step_cycles``: what the ops take one after the other; ``start`` and ``end`` in cycles of the overlapped step.
    ``dram_share_of_peak``: of the peak, while DRAM is busy. ``by_shape``: mappings were chosen by shapes of transfers.
    """
    alone = to_dict(result, command)
    ops = zip(spans(result), alone.pop("ops"), strict=True)
    return {
        **alone,
        "by_shape": result.by_shape,
        "step_cycles": result.step.cycles.total,
        "dram_share_of_peak": result.dram_share_of_peak,
        "engines": {name: use_shares(use) for name, use in result.engines.items()},
        "memory": {**asdict(result.memory), "alive": result.memory.alive, "total": result.memory.total},
        "ops": [{**op, "start": start, "end": end} for (start, end), op in ops],
    }
