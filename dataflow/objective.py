"""What a schedule minimises, op by op."""

from __future__ import annotations

from enum import StrEnum
from typing import assert_never

from ..workloads.errors import require_choice

__all__ = ["TIE", "Objective"]

TIE = 128
"""To the objective thrift times that differ by less than 1/128 are equal. Streaming hides a few hundred cycles of the
first loads and can move ten times the bytes; over the examples this costs 0.0-0.3 % of a step's time and saves 1-34 %
of its energy."""


class Objective(StrEnum):
    """What the scheduler minimises, op by op."""

    THRIFT = "thrift"
    """Of the mappings within 1/128 of the least cycles (`TIE`), whichever operand flows N2S, the one that moves the
    fewest DRAM bytes; of these the fastest."""
    CYCLES = "cycles"
    """Cycles; of equally fast mappings the one that moves the fewest DRAM bytes. Never slower on more bandwidth."""
    ENERGY = "energy"
    EDP = "edp"

    @property
    def priced(self) -> bool:
        """Whether it needs the energy of each action."""
        return self in (Objective.ENERGY, Objective.EDP)

    @property
    def aim(self) -> str:
        """What it asks for, in words."""
        match self:
            case Objective.THRIFT:
                return f"the fewest DRAM bytes within 1/{TIE} of the least cycles"
            case Objective.CYCLES:
                return "the least cycles"
            case Objective.ENERGY:
                return "the least energy"
            case Objective.EDP:
                return "the least energy x time"
            case _:
                assert_never(self)

    @classmethod
    def named(cls, text: Objective | str) -> Objective:
        """The one of that name; refuses any other."""
        return cls(require_choice("objective", text, tuple(cls)))
