"""What would make a run faster: the same step on machines with one thing better, scheduled and simulated anew."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from ...dataflow.accelerator import AcceleratorSpec
from ...simulator.step import simulate
from ...simulator.system import step_time
from ...workloads.errors import InputError
from ..scheduling import scheduled
from .folder import Run

__all__ = ["Lever", "levers"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lever:
    """One change of the machine, and the cycles of the step with it, at the level of the run."""

    change: str
    cycles: int


def levers(run: Run) -> tuple[Lever, ...]:
    """Every change, what brings most first; changes that the machine's limits forbid are left out."""
    result, found = run.result, []
    for change, spec in _better(result.spec):
        chosen = scheduled(result.workload, spec, result.objective)
        cycles = simulate(chosen).cycles.total if run.system is None else step_time(chosen)
        found.append(Lever(change=change, cycles=cycles))
    return tuple(sorted(found, key=lambda lever: lever.cycles))


def _better(spec: AcceleratorSpec) -> Iterator[tuple[str, AcceleratorSpec]]:
    latency = max(1, spec.pe.add_latency // 2)
    changes: tuple[tuple[str, Callable[[], AcceleratorSpec]], ...] = (
        ("twice the DRAM bandwidth", lambda: _doubled(spec, "dram", "bytes_per_second")),
        ("twice the rows of PEs", lambda: _doubled(spec, "array", "rows")),
        ("twice the columns of PEs", lambda: _doubled(spec, "array", "cols")),
        ("twice the words at the western edge", lambda: _doubled(spec, "array", "w2e_words")),
        ("an adder of half the latency", lambda: replace(spec, pe=replace(spec.pe, add_latency=latency))),
        ("twice the accumulators a PE", lambda: _doubled(spec, "pe", "accumulators")),
        ("buffers twice as large", lambda: _doubled(spec, "buffers", "w2e_bytes", "n2s_bytes", "output_bytes")),
        ("twice the vector lanes", lambda: _doubled(spec, "vector", "lanes")),
        ("twice the SORE lanes", lambda: _doubled(spec, "sore", "lanes")),
        ("twice the WUVE lanes", lambda: _doubled(spec, "wuve", "lanes")),
    )
    for name, make in changes:
        try:
            better = make()
        except InputError:
            continue
        if better != spec:
            yield name, better


def _doubled(spec: AcceleratorSpec, part: str, *names: str) -> AcceleratorSpec:
    of = getattr(spec, part)
    return replace(spec, **{part: replace(of, **{name: 2 * getattr(of, name) for name in names})})
