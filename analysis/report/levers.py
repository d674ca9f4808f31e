"""What would make a run faster: the same step on machines with one thing better, or two of which neither helps alone.

Every one is scheduled and simulated anew. Op after op, where the objective is time, for strictly least cycles, as is
the run's own machine: the default gives away up to 1/128 for fewer bytes. With ops overlapped those bytes are time of
others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace

from ...dataflow.accelerator import AcceleratorSpec
from ...dataflow.objective import Objective
from ...simulator.step import simulate
from ...simulator.system import step_time
from ...workloads.errors import InputError
from ..compare import losses
from ..scheduling import scheduled
from ..waits import DRAM, INTERLEAVE, PORTS, SORE, TIES
from .folder import Run

__all__ = ["Lever", "Levers", "levers"]

Change = Callable[[AcceleratorSpec], AcceleratorSpec]

_TIED = 0.005
"""Share of the step that two causes must bind at once for their changes to be tried together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lever:
    """One change of the machine, or a pair, and the cycles of the step with it, at the level of the run."""

    change: str
    cycles: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Levers:
    """``cycles`` of the run's own machine, and every change, what brings most first."""

    cycles: int
    changes: tuple[Lever, ...]

    def gain(self, lever: Lever) -> float:
        """Times as fast."""
        return self.cycles / lever.cycles


def levers(run: Run) -> Levers:
    """Every change by itself, and in pairs those of causes that bind the step together.

    Changes that the machine's limits forbid are left out.
    """
    spec = run.result.spec
    singles = {name: change for name, change in _CHANGES.items() if _applied(spec, change) is not None}
    changes: dict[str, tuple[Change, ...]] = {name: (change,) for name, change in singles.items()}
    for one, other in _tied(run):
        if one in singles and other in singles:
            changes[f"{one} and {other}"] = (singles[one], singles[other])
    found = []
    for name, both in changes.items():
        better = spec
        for change in both:
            better = change(better)
        with suppress(InputError):  # LUTs that nobody has counted with this change, or a mapping that it does not allow
            found.append(Lever(change=name, cycles=_cycles(run, better)))
    return Levers(cycles=_cycles(run, spec), changes=tuple(sorted(found, key=lambda lever: lever.cycles)))


def _cycles(run: Run, spec: AcceleratorSpec) -> int:
    objective = run.result.objective
    if run.system is None and not objective.priced:
        objective = Objective.CYCLES
    by_shape = run.system is not None and run.system.by_shape
    chosen = scheduled(run.result.workload, spec, objective, mapping=run.result.mapping, by_shape=by_shape)
    return simulate(chosen).cycles.total if run.system is None else step_time(chosen)


def _doubled(part: str, *names: str) -> Change:
    def change(spec: AcceleratorSpec) -> AcceleratorSpec:
        of = getattr(spec, part)
        return replace(spec, **{part: replace(of, **{name: 2 * getattr(of, name) for name in names})})

    return change


def _quicker_adder(spec: AcceleratorSpec) -> AcceleratorSpec:
    return replace(spec, pe=replace(spec.pe, add_latency=max(1, spec.pe.add_latency // 2)))


_MORE_DRAM, _MORE_WORDS = "twice the DRAM bandwidth", "twice the words at the western edge"
_ADDER, _MORE_LANES = "an adder of half the latency", "twice the SORE lanes"
_CHANGES: dict[str, Change] = {
    _MORE_DRAM: _doubled("dram", "bytes_per_second"),
    "twice the rows of PEs": _doubled("array", "rows"),
    "twice the columns of PEs": _doubled("array", "cols"),
    _MORE_WORDS: _doubled("array", "w2e_words"),
    _ADDER: _quicker_adder,
    "twice the accumulators a PE": _doubled("pe", "accumulators"),
    "buffers twice as large": _doubled("buffers", "w2e_bytes", "n2s_bytes", "output_bytes"),
    "twice the vector lanes": _doubled("vector", "lanes"),
    _MORE_LANES: _doubled("sore", "lanes"),
    "twice the WUVE lanes": _doubled("wuve", "lanes"),
}
_REMEDY = {INTERLEAVE: _ADDER, PORTS: _MORE_WORDS, DRAM: _MORE_DRAM, SORE: _MORE_LANES}


def _applied(spec: AcceleratorSpec, change: Change) -> AcceleratorSpec | None:
    """The better machine; None where there is none."""
    try:
        better = change(spec)
    except InputError:
        return None
    return better if better != spec else None


def _tied(run: Run) -> Iterator[tuple[str, str]]:
    """Changes that help only together, as the step waits for what both of them relieve."""
    lost = losses(run.result)
    for pair, item in TIES.items():
        if lost.get(item, 0) >= _TIED * run.result.cycles.total:
            one, other = (remedy for cause, remedy in _REMEDY.items() if cause in pair)
            yield one, other
