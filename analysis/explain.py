"""A reported energy taken apart: every joule as count x constant x scaling with its source, by share and by mark."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from ..workloads.errors import InputError, nearest
from .bands import banded
from .energy import EnergyReport, LedgerRow, energy
from .energy_table import EnergyTable, Table, load_table, with_bank
from .level import AnyResult, level_of, step_of
from .published import on_chip_pj, on_chip_words, published_machines
from .records import layer_of

__all__ = ["EnergyExplanation", "explain_energy", "table_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EnergyExplanation:
    """The energy of a step or of one layer of it; ``reported`` is what a folder of results said, if one was read."""

    result: AnyResult
    report: EnergyReport
    op: str | None
    step_joules: float
    reported: float | None

    @property
    def rows(self) -> tuple[LedgerRow, ...]:
        """Largest first."""
        return tuple(sorted(self.report.rows, key=lambda row: -row.zeptojoules))

    @property
    def notes(self) -> tuple[str, ...]:
        """What to know beside the figures."""
        table, kind = self.report.table, step_of(self.result).spec.dram.kind
        notes = [
            f"scaling: {table.scaling}",
            "bands: least and most with every figure at the ends of its own, which is rarer than any one of them there",
        ]
        dram = table.dram_of(kind)
        others = [
            f"{what} {figure.scaled:g}"
            for what, figure in (("random reads of 64 bytes", dram.random_read), ("a training mix", dram.training_mix))
            if figure is not None
        ]
        if others:
            notes.append(
                f"{kind}: sequential streams are charged, and with ops overlapped rows that short pieces open "
                f"again; {', '.join(others)} pJ/bit"
            )
        if self.reported is not None and self.reported != self.step_joules:
            notes.append(
                f"the folder says {self.reported:.6g} J, this is {self.step_joules:.6g} J: by another table, or by "
                "another version"
            )
        beside = on_chip_words(self.report)
        if beside is not None:
            notes += [beside, *(f"{m.name}: {m.counts}; {m.source} ({m.mark})" for m in published_machines())]
        return (*notes, *(f"not counted: {text}" for text in table.not_counted))

    def document(self) -> dict[str, Any]:
        """As the command line prints it; ``zeptojoules`` of the rows add up to that of the whole."""
        report, step = self.report, step_of(self.result)
        return {
            "model": step.workload.model,
            "scheme": step.workload.scheme,
            "machine": step.spec.name,
            "level": level_of(self.result),
            "table": report.table.name,
            "op": self.op,
            "zeptojoules": report.zeptojoules,
            **banded(report.band),
            "parts": {str(part): banded(spent) for part, spent in report.part_bands.items() if spent.likely},
            "on_chip_pj_per_mac": on_chip_pj(report),
            "published_pj_per_mac": {m.name: m.pj_per_mac for m in published_machines()},
            "step_j": self.step_joules,
            "reported_j": self.reported,
            "marks": {str(mark): joules for mark, joules in report.by_mark.items()},
            "rows": [
                {**row.document(), "share": row.zeptojoules / report.zeptojoules if report.zeptojoules else 0.0}
                for row in self.rows
            ],
            "notes": list(self.notes),
        }


def explain_energy(
    result: AnyResult, table: Table | None = None, op: str | None = None, reported: float | None = None
) -> EnergyExplanation:
    """Take the energy of ``result`` apart, of all ops or of those of a layer or name ``op``."""
    whole = energy(result, table)
    report = whole
    if op is not None:
        step = step_of(result)
        names = {r.op.name for r in step.ops} | {layer_of(r) for r in step.ops}
        if op not in names:
            raise InputError(f"--op {op!r} is no op of {step.workload.model}: {nearest(op, names)}")
        report = energy(result, whole.table, lambda r: op in (r.op.name, layer_of(r)))
    return EnergyExplanation(result=result, report=report, op=op, step_joules=whole.joules, reported=reported)


def table_of(technology: str, bank_kib: int | None) -> Table:
    """A table with buffers of other banks than it ships with."""
    table = load_table(technology)
    if bank_kib is None:
        return table
    node = re.fullmatch(r"asic-(\d+)nm", table.name)
    if not isinstance(table, EnergyTable) or node is None or technology != table.name:
        raise InputError(f"--bank {bank_kib}: only the tables asic-*nm know other banks, not {technology!r}")
    return with_bank(table, int(node[1]), bank_kib)
