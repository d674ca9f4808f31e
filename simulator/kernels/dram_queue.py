"""What a DRAM channel holds: queued requests, banks, and what each bank asks for next; parts of `dram.py`."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .jit import bare_inlined

ACT, PRE, READ, WRITE, PRE_ALL, REF = 0, 1, 2, 3, 4, 5
"""Kinds of command in the log."""
NEVER = 1 << 62
NONE = -1


class Shape(NamedTuple):
    """Sizes of the channel and of its controller."""

    ranks: int
    groups: int
    banks: int
    """In a group."""
    read_queue: int
    write_queue: int
    drain_from: int
    drain_to: int
    hit_limit: int


class Slots(NamedTuple):
    """Queued requests; [0, read_queue) for reads, then those for writes, then one that stands for none. [slots + 1]"""

    who: Any
    row: Any
    column: Any
    after: Any
    """Slot of the next request to the same bank in the same queue."""
    before: Any


class Banks(NamedTuple):
    """Of each bank: its open row, the columns served from it, since when it is open, from when on it takes commands.

    ``rank`` and ``group`` are looked up: a division takes as long as everything else that a command changes.
    """

    row: Any
    served: Any
    opened: Any
    act_from: Any
    column_from: Any
    pre_from: Any
    rank: Any
    group: Any


class Asks(NamedTuple):
    """Of each bank in each queue, at `place_of`: its requests as a list, oldest first, and what they ask for next."""

    first: Any
    last: Any
    hit: Any
    """The oldest request of the open row."""
    slot: Any
    kind: Any
    ready: Any
    """From when on bank, group and rank take the command; NEVER if there is none."""
    code: Any
    """The command's rank among others: rows after columns, then age, then the number of the bank."""
    is_column: Any
    """-1 if it is a column, else 0: with it a new gate reaches the asks it holds for without a branch."""
    is_act: Any


DELAY_BITS, AGE_BITS, BANK_BITS = 15, 41, 6
IDLE = (1 << DELAY_BITS) - 1
"""Delay of a bank that asks for nothing; real ones are shorter (`simulator/dram_spec.py` sees to it)."""
BANK = (1 << BANK_BITS) - 1
MARKS = 1024
"""Counters of queued lines by a hash of theirs: zero says without a search that a line is not queued."""


@bare_inlined
def place_of(q: int, b: int) -> int:
    """Where `Asks` holds a bank in a queue. The masks tell the compiler that it is no index from the end."""
    return (q & 1) << BANK_BITS | (b & BANK)


@bare_inlined
def mark_of(row: int, column: int) -> int:
    """The counter of a line; lines that follow each other have different ones."""
    return (row * 37 + column) & (MARKS - 1)


@bare_inlined
def find_line(slots: Slots, slot: int, row: int, column: int) -> int:
    """The request of this line in the list from ``slot`` on, if any."""
    none = len(slots.who) - 1
    while slot != none and (slots.row[slot] != row or slots.column[slot] != column):
        slot = slots.after[slot]
    return slot


@bare_inlined
def find_row(slots: Slots, slot: int, row: int) -> int:
    """The oldest request of this row in the list from ``slot`` on, if any."""
    none = len(slots.who) - 1
    while slot != none and slots.row[slot] != row:
        slot = slots.after[slot]
    return slot


@bare_inlined
def append(slots: Slots, asks: Asks, i: int, slot: int) -> None:
    """Put a request at the end of its bank's list; the slot for none takes what has no neighbour."""
    none, last = len(slots.who) - 1, asks.last[i]
    slots.after[slot], slots.before[slot] = none, last
    slots.after[last] = slot
    if last == none:
        asks.first[i] = slot
    asks.last[i] = slot


@bare_inlined
def remove(slots: Slots, asks: Asks, i: int, slot: int) -> None:
    """Take a request out of its bank's list; its own link to the next one stays."""
    after, before = slots.after[slot], slots.before[slot]
    slots.before[after], slots.after[before] = before, after
    if asks.first[i] == slot:
        asks.first[i] = after
    if asks.last[i] == slot:
        asks.last[i] = before


@bare_inlined
def hold(gates: Any, low: int, count: int, until: int, nought: int) -> None:
    """No command of a kind in ``count`` groups from ``low`` on before ``until``."""
    for group in range(low, low + count):
        gates[np.uint64(group)] = max(gates[np.uint64(group)], until) + nought


@bare_inlined
def hold_asks(ready: Any, held: Any, low: int, count: int, until: int, nought: int) -> None:
    """The same for the ``count`` asks from ``low`` on that ``held`` marks: no branches, so it is fast."""
    for i in range(count):
        at = np.uint64(low + i)
        ready[at] = max(ready[at], until & held[at]) + nought


@bare_inlined
def ask(slots: Slots, banks: Banks, asks: Asks, gates: Any, bank: int, q: int, s: Shape) -> None:
    """What the bank asks for in queue ``q``: the oldest request of the open row, or else the way to the oldest one."""
    none, b, i = len(slots.who) - 1, bank & BANK, place_of(q, bank)
    row, first = banks.row[b], asks.first[i]
    if row == NONE:
        asks.hit[i] = none
    asks.is_column[i], asks.is_act[i] = 0, 0
    if first == none:
        asks.ready[i] = NEVER
        return
    hit = asks.hit[i]
    group = banks.group[b]
    n_groups = s.ranks * s.groups
    if row != NONE and hit != none and (hit == first or banks.served[b] < s.hit_limit):
        asks.kind[i], asks.slot[i], asks.is_column[i] = READ + q, hit, -1
        asks.ready[i] = max(banks.column_from[b], gates[np.uint64(q * n_groups + group)])
        asks.code[i] = (banks.opened[b] << BANK_BITS) | b
        return
    if row == NONE:
        asks.kind[i], asks.is_act[i] = ACT, -1
        asks.ready[i] = max(banks.act_from[b], gates[np.uint64(2 * n_groups + group)])
    else:
        asks.kind[i] = PRE
        asks.ready[i] = banks.pre_from[b]
    asks.code[i] = (1 << (AGE_BITS + BANK_BITS)) | (slots.who[first] << BANK_BITS) | b


@bare_inlined
def first_of(asks: Asks, t: int, low: int, count: int) -> int:
    """The least (delay, rank, bank) of ``count`` asks from ``low`` on, packed in one number: again no branches."""
    best = NEVER
    for i in range(count):
        at = np.uint64(low + i)
        delay = min(max(asks.ready[at], t) - t, IDLE)
        best = min(best, (delay << (1 + AGE_BITS + BANK_BITS)) | asks.code[at])
    return best
