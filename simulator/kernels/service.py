"""Services of DRAM and SORE, phases on them, and the log of both: parts of the recurrence."""

from __future__ import annotations

from .jit import bare_inlined
from .tasks import BUFFERS, BUSY, N2S, OF_DRAM, OF_SORE, OUTPUT, W2E, Int64, Log, State, Tasks

__all__ = ["hold", "hold_phase", "serve", "work"]


@bare_inlined
def serve(
    s: State, spent: Int64, log: Log | None, server: int, now: int, op: int, channel: int, duration: int, size: int
) -> int:
    """Have DRAM or SORE, by its number among the engines, serve a request made ``now``; when it is done. ``spent`` is
    int64 [engines, causes]."""
    begun = max(now, int(s.free[server]))
    done = begun + duration
    s.free[server] = done
    spent[server, BUSY] += duration
    if log is not None:
        _note(log, server, op, channel, begun, done, size)
    return done


@bare_inlined
def work(
    t: Tasks, s: State, spent: Int64, log: Log | None, engine: int, now: int, op: int, channel: int, streak: int
) -> int:
    """End of a phase of ``streak`` that starts ``now``: engine, transfer and SORE together, as long as the slowest.
    ``spent`` is int64 [engines, causes]."""
    busy, transfer, sore = t.busy[streak], t.transfer[streak], t.sore[streak]
    done = now + busy
    if busy:
        spent[engine, BUSY] += busy
        if log is not None:
            _note(log, engine, op, channel, now, done, 0)
    if transfer:
        size = t.read[streak] + t.written[streak]
        moved = serve(s, spent, log, t.products + 2, now, op, channel, transfer, size)
        if moved > done:
            spent[engine, OF_DRAM] += moved - done
            done = moved
    if sore:
        reduced = serve(s, spent, log, t.products + 3, now, op, channel, sore, 0)
        if reduced > done:
            spent[engine, OF_SORE] += reduced - done
            done = reduced
    return int(done)


@bare_inlined
def _note(log: Log, engine: int, op: int, channel: int, start: int, end: int, size: int) -> None:
    row = log.served[engine, log.services[engine]]
    row[0], row[1], row[2], row[3], row[4] = op, channel, start, end, size
    log.services[engine] += 1


@bare_inlined
def hold(log: Log | None, engine: int, buffer: int, time: int, halves: int) -> None:
    """So many halves of a buffer of a product engine more in use from ``time`` on."""
    if log is not None:
        place = engine * BUFFERS + buffer
        row = log.held[place, log.changes[place]]
        row[0], row[1] = time, halves
        log.changes[place] += 1


@bare_inlined
def hold_phase(log: Log | None, engine: int, now: int, done: int, loads: int, phase: int) -> None:
    """Halves that a phase of a product takes and gives back; that of its first results is given by the store."""
    for bit, buffer in ((1, W2E), (2, N2S)):
        if loads & bit:
            hold(log, engine, buffer, now, 1)
            hold(log, engine, buffer, done, -1)
    hold(log, engine, OUTPUT, now, 1)
    if phase:
        hold(log, engine, OUTPUT, done, -1)
