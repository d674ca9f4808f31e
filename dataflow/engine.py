"""What an engine is to the rest of the house: it takes products, places them, and says what its tiles cost.

A machine may have several; `engines.py` is the list of their kinds, and the scheduler gives an op to the one on which
it costs least. What stands behind a placement asks the engine that its mapping is of, never a class.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from ..workloads.step import MatrixOp
from .constraint import Constraint
from .macro_tiles import Axis, Demand, Issue, Tile
from .mapping import Mapping
from .objective import Objective
from .placement import Placement
from .prices import FREE, Prices
from .problem import Problem

__all__ = ["Engine", "Tiled"]


class Tiled(NamedTuple):
    """A product cut into macro-tiles, in numbers: all that transfers, phases and the system level need of it."""

    problem: Problem
    rows: Axis
    cols: Axis
    tile: Tile
    issue: Issue
    demand: Demand


class Engine(Protocol):
    """An array that works on matrix products; hashable, made of a machine."""

    @property
    def kind(self) -> str:
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
        self, op: MatrixOp, objective: Objective, price: Prices = FREE, wanted: Constraint | None = None
    ) -> Placement:
        """The best placement of ``op`` in the space of its mappings, or of those that are ``wanted``; InputError if
        none is possible. The objectives energy and EDP need a ``price``."""

    def evaluate(self, op: MatrixOp, mapping: Mapping, price: Prices = FREE) -> Placement:
        """Cost of ``op`` under ``mapping``; refuses one of another op, or that registers or buffers cannot hold."""

    def tiled(self, op: MatrixOp, mapping: Mapping) -> Tiled:
        """The macro-tiles of a placed product."""
