"""One op under one mapping: its cycles by cause, its actions, and the bound that no mapping can beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never

from .account import Counts, Cycles
from .mapping import Mapping
from .objective import Objective

__all__ = ["Constrained", "Placement"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Constrained:
    """That a user restricted the mapping of an op, and to what; what the free search would have taken it to."""

    asked: str
    free_cycles: int
    free_dram_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """One op on an engine: its mapping, its cost by closed form, and what no mapping on that engine can beat."""

    engine: str
    """Name of the engine (`engine.Engine`)."""
    mapping: Mapping
    cycles: Cycles
    counts: Counts
    bound_cycles: int
    energy_pj: float = 0.0
    """By the prices that it was placed with; 0 without."""
    constrained: Constrained | None = None

    def cost(self, objective: Objective) -> float:
        """What ``objective`` minimises."""
        match objective:
            case Objective.THRIFT | Objective.CYCLES:
                return self.cycles.total
            case Objective.ENERGY:
                return self.energy_pj
            case Objective.EDP:
                return self.energy_pj * self.cycles.total
            case _:
                assert_never(objective)
