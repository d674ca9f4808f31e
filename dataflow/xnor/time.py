"""Closed forms of the XNOR engine alone, memory unlimited: those of the array over words, and with words left out."""

from __future__ import annotations

from typing import assert_never

import numpy as np
import numpy.typing as npt

from ...workloads.gemm import Gemm
from ...workloads.levels import Levels
from ..accelerator import AcceleratorSpec
from ..account import Cycles
from ..integers import ceil_div
from ..stce.mapping import Dataflow
from ..stce.pace import ArrayMachine
from ..stce.time import cycles_alone
from .mapping import XnorMapping, require_xnor
from .spec import ADD_LATENCY, SUM_BITS, XnorSpec
from .words import words_of

__all__ = ["as_slots", "rounds", "skipped_cycles", "slots_of_tiles", "xnor_cycles", "xnor_machine"]

Int64 = npt.NDArray[np.int64]


def xnor_machine(own: XnorSpec) -> ArrayMachine:
    """The engine as the array's closed forms see it: a word a cycle at each western edge, without an index, integer
    sums."""
    return ArrayMachine(
        R=own.rows,
        C=own.cols,
        w=1,
        Lm=own.popcount_latency,
        La=ADD_LATENCY,
        word_bits=SUM_BITS,
        sum_bits=SUM_BITS,
        index_bits=0,
        Lr=1,
    )


def as_slots(gemm: Gemm, levels: tuple[Levels, Levels], word_bits: int) -> Gemm:
    """``gemm`` over pairs of words instead of elements."""
    slots = words_of(gemm, *levels, word_bits).slots
    return Gemm(m=gemm.m, k=slots, n=gemm.n, groups=gemm.groups)


def xnor_cycles(spec: AcceleratorSpec, gemm: Gemm, mapping: XnorMapping, levels: tuple[Levels, Levels]) -> Cycles:
    """Cycles of ``gemm`` on the engine of ``spec``, A flowing W2E and B N2S, with unlimited buffers and memory."""
    own = require_xnor(spec)
    mapping.check(spec)
    return cycles_alone(xnor_machine(own), as_slots(gemm, levels, own.word_bits), mapping)


def slots_of_tiles(words: Int64, beats: int) -> Int64:
    """Slots of tiles with so many occupied words, int64 [tiles]; of none, one that adds 0, so that zeros leave."""
    slots: Int64 = np.maximum(words * beats, 1)
    return slots


def rounds(slots: Int64, held: int) -> tuple[Int64, npt.NDArray[np.bool_]]:
    """WS: the n-tile of each tile in their order, int64 [tiles], k-tiles outermost, ``held`` slots each; and whether it
    is the last k-tile of that one, bool [tiles]. ``slots``: int64 [n-tiles]."""
    k_tiles = -(-slots // held)
    order = [(n, k + 1 == k_tiles[n]) for k in range(k_tiles.max()) for n in np.flatnonzero(k_tiles > k)]
    return np.array([n for n, _ in order], np.int64), np.array([last for _, last in order], np.bool_)


def skipped_cycles(spec: AcceleratorSpec, mapping: XnorMapping, m: int, n: int, beats: int, occupied: Int64) -> Cycles:
    """Cycles of a product of ``m`` x ``n`` results of which each tile has ``occupied`` words of so many ``beats``.

    int64 [tiles]: of each tile in its order (OS) or of each tile across (WS), as of `simulator.xnor.occupied_words`.
    """
    own = require_xnor(spec)
    mapping.check(spec)
    slots, interleave = slots_of_tiles(occupied, beats), mapping.interleave
    last_column = min(own.cols, n) - 1
    match mapping.dataflow:
        case Dataflow.OS:
            issue, drain = slots * interleave, min(own.rows, m) * interleave
            compute = int(issue.sum())
            port = int(np.maximum(drain - issue[1:], 0).sum())
            latency = own.popcount_latency + ADD_LATENCY
            total = 1 + compute + port - interleave + latency + own.rows - 1 + last_column + drain
        case Dataflow.WS:
            compute, port, start = _weights_stay(own, mapping, m, slots)
            skew = own.rows * ((mapping.group - 1) * interleave + ADD_LATENCY)
            batches = ceil_div(m, interleave)
            streamed = (batches - 1) * mapping.group * interleave
            total = start + streamed + own.popcount_latency + skew + interleave - 1 + last_column + 1
        case Dataflow.OS1:
            raise AssertionError("a mapping refuses it")
        case _:
            assert_never(mapping.dataflow)
    return Cycles(compute=compute, port_stall=port, fill_drain=total - compute - port)


def _weights_stay(own: XnorSpec, mapping: XnorMapping, m: int, slots: Int64) -> tuple[int, int, int]:
    """Of the tiles of WS: cycles that issue, cycles that wait for weights, and the start of the last."""
    held, interleave = mapping.group, mapping.interleave
    skew = (held - 1) * interleave + ADD_LATENCY
    streamed = ceil_div(m, interleave) * held * interleave
    distance = max(streamed, (own.rows - 1) * skew + held * own.rows)
    order, _ = rounds(slots, own.rows * held)
    start, back = max(held * own.rows, interleave * held), dict[int, int]()
    for place, n_tile in enumerate(order.tolist()):
        if place:
            start = max(start + distance, back.get(n_tile, 0))
        back[n_tile] = start + own.rows * skew + 1
    return len(order) * streamed, (len(order) - 1) * (distance - streamed), start
