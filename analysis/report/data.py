"""The figures of one run, cut the ways the page shows them; integers add up to the run's own."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from ...dataflow.account import Cycles, total
from ...simulator.result import OpResult
from ...simulator.system_result import SystemResult
from ...workloads.gemm import Pass
from ..bins import BINS, bin_levels
from ..declared import cycles_kind, figure_words
from ..dram_time import DramData, dram_over_time
from ..layer_groups import bar_labels, equal_layers, ops_of_bars
from ..op_groups import OpGroup, op_groups, op_word
from ..records import layer_of
from ..roofline import Roofline, roofline
from ..tensor_energy import energy_by_tensor
from .folder import Run

__all__ = ["OTHERS", "Bar", "Part", "RunData", "SystemData", "causes_of", "names_of"]

_PARTS = 40
"""Rows that one bar opens into; the rest is one more."""
OTHERS = "all others"


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One row that a bar opens into."""

    label: str
    cycles: dict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """Layers shown as one: cycles by cause, by pass, and what is inside."""

    label: str
    layers: int
    cycles: dict[str, int]
    passes: dict[Pass, int]
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemData:
    """Halves of buffers in use x bins x time in 1/rate cycles, in `BINS` equal parts of the step.

    ``length`` is the step in 1/``rate`` cycles.
    """

    length: int
    occupancy: dict[str, list[int]]


class RunData:
    """Every cut of one run, each made when it is asked for; ``names``: words of the causes, those of all runs shown."""

    def __init__(self, run: Run, names: dict[str, str] | None = None) -> None:
        self.run = run
        self.names = names or names_of([run])

    @cached_property
    def causes(self) -> dict[str, int]:
        """Cycles op after op, by cause."""
        return causes_of(self.run.result.ops, self.names)

    @cached_property
    def passes(self) -> dict[Pass, dict[str, int]]:
        """The same by pass."""
        return {p: causes_of(self.run.result.select(p), self.names) for p in Pass}

    @cached_property
    def bars(self) -> tuple[Bar, ...]:
        """The same by layer, few enough for a picture."""
        groups, equal = ops_of_bars(self.run.result), equal_layers(self.run.result)
        layers = {name: len({layer_of(r) for r in ops}) for name, ops in groups.items()}
        labels = bar_labels(layers)
        return tuple(
            Bar(
                label=label,
                layers=layers[name],
                cycles=causes_of(ops, self.names),
                passes={p: sum(r.cycles.total for r in ops if r.op.pass_ == p) for p in Pass},
                parts=_parts(ops, self.names, equal),
            )
            for label, (name, ops) in zip(labels, groups.items(), strict=True)
        )

    @cached_property
    def energy(self) -> dict[Pass, dict[str, int]]:
        """Zeptojoules by pass, and in it by tensor and part of the machine."""
        return energy_by_tensor(self.run.timed, self.run.energy)

    @cached_property
    def roofline(self) -> Roofline:
        """Every matrix op by itself."""
        return roofline(self.run.result)

    @cached_property
    def groups(self) -> tuple[OpGroup, ...]:
        """Ops that are alike as one, what loses most first."""
        return op_groups(self.run.result)

    @cached_property
    def dram(self) -> DramData | None:
        """DRAM over time; None of a step of more phases than are kept."""
        return dram_over_time(self.run.timed)

    @cached_property
    def system(self) -> SystemData | None:
        """What happened over time; None for a run op after op."""
        return None if self.run.system is None else _system(self.run.system)


def names_of(runs: Iterable[Run]) -> dict[str, str]:
    """Causes of all ``runs``, in the order and the words of the figures."""
    return figure_words(cycles_kind(r for run in runs for r in run.result.ops))


def causes_of(ops: Iterable[OpResult], names: Iterable[str]) -> dict[str, int]:
    """Cycles by cause, in the order of ``names``."""
    sums = total(Cycles, (r.cycles for r in ops))
    return {cause: getattr(sums, cause, 0) for cause in names}


def _parts(ops: Sequence[OpResult], names: dict[str, str], equal: dict[str, str]) -> tuple[Part, ...]:
    """Rows by layers of equal shape, or, where all are, by pass and op; the largest, then the others as one."""
    one, rows = len({equal[layer_of(r)] for r in ops}) == 1, defaultdict[str, list[OpResult]](list)
    for r in ops:
        rows[f"{r.op.pass_} {op_word(r)}" if one else equal[layer_of(r)]].append(r)
    largest = sorted(rows, key=lambda name: -sum(r.cycles.total for r in rows[name]))
    shown = set(largest[:_PARTS])
    kept = {name: some for name, some in rows.items() if name in shown}
    layers = {name: 1 if one else len({layer_of(r) for r in some}) for name, some in kept.items()}
    labels = bar_labels(layers) if not one else list(kept)
    parts = [
        Part(label=label, cycles=causes_of(some, names)) for label, some in zip(labels, kept.values(), strict=True)
    ]
    rest = [r for name in largest[_PARTS:] for r in rows[name]]
    return (*parts, *([Part(label=OTHERS, cycles=causes_of(rest, names))] if rest else []))


def _system(result: SystemResult) -> SystemData:
    length = int(result.end.max())
    happened = result.record()
    held = {} if happened is None else happened.buffers
    return SystemData(
        length=length,
        occupancy={
            name: bin_levels(one.time.tolist(), one.halves.tolist(), length, BINS) for name, one in held.items()
        },
    )
