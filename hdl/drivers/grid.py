"""What drives an array, of whatever PEs: a run in co-simulation, its buffers answered, and what left it in place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ...dataflow.stce.mapping import Dataflow
from ...workloads.gemm import Gemm
from ..blocks.banks import NAN, ArrayRun, Bits32, nest_of
from ..blocks.frame import Frame

__all__ = ["GridDriver", "Machine", "answer"]


class Machine(Protocol):
    """A simulated array: inputs by port, one value or one a cycle, to outputs by port and cycle."""

    def run(self, inputs: dict[str, Any]) -> dict[str, Any]: ...


class GridDriver:
    """Runs products on an array of ``frame`` in ``machine``."""

    def __init__(self, frame: Frame, machine: Machine) -> None:
        self.frame = frame
        self._machine = machine

    def _seen(
        self,
        mapping: ArrayRun,
        gemm: Gemm,
        registers: dict[str, int],
        operands: Callable[[dict[str, Any]], dict[str, Any]],
        *,
        cycles: int,
        ready: npt.NDArray[np.bool_] | None,
        hold: npt.NDArray[np.bool_] | None,
        schedule: Callable[[dict[str, Any]], tuple[dict[str, Any], dict[str, Any]]] | None = None,
    ) -> dict[str, Any]:
        """Outputs of every cycle of a run; ``operands`` answers the asks of one.

        The asks of a run depend on ``ready``, bool [cycles, cols], and ``hold``, bool [cycles], alone, so a first run
        finds them and a second one is given the answers, in as many cycles as the array is busy. If they depend on
        more, ``schedule`` adds that to the inputs, and says what it saw. Partial sums come back from the run before;
        each k-tile of WS takes one more.
        """
        fed: dict[str, Any] = {f"run__{name}": value for name, value in registers.items()}
        fed |= self._start_and_stalls(cycles, ready, hold)
        fed, seen = (fed, self._watch(fed)) if schedule is None else schedule(fed)
        length = int(np.flatnonzero(seen["busy"])[-1]) + 1
        if length == len(seen["busy"]):
            raise RuntimeError(f"{gemm} keeps the array busy for more than the given {cycles} cycles")
        fed, seen = (
            {name: values[:length] if np.ndim(values) else values for name, values in ports.items()}
            for ports in (fed, seen)
        )
        answers = fed | operands(seen)
        stationary = mapping.dataflow == Dataflow.WS
        words = registers["across"] * registers["parts"] * mapping.interleave
        for _ in range(registers["down"] if stationary else 1):
            before = seen
            seen = self._watch(answers | (self._partial_sums(before, words) if stationary else {}))
            _require_same_schedule(before, seen, self.frame.lead)
        return seen

    def _start_and_stalls(
        self, cycles: int, ready: npt.NDArray[np.bool_] | None, hold: npt.NDArray[np.bool_] | None
    ) -> dict[str, Bits32]:
        """Inputs for a run of ``cycles`` and the words of ragged edges that may follow it."""
        cols = self.frame.cols
        given = np.ones((0, cols), np.bool_) if ready is None else ready
        held = np.zeros(0, np.bool_) if hold is None else hold
        after = max(cycles, len(given), len(held)) + cols + 2
        lead = self.frame.lead
        start, holds = (np.zeros(lead + after, np.uint32) for _ in range(2))
        receivers = np.ones((lead + after, cols), np.uint32)
        start[0] = 1
        receivers[lead : lead + len(given)] = given
        holds[lead : lead + len(held)] = held
        return {"start": start, "hold": holds, **{f"south__{c}__ready": receivers[:, c] for c in range(cols)}}

    def _watch(self, fed: dict[str, Any]) -> dict[str, Any]:
        """Outputs of a run, and when a word was taken."""
        seen = self._machine.run(fed)
        ports = [f"south__{c}__" for c in range(self.frame.cols)]
        return seen | {f"{port}taken": seen[f"{port}valid"] & fed[f"{port}ready"] for port in ports}

    def _partial_sums(self, seen: dict[str, Any], words: int) -> dict[str, Any]:
        """The answers of an output buffer of ``words`` a column, written in turn by what left in the run before."""
        fed = {}
        for c in range(self.frame.cols):
            ticks = np.flatnonzero(seen["advance"])
            asking = np.flatnonzero(seen[f"sums_ask__{c}__valid"][ticks[: -self.frame.read_latency]])
            address = seen[f"sums_ask__{c}__address"][ticks[asking]].astype(np.int64)
            answered = ticks[asking + self.frame.read_latency]
            left = np.flatnonzero(seen[f"south__{c}__taken"])
            # what has left until the next array cycle, and nothing that leaves later, however late the answer
            written = np.searchsorted(left, ticks[asking + 1])
            latest = address + (written - 1 - address) // words * words
            if (latest < 0).any():
                early = answered[latest < 0][0] - self.frame.lead
                raise RuntimeError(f"column {c} uses in cycle {early} a sum yet to leave")
            sums = np.full(len(seen["advance"]), NAN << 16, np.uint32)
            sums[answered] = seen[f"south__{c}__word"][left[latest]]
            fed[f"sums__{c}"] = sums
        return fed

    def _collect(
        self, mapping: ArrayRun, gemm: Gemm, seen: dict[str, Any], made: dict[str, npt.NDArray[Any]]
    ) -> tuple[npt.NDArray[np.int64], int]:
        """Put what left each column into ``made``, [m, n] of any dtype by the port beside it, in its place.

        The cycles in which each left, [m, n], and the length of the run.
        """
        left = np.zeros((gemm.m, gemm.n), np.int64)
        cycles = 0
        for c in range(min(self.frame.cols, gemm.n)):
            times = np.flatnonzero(seen[f"south__{c}__taken"])
            rows, columns = self._places(mapping, gemm, c)
            if len(times) != len(rows):
                raise RuntimeError(f"{len(times)} words left column {c} in the given cycles instead of {len(rows)}")
            cycles = max(cycles, int(times[-1]) + 1 - self.frame.lead)
            inside = (rows < gemm.m) & (columns < gemm.n)
            where = rows[inside], columns[inside]
            for port, into in made.items():
                into[where] = seen[port.format(c)][times[inside]]
            left[where] = times[inside] - self.frame.lead
        return left, cycles

    def _places(self, mapping: ArrayRun, gemm: Gemm, c: int) -> tuple[Any, Any]:
        """Row and column of C of each word that leaves column ``c``."""
        rows, cols, contexts = self.frame.rows, self.frame.cols, mapping.interleave
        nest = nest_of(self.frame, mapping, gemm)
        if mapping.dataflow == Dataflow.OS:
            used = np.arange(min(rows, gemm.m))[::-1]
            down, across, row, i = np.ix_(np.arange(nest.down), np.arange(nest.across), used, np.arange(contexts))
            places = down * rows + row, (across * contexts + i) * cols + c
        else:
            _, across, row = np.ix_(np.arange(nest.down), np.arange(nest.across), np.arange(nest.parts * contexts))
            places = row, np.broadcast_to(across * cols + c, (nest.down, nest.across, nest.parts * contexts))
        return tuple(x.ravel() for x in np.broadcast_arrays(*places))  # type: ignore[return-value]


def _require_same_schedule(before: dict[str, Any], after: dict[str, Any], lead: int) -> None:
    """Whatever is valid, every address, and whether the array stands still, is the same in every run of a product."""
    for name in (name for name in before if name.endswith(("__valid", "__address", "advance", "busy"))):
        meant = before[name.replace("__address", "__valid")] == 1
        changed = np.flatnonzero((before[name] != after[name]) & (meant | (not name.endswith("__address"))))
        if len(changed):
            t = changed[0]
            raise RuntimeError(f"{name} is {after[name][t]} in cycle {t - lead}, but was {before[name][t]} before")


def answer(
    seen: dict[str, Any], ask: str, bank: npt.NDArray[Any], lane: int, nothing: Any, latency: int = 1
) -> npt.NDArray[Any]:
    """What ``bank``, of any dtype and any shape behind its first axis, shows: in an array cycle the word ``lane`` after
    the one asked for ``latency`` array cycles before, else ``nothing``."""
    ticks = np.flatnonzero(seen["advance"])
    valid, address = seen[f"{ask}__valid"][ticks] == 1, seen[f"{ask}__address"][ticks].astype(np.int64)
    if (address[valid] >= len(bank)).any():
        raise RuntimeError(f"{ask} is for word {address[valid].max()}, but the bank holds {len(bank)}")
    filled = np.concatenate([bank, np.full((lane + 1, *bank.shape[1:]), nothing, bank.dtype)])
    given = filled[np.where(valid, address + lane, len(bank))]
    shown = np.full((len(seen["advance"]), *bank.shape[1:]), nothing, bank.dtype)
    shown[ticks[latency:]] = given[:-latency]
    return shown
