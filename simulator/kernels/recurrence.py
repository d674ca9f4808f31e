"""The system as a recurrence: phases in the order in which they start, waiting for DRAM and SORE by Lindley's rule.

A server that takes requests in the order of their making is free again at ``max(request, free) + service``. Whoever may
start a phase next is one of six channels (`simulator/tasks.py`), and what a phase sets off starts later than itself, so
taking the earliest again and again meets all requests in order: no event queue is needed.

`run_tasks` is one function, longer than others, because Numba would pass the dozen arrays of its state in every call.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = ["BUFFERS", "CAUSES", "ENGINES", "Log", "Tasks", "run_tasks"]

Int64 = NDArray[np.int64]

_inlined = njit(nogil=True, forceinline=True)
"""A call would pass every array in seven words."""

NEVER = 1 << 62
STCE, VECTOR, WUVE = 0, 1, 2
STORE, PHASE, NORTH, WEST, VECTOR_CHANNEL, WUVE_CHANNEL = range(6)
ENGINES = 5
"""The three that work on ops, DRAM and SORE, in the order of ``spent`` and `Log`."""
DRAM, SORE = 3, 4
CAUSES = 5
BUSY, FILL_DRAIN, OF_DRAM, OF_SORE, DEPENDENCY = range(CAUSES)
BUFFERS = 3
W2E, N2S, OUTPUT = range(BUFFERS)


class Tasks(NamedTuple):
    """Arrays by op, and by run of equal phases, op ``i`` at ``first[i]:behind[i]``, where equal ops share theirs. All
    int64, times in 1/``rate`` cycles, sizes in bytes.

    In each of the ``times`` phases of a run ``busy`` of the op's engine, ``transfer``, the time of DRAM for ``read +
    written``, and ``sore`` run at the same time; ``loads`` is 1 where it loads from the west, 2 from the north, 3 from
    both. Op ``i`` waits for the ops ``after[after_first[i]:after_first[i + 1]]``. Of array ops only: ``west`` and
    ``north`` (with ``north_sore``) are loaded before the first phase, ``*_ready`` if they wait for no other op, in
    ``*_time``; a half of the buffer is free for the next op's after the run ``free_*`` of the op, -1: before it.
    ``lead`` is what a streamed op waits for its first k-chunk, ``ramp`` fill and drain of the array, ``store``
    (``store_time``) the last macro-tile.
    """

    rate: int
    engine: Int64
    first: Int64
    behind: Int64
    busy: Int64
    transfer: Int64
    read: Int64
    written: Int64
    sore: Int64
    loads: Int64
    times: Int64
    resident: Int64
    west: Int64
    north: Int64
    west_time: Int64
    north_time: Int64
    north_sore: Int64
    west_ready: Int64
    north_ready: Int64
    free_west: Int64
    free_north: Int64
    lead: Int64
    ramp: Int64
    store: Int64
    store_time: Int64
    after_first: Int64
    after: Int64


class Log(NamedTuple):
    """What happened, for whoever wants to see it: ``served`` int64 [engines, services, 5] of op, channel, start, end
    and bytes, ``services`` of each; ``held`` int64 [buffers, changes, 2] of time and halves more, ``changes`` of each.
    Where there is none, another function is compiled, which writes nothing."""

    served: Int64
    services: Int64
    held: Int64
    changes: Int64


@njit(cache=True, nogil=True)
def run_tasks(t: Tasks, start: Int64, end: Int64, spent: Int64, log: Log | None) -> int:
    """Fill ``start`` and ``end`` int64 [ops], in 1/``rate`` cycles, ``spent`` int64 [engines, causes] and ``log``;
    returns the ops that ended."""
    count = len(t.engine)
    users_first, users = _reversed(t.after_first, t.after, count)
    missing = t.after_first[1:] - t.after_first[:-1]
    ready = np.zeros(count, np.int64)
    known = missing == 0  # ready is final
    finished = 0
    start[:] = NEVER

    # Array ops in order, and where on the array they stand.
    on_array = np.nonzero(t.engine == STCE)[0]
    at = -1  # on_array[at] has started
    run = done_of_run = phase = 0  # run of equal phases, of its phases done, phases of the op done
    halves = np.zeros(2, np.int64)  # from when on a half of W2E, N2S is free for the coming op
    loaded = np.full(2, NEVER, np.int64)  # when its first loads are done
    moved = np.zeros(2, np.int64)  # and when DRAM was done with them
    body_end = array_free = 0  # without and with its ramp
    stored = 0  # end of the last store of the last op
    stored_before = 0  # and of the one before, where that still holds a half of the output buffer

    # Engines beside the array: op at work, its run and what of it is done; ops that wait, by engine.
    working = np.full(3, -1, np.int64)
    run_beside, done_beside = np.zeros(3, np.int64), np.zeros(3, np.int64)
    waiting = np.zeros((3, count), np.int64)
    waits = np.zeros(3, np.int64)
    free = np.zeros(3, np.int64)

    when = np.full(6, NEVER, np.int64)
    asked = np.zeros(6, np.bool_)  # first loads of the coming op that have been put in `when`
    servers = np.zeros(2, np.int64)  # from when on DRAM and SORE are free

    stack = np.zeros(count, np.int64)  # ops whose start has just become known
    depth = 0
    for op in range(count - 1, -1, -1):
        if known[op]:
            stack[depth] = op
            depth += 1

    while True:
        # Queue what may start; what has nothing to do ends at once.
        while depth:
            depth -= 1
            op = stack[depth]
            if t.first[op] == t.behind[op]:
                start[op] = end[op] = ready[op]
                finished += 1
                depth = _release(op, users_first, users, missing, ready, known, end, t.rate, stack, depth)
            elif t.engine[op] != STCE:
                e = t.engine[op]
                waiting[e, waits[e]] = op
                waits[e] += 1

        # First loads of the coming array op.
        if at + 1 < len(on_array):
            op = on_array[at + 1]
            if t.resident[op]:
                if not asked[WEST] and halves[0] < NEVER and (t.west_ready[op] or known[op]):
                    asked[WEST] = True
                    when[WEST] = halves[0] if t.west_ready[op] else max(halves[0], ready[op])
                    start[op] = min(start[op], when[WEST])
                if not asked[NORTH] and halves[1] < NEVER and (t.north_ready[op] or known[op]):
                    asked[NORTH] = True
                    when[NORTH] = halves[1] if t.north_ready[op] else max(halves[1], ready[op])
                    start[op] = min(start[op], when[NORTH])
            elif known[op] and body_end < NEVER and loaded[0] == NEVER:
                start[op] = max(body_end, ready[op])
                loaded[:] = start[op] + t.lead[op]
                moved[:] = loaded
                _hold(log, W2E, start[op], 2)
                _hold(log, N2S, start[op], 2)
            # Its first phase: everything is there and the array is free.
            if when[PHASE] == NEVER and array_free < NEVER and known[op] and loaded[0] < NEVER and loaded[1] < NEVER:
                when[PHASE] = max(ready[op], loaded[0], loaded[1], array_free, stored_before)

        # Engines beside the array take the op that waits longest.
        for e in (VECTOR, WUVE):
            channel = VECTOR_CHANNEL if e == VECTOR else WUVE_CHANNEL
            if working[e] < 0:
                when[channel] = NEVER
                for i in range(waits[e]):
                    when[channel] = min(when[channel], max(free[e], ready[waiting[e, i]]))

        channel = 0
        for other in range(1, 6):
            if when[other] < when[channel]:
                channel = other
        now = when[channel]
        if now == NEVER:
            break

        if channel == PHASE:
            if phase == 0:
                at += 1
                op = on_array[at]
                run = t.first[op]
                may_start = max(array_free, ready[op])
                all_loaded = max(may_start, loaded[0], loaded[1])
                reducing = all_loaded - max(may_start, moved[0], moved[1])
                spent[STCE, DEPENDENCY] += may_start - array_free
                spent[STCE, OF_SORE] += reducing
                spent[STCE, OF_DRAM] += now - may_start - reducing
                # What is asked for from here on is the next op's.
                asked[:] = False
                loaded[:] = NEVER
                halves[:] = NEVER
                if t.free_west[op] < 0:
                    halves[0] = now
                if t.free_north[op] < 0:
                    halves[1] = now
                body_end = array_free = NEVER
            else:
                spent[STCE, OF_DRAM] += now - free[STCE]
            op = on_array[at]
            k = run
            done = _phase(
                now, STCE, PHASE, op, t.busy[k], t.transfer[k], t.read[k] + t.written[k], t.sore[k], servers, spent, log
            )
            free[STCE] = done
            if log is not None:
                _hold_phase(now, done, t.loads[k] if t.resident[op] else 0, phase, log)
            done_of_run += 1
            phase += 1
            if done_of_run == t.times[k]:
                if t.free_west[op] == k - t.first[op]:
                    halves[0] = done
                if t.free_north[op] == k - t.first[op]:
                    halves[1] = done
                run, done_of_run = run + 1, 0
            if run < t.behind[op]:
                # The second macro-tile needs the half that the last one of the op before was stored from.
                when[PHASE] = max(done, stored) if phase == 1 else done
            else:
                when[PHASE] = NEVER
                body_end, array_free = done, done + t.ramp[op]
                spent[STCE, FILL_DRAIN] += t.ramp[op]
                _hold(log, W2E, done, -1 if t.resident[op] else -2)
                _hold(log, N2S, done, -1 if t.resident[op] else -2)
                when[STORE] = array_free
                # With one macro-tile, the half of the op before may still be stored when the next op starts.
                stored_before = stored if phase == 1 else 0
                phase = 0
        elif channel == STORE:
            op = on_array[at]
            when[STORE] = NEVER
            stored = end[op] = _serve(DRAM, now, op, STORE, t.store_time[op], t.store[op], servers, spent, log)
            _hold(log, OUTPUT, stored, -1)
            finished += 1
            depth = _release(op, users_first, users, missing, ready, known, end, t.rate, stack, depth)
        elif channel == WEST:
            op = on_array[at + 1]
            when[WEST] = NEVER
            _hold(log, W2E, now, 1)
            moved[0] = loaded[0] = _serve(DRAM, now, op, WEST, t.west_time[op], t.west[op], servers, spent, log)
        elif channel == NORTH:
            op = on_array[at + 1]
            when[NORTH] = NEVER
            _hold(log, N2S, now, 1)
            moved[1] = loaded[1] = _serve(DRAM, now, op, NORTH, t.north_time[op], t.north[op], servers, spent, log)
            if t.north_sore[op]:
                reduced = _serve(SORE, now, op, NORTH, t.north_sore[op], 0, servers, spent, log)
                loaded[1] = max(loaded[1], reduced)
        else:
            e = VECTOR if channel == VECTOR_CHANNEL else WUVE
            if working[e] < 0:
                chosen = -1
                for i in range(waits[e]):
                    op = waiting[e, i]
                    if ready[op] <= now:
                        best = waiting[e, chosen] if chosen >= 0 else -1
                        if chosen < 0 or ready[op] < ready[best] or (ready[op] == ready[best] and op < best):
                            chosen = i
                op = waiting[e, chosen]
                waits[e] -= 1
                waiting[e, chosen] = waiting[e, waits[e]]
                working[e] = op
                run_beside[e], done_beside[e] = t.first[op], 0
                start[op] = now
            op = working[e]
            k = run_beside[e]
            done = _phase(
                now, e, channel, op, t.busy[k], t.transfer[k], t.read[k] + t.written[k], t.sore[k], servers, spent, log
            )
            done_beside[e] += 1
            if done_beside[e] == t.times[k]:
                run_beside[e], done_beside[e] = k + 1, 0
            when[channel] = done
            if run_beside[e] == t.behind[op]:
                working[e] = -1
                free[e] = done
                end[op] = done
                finished += 1
                depth = _release(op, users_first, users, missing, ready, known, end, t.rate, stack, depth)
    return finished


@_inlined
def _serve(
    server: int,
    now: int,
    op: int,
    channel: int,
    duration: int,
    size: int,
    servers: Int64,
    spent: Int64,
    log: Log | None,
) -> int:
    """Have DRAM or SORE serve a request made ``now``; when it is done."""
    begun = max(now, int(servers[server - DRAM]))
    done = begun + duration
    servers[server - DRAM] = done
    spent[server, BUSY] += duration
    if log is not None:
        _note(log, server, op, channel, begun, done, size)
    return done


@_inlined
def _phase(
    now: int,
    engine: int,
    channel: int,
    op: int,
    busy: int,
    transfer: int,
    size: int,
    sore: int,
    servers: Int64,
    spent: Int64,
    log: Log | None,
) -> int:
    """End of a phase that starts ``now``: engine, transfer and SORE together, as long as the slowest."""
    done = now + busy
    if busy:
        spent[engine, BUSY] += busy
        if log is not None:
            _note(log, engine, op, channel, now, done, 0)
    if transfer:
        moved = _serve(DRAM, now, op, channel, transfer, size, servers, spent, log)
        if moved > done:
            spent[engine, OF_DRAM] += moved - done
            done = moved
    if sore:
        reduced = _serve(SORE, now, op, channel, sore, 0, servers, spent, log)
        if reduced > done:
            spent[engine, OF_SORE] += reduced - done
            done = reduced
    return done


@_inlined
def _note(log: Log, engine: int, op: int, channel: int, start: int, end: int, size: int) -> None:
    row = log.served[engine, log.services[engine]]
    row[0], row[1], row[2], row[3], row[4] = op, channel, start, end, size
    log.services[engine] += 1


@_inlined
def _hold(log: Log | None, buffer: int, time: int, halves: int) -> None:
    """So many halves of a buffer more in use from ``time`` on."""
    if log is not None:
        row = log.held[buffer, log.changes[buffer]]
        row[0], row[1] = time, halves
        log.changes[buffer] += 1


@_inlined
def _hold_phase(now: int, done: int, loads: int, phase: int, log: Log | None) -> None:
    """Halves that a phase of an array op takes and gives back; that of its first results is given by the store."""
    for bit, buffer in ((1, W2E), (2, N2S)):
        if loads & bit:
            _hold(log, buffer, now, 1)
            _hold(log, buffer, done, -1)
    _hold(log, OUTPUT, now, 1)
    if phase:
        _hold(log, OUTPUT, done, -1)


@njit(nogil=True)
def _reversed(after_first: Any, after: Any, count: int) -> tuple[Any, Any]:
    """Who waits for each op: the same lists the other way round."""
    users_first = np.zeros(count + 1, np.int64)
    for op in after:
        users_first[op + 1] += 1
    users_first = np.cumsum(users_first)
    users, place = np.zeros(len(after), np.int64), users_first.copy()
    for user in range(count):
        for i in range(after_first[user], after_first[user + 1]):
            users[place[after[i]]] = user
            place[after[i]] += 1
    return users_first, users


@njit(nogil=True)
def _release(
    op: int,
    users_first: Any,
    users: Any,
    missing: Any,
    ready: Any,
    known: Any,
    end: Any,
    rate: int,
    stack: Any,
    depth: int,
) -> int:
    """Tell those that wait for ``op`` when it ends, at a whole cycle; push those that wait for nothing more."""
    edge = -(-end[op] // rate) * rate
    for i in range(users_first[op], users_first[op + 1]):
        user = users[i]
        ready[user] = max(ready[user], edge)
        missing[user] -= 1
        if missing[user] == 0:
            known[user] = True
            stack[depth] = user
            depth += 1
    return depth
