"""The XNOR engine: sums of products by counting bits, and the array's control stepped cycle by cycle.

Integer sums do not depend on their order, so they are made apart from the cycles in which they leave. As in stce.py,
PE (r, c) does later what PE (0, 0) does; `simulator/reference/xnor.py` moves every word over every hop.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from .jit import kernel

Bits = NDArray[np.uint64]
Int64 = NDArray[np.int64]

NEVER = 1 << 62
ROWS_AT_ONCE, COLS_AT_ONCE = 64, 64
"""Lines of either operand that are counted against each other while they are in a cache."""


class Elements(NamedTuple):
    """Size, interleave, latency of a count, words that WS keeps."""

    rows: int
    cols: int
    interleave: int
    popcount_latency: int
    keep: int


class Side(NamedTuple):
    """An operand in planes: mask uint64 [planes, lines or 1, units], sign uint64 [lines or 1, units], zero where the
    mask is."""

    mask: Bits
    sign: Bits


class Times(NamedTuple):
    """Written by a run: int64 [m, n], the cycle in which each result leaves; int64 [words], the cycle in which each
    word leaves column 0."""

    left: Int64
    leaves: Int64


class Spent(NamedTuple):
    """Cycles in all, issuing, waiting for weights or for the drain chain."""

    cycles: int
    compute: int
    port: int


@intrinsic
def _ones(typing: Any, word: Any) -> Any:
    """Bits of a uint64 that are 1; vector instructions where there are any."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return types.uint64(types.uint64), generate


@kernel
def agreeing(a: Bits, b: Bits, mask: Bits, out: NDArray[np.int32]) -> None:
    """Add to ``out`` int32 [m, n] how many bits under ``mask`` [units] of each line of ``a`` are those of ``b``."""
    for row0 in range(0, len(a), ROWS_AT_ONCE):
        for col0 in range(0, len(b), COLS_AT_ONCE):
            for row in range(row0, min(row0 + ROWS_AT_ONCE, len(a))):
                own = a[row]
                for col in range(col0, min(col0 + COLS_AT_ONCE, len(b))):
                    other = b[col]
                    count = np.uint64(0)
                    for unit in range(len(mask)):
                        count += _ones(~(own[unit] ^ other[unit]) & mask[unit])
                    out[row, col] += np.int32(count)


@kernel
def counted(a: Side, b: Side, plane_a: int, plane_b: int, differ: bool, weight: int, out: NDArray[np.int32]) -> None:
    """Add to ``out`` int32 [m, n] one beat of every word: ``weight`` for each bit that counts."""
    flip = np.uint64(0) if differ else ~np.uint64(0)
    m, n = out.shape
    units = a.mask.shape[2]
    for row0 in range(0, m, ROWS_AT_ONCE):
        for col0 in range(0, n, COLS_AT_ONCE):
            for row in range(row0, min(row0 + ROWS_AT_ONCE, m)):
                mask_a = a.mask[plane_a, min(row, a.mask.shape[1] - 1)]
                sign_a = a.sign[min(row, len(a.sign) - 1)]
                for col in range(col0, min(col0 + COLS_AT_ONCE, n)):
                    mask_b = b.mask[plane_b, min(col, b.mask.shape[1] - 1)]
                    sign_b = b.sign[min(col, len(b.sign) - 1)]
                    count = np.uint64(0)
                    for unit in range(units):
                        both = mask_a[unit] & mask_b[unit]
                        count += _ones(both & (sign_a[unit] ^ sign_b[unit] ^ flip))
                    out[row, col] += np.int32(np.int64(count) * weight)


@kernel
def run_os(x: Elements, slots: Int64, results: Times) -> Spent:
    """Output-stationary; ``slots`` [tiles], at least one each, columns inside rows."""
    rows, cols, interleave, popcount_latency, _ = x
    left, leaves = results
    m, n = left.shape
    wide = cols * interleave
    tiles_across = -(-n // wide)
    used_rows = min(rows, m)
    drain_words = used_rows * interleave
    latency = popcount_latency + 1

    tile, slot = -1, NEVER
    turn = NEVER  # cycles since the current slot started
    loaded = 0
    chain = 0  # cycles for which the drain chain is spoken for, counted from the last slot of a tile

    in_flight = latency + 2
    complete_at = np.empty(in_flight, np.int64)
    finished, drained, word = 0, 0, 0

    cycles, compute, port = 0, 0, 0
    t = 0
    while drained < len(slots):
        if turn >= interleave:
            if tile >= 0 and slot + 1 < slots[tile]:
                if loaded >= 1:
                    slot, turn, loaded = slot + 1, 0, 0
                else:
                    port += 1
            elif tile + 1 < len(slots):
                # The words before it are gone when its own first one comes to the chain.
                if loaded >= 1 and chain <= (slots[tile + 1] - 1) * interleave:
                    tile, slot, turn, loaded = tile + 1, 0, 0, 0
                elif tile >= 0:
                    port += 1

        if turn < interleave:
            compute += 1
            if turn == 0 and slot == slots[tile] - 1:
                chain = drain_words
                complete_at[finished % in_flight] = t + latency
                finished += 1
        turn += 1

        if drained < finished and t >= complete_at[drained % in_flight]:
            row = drained // tiles_across * rows + used_rows - 1 - word // interleave
            col0 = (drained % tiles_across * interleave + word % interleave) * cols
            at_edge = t + rows - 1
            leaves[drained * drain_words + word] = at_edge
            if row < m:
                for c in range(min(cols, n - col0)):
                    left[row, col0 + c] = at_edge + c
            cycles = at_edge + min(cols, n)
            word += 1
            if word == drain_words:
                word, drained = 0, drained + 1

        loaded += 1
        if chain > 0:
            chain -= 1
        t += 1
    return Spent(cycles, compute, port)


@kernel
def run_ws(x: Elements, n_tile: Int64, last: NDArray[np.bool_], results: Times) -> Spent:
    """Weight-stationary; ``n_tile`` [tiles] by their order, ``last`` whether it is the last of that one."""
    rows, cols, interleave, popcount_latency, keep = x
    left, leaves = results
    m, n = left.shape
    batches = -(-m // interleave)
    tiles = len(n_tile)
    used_cols = min(cols, n)
    skew = (keep - 1) * interleave + 1

    # What row 0 did in the last cycles, which the last row does now: tile, batch, pair, context.
    delay = (rows - 1) * skew + 1
    done = np.full((delay, 4), -1, np.int64)

    tile, batch, pair = -1, batches - 1, keep - 1
    turn = NEVER
    loaded, shifting = 0, keep * rows
    # First cycle of issue that finds the partial sums of an n-tile in the buffer.
    back_at = np.zeros(n_tile.max() + 1, np.int64)

    cycles, compute, port = 0, 0, 0
    last_issue, gone = NEVER, 0
    t = 0
    while t < last_issue + delay:
        if turn >= interleave:
            if pair + 1 < keep:
                pair, turn = pair + 1, 0
            elif batch + 1 < batches:
                if loaded >= interleave * keep:
                    batch, pair, turn, loaded = batch + 1, 0, 0, 0
                else:
                    port += 1
            elif tile + 1 < tiles:
                if loaded < interleave * keep or shifting > 0:
                    if tile >= 0:
                        port += 1
                elif back_at[n_tile[tile + 1]] <= t:
                    tile, batch, pair, turn, loaded = tile + 1, 0, 0, 0, 0
                    back_at[n_tile[tile]] = NEVER
                    shifting = NEVER  # until the last row has taken these words over

        now = t % delay
        done[now, 0] = -1
        if turn < interleave:
            compute += 1
            done[now, 0], done[now, 1], done[now, 2], done[now, 3] = tile, batch, pair, turn
            if tile + 1 == tiles and batch + 1 == batches and pair + 1 == keep and turn + 1 == interleave:
                last_issue = t
        turn += 1

        then = (t + 1) % delay  # delay - 1 cycles ago
        its_tile, its_batch, its_pair, context = done[then, 0], done[then, 1], done[then, 2], done[then, 3]
        if its_tile >= 0:
            if its_batch == 0 and its_pair == 0 and context == 0:
                shifting = keep * rows
            if its_pair == keep - 1:
                at_edge = t + popcount_latency + 1
                cycles = at_edge + used_cols
                leaves[gone] = at_edge
                gone += 1
                if its_batch == 0 and context == 0:
                    back_at[n_tile[its_tile]] = t + 2
                row, col0 = its_batch * interleave + context, n_tile[its_tile] * cols
                if row < m and last[its_tile]:
                    for c in range(min(cols, n - col0)):
                        left[row, col0 + c] = at_edge + c

        loaded += 1
        if shifting > 0:
            shifting -= 1
        t += 1
    return Spent(cycles, compute, port)
