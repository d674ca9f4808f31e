"""Layers, each with its folding: how fast frames pass, and what all of it takes."""

from __future__ import annotations

from dataclasses import dataclass

from ...workloads.errors import InputError
from ...workloads.one_line import OneLine
from .engine import Cost, Folding, StreamingLayer

__all__ = ["Pipeline"]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Pipeline(OneLine):
    """Engines that all work at once, a frame behind the other; FIFOs between them are taken to be deep enough."""

    layers: tuple[StreamingLayer, ...]
    foldings: tuple[Folding, ...]

    def __post_init__(self) -> None:
        if not self.layers or len(self.layers) != len(self.foldings):
            raise InputError(f"a pipeline of {len(self.layers)} layers has {len(self.foldings)} foldings")
        for layer, folding in zip(self.layers, self.foldings, strict=True):
            layer.require_legal(folding)

    @property
    def cycles(self) -> tuple[int, ...]:
        """Of each engine, a frame."""
        return tuple(layer.cycles(f) for layer, f in zip(self.layers, self.foldings, strict=True))

    @property
    def window_cycles(self) -> tuple[int, ...]:
        """Of each sliding-window unit, a frame; 0 where there is none."""
        return tuple(layer.window_cycles(f) for layer, f in zip(self.layers, self.foldings, strict=True))

    @property
    def costs(self) -> tuple[Cost, ...]:
        """Of each engine with its weights and window."""
        return tuple(layer.cost(f) for layer, f in zip(self.layers, self.foldings, strict=True))

    @property
    def cost(self) -> Cost:
        return sum(self.costs, Cost())

    @property
    def interval(self) -> int:
        """Cycles between two frames: those of the slowest."""
        return max(*self.cycles, *self.window_cycles)

    @property
    def limits(self) -> tuple[StreamingLayer, ...]:
        """The slowest, of which there may be more than one."""
        each = zip(self.layers, self.cycles, self.window_cycles, strict=True)
        return tuple(layer for layer, cycles, window in each if max(cycles, window) == self.interval)

    @property
    def first_frame(self) -> int:
        """Cycles of the first frame at most: every unit waits for the last word of the one before it, as FINN's
        critical path does. Units that stream overlap, so it takes less."""
        return sum(self.cycles) + sum(self.window_cycles)

    def rate(self, clock_hz: int) -> float:
        """Frames a second."""
        return clock_hz / self.interval

    def _said(self) -> str:
        takes = f"{self.cost.lut:,} LUTs, {self.cost.bram:,} RAMB18"
        return f"{len(self.layers)} layers, a frame every {self.interval:,} cycles: {takes}"
