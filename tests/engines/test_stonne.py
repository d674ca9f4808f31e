"""The gather engine beside the SIGMA-like one of STONNE on the same masks, and why they differ (docs/gather.md)."""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from itertools import count
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pytest

from weft.dataflow.config_io import load_spec
from weft.dataflow.gather.spec import Balance, GatherSpec
from weft.dataflow.gather.time import gather_cycles
from weft.simulator.gather import step_mask

GOLDEN = Path(__file__).parents[1] / "golden" / "stonne_sigma.csv"
WIDTH = 8
Bools = npt.NDArray[np.bool_]


class Theirs(NamedTuple):
    """A row of the file."""

    m: int
    k: int
    n: int
    sparsity: int
    multipliers: int
    kept: int
    batches: int
    cycles: int
    cycles_2n: int


def rows() -> list[Theirs]:
    with GOLDEN.open() as file:
        lines = [line for line in file if not line.startswith("#")]
    return [Theirs(*map(int, row.values())) for row in csv.DictReader(lines)]


def glibc_rand() -> Iterator[int]:
    """``rand()`` of the GNU C library, not seeded."""
    state = [1]
    while len(state) < 31:
        state.append(16807 * state[-1] % (2**31 - 1))
    state += state[:3]
    last = deque(state, maxlen=31)
    for i in count():
        last.append((last[0] + last[-3]) % 2**32)
        if i >= 310:
            yield last[-1] >> 1


@cache
def mask_of(m: int, k: int, sparsity: int) -> Bools:
    """As STONNE draws it: a number below ``sparsity`` + 1 of 100 is a zero, any other draws its value too. Rows that
    keep fewer than three elements are filled up to three from the left, which its tree of adders wants."""
    drawn, kept = glibc_rand(), np.zeros((m, k), np.bool_)
    for i in range(m):
        for j in range(k):
            if next(drawn) % 100 > sparsity:
                kept[i, j] = True
                next(drawn)
    for row in kept:
        for j in range(3):
            if np.count_nonzero(row) < 3:
                row[j] = True
    return kept


def batches_of(mask: Bools, multipliers: int) -> int:
    """How often its multipliers are loaded: with as many whole rows as they hold; a longer one is cut, and of what
    follows a multiplier has the sum so far."""
    found, room = 0, 0
    for kept in np.count_nonzero(mask, axis=1):
        if kept > multipliers:
            found, room = found + 1 + -(-(kept - multipliers) // (multipliers - 1)), 0
        elif kept > room:
            found, room = found + 1, multipliers - kept
        else:
            room -= kept
    return found


def ours(row: Theirs, balance: Balance = "sorted", banks: int = 0) -> int:
    """Cycles with as many multipliers, all columns of the dense operand at once."""
    own = GatherSpec(lanes=row.multipliers // WIDTH, width=WIDTH, balance=balance, banks=banks)
    stepped, _ = step_mask(own, mask_of(row.m, row.k, row.sparsity).T)
    return gather_cycles(replace(load_spec("tiny"), gather=own), stepped.slots, row.n).total


@pytest.mark.parametrize("row", rows(), ids=lambda row: f"{row.m}x{row.k}x{row.n}-{row.sparsity}")
def test_what_stonne_counts_is_explained(row: Theirs) -> None:
    mask = mask_of(row.m, row.k, row.sparsity)
    per_column = (row.cycles_2n - row.cycles) / row.n
    loading = row.cycles - per_column * row.n

    assert np.count_nonzero(mask) == row.kept
    assert batches_of(mask, row.multipliers) == row.batches
    # A column a cycle of every batch, or two where sums meet on a line of its bus; loading is not hidden.
    assert row.batches <= per_column <= 2 * row.batches
    assert 7.5 <= loading / row.batches <= 12.3


# Of four shapes, by the share that is kept, %: kept x n / multipliers, batches x n, their cycles; ours static, sorted,
# and sorted with 64 banks.
TABLE = {
    50: (25684, 32604, 38773, 29462, 29191, 29632),
    25: (12892, 17240, 20906, 15358, 14899, 15511),
    10: (5171, 6572, 8143, 6340, 6114, 6413),
    2: (1164, 1379, 2485, 1523, 1446, 1526),
}


def test_beside_theirs() -> None:
    """The table of docs/gather.md."""
    table = {}
    for sparsity in (49, 74, 89, 97):
        found = [row for row in rows() if row.sparsity == sparsity]
        work = sum(-(-row.kept * row.n // row.multipliers) for row in found)
        run = [sum(ours(row, *how) for row in found) for how in (("static", 0), ("sorted", 0), ("sorted", 64))]
        loaded = sum(row.batches * row.n for row in found)
        table[99 - sparsity] = (work, loaded, sum(row.cycles for row in found), *run)
    assert table == TABLE
