"""The figures of one run, cut the ways the page shows them; integers add up to the run's own."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

from ...dataflow.account import Cycles, total
from ...simulator.channels import channels, engine_names
from ...simulator.result import OpResult, SimResult
from ...simulator.system_result import SystemResult
from ...workloads.gemm import Pass
from ..declared import cycles_kind, figure_words
from ..layer_groups import bar_labels, equal_layers, ops_of_bars
from ..op_groups import OpGroup, op_groups, op_word
from ..records import layer_of
from ..roofline import Roofline, roofline
from ..tensor_energy import energy_by_tensor
from .bins import bin_amounts, bin_levels
from .folder import Run

__all__ = ["BINS", "OTHERS", "Bar", "DramData", "Part", "RunData", "SystemData", "causes_of", "names_of"]

BINS = 240
"""Points of a line over time: about one for every three pixels of a wide screen."""
_PARTS = 40
"""Rows that one bar opens into; the rest is one more."""
OTHERS = "all others"
_KINDS = {"matrix": "products", "vector": "vector work", "update": "updates"}


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
class DramData:
    """Bytes in `BINS` equal parts of a step of ``length`` 1/``rate`` cycles, by pass, and by pass and who asks."""

    length: int
    rate: int
    moved: dict[Pass, list[int]]
    asked: dict[str, dict[Pass, int]]


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
        return _dram(self.run)

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


def _dram(run: Run) -> DramData | None:
    """With ops overlapped every transfer, as it was served; op after op the bytes of each, spread over its time."""
    if run.system is None:
        return _op_after_op(run.result)
    happened, length = run.system.record(), int(run.system.end.max())
    if happened is None:
        return None
    dram, ops = happened.timeline["DRAM"], run.result.ops
    passes = [Pass(ops[op].op.pass_) for op in dram.op.tolist()]
    asked = {}
    for name, numbers in _askers(run.system):
        mine = dict.fromkeys(Pass, 0)
        for p, channel, n in zip(passes, dram.channel.tolist(), dram.moved.tolist(), strict=True):
            mine[p] += n if channel in numbers else 0
        asked[name] = mine
    moved = _binned(dram.start.tolist(), dram.end.tolist(), dram.moved.tolist(), passes, length)
    return DramData(length=length, rate=run.system.rate, moved=moved, asked=asked)


def _op_after_op(result: SimResult) -> DramData:
    ends = list(accumulate(r.cycles.total for r in result.ops))
    starts = [end - r.cycles.total for end, r in zip(ends, result.ops, strict=True)]
    amounts, passes = [r.counts.dram_bytes for r in result.ops], [Pass(r.op.pass_) for r in result.ops]
    asked = {
        word: {p: sum(r.counts.dram_bytes for r in result.select(p) if r.op.kind == kind) for p in Pass}
        for kind, word in _KINDS.items()
    }
    length = max(result.cycles.total, 1)
    return DramData(length=length, rate=1, moved=_binned(starts, ends, amounts, passes, length), asked=asked)


def _askers(result: SystemResult) -> Iterator[tuple[str, list[int]]]:
    """Who moves bytes, and by which channels; the only engine for products is "array"."""
    names = engine_names(result.step.spec)
    alone, every = len(names.products) == 1, list(enumerate(channels(len(names.products))))
    for engine in dict.fromkeys(channel.engine for _, channel in every):
        numbers = [number for number, channel in every if channel.engine == engine]
        yield ("array" if alone and engine == 0 else names.engines[engine]), numbers


def _binned(
    starts: Sequence[int], ends: Sequence[int], amounts: Sequence[int], passes: Sequence[Pass], length: int
) -> dict[Pass, list[int]]:
    made = {}
    for p in Pass:
        mine = [i for i, one in enumerate(passes) if one is p and amounts[i]]
        if mine:
            start, end, amount = ([column[i] for i in mine] for column in (starts, ends, amounts))
            made[p] = bin_amounts(start, end, amount, length, BINS)
    return made
