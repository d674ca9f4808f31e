"""The system as a recurrence: phases in the order in which they start, waiting for DRAM and SORE by Lindley's rule.

A server that takes requests in the order of their making is free again at ``max(request, free) + service``. Whoever may
start a phase next is one of six channels (`simulator/tasks.py`), and what a phase sets off starts later than itself, so
taking the earliest again and again meets all requests in order: no event queue is needed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

__all__ = ["run_tasks"]

NEVER = 1 << 62
STCE, VECTOR, WUVE = 0, 1, 2
STORE, PHASE, NORTH, WEST, VECTOR_CHANNEL, WUVE_CHANNEL = range(6)


@njit(cache=True, nogil=True)
def run_tasks(
    rate: int, engine: Any, first: Any, busy: Any, transfer: Any, sore: Any, resident: Any, west_time: Any,
    north_time: Any, north_sore: Any, west_ready: Any, north_ready: Any, free_west: Any, free_north: Any, lead: Any,
    ramp: Any, store_time: Any, after_first: Any, after: Any,
    start: Any, end: Any,
) -> tuple[int, int]:  # fmt: skip
    """Fill ``start`` and ``end`` int64 [ops], in 1/``rate`` cycles; returns the end of all and the ops that ended."""
    count = len(engine)
    users_first, users = _reversed(after_first, after, count)
    missing = after_first[1:] - after_first[:-1]
    ready = np.zeros(count, np.int64)
    known = missing == 0  # ready is final
    finished = 0
    start[:] = NEVER

    # Array ops in order, and where on the array they stand.
    on_array = np.nonzero(engine == STCE)[0]
    at = -1  # on_array[at] has started
    phase = 0
    halves = np.zeros(2, np.int64)  # from when on a half of W2E, N2S is free for the coming op
    loaded = np.full(2, NEVER, np.int64)  # when its first loads are done
    body_end = array_free = 0  # without and with its ramp
    stored = 0  # end of the last store of the last op
    stored_before = 0  # and of the one before, where that still holds a half of the output buffer

    # Engines beside the array: op at work, phase of it; ops that wait, by engine.
    working = np.full(3, -1, np.int64)
    piece = np.zeros(3, np.int64)
    waiting = np.zeros((3, count), np.int64)
    waits = np.zeros(3, np.int64)
    free = np.zeros(3, np.int64)

    when = np.full(6, NEVER, np.int64)
    asked = np.zeros(6, np.bool_)  # first loads of the coming op that have been put in `when`
    dram_free = sore_free = 0
    last = 0

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
            if first[op] == first[op + 1]:
                start[op] = end[op] = ready[op]
                finished += 1
                last = max(last, ready[op])
                depth = _release(op, users_first, users, missing, ready, known, end, rate, stack, depth)
            elif engine[op] != STCE:
                e = engine[op]
                waiting[e, waits[e]] = op
                waits[e] += 1

        # First loads of the coming array op.
        if at + 1 < len(on_array):
            op = on_array[at + 1]
            if resident[op]:
                if not asked[WEST] and halves[0] < NEVER and (west_ready[op] or known[op]):
                    asked[WEST] = True
                    when[WEST] = halves[0] if west_ready[op] else max(halves[0], ready[op])
                    start[op] = min(start[op], when[WEST])
                if not asked[NORTH] and halves[1] < NEVER and (north_ready[op] or known[op]):
                    asked[NORTH] = True
                    when[NORTH] = halves[1] if north_ready[op] else max(halves[1], ready[op])
                    start[op] = min(start[op], when[NORTH])
            elif known[op] and body_end < NEVER:
                start[op] = max(body_end, ready[op])
                loaded[:] = start[op] + lead[op]
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
                # What is asked for from here on is the next op's.
                asked[:] = False
                loaded[:] = NEVER
                halves[:] = NEVER
                if free_west[op] < 0:
                    halves[0] = now
                if free_north[op] < 0:
                    halves[1] = now
                body_end = array_free = NEVER
            op = on_array[at]
            k = first[op] + phase
            done, dram_free, sore_free = _served(now, busy[k], transfer[k], sore[k], dram_free, sore_free)
            if free_west[op] == phase:
                halves[0] = done
            if free_north[op] == phase:
                halves[1] = done
            phase += 1
            if k + 1 < first[op + 1]:
                # The second macro-tile needs the half that the last one of the op before was stored from.
                when[PHASE] = max(done, stored) if phase == 1 else done
            else:
                when[PHASE] = NEVER
                body_end, array_free = done, done + ramp[op]
                when[STORE] = array_free
                # With one macro-tile, the half of the op before may still be stored when the next op starts.
                stored_before = stored if phase == 1 else 0
                phase = 0
        elif channel == STORE:
            op = on_array[at]
            when[STORE] = NEVER
            dram_free = max(now, dram_free) + store_time[op]
            stored = end[op] = dram_free
            finished += 1
            last = max(last, dram_free)
            depth = _release(op, users_first, users, missing, ready, known, end, rate, stack, depth)
        elif channel in (WEST, NORTH):
            op = on_array[at + 1]
            when[channel] = NEVER
            side = 0 if channel == WEST else 1
            dram_free = max(now, dram_free) + (west_time[op] if channel == WEST else north_time[op])
            loaded[side] = dram_free
            if channel == NORTH and north_sore[op]:
                sore_free = max(now, sore_free) + north_sore[op]
                loaded[side] = max(loaded[side], sore_free)
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
                piece[e] = 0
                start[op] = now
            op = working[e]
            k = first[op] + piece[e]
            done, dram_free, sore_free = _served(now, busy[k], transfer[k], sore[k], dram_free, sore_free)
            piece[e] += 1
            when[channel] = done
            if k + 1 == first[op + 1]:
                working[e] = -1
                free[e] = done
                end[op] = done
                finished += 1
                last = max(last, done)
                depth = _release(op, users_first, users, missing, ready, known, end, rate, stack, depth)
    return last, finished


@njit(cache=True, nogil=True)
def _served(now: int, busy: int, transfer: int, sore: int, dram_free: int, sore_free: int) -> tuple[int, int, int]:
    """End of a phase that starts ``now``, and when DRAM and SORE are free after it."""
    done = now + busy
    if transfer:
        dram_free = max(now, dram_free) + transfer
        done = max(done, dram_free)
    if sore:
        sore_free = max(now, sore_free) + sore
        done = max(done, sore_free)
    return done, dram_free, sore_free


@njit(cache=True, nogil=True)
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


@njit(cache=True, nogil=True)
def _release(
    op: int, users_first: Any, users: Any, missing: Any, ready: Any, known: Any, end: Any, rate: int, stack: Any,
    depth: int,
) -> int:  # fmt: skip
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
