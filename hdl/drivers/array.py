"""What drives the array: a run in co-simulation, its buffers answered, and what left it in place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ...dataflow.accelerator import AcceleratorSpec
from ...dataflow.stce.mapping import ArrayMapping, Dataflow
from ...workloads.gemm import Gemm
from ..blocks.array import Stce
from ..blocks.banks import BUBBLE, NAN, Banks, Bits32, Index, banks, nest_of, run_registers
from ..blocks.control_format import LEAD
from ..flow.cosim import Cosim

__all__ = ["Machine", "RtlRun", "StceDriver"]


@dataclass(frozen=True, slots=True, eq=False)
class RtlRun:
    """``result`` bits of FP32 and ``left`` int64, both [m, n], and the length of the run."""

    result: Bits32
    left: npt.NDArray[np.int64]
    cycles: int


class Machine(Protocol):
    """A simulated `Stce`: inputs by port, one value or one a cycle, to outputs by port and cycle."""

    def run(self, inputs: dict[str, Any]) -> dict[str, Any]: ...


class StceDriver:
    """Runs products on the array of ``spec`` in ``machine``, by default a co-simulation, built once for all of them."""

    def __init__(self, spec: AcceleratorSpec, machine: Machine | None = None) -> None:
        self.spec = spec
        if machine is None:
            array = Stce(spec, blackbox=True)
            machine = Cosim(array, parts=array.parts)
        self._machine = machine

    def run(
        self,
        mapping: ArrayMapping,
        gemm: Gemm,
        a: npt.NDArray[Any],
        values: npt.NDArray[Any],
        indices: Index,
        *,
        cycles: int,
        ready: npt.NDArray[np.bool_] | None = None,
    ) -> RtlRun:
        """C = A B with ``a`` [m, k], and B as the pairs ``values``, ``indices`` [slots, n] of ``mapping.pattern``.

        Operands are 16-bit words in the format of the machine, of any dtype.

        ``cycles`` bounds the length of the run. ``ready`` [cycles, cols] says when a receiver takes what leaves a
        column, from cycle 0 on; by default, and after its last cycle, always. The asks of a run depend on ``ready``
        alone, so a first run finds them and a second one is given the answers, in as many cycles as the array is busy.
        Partial sums come back from the run before; each k-tile of WS takes one more.
        """
        registers = run_registers(self.spec, mapping, gemm)
        filled = banks(self.spec, mapping, gemm, a.view(np.uint16), values.view(np.uint16), indices)
        fed: dict[str, Any] = {f"run__{name}": value for name, value in registers.items()}
        fed |= self._start_and_receivers(cycles, ready)
        seen = self._watch(fed)
        length = int(np.flatnonzero(seen["busy"])[-1]) + 1
        if length == len(seen["busy"]):
            raise RuntimeError(f"{gemm} keeps the array busy for more than the given {cycles} cycles")
        fed, seen = (
            {name: values[:length] if np.ndim(values) else values for name, values in ports.items()}
            for ports in (fed, seen)
        )
        answers = fed | self._operands(seen, filled)
        stationary = mapping.dataflow == Dataflow.WS
        words = registers["across"] * registers["parts"] * mapping.interleave
        for _ in range(registers["down"] if stationary else 1):
            before = seen
            seen = self._watch(answers | (self._partial_sums(before, words) if stationary else {}))
            _require_same_schedule(before, seen)
        return self._collect(mapping, gemm, seen)

    def _start_and_receivers(self, cycles: int, ready: npt.NDArray[np.bool_] | None) -> dict[str, Bits32]:
        """Inputs for a run of ``cycles`` and the words of ragged edges that may follow it."""
        cols = self.spec.array.cols
        given = np.ones((0, cols), np.bool_) if ready is None else ready
        after = max(cycles, len(given)) + cols + 2
        start, receivers = np.zeros(LEAD + after, np.uint32), np.ones((LEAD + after, cols), np.uint32)
        start[0] = 1
        receivers[LEAD : LEAD + len(given)] = given
        return {"start": start, **{f"south__{c}__ready": receivers[:, c] for c in range(cols)}}

    def _watch(self, fed: dict[str, Any]) -> dict[str, Any]:
        """Outputs of a run, and when a word was taken."""
        seen = self._machine.run(fed)
        ports = [f"south__{c}__" for c in range(self.spec.array.cols)]
        return seen | {f"{port}taken": seen[f"{port}valid"] & fed[f"{port}ready"] for port in ports}

    def _operands(self, seen: dict[str, Any], filled: Banks) -> dict[str, Any]:
        """The answers of the operand buffers, an array cycle after the asks."""
        fed = {}
        for r, bank in enumerate(filled.west):
            for x in range(self.spec.array.w2e_words):
                fed[f"west__{r}__{x}"] = _answer(seen, f"west_ask__{r}", bank, x)
        for c in range(self.spec.array.cols):
            value = _answer(seen, f"north_ask__{c}", filled.values[c], 0)
            index = _answer(seen, f"north_ask__{c}", filled.indices[c], 0)
            bubble = index == BUBBLE
            fed[f"north__{c}__valid"] = (~bubble).astype(np.uint32)
            fed[f"north__{c}__value"] = np.where(bubble, NAN, value)
            fed[f"north__{c}__index"] = np.where(bubble, 1, index)
        return fed

    def _partial_sums(self, seen: dict[str, Any], words: int) -> dict[str, Any]:
        """The answers of an output buffer of ``words`` a column, written in turn by what left in the run before."""
        fed = {}
        for c in range(self.spec.array.cols):
            ticks = np.flatnonzero(seen["advance"])
            asking = np.flatnonzero(seen[f"sums_ask__{c}__valid"][ticks[:-1]])
            address = seen[f"sums_ask__{c}__address"][ticks[asking]].astype(np.int64)
            answered = ticks[asking + 1]
            left = np.flatnonzero(seen[f"south__{c}__taken"])
            written = np.searchsorted(left, answered)
            latest = address + (written - 1 - address) // words * words
            if (latest < 0).any():
                early = answered[latest < 0][0] - LEAD
                raise RuntimeError(f"column {c} uses in cycle {early} a sum yet to leave")
            sums = np.full(len(seen["advance"]), NAN << 16, np.uint32)
            sums[answered] = seen[f"south__{c}__word"][left[latest]]
            fed[f"sums__{c}"] = sums
        return fed

    def _collect(self, mapping: ArrayMapping, gemm: Gemm, seen: dict[str, Any]) -> RtlRun:
        """Put what left each column in order where it belongs."""
        result, left = np.zeros((gemm.m, gemm.n), np.uint32), np.zeros((gemm.m, gemm.n), np.int64)
        cycles = 0
        for c in range(min(self.spec.array.cols, gemm.n)):
            times = np.flatnonzero(seen[f"south__{c}__taken"])
            rows, columns = self._places(mapping, gemm, c)
            if len(times) != len(rows):
                raise RuntimeError(f"{len(times)} words left column {c} in the given cycles instead of {len(rows)}")
            cycles = max(cycles, int(times[-1]) + 1 - LEAD)
            inside = (rows < gemm.m) & (columns < gemm.n)
            where = rows[inside], columns[inside]
            result[where] = seen[f"south__{c}__word"][times[inside]]
            left[where] = times[inside] - LEAD
        return RtlRun(result, left, cycles)

    def _places(self, mapping: ArrayMapping, gemm: Gemm, c: int) -> tuple[Any, Any]:
        """Row and column of C of each word that leaves column ``c``."""
        rows, cols, contexts = self.spec.array.rows, self.spec.array.cols, mapping.interleave
        nest = nest_of(self.spec, mapping, gemm)
        if mapping.dataflow == Dataflow.OS:
            used = np.arange(min(rows, gemm.m))[::-1]
            down, across, row, i = np.ix_(np.arange(nest.down), np.arange(nest.across), used, np.arange(contexts))
            places = down * rows + row, (across * contexts + i) * cols + c
        else:
            _, across, row = np.ix_(np.arange(nest.down), np.arange(nest.across), np.arange(nest.parts * contexts))
            places = row, np.broadcast_to(across * cols + c, (nest.down, nest.across, nest.parts * contexts))
        return tuple(x.ravel() for x in np.broadcast_arrays(*places))  # type: ignore[return-value]


def _require_same_schedule(before: dict[str, Any], after: dict[str, Any]) -> None:
    """Whatever is valid, every address, and whether the array stands still, is the same in every run of a product."""
    for name in (name for name in before if name.endswith(("__valid", "__address", "advance", "busy"))):
        meant = before[name.replace("__address", "__valid")] == 1
        changed = np.flatnonzero((before[name] != after[name]) & (meant | (not name.endswith("__address"))))
        if len(changed):
            t = changed[0]
            raise RuntimeError(f"{name} is {after[name][t]} in cycle {t - LEAD}, but was {before[name][t]} before")


def _answer(seen: dict[str, Any], ask: str, bank: npt.NDArray[Any], lane: int) -> Bits32:
    """What a bank shows: in an array cycle the word ``lane`` after the one asked for in that before, else noise."""
    ticks = np.flatnonzero(seen["advance"])
    valid, address = seen[f"{ask}__valid"][ticks] == 1, seen[f"{ask}__address"][ticks].astype(np.int64)
    if (address[valid] >= len(bank)).any():
        raise RuntimeError(f"{ask} is for word {address[valid].max()}, but the bank holds {len(bank)}")
    filled = np.append(bank, np.full(lane + 1, BUBBLE if bank.dtype == np.uint8 else NAN, bank.dtype))
    answer = filled[np.where(valid, address + lane, len(bank))]
    shown = np.full(len(seen["advance"]), filled[-1], np.uint32)
    shown[ticks[1:]] = answer[:-1]
    return shown
