"""One DRAM channel: queues, FR-FCFS, open pages, refresh; every command at the cycle JEDEC timing allows.

Banks are numbered rank by rank, inside a rank group by group. Between two cycles in which something happens nothing is
stepped: each decision also yields the cycle of the next possible one. `simulator/reference/dram.py` steps every cycle.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

ACT, PRE, READ, WRITE, PRE_ALL, REF = 0, 1, 2, 3, 4, 5
"""Kinds of command in the log."""
NEVER = 1 << 62
NONE = -1


class Gaps(NamedTuple):
    """Cycles from one command to the next, by the name of the constraint; derived in `simulator/dram.py`."""

    act_column: int
    act_pre: int
    act_act_bank: int
    act_act_group: int
    act_act_rank: int
    four_act: int
    pre_act: int
    pre_all_act: int
    column_group: int
    """Read to read or write to write in one bank group; `column_rank` otherwise, `column_switch` between ranks."""
    column_rank: int
    column_switch: int
    read_pre: int
    write_pre: int
    read_write: int
    """Between ranks the same: the bus turns either way."""
    write_read_group: int
    write_read_rank: int
    write_read_switch: int
    refresh: int
    refresh_interval: int
    read_data: int
    """From a read to the end of its data."""
    write_data: int


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


class Totals(NamedTuple):
    """What a run did. ``active`` sums, over ranks, the cycles with at least one open bank."""

    end: int
    acts: int
    pres: int
    reads: int
    writes: int
    refreshes: int
    hits: int
    forwarded: int
    merged: int
    active: int
    commands: int


# Fields of the state. A slot holds a queued request; slots [0, read_queue) are for reads, the others for writes.
WHO, SLOT_ROW, SLOT_COLUMN, AFTER, BEFORE = range(5)
# Of a bank: its open row, the columns served from it, since when it is open, and from when on it takes commands.
ROW, SERVED, OPENED, ACT_FROM, COLUMN_FROM, PRE_FROM, RANK, GROUP = range(8)
# Of a bank in one queue: its requests as a list, oldest first; the oldest of the open row; the command they ask for.
FIRST, LAST, HIT, KIND, SLOT = range(5)
# What a bank in one queue asks for, as the choice sees it: from when on the bank takes it, which gate it has to pass,
# and its rank among others: rows after columns, then age, then the number of the bank.
FROM, GATE, CODE = range(3)
DELAY_BITS, AGE_BITS, BANK_BITS = 15, 41, 6
IDLE = (1 << DELAY_BITS) - 1
"""Delay of a bank that asks for nothing; real ones are shorter (`simulator/dram_spec.py` sees to it)."""
MARKS = 1024
"""Counters of queued lines by a hash of theirs: zero says without a search that a line is not queued."""
# Of a rank; the last four activates are a ring.
OPEN_BANKS, OPEN_SINCE, DUE, OLDEST, WINDOW = range(5)


# Without reference counts on the arrays, which nothing here allocates or keeps: they cost more than the simulation.
_kernel = njit(cache=True, nogil=True, error_model="numpy", _nrt=False)


def run_channel(
    bank: Any, row: Any, column: Any, write: Any, time: Any, g: Gaps, s: Shape, entered: Any, done: Any, log: Any
) -> Totals:
    """Serve the requests, which enter the queues in order, one a cycle.

    ``bank``, ``row``, ``column``, ``time`` int64 [n], ``write`` bool [n]. Written: ``entered`` and ``done`` int64 [n],
    the cycle of entry into a queue and of the end of its data; ``log`` int64 [room, 4]: cycle, kind, bank (rank for
    PRE_ALL and REF), row. ``commands`` counts those that found no room, too.
    """
    n_groups = s.ranks * s.groups
    n_banks = n_groups * s.banks
    slots = np.full((s.read_queue + s.write_queue, 5), NONE, np.int64)
    asks = np.full((2, n_banks, 5), NONE, np.int64)
    table = np.zeros((2, 3, n_banks), np.int64)
    table[:, FROM] = NEVER
    banks = np.zeros((n_banks, 8), np.int64)
    banks[:, ROW] = NONE
    banks[:, GROUP] = np.arange(n_banks) // s.banks
    banks[:, RANK] = banks[:, GROUP] // s.groups
    # From when on a group takes reads, writes and activates; the last gate is always open, for precharges.
    gates = np.zeros(3 * n_groups + 1, np.int64)
    ranks = np.zeros((s.ranks, WINDOW + 4), np.int64)
    ranks[:, WINDOW:] = -NEVER
    # Ranks refresh in turn, so that one can work while another cannot.
    ranks[:, DUE] = (np.arange(s.ranks) + 1) * g.refresh_interval // s.ranks
    queues = np.array([[s.read_queue, s.write_queue], [0, s.read_queue], [0, 0]])
    return Totals(
        *_run(
            bank, row, column, write, time, g, s, entered, done, log,
            slots, np.arange(len(slots)), asks, table, banks, gates, ranks, queues,
            np.zeros((2, MARKS), np.int64),
        )
    )  # fmt: skip


@_kernel
def _run(
    bank: Any, row: Any, column: Any, write: Any, time: Any, g: Gaps, s: Shape, entered: Any, done: Any, log: Any,
    slots: Any, free: Any, asks: Any, table: Any, banks: Any, gates: Any, ranks: Any, queues: Any,
    marks: Any,
) -> tuple[int, ...]:  # fmt: skip
    """`run_channel` on a fresh state; the fields of `Totals`."""
    n = len(bank)
    n_groups = s.ranks * s.groups
    per_rank = s.groups * s.banks
    room, base, used = queues[0], queues[1], queues[2]
    next_due = ranks[0, DUE]

    acts, pres, reads, writes, refreshes, hits = 0, 0, 0, 0, 0, 0
    forwarded, merged, active, commands, end = 0, 0, 0, 0, 0
    taken, left, q, t = 0, n, 0, 0
    while left > 0:
        # 1. A request enters. A read of a line that waits to be written is answered by the queue, a write to it
        # replaces it; a write to a line that waits to be read must not overtake, so it stays outside.
        wake, before = NEVER, taken
        if taken < n and time[taken] <= t:
            b, w = bank[taken], int(write[taken])
            mark = _mark(row[taken], column[taken])
            if marks[1, mark] > 0 and _find(slots, asks[1, b, FIRST], row[taken], column[taken]) != NONE:
                entered[taken], done[taken] = t, t + 1
                end = max(end, t + 1)
                forwarded, merged = forwarded + 1 - w, merged + w
                taken, left = taken + 1, left - 1
                if left == 0:
                    break
            elif used[w] < room[w] and (
                w == 0 or marks[0, mark] == 0 or _find(slots, asks[0, b, FIRST], row[taken], column[taken]) == NONE
            ):
                marks[w, mark] += 1
                slot = free[base[w] + used[w]]
                used[w] += 1
                slots[slot, WHO], slots[slot, SLOT_ROW], slots[slot, SLOT_COLUMN] = taken, row[taken], column[taken]
                _append(slots, asks[w, b], slot)
                if asks[w, b, HIT] == NONE and banks[b, ROW] == row[taken]:
                    asks[w, b, HIT] = slot
                _ask(slots, banks, asks, table, b, w, s)
                entered[taken] = t
                taken += 1
        # The next one may follow in the next cycle, or when it is there; one that found no way in waits for a command.
        if taken < n and time[taken] > t:
            wake = time[taken]
        elif before < taken < n:
            w = int(write[taken])
            if used[w] < room[w] or marks[1, _mark(row[taken], column[taken])] > 0:
                wake = t + 1
        # 2. Writes wait until their queue is full, or there are no reads.
        if q == 0:
            if used[1] >= s.drain_from or (used[0] == 0 and used[1] > 0):
                q = 1
        elif used[1] == 0 or (used[1] <= s.drain_to and used[0] > 0):
            q = 0
        # 3. A refresh that is due comes first, and keeps its rank from everything else.
        at, kind, target = NEVER, NONE, NONE
        if t >= next_due:
            for r in range(s.ranks):
                if t >= ranks[r, DUE]:
                    ready = t
                    closed = ranks[r, OPEN_BANKS] == 0
                    for b in range(r * per_rank, (r + 1) * per_rank):
                        if closed:
                            ready = max(ready, banks[b, ACT_FROM])
                        elif banks[b, ROW] != NONE:
                            ready = max(ready, banks[b, PRE_FROM])
                    if ready < at:
                        at, kind, target = ready, (REF if closed else PRE_ALL), r
                else:
                    wake = min(wake, ranks[r, DUE])
        else:
            wake = min(wake, next_due)
        # 4. The first command that can go; of several in one cycle columns before rows, of columns the row that is open
        # longest, of rows the oldest request.
        best = NEVER
        for r in range(s.ranks):
            if t < ranks[r, DUE]:
                best = min(best, _first(table[q], gates, t, r * per_rank, (r + 1) * per_rank))
        delay = best >> (1 + AGE_BITS + BANK_BITS)
        if delay < IDLE and t + delay < at:
            at, target = t + delay, best & ((1 << BANK_BITS) - 1)
            kind = asks[q, target, KIND]
        if at >= wake:
            t = wake
            continue
        # 5. Carry it out.
        t = at
        if commands < len(log):
            log[commands, 0], log[commands, 1], log[commands, 2], log[commands, 3] = t, kind, target, NONE
        if kind in (READ, WRITE):
            b = target
            slot = asks[q, b, SLOT]
            request = slots[slot, WHO]
            hits += banks[b, SERVED] > 0
            banks[b, SERVED] += 1
            if kind == READ:
                reads += 1
                done[request] = t + g.read_data
                banks[b, PRE_FROM] = max(banks[b, PRE_FROM], t + g.read_pre)
            else:
                writes += 1
                done[request] = t + g.write_data
                banks[b, PRE_FROM] = max(banks[b, PRE_FROM], t + g.write_pre)
            for r in range(s.ranks):
                same = r == banks[b, RANK]
                go = g.column_rank if same else g.column_switch
                turn = g.read_write if kind == READ else (g.write_read_rank if same else g.write_read_switch)
                for group in range(r * s.groups, (r + 1) * s.groups):
                    gates[q * n_groups + group] = max(gates[q * n_groups + group], t + go)
                    gates[(1 - q) * n_groups + group] = max(gates[(1 - q) * n_groups + group], t + turn)
            group = banks[b, GROUP]
            gates[q * n_groups + group] = t + g.column_group
            if kind == WRITE:
                gates[group] = max(gates[group], t + g.write_read_group)
            end = max(end, done[request])
            marks[q, _mark(slots[slot, SLOT_ROW], slots[slot, SLOT_COLUMN])] -= 1
            _remove(slots, asks[q, b], slot)
            asks[q, b, HIT] = _find_row(slots, slots[slot, AFTER], banks[b, ROW])
            used[q] -= 1
            free[base[q] + used[q]] = slot
            left -= 1
        elif kind == ACT:
            b, r = target, banks[target, RANK]
            banks[b, ROW] = slots[asks[q, b, FIRST], SLOT_ROW]
            banks[b, SERVED], banks[b, OPENED] = 0, t
            banks[b, COLUMN_FROM], banks[b, PRE_FROM] = t + g.act_column, t + g.act_pre
            banks[b, ACT_FROM] = t + g.act_act_bank
            ranks[r, WINDOW + ranks[r, OLDEST]] = t
            ranks[r, OLDEST] = (ranks[r, OLDEST] + 1) % 4
            again = max(t + g.act_act_rank, ranks[r, WINDOW + ranks[r, OLDEST]] + g.four_act)
            for other in range(r * s.groups, (r + 1) * s.groups):
                gates[2 * n_groups + other] = max(gates[2 * n_groups + other], again)
            group = 2 * n_groups + banks[b, GROUP]
            gates[group] = max(gates[group], t + g.act_act_group)
            if ranks[r, OPEN_BANKS] == 0:
                ranks[r, OPEN_SINCE] = t
            ranks[r, OPEN_BANKS] += 1
            for w in range(2):
                asks[w, b, HIT] = _find_row(slots, asks[w, b, FIRST], banks[b, ROW])
            acts += 1
        elif kind == PRE:
            b, r = target, banks[target, RANK]
            banks[b, ROW] = NONE
            banks[b, ACT_FROM] = max(banks[b, ACT_FROM], t + g.pre_act)
            ranks[r, OPEN_BANKS] -= 1
            if ranks[r, OPEN_BANKS] == 0:
                active += t - ranks[r, OPEN_SINCE]
            pres += 1
        elif kind == PRE_ALL:
            pres += ranks[target, OPEN_BANKS]
            active += t - ranks[target, OPEN_SINCE]
            ranks[target, OPEN_BANKS] = 0
            for b in range(target * per_rank, (target + 1) * per_rank):
                banks[b, ROW] = NONE
                banks[b, ACT_FROM] = max(banks[b, ACT_FROM], t + g.pre_all_act)
        else:
            for b in range(target * per_rank, (target + 1) * per_rank):
                banks[b, ACT_FROM] = t + g.refresh
            ranks[target, DUE] += g.refresh_interval
            next_due = NEVER
            for r in range(s.ranks):
                next_due = min(next_due, ranks[r, DUE])
            refreshes += 1
        if kind < PRE_ALL:
            if commands < len(log):
                log[commands, 3] = banks[target, ROW]
            for w in range(2):
                _ask(slots, banks, asks, table, target, w, s)
        else:
            for b in range(target * per_rank, (target + 1) * per_rank):
                for w in range(2):
                    _ask(slots, banks, asks, table, b, w, s)
        commands += 1
        t += 1
    for r in range(s.ranks):
        if ranks[r, OPEN_BANKS] > 0:
            active += max(end - ranks[r, OPEN_SINCE], 0)
    return end, acts, pres, reads, writes, refreshes, hits, forwarded, merged, active, commands


@_kernel
def _mark(row: int, column: int) -> int:
    """The counter of a line; lines that follow each other have different ones."""
    return (row * 37 + column) & (MARKS - 1)


@_kernel
def _find(slots: Any, slot: int, row: int, column: int) -> int:
    """The request of this line in the list from ``slot`` on, if any."""
    while slot != NONE and (slots[slot, SLOT_ROW] != row or slots[slot, SLOT_COLUMN] != column):
        slot = slots[slot, AFTER]
    return slot


@_kernel
def _find_row(slots: Any, slot: int, row: int) -> int:
    """The oldest request of this row in the list from ``slot`` on, if any."""
    while slot != NONE and slots[slot, SLOT_ROW] != row:
        slot = slots[slot, AFTER]
    return slot


@_kernel
def _append(slots: Any, ask: Any, slot: int) -> None:
    """Put a request at the end of its bank's list."""
    slots[slot, AFTER], slots[slot, BEFORE] = NONE, ask[LAST]
    if ask[LAST] == NONE:
        ask[FIRST] = slot
    else:
        slots[ask[LAST], AFTER] = slot
    ask[LAST] = slot


@_kernel
def _remove(slots: Any, ask: Any, slot: int) -> None:
    """Take a request out of its bank's list; its own link to the next one stays."""
    after, before = slots[slot, AFTER], slots[slot, BEFORE]
    if before == NONE:
        ask[FIRST] = after
    else:
        slots[before, AFTER] = after
    if after == NONE:
        ask[LAST] = before
    else:
        slots[after, BEFORE] = before


@_kernel
def _ask(slots: Any, banks: Any, asks: Any, table: Any, b: int, q: int, s: Shape) -> None:
    """What a bank's requests need next: a column of the open row, else its end, else the row of the oldest request."""
    first, row, hit = asks[q, b, FIRST], banks[b, ROW], asks[q, b, HIT]
    if row == NONE:
        asks[q, b, HIT] = NONE
    if first == NONE:
        table[q, FROM, b] = NEVER
        return
    group = banks[b, GROUP]
    n_groups = s.ranks * s.groups
    if row != NONE and hit != NONE and (hit == first or banks[b, SERVED] < s.hit_limit):
        asks[q, b, KIND], asks[q, b, SLOT] = READ + q, hit
        table[q, FROM, b], table[q, GATE, b] = banks[b, COLUMN_FROM], q * n_groups + group
        table[q, CODE, b] = (banks[b, OPENED] << BANK_BITS) | b
        return
    if row == NONE:
        asks[q, b, KIND] = ACT
        table[q, FROM, b], table[q, GATE, b] = banks[b, ACT_FROM], 2 * n_groups + group
    else:
        asks[q, b, KIND] = PRE
        table[q, FROM, b], table[q, GATE, b] = banks[b, PRE_FROM], 3 * n_groups
    table[q, CODE, b] = (1 << (AGE_BITS + BANK_BITS)) | (slots[first, WHO] << BANK_BITS) | b


@_kernel
def _first(table: Any, gates: Any, t: int, low: int, high: int) -> int:
    """The least (delay, rank, bank) of banks ``low`` to ``high``, packed in one number: no branches, so it is fast."""
    best = NEVER
    for b in range(low, high):
        delay = min(max(max(table[FROM, b], gates[np.uint64(table[GATE, b])]), t) - t, IDLE)
        best = min(best, (delay << (1 + AGE_BITS + BANK_BITS)) | table[CODE, b])
    return best
