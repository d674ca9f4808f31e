"""What drives the RTL: run registers, the contents of the operand buffers, and a run in co-simulation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ..dataflow.accelerator import AcceleratorSpec
from ..dataflow.mapping import ArrayMapping, Dataflow
from ..workloads.errors import InputError
from ..workloads.gemm import Gemm
from ..workloads.sparsity import NMPattern
from .array import Stce
from .control import ADDRESS_BITS, COUNT_BITS
from .cosim import Cosim

__all__ = ["LEAD", "Banks", "Machine", "RtlRun", "StceDriver", "banks", "run_registers"]

LEAD = 3
"""Cycles from that of ``start`` to cycle 0 of the run."""

Bits16 = npt.NDArray[np.uint16]
Bits32 = npt.NDArray[np.uint32]
Index = npt.NDArray[np.uint8]
_BUBBLE = 255
_NAN = 0x7FFF
"""A NaN in either format: what stands where nothing may look at it."""


@dataclass(frozen=True, slots=True)
class _Nest:
    """The loops of a run: parts of a contraction run, runs, tiles that repeat the dense operand, tiles that do not."""

    parts: int
    runs: int
    across: int
    down: int


def _ceil_div(a: int, b: int) -> int:
    return -(-a // b)


def _nest(spec: AcceleratorSpec, mapping: ArrayMapping, gemm: Gemm) -> _Nest:
    groups, runs = _ceil_div(gemm.run, mapping.pattern.group), gemm.k // gemm.run
    if mapping.dataflow == Dataflow.OS:
        across = _ceil_div(gemm.n, spec.array.cols * mapping.interleave)
        return _Nest(groups, runs, across, _ceil_div(gemm.m, spec.array.rows))
    down = _ceil_div(groups * runs, spec.array.rows)
    return _Nest(_ceil_div(gemm.m, mapping.interleave), 1, _ceil_div(gemm.n, spec.array.cols), down)


def run_registers(spec: AcceleratorSpec, mapping: ArrayMapping, gemm: Gemm) -> dict[str, int]:
    """The ``run`` ports of `Stce` for one product."""
    mapping.check(spec)
    if gemm.groups != 1:
        raise InputError(f"a run of the array is one product, but {gemm} has {gemm.groups}; run them one by one")
    nest = _nest(spec, mapping, gemm)
    for name in ("parts", "runs", "across", "down"):
        if getattr(nest, name) >> COUNT_BITS:
            raise InputError(
                f"{gemm} takes {getattr(nest, name)} {name}, but a loop counter of the array has {COUNT_BITS} bits; "
                f"cut it into macro-tiles"
            )
    keep, group, contexts = mapping.pattern.keep, mapping.pattern.group, mapping.interleave
    stationary = mapping.dataflow == Dataflow.WS
    words = group * contexts if stationary else group
    rest = gemm.run % group or group
    return {
        "weight_stationary": int(stationary),
        "interleave": contexts,
        "part_words": words,
        "rest_words": words if stationary else rest,
        "part_pairs": keep,
        "rest_pairs": keep if stationary else min(keep, rest),
        "parts": nest.parts,
        "runs": nest.runs,
        "across": nest.across,
        "down": nest.down,
        "offset_step": group if stationary else 0,
        "row_delay": (keep - 1) * max(contexts, spec.pe.add_latency) + spec.pe.add_latency if stationary else 1,
        "drain_words": 0 if stationary else min(spec.array.rows, gemm.m) * contexts,
        "shift_pairs": keep * spec.array.rows if stationary else 0,
        "tap": keep - 1 if stationary else 0,
        "tail_cycles": _tail_cycles(spec, mapping, gemm),
    }


def _tail_cycles(spec: AcceleratorSpec, mapping: ArrayMapping, gemm: Gemm) -> int:
    """Array cycles from the controller's last, two ahead of the end of the last pair, to the last word, inclusive."""
    pace = max(mapping.interleave, spec.pe.add_latency)
    if mapping.dataflow == Dataflow.OS:
        words = min(spec.array.rows, gemm.m) * mapping.interleave
        return spec.mac_latency + spec.array.rows - 1 + spec.array.cols - 1 + words - pace + 2
    row_delay = (mapping.pattern.keep - 1) * pace + spec.pe.add_latency
    issued = mapping.pattern.keep * pace
    last = spec.pe.multiply_latency + spec.array.rows * row_delay + mapping.interleave - 1 + spec.array.cols - 1
    return last - issued + 3


@dataclass(frozen=True, slots=True, eq=False)
class Banks:
    """Contents of the operand buffers as the array's addresses count them.

    ``west`` [rows, words]: bits of the dense operand; ``values`` and ``indices`` [cols, pairs].
    """

    west: Bits16
    values: Bits16
    indices: Index


def banks(spec: AcceleratorSpec, mapping: ArrayMapping, gemm: Gemm, a: Bits16, values: Bits16, indices: Index) -> Banks:
    """Lay out bits of ``a`` [m, k] and of the pairs ``values``, ``indices`` [slots, n] in the order of their use."""
    if mapping.dataflow == Dataflow.OS:
        west = _west_os(spec, a)
        order = _pairs_os(spec, mapping, gemm, len(values))
    else:
        west = _west_ws(spec, mapping, gemm, a)
        order = _pairs_ws(spec, mapping, gemm)
    slot, column = order
    if max(west.shape[1], slot.shape[1]) >> ADDRESS_BITS:
        raise InputError(f"{gemm} needs more than the 2^{ADDRESS_BITS} words of a bank; cut it into macro-tiles")
    outside = (slot < 0) | (column >= gemm.n)
    slot, column = np.where(outside, 0, slot), np.where(outside, 0, column)
    return Banks(
        west=west,
        values=np.where(outside, np.uint16(_NAN), values[slot, column]),
        indices=np.where(outside, np.uint8(_BUBBLE), indices[slot, column]),
    )


def _west_os(spec: AcceleratorSpec, a: Bits16) -> Bits16:
    """Bank ``r``: rows ``r``, ``R + r``, ``2 R + r``... of A."""
    rows, (m, k) = spec.array.rows, a.shape
    padded = np.full((_ceil_div(m, rows) * rows, k), _NAN, np.uint16)
    padded[:m] = a
    return np.ascontiguousarray(padded.reshape(-1, rows, k).transpose(1, 0, 2)).reshape(rows, -1)


def _pairs_os(spec: AcceleratorSpec, mapping: ArrayMapping, gemm: Gemm, slots: int) -> tuple[Any, Any]:
    """Slot and column of B of each pair of each bank: by tile across, slot, context."""
    cols, contexts = spec.array.cols, mapping.interleave
    across = _ceil_div(gemm.n, cols * contexts)
    c, tile, slot, i = np.ix_(*(np.arange(n) for n in (cols, across, slots, contexts)))
    slot, column = np.broadcast_arrays(slot, (tile * contexts + i) * cols + c)
    return slot.reshape(cols, -1), column.reshape(cols, -1)


def cut_groups(pattern: NMPattern, k: int, run: int) -> tuple[Any, Any, Any]:
    """Start, length and pairs of each group of a contraction of ``k`` in runs of ``run``."""
    within = np.arange(0, run, pattern.group)
    start = (np.arange(0, k, run)[:, None] + within).ravel()
    length = np.tile(np.minimum(pattern.group, run - within), k // run)
    return start, length, np.minimum(pattern.keep, length)


def _west_ws(spec: AcceleratorSpec, mapping: ArrayMapping, gemm: Gemm, a: Bits16) -> Bits16:
    """Bank ``r``: by k-tile and row of A, the words of group ``r`` of the k-tile, short groups filled up."""
    rows, group, contexts = spec.array.rows, mapping.pattern.group, mapping.interleave
    start, length, _ = cut_groups(mapping.pattern, gemm.k, gemm.run)
    down = _ceil_div(len(start), rows)
    west = np.full((rows, down, _ceil_div(gemm.m, contexts) * contexts, group), _NAN, np.uint16)
    for g, (first, words) in enumerate(zip(start, length, strict=True)):
        west[g % rows, g // rows, : gemm.m, :words] = a[:, first : first + words]
    return west.reshape(rows, -1)


def _pairs_ws(spec: AcceleratorSpec, mapping: ArrayMapping, gemm: Gemm) -> tuple[Any, Any]:
    """Slot and column of each pair of each bank: by k-tile, n-tile, the southernmost row's last pair first."""
    rows, cols, keep = spec.array.rows, spec.array.cols, mapping.pattern.keep
    _, _, kept = cut_groups(mapping.pattern, gemm.k, gemm.run)
    down, across = _ceil_div(len(kept), rows), _ceil_div(gemm.n, cols)
    slots = np.full((down * rows, keep), -1)
    held = np.arange(keep) < kept[:, None]
    slots[: len(kept)][held] = np.arange(held.sum())
    shifted = slots.reshape(down, rows * keep)[:, ::-1]
    c, _, tile, _ = np.ix_(*(np.arange(n) for n in (cols, down, across, rows * keep)))
    slot, column = np.broadcast_arrays(shifted[None, :, None, :], tile * cols + c)
    return slot.reshape(cols, -1), column.reshape(cols, -1)


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
            bubble = index == _BUBBLE
            fed[f"north__{c}__valid"] = (~bubble).astype(np.uint32)
            fed[f"north__{c}__value"] = np.where(bubble, _NAN, value)
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
            sums = np.full(len(seen["advance"]), _NAN << 16, np.uint32)
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
        nest = _nest(self.spec, mapping, gemm)
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
    filled = np.append(bank, np.full(lane + 1, _BUBBLE if bank.dtype == np.uint8 else _NAN, bank.dtype))
    answer = filled[np.where(valid, address + lane, len(bank))]
    shown = np.full(len(seen["advance"]), filled[-1], np.uint32)
    shown[ticks[1:]] = answer[:-1]
    return shown
