"""One DRAM channel: queues, FR-FCFS, open pages, refresh; every command at the cycle JEDEC timing allows.

Banks are numbered rank by rank, inside a rank group by group. Between two cycles in which something happens nothing is
stepped: each decision also yields the cycle of the next possible one. `simulator/reference/dram.py` steps every cycle.

One loop, longer than others; its parts are in `dram_queue.py` and become one function with it (`jit.bare_inlined`).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .dram_queue import (
    ACT,
    AGE_BITS,
    BANK,
    BANK_BITS,
    IDLE,
    MARKS,
    NEVER,
    NONE,
    PRE,
    PRE_ALL,
    READ,
    REF,
    WRITE,
    Asks,
    Banks,
    Shape,
    Slots,
    append,
    ask,
    find_line,
    find_row,
    first_of,
    hold,
    hold_asks,
    mark_of,
    place_of,
    remove,
)
from .jit import bare


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


# Of a rank; the last four activates are a ring.
OPEN_BANKS, OPEN_SINCE, DUE, OLDEST, WINDOW = range(5)


def run_channel(
    bank: Any, row: Any, column: Any, write: Any, time: Any, g: Gaps, s: Shape, entered: Any, done: Any, log: Any
) -> Totals:
    """Serve the requests, which enter the queues in order, one a cycle.

    ``bank``, ``row``, ``column``, ``time`` int64 [n], ``write`` bool [n]. Written: ``entered`` and ``done`` int64 [n],
    the cycle of entry into a queue and of the end of its data; ``log`` int64 [room, 4]: cycle, kind, bank (rank for
    PRE_ALL and REF), row. ``commands`` counts those that found no room, too.
    """
    n_groups, n_slots, n_asks = s.ranks * s.groups, s.read_queue + s.write_queue, 2 << BANK_BITS
    slots = Slots._make((*np.zeros((3, n_slots + 1), np.int64), *np.zeros((2, n_slots + 1), np.uint16)))
    none = np.full((4, n_asks), n_slots, np.uint16)
    asks = Asks._make((*none, np.zeros(n_asks, np.uint8), np.full(n_asks, NEVER), *np.zeros((3, n_asks), np.int64)))
    group = np.arange(1 << BANK_BITS) // s.banks
    zeros = np.zeros((5, len(group)), np.int64)
    banks = Banks._make((np.full(len(group), NONE), *zeros, group // s.groups, group))
    # From when on a group takes reads, writes and activates.
    gates = np.zeros(3 * n_groups, np.int64)
    ranks = np.zeros((s.ranks, WINDOW + 4), np.int64)
    ranks[:, WINDOW:] = -NEVER
    # Ranks refresh in turn, so that one can work while another cannot.
    ranks[:, DUE] = (np.arange(s.ranks) + 1) * g.refresh_interval // s.ranks
    queues = np.array([[s.read_queue, s.write_queue], [0, s.read_queue], [0, 0]])
    return Totals(
        *_run(
            bank,
            row,
            column,
            write,
            time,
            g,
            s,
            entered,
            done,
            log,
            slots,
            np.arange(n_slots, dtype=np.uint16),
            asks,
            banks,
            gates,
            ranks,
            queues,
            np.zeros((2, MARKS), np.int64),
        )
    )


@bare
def _run(
    bank: Any,
    row: Any,
    column: Any,
    write: Any,
    time: Any,
    g: Gaps,
    s: Shape,
    entered: Any,
    done: Any,
    log: Any,
    slots: Slots,
    free: Any,
    asks: Asks,
    banks: Banks,
    gates: Any,
    ranks: Any,
    queues: Any,
    marks: Any,
) -> tuple[int, ...]:
    """`run_channel` on a fresh state; the fields of `Totals`."""
    n = len(bank)
    n_groups = s.ranks * s.groups
    per_rank = s.groups * s.banks
    none = len(slots.who) - 1
    room, base, used = queues[0], queues[1], queues[2]
    # Zero. Added to what a loop stores, it keeps LLVM from storing by mask, which takes AMD tens of cycles.
    nought = base[0]
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
            mark = mark_of(row[taken], column[taken])
            if marks[1, mark] > 0 and find_line(slots, asks.first[place_of(1, b)], row[taken], column[taken]) != none:
                entered[taken], done[taken] = t, t + 1
                end = max(end, t + 1)
                forwarded, merged = forwarded + 1 - w, merged + w
                taken, left = taken + 1, left - 1
                if left == 0:
                    break
            elif used[w] < room[w] and (
                w == 0
                or marks[0, mark] == 0
                or find_line(slots, asks.first[place_of(0, b)], row[taken], column[taken]) == none
            ):
                marks[w, mark] += 1
                slot = free[np.uint64(base[w] + used[w])]
                used[w] += 1
                slots.who[slot], slots.row[slot], slots.column[slot] = taken, row[taken], column[taken]
                i = place_of(w, b)
                append(slots, asks, i, slot)
                opened = asks.hit[i] == none and banks.row[b & BANK] == row[taken]
                if opened:
                    asks.hit[i] = slot
                if opened or asks.first[i] == slot:
                    ask(slots, banks, asks, gates, b, w, s)
                entered[taken] = t
                taken += 1
        # The next one may follow in the next cycle, or when it is there; one that found no way in waits for a command.
        if taken < n and time[taken] > t:
            wake = time[taken]
        elif before < taken < n:
            w = int(write[taken])
            if used[w] < room[w] or marks[1, mark_of(row[taken], column[taken])] > 0:
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
                            ready = max(ready, banks.act_from[b])
                        elif banks.row[b] != NONE:
                            ready = max(ready, banks.pre_from[b])
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
                best = min(best, first_of(asks, t, place_of(q, r * per_rank), per_rank))
        delay = best >> (1 + AGE_BITS + BANK_BITS)
        if delay < IDLE and t + delay < at:
            at, target = t + delay, best & ((1 << BANK_BITS) - 1)
            kind = asks.kind[place_of(q, target)]
        if at >= wake:
            t = wake
            continue
        # 5. Carry it out.
        t = at
        if commands < len(log):
            log[commands, 0], log[commands, 1], log[commands, 2], log[commands, 3] = t, kind, target, NONE
        if kind in (READ, WRITE):
            b, i = target, place_of(q, target)
            slot = asks.slot[i]
            request = slots.who[slot]
            hits += banks.served[b] > 0
            banks.served[b] += 1
            if kind == READ:
                reads += 1
                done[request] = t + g.read_data
                banks.pre_from[b] = max(banks.pre_from[b], t + g.read_pre)
            else:
                writes += 1
                done[request] = t + g.write_data
                banks.pre_from[b] = max(banks.pre_from[b], t + g.write_pre)
            for r in range(s.ranks):
                same = r == banks.rank[b]
                go = g.column_rank if same else g.column_switch
                turn = g.read_write if kind == READ else (g.write_read_rank if same else g.write_read_switch)
                hold(gates, q * n_groups + r * s.groups, s.groups, t + go, nought)
                hold(gates, (1 - q) * n_groups + r * s.groups, s.groups, t + turn, nought)
                hold_asks(asks.ready, asks.is_column, place_of(q, r * per_rank), per_rank, t + go, nought)
                if used[1 - q] > 0:
                    hold_asks(asks.ready, asks.is_column, place_of(1 - q, r * per_rank), per_rank, t + turn, nought)
            group = banks.group[b]
            hold(gates, q * n_groups + group, 1, t + g.column_group, nought)
            hold_asks(asks.ready, asks.is_column, place_of(q, group * s.banks), s.banks, t + g.column_group, nought)
            if kind == WRITE:
                hold(gates, group, 1, t + g.write_read_group, nought)
                hold_asks(
                    asks.ready, asks.is_column, place_of(0, group * s.banks), s.banks, t + g.write_read_group, nought
                )
            end = max(end, done[request])
            marks[q, mark_of(slots.row[slot], slots.column[slot])] -= 1
            remove(slots, asks, i, slot)
            asks.hit[i] = find_row(slots, slots.after[slot], banks.row[b])
            used[q] -= 1
            free[np.uint64(base[q] + used[q])] = slot
            left -= 1
        elif kind == ACT:
            b, r = target, banks.rank[target]
            banks.row[b] = slots.row[asks.first[place_of(q, b)]]
            banks.served[b], banks.opened[b] = 0, t
            banks.column_from[b], banks.pre_from[b] = t + g.act_column, t + g.act_pre
            banks.act_from[b] = t + g.act_act_bank
            ranks[r, WINDOW + ranks[r, OLDEST]] = t
            ranks[r, OLDEST] = (ranks[r, OLDEST] + 1) & 3
            again = max(t + g.act_act_rank, ranks[r, WINDOW + ranks[r, OLDEST]] + g.four_act)
            group = banks.group[b]
            hold(gates, 2 * n_groups + r * s.groups, s.groups, again, nought)
            hold(gates, 2 * n_groups + group, 1, t + g.act_act_group, nought)
            for w in range(2):
                if used[w] == 0:
                    continue
                hold_asks(asks.ready, asks.is_act, place_of(w, r * per_rank), per_rank, again, nought)
                hold_asks(asks.ready, asks.is_act, place_of(w, group * s.banks), s.banks, t + g.act_act_group, nought)
                asks.hit[place_of(w, b)] = find_row(slots, asks.first[place_of(w, b)], banks.row[b])
            if ranks[r, OPEN_BANKS] == 0:
                ranks[r, OPEN_SINCE] = t
            ranks[r, OPEN_BANKS] += 1
            acts += 1
        elif kind == PRE:
            b, r = target, banks.rank[target]
            banks.row[b] = NONE
            banks.act_from[b] = max(banks.act_from[b], t + g.pre_act)
            ranks[r, OPEN_BANKS] -= 1
            if ranks[r, OPEN_BANKS] == 0:
                active += t - ranks[r, OPEN_SINCE]
            pres += 1
        elif kind == PRE_ALL:
            pres += ranks[target, OPEN_BANKS]
            active += t - ranks[target, OPEN_SINCE]
            ranks[target, OPEN_BANKS] = 0
            for b in range(target * per_rank, (target + 1) * per_rank):
                banks.row[b] = NONE
                banks.act_from[b] = max(banks.act_from[b], t + g.pre_all_act)
        else:
            for b in range(target * per_rank, (target + 1) * per_rank):
                banks.act_from[b] = t + g.refresh
            ranks[target, DUE] += g.refresh_interval
            next_due = NEVER
            for r in range(s.ranks):
                next_due = min(next_due, ranks[r, DUE])
            refreshes += 1
        if kind < PRE_ALL:
            if commands < len(log):
                log[commands, 3] = banks.row[target]
            for w in range(2):
                if w == q or used[w] > 0:
                    ask(slots, banks, asks, gates, target, w, s)
        else:
            for b in range(target * per_rank, (target + 1) * per_rank):
                for w in range(2):
                    ask(slots, banks, asks, gates, b, w, s)
        commands += 1
        t += 1
    for r in range(s.ranks):
        if ranks[r, OPEN_BANKS] > 0:
            active += max(end - ranks[r, OPEN_SINCE], 0)
    return end, acts, pres, reads, writes, refreshes, hits, forwarded, merged, active, commands
