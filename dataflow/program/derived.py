"""The run registers of the array, of those of a product command: what the hardware derives, without a division."""

from __future__ import annotations

from ..accelerator import AcceleratorSpec
from .commands import Command

__all__ = ["run_registers_of"]


def run_registers_of(command: Command, spec: AcceleratorSpec) -> dict[str, int]:
    """The ``run`` ports of the array by name (docs/rtl.md), for a product that `check_command` lets pass."""
    c, pe = command, spec.pe
    pace, add = max(c.interleave, pe.add_latency), pe.add_latency
    multiply, edges = pe.multiply_latency, spec.array.rows + spec.array.cols
    taken = {name: getattr(c, name) for name in ("interleave", "parts", "runs", "across", "down")}
    if c.stationary:
        words, row_delay = c.group * c.interleave, (c.keep - 1) * pace + add
        return taken | {
            "weight_stationary": 1,
            "part_words": words,
            "rest_words": words,
            "part_pairs": c.keep,
            "rest_pairs": c.keep,
            "offset_step": c.group,
            "row_delay": row_delay,
            "drain_words": 0,
            "shift_pairs": c.keep * spec.array.rows,
            "tap": c.keep - 1,
            "tail_cycles": multiply + c.rows * row_delay + spec.array.cols + c.interleave + 1 - c.keep * pace,
        }
    drain = c.rows * c.interleave
    return taken | {
        "weight_stationary": 0,
        "part_words": c.group,
        "rest_words": c.rest,
        "part_pairs": c.keep,
        "rest_pairs": min(c.keep, c.rest),
        "offset_step": 0,
        "row_delay": 1,
        "drain_words": drain,
        "shift_pairs": 0,
        "tap": 0,
        "tail_cycles": multiply + add + edges + drain - pace,
    }
