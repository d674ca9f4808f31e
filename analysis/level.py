"""A result at either level, and the one time that is its own: op after op, or with ops overlapped."""

from __future__ import annotations

from ..simulator.result import SimResult
from ..simulator.system_result import SystemResult

__all__ = ["AnyResult", "cycles_of", "level_of", "level_words", "seconds_of", "step_of"]

AnyResult = SimResult | SystemResult


def step_of(result: AnyResult) -> SimResult:
    """The ops of a result, each by itself."""
    return result.step if isinstance(result, SystemResult) else result


def cycles_of(result: AnyResult) -> int:
    """Whole cycles of the step at the level of the result."""
    return result.cycles if isinstance(result, SystemResult) else result.cycles.total


def seconds_of(result: AnyResult) -> float:
    """Time of the step at the level of the result."""
    return cycles_of(result) / step_of(result).spec.clock_hz


def level_of(result: AnyResult) -> str:
    """As ``weft run --level`` names it."""
    return "system" if isinstance(result, SystemResult) else "step"


def level_words(result: AnyResult) -> str:
    """What that level does with ops."""
    return "with ops overlapped" if isinstance(result, SystemResult) else "op after op"
