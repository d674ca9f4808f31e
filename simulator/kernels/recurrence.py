"""The system as a recurrence: phases in the order in which they start, waiting for DRAM and SORE by Lindley's rule.

A server that takes requests in the order of their making is free again at ``max(request, free) + service``. Whoever may
start a phase next is one of few channels (`simulator/channels.py`), and what a phase sets off starts later than itself,
so taking the earliest again and again meets all requests in order: no event queue is needed.

The parts become one function (`jit.bare_inlined`), without a call in what it does for every phase.
"""

from __future__ import annotations

from .jit import bare, bare_inlined
from .service import hold, hold_phase, serve, work
from .tasks import (
    BESIDE,
    DEPENDENCY,
    FILL_DRAIN,
    N2S,
    NEVER,
    NORTH,
    OF_DRAM,
    OF_SORE,
    OUTPUT,
    PHASE,
    STORE,
    W2E,
    WEST,
    Int64,
    Log,
    State,
    Tasks,
    fresh,
)

__all__ = ["run_tasks"]


def run_tasks(t: Tasks, start: Int64, end: Int64, spent: Int64, log: Log | None) -> int:
    """Fill ``start`` and ``end`` int64 [ops], in 1/``rate`` cycles, ``spent`` int64 [engines, causes] and ``log``;
    returns the ops that ended."""
    start[:] = NEVER
    return int(_run(t, fresh(t), start, end, spent, log))


@bare
def _run(t: Tasks, s: State, start: Int64, end: Int64, spent: Int64, log: Log | None) -> int:
    products = t.products
    changed = True  # what may start is another than before
    while True:
        if changed:
            _queue(t, s, start, end)
            for e in range(products):
                _ask_ahead(t, s, start, log, e)
            for beside in range(2):
                _look_beside(t, s, beside)
            changed = False
        channel, until = 0, NEVER
        for other in range(1, len(s.when)):
            if s.when[other] < s.when[channel]:
                until, channel = s.when[channel], other
            elif s.when[other] < until:
                until = s.when[other]
        if s.when[channel] == NEVER:
            break
        if channel >= BESIDE * products:
            changed = _beside(t, s, start, end, spent, log, channel - BESIDE * products, until)
        elif channel >= WEST * products:
            changed = _load_west(t, s, spent, log, channel - WEST * products)
        elif channel >= NORTH * products:
            changed = _load_north(t, s, spent, log, channel - NORTH * products)
        elif channel >= PHASE * products:
            changed = _phases(t, s, spent, log, channel - PHASE * products, until)
        else:
            changed = _store(t, s, end, spent, log, channel)
    return int(s.counts[1])


@bare_inlined
def _queue(t: Tasks, s: State, start: Int64, end: Int64) -> None:
    """Queue what may start beside the products; what has nothing to do ends at once."""
    while s.counts[0]:
        s.counts[0] -= 1
        op = s.stack[s.counts[0]]
        if t.first[op] == t.behind[op]:
            start[op] = s.ready[op]
            _finish(t, s, end, op, s.ready[op])
        elif t.engine[op] >= t.products:
            beside = t.engine[op] - t.products
            s.waiting[beside, s.waits[beside]] = op
            s.waits[beside] += 1


@bare_inlined
def _finish(t: Tasks, s: State, end: Int64, op: int, time: int) -> None:
    """Tell those that wait for ``op`` when it ends, at a whole cycle; push those that wait for nothing more."""
    end[op] = time
    s.counts[1] += 1
    edge = -(-time // t.rate) * t.rate
    for i in range(s.users_first[op], s.users_first[op + 1]):
        user = s.users[i]
        s.ready[user] = max(s.ready[user], edge)
        s.missing[user] -= 1
        if s.missing[user] == 0:
            s.known[user] = 1
            s.stack[s.counts[0]] = user
            s.counts[0] += 1


@bare_inlined
def _ask_ahead(t: Tasks, s: State, start: Int64, log: Log | None, e: int) -> None:
    """First loads of the coming op of a product engine, and its first phase."""
    op = s.coming[e]
    if op < 0:
        return
    known, ready, products = s.known[op], s.ready[op], t.products
    for side in range(2):
        ahead = t.north[op] if side else t.west[op]
        alone = t.north_ready[op] if side else t.west_ready[op]
        asks = (t.resident[op] or ahead) and not s.asked[e, side]
        if asks and s.halves[e, side] < NEVER and (alone or known):
            s.asked[e, side] = 1
            when = s.halves[e, side] if alone else max(s.halves[e, side], ready)
            s.when[(NORTH if side else WEST) * products + e] = when
            start[op] = min(start[op], when)
    if not t.resident[op] and known and s.body_end[e] < NEVER and s.loaded[e, 0] == NEVER:
        begin = max(s.body_end[e], ready)
        start[op] = min(start[op], begin)
        for side in range(2):
            s.loaded[e, side] = s.moved[e, side] = begin + t.lead[op]
        # What comes ahead has a half already.
        hold(log, e, W2E, begin, 1 if t.west[op] else 2)
        hold(log, e, N2S, begin, 1 if t.north[op] else 2)
    # Everything is there and the array is free.
    loaded = max(s.loaded[e, 0], s.loaded[e, 1])
    if known and loaded < NEVER and s.free[e] < NEVER and s.when[PHASE * products + e] == NEVER:
        s.when[PHASE * products + e] = max(ready, loaded, s.free[e], s.stored_before[e])


@bare_inlined
def _look_beside(t: Tasks, s: State, beside: int) -> None:
    """The vector unit or WUVE takes the op that waits longest."""
    e = t.products + beside
    if s.op[e] < 0:
        when = NEVER
        for i in range(s.waits[beside]):
            when = min(when, max(s.free[e], s.ready[s.waiting[beside, i]]))
        s.when[BESIDE * t.products + beside] = when


@bare_inlined
def _phases(t: Tasks, s: State, spent: Int64, log: Log | None, e: int, until: int) -> bool:
    """A phase of a product, and those behind it that are equal and start before anything else does, at ``until``."""
    channel = PHASE * t.products + e
    now = s.when[channel]
    if s.phase[e] == 0:
        _start(t, s, spent, e, now)
    else:
        spent[e, OF_DRAM] += now - s.ended[e]
    op, streak, done, phase = s.op[e], s.streak[e], s.done[e], s.phase[e]
    loads = t.loads[streak] if t.resident[op] else 0
    times = t.times[streak]
    while True:
        ended = work(t, s, spent, log, e, now, op, channel, streak)
        hold_phase(log, e, now, ended, loads, phase)
        done += 1
        phase += 1
        if done == times or phase == 1 or ended >= until:
            break
        now = ended
    changed = bool(done == times or phase == 1)
    if done == times:
        if t.free_west[op] == streak - t.first[op]:
            s.halves[e, 0] = ended
        if t.free_north[op] == streak - t.first[op]:
            s.halves[e, 1] = ended
        streak, done = streak + 1, 0
    s.ended[e], s.streak[e], s.done[e], s.phase[e] = ended, streak, done, phase
    if streak < t.behind[op]:
        # The second macro-tile needs the half that the last one of the op before was stored from.
        s.when[channel] = max(ended, s.stored[e]) if phase == 1 else ended
    else:
        s.when[channel] = NEVER
        s.body_end[e], s.free[e] = ended, ended + t.ramp[op]
        spent[e, FILL_DRAIN] += t.ramp[op]
        hold(log, e, W2E, ended, -1 if t.resident[op] else -2)
        hold(log, e, N2S, ended, -1 if t.resident[op] else -2)
        s.when[STORE * t.products + e] = s.free[e]
        # With one macro-tile, the half of the op before may still be stored when the next op starts.
        s.stored_before[e] = s.stored[e] if phase == 1 else 0
        s.phase[e] = 0
    return changed


@bare_inlined
def _start(t: Tasks, s: State, spent: Int64, e: int, now: int) -> None:
    """The first phase of the coming op: what is asked for from here on is the next one's."""
    op = s.coming[e]
    may_start = max(s.free[e], s.ready[op])
    all_loaded = max(may_start, s.loaded[e, 0], s.loaded[e, 1])
    reducing = all_loaded - max(may_start, s.moved[e, 0], s.moved[e, 1])
    spent[e, DEPENDENCY] += may_start - s.free[e]
    spent[e, OF_SORE] += reducing
    spent[e, OF_DRAM] += now - may_start - reducing
    s.op[e], s.streak[e], s.done[e], s.coming[e] = op, t.first[op], 0, s.then[op]
    for side in range(2):
        s.asked[e, side], s.loaded[e, side] = 0, NEVER
        free = t.free_north[op] if side else t.free_west[op]
        s.halves[e, side] = now if free < 0 else NEVER
    s.body_end[e] = s.free[e] = NEVER


@bare_inlined
def _store(t: Tasks, s: State, end: Int64, spent: Int64, log: Log | None, e: int) -> bool:
    """The last store of the op whose phases are done; with it the op ends."""
    channel = STORE * t.products + e
    op, now = s.op[e], s.when[channel]
    s.when[channel] = NEVER
    stored = serve(s, spent, log, t.products + 2, now, op, channel, t.store_time[op], t.store[op])
    s.stored[e] = stored
    hold(log, e, OUTPUT, stored, -1)
    _finish(t, s, end, op, stored)
    return True


@bare_inlined
def _load_west(t: Tasks, s: State, spent: Int64, log: Log | None, e: int) -> bool:
    channel = WEST * t.products + e
    op, now = s.coming[e], s.when[channel]
    s.when[channel] = NEVER
    hold(log, e, W2E, now, 1)
    loaded = serve(s, spent, log, t.products + 2, now, op, channel, t.west_time[op], t.west[op])
    if t.resident[op]:
        s.moved[e, 0] = s.loaded[e, 0] = loaded
    return True


@bare_inlined
def _load_north(t: Tasks, s: State, spent: Int64, log: Log | None, e: int) -> bool:
    channel = NORTH * t.products + e
    op, now = s.coming[e], s.when[channel]
    s.when[channel] = NEVER
    hold(log, e, N2S, now, 1)
    loaded = serve(s, spent, log, t.products + 2, now, op, channel, t.north_time[op], t.north[op])
    if not t.resident[op]:
        return True
    s.moved[e, 1] = loaded
    if t.north_sore[op]:
        loaded = max(loaded, serve(s, spent, log, t.products + 3, now, op, channel, t.north_sore[op], 0))
    s.loaded[e, 1] = loaded
    return True


@bare_inlined
def _beside(
    t: Tasks, s: State, start: Int64, end: Int64, spent: Int64, log: Log | None, beside: int, until: int
) -> bool:
    """A phase on the vector unit or WUVE, and those of its op behind it that start before all else, at ``until``."""
    e, channel = t.products + beside, BESIDE * t.products + beside
    now = s.when[channel]
    if s.op[e] < 0:
        op = _take(s, beside, now)
        s.op[e], s.streak[e], s.done[e] = op, t.first[op], 0
        start[op] = now
    op, streak, done = s.op[e], s.streak[e], s.done[e]
    while True:
        ended = work(t, s, spent, log, e, now, op, channel, streak)
        done += 1
        if done == t.times[streak]:
            streak, done = streak + 1, 0
        if streak == t.behind[op] or ended >= until:
            break
        now = ended
    s.streak[e], s.done[e], s.when[channel] = streak, done, ended
    if streak < t.behind[op]:
        return False
    s.op[e], s.free[e] = -1, ended
    _finish(t, s, end, op, ended)
    return True


@bare_inlined
def _take(s: State, beside: int, now: int) -> int:
    """Out of the queue, of the ops that may start the one that waits longest, of equals the first."""
    chosen = best = -1
    for i in range(s.waits[beside]):
        op = s.waiting[beside, i]
        if s.ready[op] <= now:
            sooner = chosen < 0 or s.ready[op] < s.ready[best] or (s.ready[op] == s.ready[best] and op < best)
            if sooner:
                chosen, best = i, op
    s.waits[beside] -= 1
    s.waiting[beside, chosen] = s.waiting[beside, s.waits[beside]]
    return best
