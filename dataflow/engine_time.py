"""Closed forms of SORE and WUVE, as docs/design/machine.md states them; `simulator/engines.py` steps them."""

from __future__ import annotations

from ..workloads.sparsity import NMPattern
from .accelerator import AcceleratorSpec
from .stce.spec import PESpec

__all__ = ["DIVIDE_LATENCY", "compares_per_group", "sore_issue", "sore_latency", "wuve_latency"]

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


def wuve_latency(rule: str, pe: PESpec) -> int:
    """Depth of the update pipeline: the longest chain of operations of ``sgd`` or ``adam``."""
    multiply, add = pe.multiply_latency, pe.add_latency
    if rule == "sgd":
        return 4 * multiply + 3 * add
    return 3 * multiply + 3 * add + 2 * DIVIDE_LATENCY
