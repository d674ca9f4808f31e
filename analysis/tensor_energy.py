"""Energy of a step by pass, that of DRAM by kind of tensor and the rest by part of the machine: they add up exactly."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from fractions import Fraction

from ..dataflow.actions import Actions, Component
from ..dataflow.operand import BYTE
from ..workloads.gemm import Pass
from .dram_tensors import TensorKind, dram_tensors
from .energy import EnergyReport
from .level import AnyResult, step_of
from .words import apportion

__all__ = ["energy_by_tensor", "part_words", "sums_of_parts"]

_WORDS: dict[str, str] = {
    **{kind: f"{kind} (DRAM)" for kind in TensorKind},
    Component.ARRAY: "logic of the array",
    Component.BUFFERS: "SRAM of the buffers",
    Component.VECTOR: "vector unit",
    Component.STATIC: "leakage",
}
"""What parts are called beside each other; others go by their own name."""


def energy_by_tensor(result: AnyResult, report: EnergyReport) -> dict[Pass, dict[str, int]]:
    """Zeptojoules of every pass, by `TensorKind` and by component but DRAM, without what is nothing.

    ``report``: of all ops of ``result``. The joules of DRAM in a pass are shared out by bytes and their price.
    """
    step = step_of(result)
    parts: dict[Pass, Counter[str]] = {p: Counter() for p in Pass}
    for r, spent in zip(step.ops, report.op_parts, strict=True):
        parts[Pass(r.op.pass_)].update(spent)
    each = {row.action: Fraction(row.zeptojoules, row.count) for row in report.rows if row.count}
    read, write = (BYTE * each.get(action, Fraction(0)) for action in (Actions.DRAM_READ, Actions.DRAM_WRITE))
    moved: dict[Pass, dict[TensorKind, Fraction]] = {p: {} for p in Pass}
    for row in dram_tensors(step):
        moved[row.pass_][row.kind] = row.read_bytes * read + row.write_bytes * write
    return {p: _told(of, moved[p]) for p, of in parts.items()}


def _told(spent: Counter[str], moved: Mapping[TensorKind, Fraction]) -> dict[str, int]:
    dram = spent.pop(Component.DRAM, 0)
    kinds = {**moved, TensorKind.UNTOLD: moved.get(TensorKind.UNTOLD, Fraction(not any(moved.values())))}
    shared = dict(zip(kinds, apportion(dram, kinds.values()), strict=True))
    told: dict[str, int] = {kind: shared[kind] for kind in TensorKind if kind in shared}
    return {part: n for part, n in sums_of_parts([told, spent]).items() if n}


def sums_of_parts(passes: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Zeptojoules of a step by part, tensors first."""
    sums: Counter[str] = Counter()
    for parts in passes:
        sums.update(parts)
    order = [part for part in (*TensorKind, *Component) if part in sums]
    return {part: sums[part] for part in (*order, *(part for part in sums if part not in order))}


def part_words(part: str) -> str:
    """A part of the energy as a legend names it."""
    return _WORDS.get(part, part)
