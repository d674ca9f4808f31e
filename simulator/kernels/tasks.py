"""What the recurrence works on, where it stands, and what it leaves behind, as plain arrays."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["BUFFERS", "CAUSES", "ENGINES_BESIDE", "NEVER", "Log", "State", "Tasks", "fresh"]

Int64 = NDArray[np.int64]

NEVER = 1 << 62
STORE, PHASE, NORTH, WEST, BESIDE = range(5)
"""What a request is for (`simulator/channels.py`); product engines have a channel for each of the first four."""
ENGINES_BESIDE = 4
"""Vector unit, WUVE, DRAM and SORE, in this order behind the product engines."""
CAUSES = 5
BUSY, FILL_DRAIN, OF_DRAM, OF_SORE, DEPENDENCY = range(CAUSES)
BUFFERS = 3
W2E, N2S, OUTPUT = range(BUFFERS)
"""Of one product engine."""


class Tasks(NamedTuple):
    """Arrays by op, and by streak of equal phases, op ``i`` at ``first[i]:behind[i]``, where equal ops share theirs.
    All int64, times in 1/``rate`` cycles, sizes in bytes.

    ``engine`` of an op is one of ``products`` engines, by number, the vector unit behind them, or WUVE behind that. In
    each of the ``times`` phases of a streak ``busy`` of the op's engine, ``transfer``, the time of DRAM for ``read +
    written``, and ``sore`` run at the same time; ``loads`` is 1 where it loads from the west, 2 from the north, 3 from
    both. Op ``i`` waits for the ops ``after[after_first[i]:after_first[i + 1]]``. Of products only, which have a phase
    at least: ``west`` and ``north`` (with ``north_sore``) are loaded before the first phase, ``*_ready`` if they wait
    for no other op, in ``*_time``; a half of the engine's buffer is free for its next op's after the streak ``free_*``
    of the op, -1: before it. A streamed op waits ``lead`` for its first k-chunk, and for nothing of what it loads ahead
    (0 bytes if nothing), of which its first phase transfers the rest. ``ramp`` is fill and drain of the array,
    ``store`` (``store_time``) the last macro-tile.
    """

    rate: int
    products: int
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
    and bytes, ``services`` of each; ``held`` int64 [products x buffers, changes, 2] of time and halves more,
    ``changes`` of each. Where there is none, another function is compiled, which writes nothing."""

    served: Int64
    services: Int64
    held: Int64
    changes: Int64


class State(NamedTuple):
    """Where a run stands; int64, times in 1/rate cycles, `NEVER` if not known yet.

    ``when`` [channels]: the next request. ``free`` [engines]: from when on an engine takes another op, DRAM and SORE
    another request.

    Of what works on ops [products + 2]: ``op`` at work, of a product engine also the last one, -1 if none; the
    ``streak`` that its next phase is of, and how many phases of that are ``done``.

    Of product engines [products]: the ``coming`` op, -1 if none; ``phase``, how many of the op are done; ``ended``, the
    last of them; ``body_end``, the op's without its ramp; ``stored``, the last store of the last op, and
    ``stored_before``, of the one before, where that still holds a half of the output buffer. [products, 2] for W2E and
    N2S: from when on a half of the buffer is free for the coming op (``halves``), whether its first load is ``asked``
    for, when that is ``loaded`` and when DRAM was done with it (``moved``).

    Beside them [2], [2, ops]: how many ops wait (``waits``), and which (``waiting``).

    By op: what product comes ``then`` on its engine; from when on it is ``ready``, final once it is ``known``, when
    none is ``missing``; its ``users`` at ``users_first``, who wait for it. ``stack``: ops that have just become known,
    ``counts`` of them and of ops that ended.
    """

    when: Int64
    free: Int64
    op: Int64
    streak: Int64
    done: Int64
    coming: Int64
    phase: Int64
    ended: Int64
    body_end: Int64
    stored: Int64
    stored_before: Int64
    halves: Int64
    asked: Int64
    loaded: Int64
    moved: Int64
    waits: Int64
    waiting: Int64
    then: Int64
    ready: Int64
    known: Int64
    missing: Int64
    users_first: Int64
    users: Int64
    stack: Int64
    counts: Int64


def fresh(t: Tasks) -> State:
    """Nothing has happened yet."""
    count, products = len(t.engine), t.products
    missing = t.after_first[1:] - t.after_first[:-1]
    start, behind = np.nonzero(missing == 0)[0][::-1], np.full(count, -1, np.int64)
    stack = np.append(start, np.zeros(count - len(start), np.int64))
    coming = np.full(products, -1, np.int64)
    for engine in range(products):
        mine = np.nonzero(t.engine == engine)[0]
        if len(mine):
            coming[engine], behind[mine[:-1]] = mine[0], mine[1:]
    users = np.repeat(np.arange(count), missing)[np.argsort(t.after, kind="stable")]
    of_products = np.zeros((5, products), np.int64)
    sides = np.zeros((4, products, 2), np.int64)
    sides[2:] = NEVER
    return State(
        when=np.full(BESIDE * products + 2, NEVER, np.int64),
        free=np.zeros(products + ENGINES_BESIDE, np.int64),
        op=np.full(products + 2, -1, np.int64),
        streak=np.zeros(products + 2, np.int64),
        done=np.zeros(products + 2, np.int64),
        coming=coming,
        **dict(zip(("phase", "ended", "body_end", "stored", "stored_before"), of_products, strict=True)),
        **dict(zip(("halves", "asked", "loaded", "moved"), sides, strict=True)),
        waits=np.zeros(2, np.int64),
        waiting=np.zeros((2, count), np.int64),
        then=behind,
        ready=np.zeros(count, np.int64),
        known=(missing == 0).astype(np.int64),
        missing=missing.copy(),
        users_first=np.append(0, np.cumsum(np.bincount(t.after, minlength=count))),
        users=users,
        stack=stack,
        counts=np.array([len(start), 0]),
    )
