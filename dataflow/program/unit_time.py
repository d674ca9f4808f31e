"""How long vector operations and updates take, from the cycle in which a command is taken to its last one.

A unit reads a beat of its lanes a cycle. Where a sum goes on from row to row or from term to term, the next one waits
until that of the beat has left the adder; the beats of a row go side by side.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..engine_time import DIVIDE_LATENCY, wuve_latency
from ..pregenerate import tile_plan
from .spaces import Target
from .vector_operations import OPERATIONS, VectorOpcode

__all__ = ["VectorPlan", "update_cycles", "vector_cycles", "vector_plan"]

_TO_READ = 2
"""Cycles from that in which a command is taken to that of its first beat: it is taken, and asked whether it may be."""


@dataclass(frozen=True, slots=True)
class VectorPlan:
    """The lanes' pipeline: cycles from that in which a beat is read to that in which it is where the name says.

    ``parted``: behind the first adder, ``scaled``: the first product, ``met``: products and sums of those,
    ``added``: the last adder, ``ended``: the last product, ``rooted``: all lanes one by one through square root and
    quotient. ``summed``: behind the adder that begins at ``scaled``. ``again``: from a sum to the next one that takes
    it.
    """

    entered: int
    parted: int
    scaled: int
    summed: int
    met: int
    added: int
    ended: int
    rooted: int
    again: int


def vector_plan(target: Target) -> VectorPlan:
    """The pipeline of a machine's vector unit, of the latencies of its PEs."""
    multiply, add = target.spec.pe.multiply_latency, target.spec.pe.add_latency
    entered = 1
    parted = entered + add
    scaled = parted + multiply
    met = scaled + max(multiply, add)
    added = met + add
    return VectorPlan(
        entered=entered,
        parted=parted,
        scaled=scaled,
        summed=scaled + add,
        met=met,
        added=added,
        ended=added + multiply,
        # into the row of lanes and out of it
        rooted=added + 1 + target.spec.vector.lanes + 2 * DIVIDE_LATENCY,
        # read, added, written
        again=add + 2,
    )


def vector_cycles(registers: Mapping[str, int], target: Target) -> int:
    """Cycles from that in which a vector operation is taken to that in which its last word is written."""
    plan, operation, beats = vector_plan(target), OPERATIONS[VectorOpcode(registers["operation"])], registers["beats"]
    if operation.opcode == VectorOpcode.DEVIATION:
        return _TO_READ + (beats - 1) * target.spec.vector.lanes + plan.rooted
    waits = operation.accumulates or operation.of_terms
    turns = registers["rows"] * registers["terms"]
    return _TO_READ + (turns - 1) * max(beats, plan.again if waits else 0) + beats - 1 + plan.ended


def update_cycles(registers: Mapping[str, int], target: Target) -> int:
    """Cycles from that in which an update is taken to that in which its last word or pair is written."""
    tiles, copies = registers["tiles"], registers["copies"]
    if copies:
        assert target.pattern is not None, "check_command lets copies pass only where there is a pattern"
        plan = tile_plan(target.spec, target.rule, target.pattern, copies)
        return _TO_READ + plan.first_step(tiles - 1) + plan.reduce + plan.tail
    return _TO_READ + tiles * registers["beats"] - 1 + 1 + wuve_latency(target.rule, target.spec.pe)
