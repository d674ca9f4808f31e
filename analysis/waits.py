"""Whom a matrix op waits for. The simulator books a wait where it is spent; this books it where it would end.

- A mapping that makes the array wait may have been chosen to spare an engine, such as one that reduces an operand less
  often: what the best mapping with that engine relieved would save is the engine's.
- Where two of them cover the same time, relieving one alone changes nothing: such cycles are bound by both.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from ..dataflow.accelerator import AcceleratorSpec
from ..dataflow.account import Cycles
from ..dataflow.engines import evaluate, place, tiled
from ..dataflow.mapping import Mapping
from ..dataflow.objective import Objective
from ..dataflow.problem import memory_machine
from ..simulator.phases import expanded, phase_count, streaks_of
from ..simulator.result import OpResult
from ..simulator.step import MOST_STEPPED, macro_tiles
from ..workloads.errors import InputError
from ..workloads.operand import NMOperand
from ..workloads.step import MatrixOp
from .declared import losses_of

__all__ = ["BOTH", "DRAM", "INTERLEAVE", "PORTS", "SORE", "TIES", "waits"]

_LOST = losses_of(Cycles)
INTERLEAVE, PORTS = _LOST["interleave_stall"], _LOST["port_stall"]
DRAM, SORE = _LOST["dram_stall"], _LOST["sore"]
BOTH = "bound by both"
TIES = {
    frozenset((INTERLEAVE, PORTS)): f"{BOTH}: accumulators and ports",
    frozenset((INTERLEAVE, DRAM)): f"{BOTH}: accumulators and DRAM",
    frozenset((INTERLEAVE, SORE)): f"{BOTH}: accumulators and SORE",
    frozenset((PORTS, DRAM)): f"{BOTH}: ports and DRAM",
    frozenset((PORTS, SORE)): f"{BOTH}: ports and SORE",
    frozenset((DRAM, SORE)): f"{BOTH}: DRAM and SORE",
}
"""Names of what two causes bind at once."""

_LEAST = 1000
"""Waits below this part of an op are left where the simulator books them: to look closer takes a search."""
_RELIEF = 16
"""Times the DRAM rate that no op of this machine waits for any more."""
_MOST_LANES = 4096
_MOST_RATE = 10**15


@dataclass(slots=True)
class _Booked:
    """Waits of one op by cause, and what has been found to be bound by both."""

    alone: dict[str, int]
    both: dict[frozenset[str], int]

    def move(self, cycles: int, to: str) -> None:
        """Book ``cycles`` of all other waits, each by its share, on ``to`` instead."""
        for name, part in self._shares(cycles, tuple(name for name in self.alone if name != to)):
            self.alone[name] -= part
            self.alone[to] += part

    def tie(self, cycles: int, source: tuple[str, ...], other: str) -> None:
        """Book ``cycles`` of ``source``, each by its share, as bound by both it and ``other``."""
        for name, part in self._shares(cycles, source):
            pair = frozenset((name, other))
            self.alone[name] -= part
            self.both[pair] = self.both.get(pair, 0) + part

    def _shares(self, cycles: int, source: tuple[str, ...]) -> list[tuple[str, int]]:
        pool = sum(self.alone[name] for name in source)
        left = cycles = min(cycles, pool)
        parts = []
        for name in source:
            part = min(-(-cycles * self.alone[name] // pool), left) if pool else 0
            parts.append((name, part))
            left -= part
        return parts


def waits(result: OpResult, spec: AcceleratorSpec) -> dict[str, int]:
    """Cycles that a matrix op waits, by whom for; they add up to its stalls, DRAM and SORE cycles."""
    op, mapping, cycles = result.op, result.mapping, result.cycles
    assert isinstance(op, MatrixOp) and mapping is not None
    if sum(_waited(cycles).values()) * _LEAST < cycles.total:
        return _waited(cycles)
    shape = replace(op, name="", op="", parameter=None, kept_dense="", recompute=False)
    return dict(_waits(shape, mapping, cycles, spec))


def _waited(cycles: Cycles) -> dict[str, int]:
    return {INTERLEAVE: cycles.interleave_stall, PORTS: cycles.port_stall, DRAM: cycles.dram_stall, SORE: cycles.sore}


@lru_cache(maxsize=4096)
def _waits(op: MatrixOp, mapping: Mapping, cycles: Cycles, spec: AcceleratorSpec) -> tuple[tuple[str, int], ...]:
    booked = _Booked(_waited(cycles), {})
    gains = {SORE: _gain(op, spec, SORE) - cycles.sore, DRAM: _gain(op, spec, DRAM) - cycles.dram_stall}
    # Where either engine would do, the other has nothing left to gain.
    engine = max(gains, key=lambda name: gains[name])
    booked.move(max(gains[engine], 0), engine)
    _shadows(op, mapping, cycles, spec, booked)
    booked.tie(_both_in_array(op, mapping, cycles, spec, booked.alone[INTERLEAVE]), (INTERLEAVE,), PORTS)
    return (*booked.alone.items(), *((TIES[pair], n) for pair, n in booked.both.items() if n))


def _gain(op: MatrixOp, spec: AcceleratorSpec, engine: str) -> int:
    """Cycles that the best mapping is faster with an engine that nobody waits for; 0 where it has nothing to do.

    Also 0 for an op so large that it cannot be timed with a faster memory.
    """
    if engine == SORE:
        if not isinstance(op.sparse, NMOperand) or not (op.sparse.online or not spec.wuve.pregenerate):
            return 0
        relieved = replace(spec, sore=replace(spec.sore, lanes=_MOST_LANES))
    else:
        rate = min(_RELIEF * spec.dram.bytes_per_second, _MOST_RATE)
        relieved = replace(spec, dram=replace(spec.dram, bytes_per_second=rate))
    try:
        return _least(op, spec) - _least(op, relieved)
    except InputError:
        return 0


def _least(op: MatrixOp, spec: AcceleratorSpec) -> int:
    return place(op, spec, Objective.CYCLES).cycles.total


def _shadows(op: MatrixOp, mapping: Mapping, cycles: Cycles, spec: AcceleratorSpec, booked: _Booked) -> None:
    """Phases in which DRAM or SORE take as long as the array with its waits, or DRAM as long as SORE.

    Of an op with more phases than the step looks at nothing is found to be bound by both.
    """
    tiles, _, _ = macro_tiles(tiled(op, spec, mapping), spec)
    if phase_count(tiles) > MOST_STEPPED:
        return
    streaks, _ = streaks_of(tiles)
    phases = expanded(streaks)
    busy, transfer, sore = phases.busy, phases.transfer, phases.sore
    array = cycles.compute + cycles.interleave_stall + cycles.port_stall
    waiting = booked.alone[INTERLEAVE] + booked.alone[PORTS]
    computing = busy * ((array - waiting) / array)
    rate = memory_machine(spec).rate
    engine = np.maximum(transfer, sore)
    shadow = np.clip(np.minimum(busy, engine) - computing, 0, None)
    for name, covers in ((DRAM, transfer >= sore), (SORE, transfer < sore)):
        booked.tie(int(shadow[covers].sum() / rate), (INTERLEAVE, PORTS), name)
    booked.tie(int(np.clip(np.minimum(transfer, sore) - busy, 0, None).sum() / rate), (DRAM,), SORE)


def _both_in_array(op: MatrixOp, mapping: Mapping, cycles: Cycles, spec: AcceleratorSpec, waiting: int) -> int:
    """Of the waits for accumulators, those in which the ports have nothing to give either: they would come instead,
    were the adder as fast as the interleave."""
    if not waiting:
        return 0
    quick = evaluate(op, replace(spec, pe=replace(spec.pe, add_latency=1)), mapping).cycles
    instead = quick.compute + quick.port_stall - cycles.compute - cycles.port_stall
    return max(instead, 0) * waiting // cycles.interleave_stall
