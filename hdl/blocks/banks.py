"""A product in the terms of the array: its run registers, and the contents of the operand buffers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, assert_never

import numpy as np
import numpy.typing as npt

from ...dataflow.accelerator import AcceleratorSpec
from ...dataflow.stce.mapping import ArrayMapping, Dataflow
from ...workloads.errors import InputError
from ...workloads.gemm import Gemm
from ...workloads.sparsity import NMPattern
from .control_format import ADDRESS_BITS, COUNT_BITS
from .frame import Frame, frame_of

__all__ = [
    "BUBBLE",
    "IN_RTL",
    "NAN",
    "ArrayRun",
    "Banks",
    "Bits16",
    "Bits32",
    "Index",
    "banks",
    "cut_groups",
    "nest_of",
    "pair_order",
    "registers_of",
    "require_address",
    "west_order",
    "run_choices",
    "run_registers",
]

Bits16 = npt.NDArray[np.uint16]
Bits32 = npt.NDArray[np.uint32]
Index = npt.NDArray[np.uint8]
BUBBLE = 255
NAN = 0x7FFF
"""A NaN in every format of floats, of eight bits its low ones: what stands where nothing may look at it."""


IN_RTL = (Dataflow.OS, Dataflow.WS)
"""Dataflows that the array's controller runs."""


class ArrayRun(Protocol):
    """How an array runs a product, of which its own mappings are such: as pairs of groups, or of words in ``1:1`` or
    ``D:D``."""

    @property
    def dataflow(self) -> Dataflow: ...

    @property
    def pattern(self) -> NMPattern: ...

    @property
    def interleave(self) -> int: ...


@dataclass(frozen=True, slots=True)
class _Nest:
    """The loops of a run: parts of a contraction run, runs, tiles that repeat the dense operand, tiles that do not."""

    parts: int
    runs: int
    across: int
    down: int


def _ceil_div(a: int, b: int) -> int:
    return -(-a // b)


def nest_of(frame: Frame, mapping: ArrayRun, gemm: Gemm) -> _Nest:
    """The loops of ``gemm``, whose contraction is in slots."""
    groups, runs = _ceil_div(gemm.run, mapping.pattern.group), gemm.k // gemm.run
    match mapping.dataflow:
        case Dataflow.OS:
            across = _ceil_div(gemm.n, frame.cols * mapping.interleave)
            return _Nest(groups, runs, across, _ceil_div(gemm.m, frame.rows))
        case Dataflow.WS:
            down = _ceil_div(groups * runs, frame.rows)
            return _Nest(_ceil_div(gemm.m, mapping.interleave), 1, _ceil_div(gemm.n, frame.cols), down)
        case Dataflow.OS1:
            raise InputError("no RTL runs dataflow os1")
        case _:
            assert_never(mapping.dataflow)


def run_registers(
    spec: AcceleratorSpec, mapping: ArrayMapping, gemm: Gemm, gradients: tuple[bool, bool] = (False, False)
) -> dict[str, int]:
    """The ``run`` ports of `Stce` for one product; ``gradients``: which of the dense operand and the pairs are encoded
    as gradients, where the format encodes these otherwise."""
    mapping.check(spec)
    if mapping.dataflow not in IN_RTL:
        raise InputError(f"no RTL runs dataflow {mapping.dataflow}; it runs {' and '.join(IN_RTL)}")
    own = {"west_gradient": int(gradients[0]), "north_gradient": int(gradients[1])}
    return registers_of(frame_of(spec), mapping, gemm) | (own if spec.pe.operand.gradient is not None else {})


def registers_of(frame: Frame, mapping: ArrayRun, gemm: Gemm) -> dict[str, int]:
    """The ``run`` ports that every array has, for one product whose contraction is in slots."""
    if gemm.groups != 1:
        raise InputError(f"a run of the array is one product, but {gemm} has {gemm.groups}; run them one by one")
    nest = nest_of(frame, mapping, gemm)
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
        "row_delay": (keep - 1) * max(contexts, frame.add_latency) + frame.add_latency if stationary else 1,
        "drain_words": 0 if stationary else min(frame.rows, gemm.m) * contexts,
        "shift_pairs": keep * frame.rows if stationary else 0,
        "tap": keep - 1 if stationary else 0,
        "tail_cycles": _tail_cycles(frame, mapping, gemm),
    }


def run_choices(frame: Frame, mapping: ArrayRun, gemm: Gemm) -> dict[str, int]:
    """What `RunSetup` makes the same registers of, but for those that only some PEs have."""
    nest, group = nest_of(frame, mapping, gemm), mapping.pattern.group
    return {
        "weight_stationary": int(mapping.dataflow == Dataflow.WS),
        "interleave": mapping.interleave,
        "keep": mapping.pattern.keep,
        "group": group,
        "rest": gemm.run % group or group,
        "rows": min(frame.rows, gemm.m),
        "parts": nest.parts,
        "runs": nest.runs,
        "across": nest.across,
        "down": nest.down,
    }


def _tail_cycles(frame: Frame, mapping: ArrayRun, gemm: Gemm) -> int:
    """Array cycles from the controller's last, ``ahead`` of the end of the last pair, to the last word, inclusive."""
    pace = max(mapping.interleave, frame.add_latency)
    ahead = frame.read_latency + 1
    if mapping.dataflow == Dataflow.OS:
        words = min(frame.rows, gemm.m) * mapping.interleave
        return frame.latency + frame.rows - 1 + frame.cols - 1 + words - pace + ahead
    row_delay = (mapping.pattern.keep - 1) * pace + frame.add_latency
    issued = mapping.pattern.keep * pace
    last = frame.multiply_latency + frame.rows * row_delay + mapping.interleave - 1 + frame.cols - 1
    return last - issued + ahead + 1


@dataclass(frozen=True, slots=True, eq=False)
class Banks:
    """Contents of the operand buffers as the array's addresses count them.

    ``west``, uint16 [rows, words]: bits of the dense operand; ``values``, uint16, and ``indices``, uint8 [cols, pairs].
    """

    west: Bits16
    values: Bits16
    indices: Index


def banks(spec: AcceleratorSpec, mapping: ArrayMapping, gemm: Gemm, a: Bits16, values: Bits16, indices: Index) -> Banks:
    """Lay out bits of ``a``, uint16 [m, k], and of pairs, uint16 ``values`` and uint8 ``indices`` [slots, n], in the
    order of their use."""
    frame = frame_of(spec)
    west = west_order(frame, mapping, gemm, a, NAN)
    slot, column = pair_order(frame, mapping, gemm, len(values))
    require_address(gemm, west.shape[1], slot.shape[1])
    outside = (slot < 0) | (column >= gemm.n)
    slot, column = np.where(outside, 0, slot), np.where(outside, 0, column)
    return Banks(
        west=west,
        values=np.where(outside, np.uint16(NAN), values[slot, column]),
        indices=np.where(outside, np.uint8(BUBBLE), indices[slot, column]),
    )


def require_address(gemm: Gemm, *words: int) -> None:
    """Refuse banks of more words than an address tells apart."""
    if max(words) >> ADDRESS_BITS:
        raise InputError(f"{gemm} needs more than the 2^{ADDRESS_BITS} words of a bank; cut it into macro-tiles")


def west_order(frame: Frame, mapping: ArrayRun, gemm: Gemm, a: Any, nothing: int) -> Any:
    """``a``, of any dtype [m, slots], in the order in which each row takes it, [rows, words]; ``nothing`` beyond."""
    if mapping.dataflow == Dataflow.OS:
        return _west_os(frame, a, nothing)
    return _west_ws(frame, mapping, gemm, a, nothing)


def pair_order(
    frame: Frame, mapping: ArrayRun, gemm: Gemm, slots: int, *, northernmost_first: bool = False
) -> tuple[Any, Any]:
    """Slot and column of B, int64 [cols, pairs], in the order in which each column takes them; slot -1: a bubble.

    In WS the pairs of a tile come from that of its last slot on, or ``northernmost_first`` from that of its first.
    """
    if mapping.dataflow == Dataflow.OS:
        return _pairs_os(frame, mapping, gemm, slots)
    return _pairs_ws(frame, mapping, gemm, 1 if northernmost_first else -1)


def _west_os(frame: Frame, a: Any, nothing: int) -> Any:
    """Bank ``r``: rows ``r``, ``R + r``, ``2 R + r``... of A."""
    rows, (m, k) = frame.rows, a.shape
    padded = np.full((_ceil_div(m, rows) * rows, k), nothing, a.dtype)
    padded[:m] = a
    return np.ascontiguousarray(padded.reshape(-1, rows, k).transpose(1, 0, 2)).reshape(rows, -1)


def _pairs_os(frame: Frame, mapping: ArrayRun, gemm: Gemm, slots: int) -> tuple[Any, Any]:
    """Slot and column of B of each pair of each bank: by tile across, slot, context."""
    cols, contexts = frame.cols, mapping.interleave
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


def _west_ws(frame: Frame, mapping: ArrayRun, gemm: Gemm, a: Any, nothing: int) -> Any:
    """Bank ``r``: by k-tile and row of A, the words of group ``r`` of the k-tile, short groups filled up."""
    rows, group, contexts = frame.rows, mapping.pattern.group, mapping.interleave
    start, length, _ = cut_groups(mapping.pattern, gemm.k, gemm.run)
    down = _ceil_div(len(start), rows)
    west = np.full((rows, down, _ceil_div(gemm.m, contexts) * contexts, group), nothing, a.dtype)
    for g, (first, words) in enumerate(zip(start, length, strict=True)):
        west[g % rows, g // rows, : gemm.m, :words] = a[:, first : first + words]
    return west.reshape(rows, -1)


def _pairs_ws(frame: Frame, mapping: ArrayRun, gemm: Gemm, step: int) -> tuple[Any, Any]:
    """Slot and column of each pair of each bank: by k-tile, n-tile, slot; ``step`` -1: the last one first."""
    rows, cols, keep = frame.rows, frame.cols, mapping.pattern.keep
    _, _, kept = cut_groups(mapping.pattern, gemm.k, gemm.run)
    down, across = _ceil_div(len(kept), rows), _ceil_div(gemm.n, cols)
    slots = np.full((down * rows, keep), -1)
    held = np.arange(keep) < kept[:, None]
    slots[: len(kept)][held] = np.arange(held.sum())
    shifted = slots.reshape(down, rows * keep)[:, ::step]
    c, _, tile, _ = np.ix_(*(np.arange(n) for n in (cols, down, across, rows * keep)))
    slot, column = np.broadcast_arrays(shifted[None, :, None, :], tile * cols + c)
    return slot.reshape(cols, -1), column.reshape(cols, -1)
