"""What an engine is to the rest of the house: it takes products, places them, and says what its tiles cost.

A machine may have several; `engines.py` is the list of their kinds, and the scheduler gives an op to the one on which
it costs least. What stands behind a placement asks the engine that its mapping is of, never a class.
"""

from __future__ import annotations

from typing import Protocol

from ..workloads.step import MatrixOp
from .accelerator import EngineKind
from .constraint import Constraint
from .macro_tiles import Tiled
from .mapping import Mapping
from .objective import Objective
from .placement import Placement
from .prices import Pricing, unpriced

__all__ = ["Engine"]


class Engine(Protocol):
    """An array that works on matrix products; hashable, made of a machine."""

    @property
    def kind(self) -> EngineKind:
        """Which `EngineSpec` it is of; mappings have the same."""

    @property
    def name(self) -> str:
        """By which schedules, timelines and reports call it."""

    @property
    def peak(self) -> int:
        """Multiply-accumulates a cycle."""

    def takes(self, op: MatrixOp) -> bool:
        """Whether it can run ``op`` at all."""

    def place(
        self, op: MatrixOp, objective: Objective, pricing: Pricing = unpriced, wanted: Constraint | None = None
    ) -> Placement:
        """The best placement of ``op`` in the space of its mappings, or of those that are ``wanted``; InputError if
        none is possible. The objectives energy and EDP need a ``pricing``."""

    def evaluate(self, op: MatrixOp, mapping: Mapping, pricing: Pricing = unpriced) -> Placement:
        """Cost of ``op`` under ``mapping``; refuses one of another op, or that registers or buffers cannot hold."""

    def tiled(self, op: MatrixOp, mapping: Mapping) -> Tiled:
        """The macro-tiles of a placed product."""
