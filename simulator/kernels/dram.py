"""One DRAM channel: queues, FR-FCFS, open pages, refresh; every command at the cycle JEDEC timing allows.

Banks are numbered rank by rank, inside a rank group by group. Between two cycles in which something happens nothing is
stepped: each decision also yields the cycle of the next possible one. `simulator/reference/dram.py` steps every cycle.

One loop and one file: a call would pass every array of the channel in seven words, and Numba's cache watches the file
of the compiled function alone, so that parts of it elsewhere could change unseen.
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
    """Of each bank in each queue, at `_at`: its requests as a list, oldest first, and what they ask for next."""

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
# Of a rank; the last four activates are a ring.
OPEN_BANKS, OPEN_SINCE, DUE, OLDEST, WINDOW = range(5)


# Without reference counts on the arrays, which nothing here allocates or keeps: they cost more than the simulation.
_kernel = njit(cache=True, nogil=True, error_model="numpy", _nrt=False)
# A call would pass every array in seven words.
_inlined = njit(nogil=True, error_model="numpy", _nrt=False, forceinline=True)


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


@_kernel
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
            mark = _mark(row[taken], column[taken])
            if marks[1, mark] > 0 and _find(slots, asks.first[_at(1, b)], row[taken], column[taken]) != none:
                entered[taken], done[taken] = t, t + 1
                end = max(end, t + 1)
                forwarded, merged = forwarded + 1 - w, merged + w
                taken, left = taken + 1, left - 1
                if left == 0:
                    break
            elif used[w] < room[w] and (
                w == 0 or marks[0, mark] == 0 or _find(slots, asks.first[_at(0, b)], row[taken], column[taken]) == none
            ):
                marks[w, mark] += 1
                slot = free[np.uint64(base[w] + used[w])]
                used[w] += 1
                slots.who[slot], slots.row[slot], slots.column[slot] = taken, row[taken], column[taken]
                i = _at(w, b)
                _append(slots, asks, i, slot)
                opened = asks.hit[i] == none and banks.row[b & BANK] == row[taken]
                if opened:
                    asks.hit[i] = slot
                if opened or asks.first[i] == slot:
                    _ask(slots, banks, asks, gates, b, w, s)
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
                best = min(best, _first(asks, t, _at(q, r * per_rank), per_rank))
        delay = best >> (1 + AGE_BITS + BANK_BITS)
        if delay < IDLE and t + delay < at:
            at, target = t + delay, best & ((1 << BANK_BITS) - 1)
            kind = asks.kind[_at(q, target)]
        if at >= wake:
            t = wake
            continue
        # 5. Carry it out.
        t = at
        if commands < len(log):
            log[commands, 0], log[commands, 1], log[commands, 2], log[commands, 3] = t, kind, target, NONE
        if kind in (READ, WRITE):
            b, i = target, _at(q, target)
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
                _hold(gates, q * n_groups + r * s.groups, s.groups, t + go, nought)
                _hold(gates, (1 - q) * n_groups + r * s.groups, s.groups, t + turn, nought)
                _hold_asks(asks.ready, asks.is_column, _at(q, r * per_rank), per_rank, t + go, nought)
                if used[1 - q] > 0:
                    _hold_asks(asks.ready, asks.is_column, _at(1 - q, r * per_rank), per_rank, t + turn, nought)
            group = banks.group[b]
            _hold(gates, q * n_groups + group, 1, t + g.column_group, nought)
            _hold_asks(asks.ready, asks.is_column, _at(q, group * s.banks), s.banks, t + g.column_group, nought)
            if kind == WRITE:
                _hold(gates, group, 1, t + g.write_read_group, nought)
                _hold_asks(asks.ready, asks.is_column, _at(0, group * s.banks), s.banks, t + g.write_read_group, nought)
            end = max(end, done[request])
            marks[q, _mark(slots.row[slot], slots.column[slot])] -= 1
            _remove(slots, asks, i, slot)
            asks.hit[i] = _find_row(slots, slots.after[slot], banks.row[b])
            used[q] -= 1
            free[np.uint64(base[q] + used[q])] = slot
            left -= 1
        elif kind == ACT:
            b, r = target, banks.rank[target]
            banks.row[b] = slots.row[asks.first[_at(q, b)]]
            banks.served[b], banks.opened[b] = 0, t
            banks.column_from[b], banks.pre_from[b] = t + g.act_column, t + g.act_pre
            banks.act_from[b] = t + g.act_act_bank
            ranks[r, WINDOW + ranks[r, OLDEST]] = t
            ranks[r, OLDEST] = (ranks[r, OLDEST] + 1) & 3
            again = max(t + g.act_act_rank, ranks[r, WINDOW + ranks[r, OLDEST]] + g.four_act)
            group = banks.group[b]
            _hold(gates, 2 * n_groups + r * s.groups, s.groups, again, nought)
            _hold(gates, 2 * n_groups + group, 1, t + g.act_act_group, nought)
            for w in range(2):
                if used[w] == 0:
                    continue
                _hold_asks(asks.ready, asks.is_act, _at(w, r * per_rank), per_rank, again, nought)
                _hold_asks(asks.ready, asks.is_act, _at(w, group * s.banks), s.banks, t + g.act_act_group, nought)
                asks.hit[_at(w, b)] = _find_row(slots, asks.first[_at(w, b)], banks.row[b])
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
                    _ask(slots, banks, asks, gates, target, w, s)
        else:
            for b in range(target * per_rank, (target + 1) * per_rank):
                for w in range(2):
                    _ask(slots, banks, asks, gates, b, w, s)
        commands += 1
        t += 1
    for r in range(s.ranks):
        if ranks[r, OPEN_BANKS] > 0:
            active += max(end - ranks[r, OPEN_SINCE], 0)
    return end, acts, pres, reads, writes, refreshes, hits, forwarded, merged, active, commands


@_inlined
def _at(q: int, b: int) -> int:
    """Where `Asks` holds a bank in a queue. The masks tell the compiler that it is no index from the end."""
    return (q & 1) << BANK_BITS | (b & BANK)


@_inlined
def _mark(row: int, column: int) -> int:
    """The counter of a line; lines that follow each other have different ones."""
    return (row * 37 + column) & (MARKS - 1)


@_inlined
def _find(slots: Slots, slot: int, row: int, column: int) -> int:
    """The request of this line in the list from ``slot`` on, if any."""
    none = len(slots.who) - 1
    while slot != none and (slots.row[slot] != row or slots.column[slot] != column):
        slot = slots.after[slot]
    return slot


@_inlined
def _find_row(slots: Slots, slot: int, row: int) -> int:
    """The oldest request of this row in the list from ``slot`` on, if any."""
    none = len(slots.who) - 1
    while slot != none and slots.row[slot] != row:
        slot = slots.after[slot]
    return slot


@_inlined
def _append(slots: Slots, asks: Asks, i: int, slot: int) -> None:
    """Put a request at the end of its bank's list; the slot for none takes what has no neighbour."""
    none, last = len(slots.who) - 1, asks.last[i]
    slots.after[slot], slots.before[slot] = none, last
    slots.after[last] = slot
    if last == none:
        asks.first[i] = slot
    asks.last[i] = slot


@_inlined
def _remove(slots: Slots, asks: Asks, i: int, slot: int) -> None:
    """Take a request out of its bank's list; its own link to the next one stays."""
    after, before = slots.after[slot], slots.before[slot]
    slots.before[after], slots.after[before] = before, after
    if asks.first[i] == slot:
        asks.first[i] = after
    if asks.last[i] == slot:
        asks.last[i] = before


@_inlined
def _hold(gates: Any, low: int, count: int, until: int, nought: int) -> None:
    """No command of a kind in ``count`` groups from ``low`` on before ``until``."""
    for group in range(low, low + count):
        gates[np.uint64(group)] = max(gates[np.uint64(group)], until) + nought


@_inlined
def _hold_asks(ready: Any, held: Any, low: int, count: int, until: int, nought: int) -> None:
    """The same for the ``count`` asks from ``low`` on that ``held`` marks: no branches, so it is fast."""
    for i in range(count):
        at = np.uint64(low + i)
        ready[at] = max(ready[at], until & held[at]) + nought


@_inlined
def _ask(slots: Slots, banks: Banks, asks: Asks, gates: Any, bank: int, q: int, s: Shape) -> None:
    """What the bank asks for in queue ``q``: the oldest request of the open row, or else the way to the oldest one."""
    none, b, i = len(slots.who) - 1, bank & BANK, _at(q, bank)
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


@_inlined
def _first(asks: Asks, t: int, low: int, count: int) -> int:
    """The least (delay, rank, bank) of ``count`` asks from ``low`` on, packed in one number: again no branches."""
    best = NEVER
    for i in range(count):
        at = np.uint64(low + i)
        delay = min(max(asks.ready[at], t) - t, IDLE)
        best = min(best, (delay << (1 + AGE_BITS + BANK_BITS)) | asks.code[at])
    return best
