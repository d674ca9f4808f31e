"""The figures of one run, cut the ways the page shows them; integers add up to the run's own."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from ...dataflow.account import Cycles, total
from ...simulator.channels import channels, engine_names
from ...simulator.result import OpResult
from ...simulator.system_result import Intervals, SystemResult
from ...workloads.gemm import Pass
from ..declared import cycles_kind, figure_words
from ..layer_groups import bar_labels, equal_layers, ops_of_bars
from ..op_groups import OpGroup, op_groups, op_word
from ..records import layer_of
from ..roofline import Roofline, roofline
from ..tensor_energy import energy_by_tensor
from .bins import bin_amounts, bin_levels
from .folder import Run

__all__ = ["BINS", "OTHERS", "Bar", "Part", "RunData", "SystemData", "causes_of", "names_of"]

BINS = 240
"""Points of a line over time: about one for every three pixels of a wide screen."""
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
    """The step over time in `BINS` equal parts: bytes by who asked, halves of buffers x bins x time in 1/rate cycles.

    ``length`` is the step in 1/``rate`` cycles.
    """

    length: int
    rate: int
    moved: dict[str, list[int]]
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
    if happened is None:
        return SystemData(length=length, rate=result.rate, moved={}, occupancy={})
    dram = happened.timeline["DRAM"]
    return SystemData(
        length=length,
        rate=result.rate,
        moved={name: _moved(dram, numbers, length) for name, numbers in _askers(result)},
        occupancy={
            name: bin_levels(held.time.tolist(), held.halves.tolist(), length, BINS)
            for name, held in happened.buffers.items()
        },
    )


def _askers(result: SystemResult) -> Iterator[tuple[str, list[int]]]:
    """Who moves bytes, and by which channels; the only engine for products is "array"."""
    names = engine_names(result.step.spec)
    alone, every = len(names.products) == 1, list(enumerate(channels(len(names.products))))
    for engine in dict.fromkeys(channel.engine for _, channel in every):
        numbers = [number for number, channel in every if channel.engine == engine]
        yield ("array" if alone and engine == 0 else names.engines[engine]), numbers


def _moved(dram: Intervals, numbers: Sequence[int], length: int) -> list[int]:
    mine = [i for i, channel in enumerate(dram.channel.tolist()) if channel in numbers]
    start, end, moved = (column[mine].tolist() for column in (dram.start, dram.end, dram.moved))
    return bin_amounts(start, end, moved, length, BINS)
