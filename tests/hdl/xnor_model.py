"""The XNOR engine from the formulas of docs/design/machine.md and xnor.md alone: no registers, no words, no beats.

A product is NumPy's; when a result leaves is a sum of the terms on these pages. Nothing here is shared with what it is
held against but the specification and the values of levels.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from weft.dataflow.stce.mapping import Dataflow
from weft.workloads.levels import Levels

SIGNED = (Levels.BINARY, Levels.TERNARY)


class Word(NamedTuple):
    """A word that leaves ``column`` of the array in array cycle ``at``: C[row, place], or none for a bubble."""

    at: int
    column: int
    row: int
    place: int


class Modelled(NamedTuple):
    sums: np.ndarray
    result: np.ndarray
    left: np.ndarray
    cycles: int


def ceil_div(a, b):
    return -(-a // b)


def beats(a, b):
    """How many, by the table."""
    planes = [1 if x in (*SIGNED, Levels.SPIKE) else x.bits for x in (a, b)]
    if a is Levels.BINARY and b is Levels.BINARY:
        return 1
    return planes[0] * planes[1] * (2 if a in SIGNED or b in SIGNED else 1)


def slots_of(spec, gemm, levels):
    return gemm.k // gemm.run * ceil_div(gemm.run, spec.word_bits) * beats(*levels)


def words_os(spec, mapping, gemm, slots):
    """All words in any order, and the array cycles of the run."""
    i_all = mapping.interleave
    rows, cols, used = spec.rows, spec.cols, min(spec.rows, gemm.m)
    issue = slots * max(i_all, 1)
    drain = used * i_all
    apart = max(issue, drain)
    across, down = ceil_div(gemm.n, cols * i_all), ceil_div(gemm.m, rows)
    latency = spec.popcount_latency + 1
    words = []
    for tile in range(down * across):
        complete = 1 + tile * apart + issue - i_all + latency
        for column in range(cols):
            for row in range(used):
                for i in range(i_all):
                    at = complete + rows - 1 + column + (used - 1 - row) * i_all + i
                    place = (tile % across * i_all + i) * cols + column
                    words.append(Word(at, column, tile // across * rows + row, place))
    length = 1 + (down * across - 1) * apart + issue - i_all + latency + rows - 1 + min(cols, gemm.n) - 1 + drain
    return words, length


def words_ws(spec, mapping, gemm, slots):
    i_all, kept = mapping.interleave, mapping.group
    rows, cols, lm = spec.rows, spec.cols, spec.popcount_latency
    row_delay = (kept - 1) * i_all + 1
    batch = max(kept * i_all, i_all * kept)
    batches, n_tiles = ceil_div(gemm.m, i_all), ceil_div(gemm.n, cols)
    k_tiles = ceil_div(ceil_div(slots, kept), rows)
    apart = max(batches * batch, (rows - 1) * row_delay + kept * rows)
    around = max(n_tiles * apart, rows * row_delay + 1)
    first = max(kept * rows, i_all * kept)
    words = []
    for k_tile in range(k_tiles):
        for n_tile in range(n_tiles):
            start = first + k_tile * around + n_tile * apart
            for b in range(batches):
                for i in range(i_all):
                    for column in range(cols):
                        at = start + b * batch + lm + rows * row_delay + i + column
                        words.append(Word(at, column, b * i_all + i, n_tile * cols + column))
    last = first + (k_tiles - 1) * around + (n_tiles - 1) * apart + (batches - 1) * batch
    return words, last + lm + rows * row_delay + i_all - 1 + min(cols, gemm.n) - 1 + 1


def modelled(spec, mapping, gemm, levels, a, b, ready=None, hold=None):
    """The sums, what the edge makes of them, and when each final one is taken; ``spec`` is that of the engine."""
    words_of = words_os if mapping.dataflow is Dataflow.OS else words_ws
    words, length = words_of(spec, mapping, gemm, slots_of(spec, gemm, levels))
    taken = clock(words, length, ready, hold)
    left = np.zeros((gemm.m, gemm.n), np.int64)
    cycles = 0
    for word in sorted(words):
        if word.column < gemm.n:
            cycles = max(cycles, taken(word) + 1)
        if word.row < gemm.m and word.place < gemm.n:
            left[word.row, word.place] = taken(word)
    product = a.astype(np.int64) @ b.astype(np.int64)
    if levels == (Levels.BINARY, Levels.BINARY):
        agree = (product + gemm.k) // 2
        return Modelled(agree, product, left, cycles)
    assert ready is not None or hold is not None or cycles == length
    return Modelled(product, product, left, cycles)


def clock(words, length, ready, hold):
    """When a word is taken: t(x + 1) = 1 + v, with v the first cycle without hold from max(t(x), u) on, and u the last
    of the takings of the words of x."""
    if ready is None and hold is None:
        return lambda word: word.at

    def first_ready(column, since):
        while ready is not None and since < len(ready) and not ready[since, column]:
            since += 1
        return since

    def first_free(since):
        while hold is not None and since < len(hold) and hold[since]:
            since += 1
        return since

    leaving = {}
    for word in words:
        leaving.setdefault(word.at, []).append(word.column)
    times, now = [], 0
    for x in range(max(leaving) + 1):
        times.append(now)
        now = 1 + first_free(max([now, *(first_ready(column, now) for column in leaving.get(x, ()))]))
    return lambda word: first_ready(word.column, times[word.at])
