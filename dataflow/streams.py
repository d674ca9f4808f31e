"""SORE, WUVE and both in line between streams: when their beats leave (docs/design/machine.md, "Streams")."""

from __future__ import annotations

from dataclasses import dataclass

from ..workloads.sparsity import NMPattern
from ..workloads.update_rule import UpdateRule
from .accelerator import AcceleratorSpec
from .engine_time import sore_latency, wuve_latency
from .pregenerate import TilePlan

__all__ = ["Outflow", "StreamPlan", "pregenerate_streams", "sore_streams", "wuve_streams"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outflow:
    """Every ``every`` beats that enter let go a beat in each of the cycles ``after`` the last of them, rising."""

    every: int = 1
    after: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamPlan:
    """A block between streams, in cycles in which it runs: what leaves at each output, and after every ``fill`` beats
    that enter ``pause`` cycles in which none does."""

    outputs: tuple[Outflow, ...]
    fill: int = 1
    pause: int = 0

    def __post_init__(self) -> None:
        for flow in self.outputs:
            apart = flow.every + (self.pause if flow.every == self.fill else 0)
            assert flow.after[-1] - flow.after[0] < apart, "beats of a set leave before those of the next"


def sore_streams(spec: AcceleratorSpec, pattern: NMPattern) -> StreamPlan:
    """A round is ``group`` beats and leaves as ``keep`` in a serial engine; one and one in a network."""
    latency = sore_latency(pattern, spec)
    if spec.sore.kind == "serial":
        return StreamPlan(outputs=(Outflow(every=pattern.group, after=tuple(range(1, latency + 1))),))
    return StreamPlan(outputs=(Outflow(after=(latency,)),))


def wuve_streams(spec: AcceleratorSpec, rule: UpdateRule) -> StreamPlan:
    """A beat of updated parameters for each that enters."""
    return StreamPlan(outputs=(Outflow(after=(wuve_latency(rule, spec.pe),)),))


def pregenerate_streams(spec: AcceleratorSpec, pattern: NMPattern, plan: TilePlan) -> StreamPlan:
    """Updated parameters, and behind each whole tile the rounds of its copies."""
    serial, first = spec.sore.kind == "serial", plan.depth + 1
    rounds = range(plan.copies * plan.rounds)
    pairs = (
        [first + (q + 1) * pattern.group + p for q in rounds for p in range(pattern.keep)]
        if serial
        else [first + q + plan.tail for q in rounds]
    )
    outputs = (Outflow(after=(plan.depth,)), Outflow(every=plan.fill, after=tuple(pairs)))
    return StreamPlan(outputs=outputs, fill=plan.fill, pause=plan.distance - plan.fill)
