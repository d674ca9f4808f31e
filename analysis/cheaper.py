"""Whether another objective gives nearly the same step for much less energy.

The scheduler chooses op by op, within a share of each op's own time. Where one op moves most of the bytes, a little of
the whole step's time may buy a lot, which no rule for single ops sees.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..dataflow.objective import Objective
from ..simulator.result import SimResult
from ..simulator.step import simulate
from .energy import energy
from .scheduling import scheduled

__all__ = ["LEAST_SAVED", "MOST_SLOWER", "Cheaper", "cheaper"]

LEAST_SAVED, MOST_SLOWER = 0.1, 0.02
"""Share of the energy that another objective must save to be named, and of the time that it may cost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cheaper:
    """The same step under another objective: its joules and seconds, and both against those of the step asked for."""

    objective: Objective
    joules: float
    seconds: float
    saved: float
    slower: float


def cheaper(result: SimResult) -> Cheaper | None:
    """The objective that saves the most energy of a nearly equal step, if one saves `LEAST_SAVED`."""
    spec, spent, cycles = result.spec, energy(result).joules, result.cycles.total
    found: list[Cheaper] = []
    for objective in Objective:
        if objective is result.objective:
            continue
        other = simulate(scheduled(result.workload, spec, objective))
        joules, slower = energy(other).joules, other.cycles.total / cycles - 1
        saved = 1 - joules / spent
        if saved >= LEAST_SAVED and slower <= MOST_SLOWER:
            seconds = other.cycles.total / spec.clock_hz
            found.append(Cheaper(objective=objective, joules=joules, seconds=seconds, saved=saved, slower=slower))
    return max(found, key=lambda one: one.saved, default=None)
