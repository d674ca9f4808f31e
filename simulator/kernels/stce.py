"""STCE stepped cycle by cycle: a controller at PE (0, 0), and every PE's registers moved on what it issues.

PE (r, c) does later what PE (0, 0) does: the constant column delay ``c`` is added to the time stamps, in OS the row
delay ``r`` too. In WS partial sums are taken from the output buffer in the cycle in which they enter the first row, and
are back in it from the cycle in which they leave the last; so one that entered too early would be an old one. An answer
shows what had left ``read_latency`` cycles before it.

A run is one long function: its registers are local variables, which a call would have to pass in every cycle.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .jit import kernel

Numbers = NDArray[Any]
"""Of the type of sums, float32 or int32."""
Int64 = NDArray[np.int64]

BUBBLE = 255
NEVER = 1 << 62
ROWS_AT_ONCE = 256
"""Rows of a WS tile that are summed up together, for the sake of vector instructions."""


class Array(NamedTuple):
    """Size, interleave and latencies of the array; words a cycle of a western port; cycles of a bank's answer."""

    rows: int
    cols: int
    interleave: int
    add_latency: int
    mac_latency: int
    port_words: int
    read_latency: int


class Operands(NamedTuple):
    """The dense operand, transposed, [k, m]; [slots, n] pairs, the indices uint8; values of the type of sums."""

    a_columns: Numbers
    values: Numbers
    indices: NDArray[np.uint8]


class Results(NamedTuple):
    """Written by a run: sums [m, n], in WS [n, m], float32 or int32, which wraps around; int64 [m, n], the cycle in
    which each leaves; and int64, the cycle in which each word of the tiles, partial sums too, leaves column 0."""

    out: Numbers
    left: Int64
    leaves: Int64


class Spent(NamedTuple):
    """Cycles in all, issuing, idle for the adder, waiting for a port, for weights or for the drain chain."""

    cycles: int
    compute: int
    stall: int
    port: int


class OsGroups(NamedTuple):
    """What the indices of each slot count from, int64 [slots]; words and pairs of each group of a contraction."""

    slot_base: Int64
    words: Int64
    pairs: Int64


class WsGroups(NamedTuple):
    """First word, first slot and pairs of each group, int64 [groups]; pairs that a PE holds; words of a batch."""

    start: Int64
    slot: Int64
    pairs: Int64
    keep: int
    part_words: int


@kernel
def run_os(x: Operands, g: OsGroups, array: Array, single_buffered: bool, results: Results) -> Spent:
    """Output-stationary run; ``single_buffered``: results leave from the accumulators."""
    rows, cols, interleave, add_latency, mac_latency, port_words, _ = array
    a_columns, values, indices = x
    slot_base, group_words, group_pairs = g
    out, left, leaves = results
    m, n = out.shape
    slots = len(slot_base)
    groups = len(group_words)
    tiles_across = -(-n // (cols * interleave))
    tiles = -(-m // rows) * tiles_across
    used_rows = min(rows, m)
    drain_words = used_rows * interleave
    acc = np.empty((interleave, cols, rows), out.dtype)

    tile, group, pair, slot = -1, groups - 1, 0, slots - 1
    turn = NEVER  # cycles since the current pair started
    wanted, loaded = group_words[0], 0
    chain = 0  # cycles for which the drain chain is spoken for

    in_flight = mac_latency + 2
    complete_at = np.empty(in_flight, np.int64)
    finished, drained, word = 0, 0, 0

    cycles, compute, stall, port = 0, 0, 0, 0
    t = 0
    while drained < tiles:
        if turn >= interleave and turn >= add_latency:
            last_group = group == groups - 1
            if tile >= 0 and pair + 1 < group_pairs[group]:
                pair, slot, turn = pair + 1, slot + 1, 0
            elif last_group and tile + 1 == tiles:
                pass
            elif loaded >= wanted and not (last_group and chain > 0):
                if last_group:
                    tile, group, slot = tile + 1, 0, 0
                    chain = 0 if single_buffered else drain_words
                else:
                    group, slot = group + 1, slot + 1
                pair, turn = 0, 0
                wanted, loaded = group_words[(group + 1) % groups], 0
            elif tile >= 0:
                port += 1

        if turn < interleave:
            compute += 1
            row0, col0 = tile // tiles_across * rows, (tile % tiles_across * interleave + turn) * cols
            if slot == 0:
                acc[turn] = np.float32(-0.0)
            _issue(acc[turn], a_columns, values[slot], indices[slot], slot_base[slot], row0, col0)
            if slot == slots - 1:
                _take_results(acc[turn], out, row0, col0)
                if turn == 0:
                    if single_buffered:
                        chain = drain_words
                    complete_at[finished % in_flight] = t + mac_latency
                    finished += 1
        elif turn < add_latency:
            stall += 1
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

        loaded += port_words
        if chain > 0:
            chain -= 1
        t += 1
    return Spent(cycles, compute, stall, port)


@kernel
def _issue(
    acc: Numbers, a_columns: Numbers, values: Numbers, indices: NDArray[np.uint8], base: int, row0: int, col0: int
) -> None:
    """One pair of one context in every PE, ``acc`` [cols, rows] of it; rows inside, where the index is constant."""
    used = min(acc.shape[1], a_columns.shape[1] - row0)
    for c in range(min(acc.shape[0], len(values) - col0)):
        index = indices[col0 + c]
        if index == BUBBLE:
            continue
        value = values[col0 + c]
        dense = a_columns[base + index, row0 : row0 + used]
        total = acc[c, :used]
        for r in range(used):
            total[r] = total[r] + dense[r] * value


@kernel
def _take_results(acc: Numbers, out: Numbers, row0: int, col0: int) -> None:
    """Accumulators of a context to the drain registers, which ``out`` stands for until the chain has stamped them."""
    for r in range(min(acc.shape[1], out.shape[0] - row0)):
        for c in range(min(acc.shape[0], out.shape[1] - col0)):
            out[row0 + r, col0 + c] = acc[c, r]


@kernel
def run_ws(x: Operands, g: WsGroups, skew: int, array: Array, results: Results) -> Spent:
    """Weight-stationary run; row ``r`` is ``skew`` cycles behind row ``r - 1``. ``out`` is the output buffer."""
    rows, cols, interleave, add_latency, mac_latency, port_words, read_latency = array
    out, left, leaves = results
    keep, part_words = g.keep, g.part_words
    m, n = left.shape
    groups = len(g.start)
    batches = -(-m // interleave)
    tiles_across = -(-n // cols)
    tiles = -(-groups // rows) * tiles_across
    last_k = (groups - 1) // rows
    used_cols = min(cols, n)
    # What went in at the north edge. Two tiles are under way at most: the last row takes over the weights of a tile
    # before the shift for the next one starts.
    entered = np.empty((2, cols, m), out.dtype)

    # What row 0 did in the last cycles, which the last row does now: tile, batch, pair, context.
    delay = (rows - 1) * skew + 1
    done = np.full((delay, 4), -1, np.int32)

    tile, batch, pair = -1, batches - 1, keep - 1
    turn = NEVER
    loaded, shifting = 0, keep * rows
    back_at = np.zeros(
        tiles_across, np.int64
    )  # first cycle of issue that finds the partial sums of an n-tile in the buffer

    cycles, compute, stall, port = 0, 0, 0, 0
    last_issue = NEVER
    gone = 0
    # Of the tile in the last row: rows that have left it, and those of them whose sums are in the buffer.
    leaving, gone_rows, made_rows = -1, 0, 0
    t = 0
    while t < last_issue + delay or turn < add_latency:
        if turn >= interleave and turn >= add_latency:
            if pair + 1 < keep:
                pair, turn = pair + 1, 0
            elif batch + 1 < batches:
                if loaded >= part_words:
                    batch, pair, turn, loaded = batch + 1, 0, 0, 0
                else:
                    port += 1
            elif tile + 1 < tiles:
                if loaded < part_words or shifting > 0:
                    if tile >= 0:
                        port += 1
                elif back_at[(tile + 1) % tiles_across] <= t:
                    tile, batch, pair, turn, loaded = tile + 1, 0, 0, 0, 0
                    back_at[tile % tiles_across] = NEVER
                    shifting = NEVER  # until the last row has taken these pairs over

        now = t % delay
        if turn < interleave:
            compute += 1
            done[now, 0], done[now, 1], done[now, 2], done[now, 3] = tile, batch, pair, turn
            if tile + 1 == tiles and batch + 1 == batches and pair + 1 == keep and turn + 1 == interleave:
                last_issue = t
            row, col0 = batch * interleave + turn, tile % tiles_across * cols
            if pair == 0 and row < m:
                if leaving + tiles_across == tile and made_rows <= row < gone_rows:
                    _sum_up(x, g, out, entered, leaving, made_rows, gone_rows, array, tiles_across)
                    made_rows = gone_rows
                for c in range(min(cols, n - col0)):
                    entered[tile % 2, c, row] = out[col0 + c, row] if tile >= tiles_across else np.float32(-0.0)
        else:
            done[now, 0] = -1
            if turn < add_latency:
                stall += 1
        turn += 1

        then = (t + 1) % delay  # delay - 1 cycles ago
        if done[then, 0] >= 0:
            its_tile, its_batch, its_pair, context = done[then, 0], done[then, 1], done[then, 2], done[then, 3]
            if its_batch == 0 and its_pair == 0 and context == 0:
                shifting = keep * rows
                leaving, gone_rows, made_rows = its_tile, 0, 0
            if its_pair == keep - 1:
                cycles = t + mac_latency + used_cols
                leaves[gone] = t + mac_latency
                gone += 1
                if its_batch == 0 and context == 0:
                    back_at[its_tile % tiles_across] = t + add_latency + read_latency
                row = its_batch * interleave + context
                if row < m:
                    if its_tile // tiles_across == last_k:
                        col0 = its_tile % tiles_across * cols
                        for c in range(min(cols, n - col0)):
                            left[row, col0 + c] = t + mac_latency + c
                    gone_rows = row + 1
                    if gone_rows == m or gone_rows - made_rows == ROWS_AT_ONCE:
                        _sum_up(x, g, out, entered, leaving, made_rows, gone_rows, array, tiles_across)
                        made_rows = gone_rows

        loaded += port_words
        if shifting > 0:
            shifting -= 1
        t += 1
    return Spent(cycles, compute, stall, port)


@kernel
def _sum_up(
    x: Operands,
    g: WsGroups,
    out: Numbers,
    entered: Numbers,
    tile: int,
    first: int,
    end: int,
    array: Array,
    tiles_across: int,
) -> None:
    """What every PE of a tile added to the rows ``first`` to ``end`` of what ``entered``, row after row of PEs."""
    rows, cols = array.rows, array.cols
    k_tile, col0 = tile // tiles_across, tile % tiles_across * cols
    for c in range(min(cols, len(out) - col0)):
        total = out[col0 + c, first:end]
        total[:] = entered[tile % 2, c, first:end]
        for group in range(k_tile * rows, min((k_tile + 1) * rows, len(g.start))):
            for slot in range(g.slot[group], g.slot[group] + g.pairs[group]):
                index = x.indices[slot, col0 + c]
                if index == BUBBLE:
                    continue
                value = x.values[slot, col0 + c]
                dense = x.a_columns[g.start[group] + index, first:end]
                for row in range(end - first):
                    total[row] = total[row] + dense[row] * value
