"""Closed forms of SORE and WUVE, as docs/design/machine.md states them; `simulator/engines.py` steps them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import assert_never

from ..workloads.sparsity import NMPattern
from ..workloads.update_rule import Unit, UpdateRule
from .accelerator import AcceleratorSpec
from .stce.spec import PESpec

__all__ = [
    "DIVIDE_LATENCY",
    "UpdatePlan",
    "compares_per_group",
    "reduction_step",
    "sore_issue",
    "sore_latency",
    "unit_latency",
    "update_plan",
    "wuve_latency",
]

DIVIDE_LATENCY = 16
"""Cycles of an FP32 quotient or square root: an assumption, the order of a pipelined radix-4 divider."""


def sore_issue(groups: int, pattern: NMPattern, spec: AcceleratorSpec) -> int:
    """Cycles until SORE can take other work after ``groups`` groups."""
    return -(-groups // spec.sore.lanes) * (pattern.group if spec.sore.kind == "serial" else 1)


def sore_latency(pattern: NMPattern, spec: AcceleratorSpec) -> int:
    """Cycles from there until the last pair has left: pairs leave one by one, or the network drains."""
    if spec.sore.kind == "serial":
        return pattern.keep
    return _depth(pattern.group) + _depth(pattern.keep)


def reduction_step(pattern: NMPattern, spec: AcceleratorSpec) -> int:
    """Cycles of a round in SORE before the next one may follow whose pairs will push out its own."""
    return pattern.group if spec.sore.kind == "serial" else max(1, sore_latency(pattern, spec))


def _depth(inputs: int) -> int:
    """Stages of an odd-even merge sort."""
    p = (inputs - 1).bit_length()
    return p * (p + 1) // 2


def compares_per_group(pattern: NMPattern, spec: AcceleratorSpec) -> int:
    """Comparators that one group exercises: every value against the held ones, or both Batcher networks."""
    if spec.sore.kind == "serial":
        return pattern.group * pattern.keep
    return _comparators(pattern.group) + _comparators(pattern.keep)


def _comparators(inputs: int) -> int:
    """Comparators of an odd-even merge sort of 2^p inputs: (p^2 - p + 4) 2^(p-2) - 1 (Knuth, TAOCP 5.3.4)."""
    p = (inputs - 1).bit_length()
    return 0 if p == 0 else (p * p - p + 4) * 2**p // 4 - 1


@dataclass(frozen=True, slots=True)
class UpdatePlan:
    """The pipeline of a rule: how many cycles after its parameter each operation starts, and when that leaves."""

    starts: dict[str, int]
    depth: int


def unit_latency(unit: Unit, rule: UpdateRule, pe: PESpec) -> int:
    """Cycles of an operation of ``rule``.

    Conversions last as long as a multiplication. Where there is a root or a quotient they last a cycle, which each of
    those gives up: nobody sees a difference but the RTL.
    """
    match unit:
        case Unit.MULTIPLY:
            return pe.multiply_latency
        case Unit.ADD | Unit.SUBTRACT:
            return pe.add_latency
        case Unit.ROOT | Unit.DIVIDE:
            return DIVIDE_LATENCY - 1
        case Unit.WIDEN | Unit.NARROW:
            return 1 if rule.divides else pe.multiply_latency
    assert_never(unit)


@cache
def update_plan(rule: UpdateRule, pe: PESpec) -> UpdatePlan:
    """Every operation as soon as its operands are there, which makes the depth that of the longest chain.

    One of nothing but what enters, which passes through the pipeline anyway, starts as late as its result allows.
    """
    lasts = {operation.name: unit_latency(operation.unit, rule, pe) for operation in rule.operations}
    starts: dict[str, int] = {}
    for operation in rule.operations:
        starts[operation.name] = max((starts[x] + lasts[x] for x in operation.operands if x in starts), default=0)
    depth = max(starts[x] + lasts[x] for x in (*rule.leaves, rule.weight16))
    for operation in rule.operations:
        if not starts.keys() & set(operation.operands):
            wanted = [starts[other.name] for other in rule.operations if operation.name in other.operands]
            starts[operation.name] = min(wanted, default=depth) - lasts[operation.name]
    return UpdatePlan(starts=starts, depth=depth)


def wuve_latency(rule: UpdateRule, pe: PESpec) -> int:
    """Depth of the update pipeline: the longest chain of operations of ``rule``."""
    return update_plan(rule, pe).depth
