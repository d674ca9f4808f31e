"""Energy a multiply-accumulate, on chip, beside that of machines that others built."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources

from ..dataflow.actions import Component
from ..workloads.mark import Mark
from ..workloads.strict import read_toml
from .energy import EnergyReport

__all__ = ["PublishedMachine", "on_chip_pj", "on_chip_words", "published_machines"]

_STRICT = {"extra": "forbid"}


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedMachine:
    """``gflops_per_watt`` as its source has it, or its operations over its watts; ``counts``: what is in it."""

    __pydantic_config__ = _STRICT
    name: str
    node: str
    format: str
    gflops_per_watt: float
    counts: str
    mark: Mark
    source: str

    @property
    def pj_per_mac(self) -> float:
        """Two operations are one multiply-accumulate."""
        return 2000 / self.gflops_per_watt


@dataclass(frozen=True, slots=True, kw_only=True)
class _Machines:
    __pydantic_config__ = _STRICT
    machines: tuple[PublishedMachine, ...]


@cache
def published_machines() -> tuple[PublishedMachine, ...]:
    """Those that ship."""
    text = (resources.files(__package__) / "tables" / "machines.toml").read_text(encoding="utf-8")
    return read_toml(_Machines, text, "machines.toml").machines


def on_chip_pj(report: EnergyReport) -> float | None:
    """Picojoules of all but DRAM over the multiply-accumulates that were issued; None of a step without any."""
    if not report.macs:
        return None
    spent = report.joules - report.by_component[Component.DRAM]
    return spent * 1e12 / report.macs


def on_chip_words(report: EnergyReport) -> str | None:
    """The figure, and how far from it others are."""
    own = on_chip_pj(report)
    if own is None:
        return None
    others = "; ".join(
        f"{m.name} {m.pj_per_mac:.3g} ({m.node}, {m.mark}, {m.pj_per_mac / own:.2g} times ours)"
        for m in published_machines()
    )
    ours = f"On chip {own:.3g} pJ a multiply-accumulate by table {report.table.name}."
    return f"{ours} Published machines, each at its own node: {others}."
