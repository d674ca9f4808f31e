"""A product in the terms of the array: its run registers, and the contents of the operand buffers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, assert_never

import numpy as np
import numpy.typing as npt

from ...dataflow.accelerator import AcceleratorSpec
from ...dataflow.stce.mapping import ArrayMapping, Dataflow
from ...workloads.errors import InputError
from ...workloads.gemm import Gemm
from ...workloads.sparsity import NMPattern
from .control_format import ADDRESS_BITS, COUNT_BITS

__all__ = [
    "BUBBLE",
    "IN_RTL",
    "NAN",
    "Banks",
    "Bits16",
    "Bits32",
    "Index",
    "banks",
    "cut_groups",
    "nest_of",
    "run_registers",
]

Bits16 = npt.NDArray[np.uint16]
Bits32 = npt.NDArray[np.uint32]
Index = npt.NDArray[np.uint8]
BUBBLE = 255
NAN = 0x7FFF
"""A NaN in either format: what stands where nothing may look at it."""


IN_RTL = (Dataflow.OS, Dataflow.WS)
"""Dataflows that the array's controller runs."""


@dataclass(frozen=True, slots=True)
class _Nest:
    """The loops of a run: parts of a contraction run, runs, tiles that repeat the dense operand, tiles that do not."""

    parts: int
    runs: int
    across: int
    down: int


def _ceil_div(a: int, b: int) -> int:
    return -(-a // b)


def nest_of(spec: AcceleratorSpec, mapping: ArrayMapping, gemm: Gemm) -> _Nest:
    groups, runs = _ceil_div(gemm.run, mapping.pattern.group), gemm.k // gemm.run
    match mapping.dataflow:
        case Dataflow.OS:
            across = _ceil_div(gemm.n, spec.array.cols * mapping.interleave)
            return _Nest(groups, runs, across, _ceil_div(gemm.m, spec.array.rows))
        case Dataflow.WS:
            down = _ceil_div(groups * runs, spec.array.rows)
            return _Nest(_ceil_div(gemm.m, mapping.interleave), 1, _ceil_div(gemm.n, spec.array.cols), down)
        case Dataflow.OS1:
            raise InputError("no RTL runs dataflow os1")
        case _:
            assert_never(mapping.dataflow)


def run_registers(spec: AcceleratorSpec, mapping: ArrayMapping, gemm: Gemm) -> dict[str, int]:
    """The ``run`` ports of `Stce` for one product."""
    mapping.check(spec)
    if mapping.dataflow not in IN_RTL:
        raise InputError(f"no RTL runs dataflow {mapping.dataflow}; it runs {' and '.join(IN_RTL)}")
    if gemm.groups != 1:
        raise InputError(f"a run of the array is one product, but {gemm} has {gemm.groups}; run them one by one")
    nest = nest_of(spec, mapping, gemm)
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

    ``west``, uint16 [rows, words]: bits of the dense operand; ``values``, uint16, and ``indices``, uint8 [cols, pairs].
    """

    west: Bits16
    values: Bits16
    indices: Index


def banks(spec: AcceleratorSpec, mapping: ArrayMapping, gemm: Gemm, a: Bits16, values: Bits16, indices: Index) -> Banks:
    """Lay out bits of ``a``, uint16 [m, k], and of pairs, uint16 ``values`` and uint8 ``indices`` [slots, n], in the
    order of their use."""
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
        values=np.where(outside, np.uint16(NAN), values[slot, column]),
        indices=np.where(outside, np.uint8(BUBBLE), indices[slot, column]),
    )


def _west_os(spec: AcceleratorSpec, a: Bits16) -> Bits16:
    """Bank ``r``: rows ``r``, ``R + r``, ``2 R + r``... of A."""
    rows, (m, k) = spec.array.rows, a.shape
    padded = np.full((_ceil_div(m, rows) * rows, k), NAN, np.uint16)
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
    west = np.full((rows, down, _ceil_div(gemm.m, contexts) * contexts, group), NAN, np.uint16)
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
