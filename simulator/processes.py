"""The system as SimPy processes, with engines, buffers and a memory that they share: its readable definition.

`kernels/recurrence.py` computes the same in a pass; the tests hold both equal in every time, use and change.
docs/design/machine.md, "The system", states the rules.
"""

from __future__ import annotations

import heapq
from array import array
from collections.abc import Callable, Generator, Iterator
from typing import NamedTuple, cast

import numpy as np
import simpy
from simpy.events import NORMAL, EventPriority

from .channels import Channel, Names, Purpose, channels
from .kernels.tasks import Tasks
from .system_result import EngineUse, Intervals, Occupancy

__all__ = ["Processes"]

Wait = Generator[simpy.Event, object, None]
Load = Generator[simpy.Event, object, int]
"""Returns when the transfer ended; SORE may have gone on."""

_CHOOSE_WORK, _CHOOSE_REQUEST = NORMAL + 1, NORMAL + 2
"""Engines choose an op, and memory and SORE a request, when all else of the instant has happened."""


class _Instants(simpy.Environment):
    """SimPy on a clock of whole numbers, with more than its two places among the events of an instant."""

    @property
    def now(self) -> int:
        return cast(int, self._now)

    def happen(self, event: simpy.Event, place: int, delay: int = 0) -> None:
        """Let ``event`` happen at ``place`` among those of its instant."""
        event._ok, event._value = True, None
        self.schedule(event, EventPriority(place), delay)

    def soon(self, call: Callable[[simpy.Event], None], place: int) -> None:
        """Call at ``place`` among what happens in this instant."""
        event = simpy.Event(self)
        event.callbacks.append(call)
        self.happen(event, place)


class _Server:
    """DRAM or SORE: one request at a time, the earliest first, of those made at once that of the lowest channel."""

    def __init__(self, env: _Instants, numbers: dict[Channel, int]) -> None:
        self._env, self._numbers = env, numbers
        self._waiting: list[tuple[int, Channel, int, int, int, simpy.Event]] = []
        self._taken = False
        self.log = array("q")

    def ask(self, op: int, channel: Channel, duration: int, moved: int = 0) -> simpy.Event:
        """An event at the end of the service, in which DRAM moves ``moved`` bytes."""
        served = simpy.Event(self._env)
        heapq.heappush(self._waiting, (self._env.now, channel, op, duration, moved, served))
        if not self._taken:
            self._choose_soon()
        return served

    def _choose_soon(self) -> None:
        self._taken = True
        self._env.soon(self._serve, _CHOOSE_REQUEST)

    def _serve(self, event: simpy.Event) -> None:
        _, channel, op, duration, moved, served = heapq.heappop(self._waiting)
        now = self._env.now
        self.log.extend((op, self._numbers[channel], now, now + duration, moved))
        served.callbacks.insert(0, self._served)
        self._env.happen(served, NORMAL, duration)

    def _served(self, event: simpy.Event) -> None:
        self._taken = False
        if self._waiting:
            self._choose_soon()


class _Halves:
    """The two halves of a buffer, or what is free of them; at most one process waits for one."""

    def __init__(self, env: _Instants) -> None:
        self._env, self.free = env, 2
        self._waiter: simpy.Event | None = None
        self.log = array("q", (0, 0))

    def take(self, count: int = 1) -> Wait:
        while self.free < count:
            self._waiter = simpy.Event(self._env)
            yield self._waiter
        self.free -= count
        self._note()

    def give(self, count: int = 1) -> None:
        self.free += count
        if self.free > 2:
            raise AssertionError("a buffer has two halves")
        self._note()
        if self._waiter is not None:
            waiter, self._waiter = self._waiter, None
            waiter.succeed()

    def _note(self) -> None:
        """Of one instant the last state counts."""
        if self.log[-2] == self._env.now:
            self.log[-1] = 2 - self.free
        else:
            self.log.extend((self._env.now, 2 - self.free))


class _Phase(NamedTuple):
    """Times of a phase, bytes that it moves, which sides it loads (`Tasks`), the streak that it ends, or -1."""

    busy: int
    transfer: int
    moved: int
    sore: int
    loads: int
    ends: int


class _Buffers(NamedTuple):
    """Those of one product engine."""

    west: _Halves
    north: _Halves
    out: _Halves


class Processes:
    """The processes of one run and what they leave behind."""

    def __init__(self, tasks: Tasks, names: Names, progress: Callable[[int, int], None] | None) -> None:
        self.tasks, self._names, self._progress = tasks, names, progress
        self.env = env = _Instants()
        count = len(tasks.engine)
        self.start, self.end = np.full((2, count), -1, np.int64)
        self._ended = [simpy.Event(env) for _ in range(count)]
        self._ready = [simpy.Event(env) for _ in range(count)]
        self._done = 0
        self._numbers = {channel: number for number, channel in enumerate(channels(tasks.products))}
        self.dram, self.sore = _Server(env, self._numbers), _Server(env, self._numbers)
        self._products = range(tasks.products)
        beside = [channel.engine for channel in self._numbers if channel.purpose is Purpose.BESIDE]
        self._queues = {engine: _Queue(env) for engine in beside}
        working = (*self._products, *beside)
        self._log = {engine: array("q") for engine in working}
        self._spent = {engine: dict.fromkeys(EngineUse.__dataclass_fields__, 0) for engine in working}
        self._buffers = [_Buffers(_Halves(env), _Halves(env), _Halves(env)) for _ in self._products]

    def run(self) -> None:
        for op in range(len(self.tasks.engine)):
            self.env.process(self._launch(op))
        for engine in self._products:
            self.env.process(self._array(engine))
        for engine in self._queues:
            self.env.process(self._beside(engine))
        self.env.run()
        if self._done != len(self.tasks.engine):
            raise AssertionError(f"only {self._done} of {len(self.tasks.engine)} ops can ever start")
        if any(halves.free != 2 for buffers in self._buffers for halves in buffers):
            raise AssertionError("a half of a buffer is never given back")

    def _launch(self, op: int) -> Wait:
        """An op may start at the first whole cycle at which all that it waits for has ended."""
        t = self.tasks
        for other in t.after[t.after_first[op] : t.after_first[op + 1]].tolist():
            yield self._ended[other]
        yield simpy.Timeout(self.env, -self.env.now % t.rate)
        self._ready[op].succeed(self.env.now)
        if t.first[op] == t.behind[op]:
            self.start[op] = self.env.now
            self._finish(op)
        elif t.engine[op] in self._queues:
            self._queues[int(t.engine[op])].put(op)

    def _finish(self, op: int) -> None:
        self.end[op] = self.env.now
        self._ended[op].succeed()
        self._done += 1
        if self._progress is not None:
            self._progress(self._done, len(self.tasks.engine))

    def _beside(self, engine: int) -> Wait:
        """The vector unit or WUVE: of the ops that may start the one that waits longest."""
        queue = self._queues[engine]
        while True:
            yield queue.next()
            op = queue.taken
            self.start[op] = self.env.now
            for phase in self._phases(op):
                yield from self._phase(Channel(Purpose.BESIDE, engine), op, phase)
            self._finish(op)

    def _phases(self, op: int) -> Iterator[_Phase]:
        """Every phase of an op, and whether it is the last of its streak."""
        t = self.tasks
        for k in range(t.first[op], t.behind[op]):
            for left in range(int(t.times[k]) - 1, -1, -1):
                moved = int(t.read[k] + t.written[k])
                ends = -1 if left else k - int(t.first[op])
                yield _Phase(int(t.busy[k]), int(t.transfer[k]), moved, int(t.sore[k]), int(t.loads[k]), ends)

    def _phase(self, channel: Channel, op: int, phase: _Phase) -> Wait:
        """Engine, transfers and SORE start together; the phase lasts as long as the slowest."""
        env, start, spent, busy = self.env, self.env.now, self._spent[channel.engine], phase.busy
        transfer = self.dram.ask(op, channel, phase.transfer, phase.moved) if phase.transfer else None
        reduction = self.sore.ask(op, channel, phase.sore) if phase.sore else None
        if busy:
            self._log[channel.engine].extend((op, self._numbers[channel], start, start + busy, 0))
            spent["busy"] += busy
            yield simpy.Timeout(env, busy)
        if transfer is not None and not transfer.processed:
            before = env.now
            yield transfer
            spent["dram"] += env.now - before
        if reduction is not None and not reduction.processed:
            before = env.now
            yield reduction
            spent["sore"] += env.now - before

    def _array(self, engine: int) -> Wait:
        """Ops of a product engine in order; the coming one asks for its first loads while the last one computes."""
        t = self.tasks
        ops = np.flatnonzero(t.engine == engine).tolist()
        if not ops:
            return
        # For each buffer, the moment after which the loads of the coming op are next in turn.
        turn = [simpy.Event(self.env).succeed() for _ in range(2)]
        loads = self._first_loads(ops[0], turn)
        for op, coming in zip(ops, [*ops[1:], -1], strict=True):
            free_from = self.env.now
            yield self._ready[op]
            may_start = moved_at = self.env.now
            for load in loads:
                yield load
                moved_at = max(moved_at, cast(int, load.value))
            loaded_at = self.env.now
            yield from self._buffers[engine].out.take()
            spent = self._spent[engine]
            spent["dependency"] += may_start - free_from
            spent["sore"] += loaded_at - moved_at
            spent["dram"] += self.env.now - may_start - (loaded_at - moved_at)
            turn = [simpy.Event(self.env) for _ in range(2)]
            loads = self._first_loads(coming, turn) if coming >= 0 else []
            yield from self._phases_of(op, turn)
            ramp = int(t.ramp[op])
            spent["fill_drain"] += ramp
            if ramp:
                yield simpy.Timeout(self.env, ramp)
            self.env.process(self._last_store(op))

    def _phases_of(self, op: int, turn: list[simpy.Event]) -> Wait:
        t, env, engine = self.tasks, self.env, int(self.tasks.engine[op])
        west, north, out = self._buffers[engine]
        resident = bool(t.resident[op])
        sides = ((west, 1, int(t.free_west[op]), turn[0]), (north, 2, int(t.free_north[op]), turn[1]))
        for _, _, free, next_turn in sides:
            if free < 0:
                next_turn.succeed()
        for k, phase in enumerate(self._phases(op)):
            if k:
                before = env.now
                yield from out.take()
                self._spent[engine]["dram"] += env.now - before
            for halves, bit, _, _ in sides:
                if resident and phase.loads & bit:
                    yield from halves.take()
            yield from self._phase(Channel(Purpose.PHASE, engine), op, phase)
            if k:
                out.give()
            for halves, bit, free, next_turn in sides:
                if resident and phase.loads & bit:
                    halves.give()
                if phase.ends >= 0 and phase.ends == free:
                    next_turn.succeed()
        for halves, _, _, _ in sides:
            halves.give(1 if resident else 2)

    def _last_store(self, op: int) -> Wait:
        t, engine = self.tasks, int(self.tasks.engine[op])
        yield self.dram.ask(op, Channel(Purpose.STORE, engine), int(t.store_time[op]), int(t.store[op]))
        self._buffers[engine].out.give()
        self._finish(op)

    def _first_loads(self, op: int, turn: list[simpy.Event]) -> list[simpy.Process]:
        t, env = self.tasks, self.env
        asks = [(Purpose.WEST, turn[0], int(t.west[op])), (Purpose.NORTH, turn[1], int(t.north[op]))]
        taken = [simpy.Event(env) for _ in asks]
        loads = [
            env.process(self._load(op, purpose, next_turn, took))
            for (purpose, next_turn, size), took in zip(asks, taken, strict=True)
            if t.resident[op] or size
        ]
        if t.resident[op]:
            return loads
        ahead = [took for took, (_, _, size) in zip(taken, asks, strict=True) if size]
        return [env.process(self._lead(op, [*turn, *ahead]))]

    def _lead(self, op: int, before: list[simpy.Event]) -> Load:
        """A streamed op passes through both halves of both buffers, of which what comes ahead has one already, and
        waits for its first k-chunk."""
        t = self.tasks
        yield self.env.all_of((*before, self._ready[op]))
        west, north, _ = self._buffers[int(t.engine[op])]
        yield from west.take(1 if t.west[op] else 2)
        yield from north.take(1 if t.north[op] else 2)
        self.start[op] = self.env.now if self.start[op] < 0 else min(self.start[op], self.env.now)
        yield simpy.Timeout(self.env, int(self.tasks.lead[op]))
        return self.env.now

    def _load(self, op: int, purpose: Purpose, turn: simpy.Event, took: simpy.Event) -> Load:
        t, west, engine = self.tasks, purpose is Purpose.WEST, int(self.tasks.engine[op])
        channel, buffers = Channel(purpose, engine), self._buffers[engine]
        yield turn
        if not (t.west_ready if west else t.north_ready)[op]:
            yield self._ready[op]
        yield from (buffers.west if west else buffers.north).take()
        took.succeed()
        self.start[op] = self.env.now if self.start[op] < 0 else min(self.start[op], self.env.now)
        moved, time = (t.west, t.west_time) if west else (t.north, t.north_time)
        transfer = self.dram.ask(op, channel, int(time[op]), int(moved[op]))
        sore = 0 if west else int(t.north_sore[op])
        reduction = self.sore.ask(op, channel, sore) if sore else None
        yield transfer
        moved_at = self.env.now
        if reduction is not None:
            yield reduction
        return moved_at

    def uses(self) -> dict[str, EngineUse]:
        total = int(self.end.max())
        found = []
        for spent in self._spent.values():
            found.append(EngineUse(**{**spent, "idle": total - sum(spent.values())}))
        for server in (self.dram, self.sore):
            busy = sum(server.log[3::5]) - sum(server.log[2::5])
            found.append(EngineUse(busy=busy, idle=total - busy))
        return dict(zip(self._names.engines, found, strict=True))

    def timeline(self) -> dict[str, Intervals]:
        logs = (*self._log.values(), self.dram.log, self.sore.log)
        return {name: _intervals(log) for name, log in zip(self._names.engines, logs, strict=True)}

    def occupancy(self) -> dict[str, Occupancy]:
        halves = (each for buffers in self._buffers for each in buffers)
        logs = [np.array(each.log, np.int64) for each in halves]
        names = self._names.buffers
        return {name: Occupancy(time=log[::2], halves=log[1::2]) for name, log in zip(names, logs, strict=True)}


class _Queue:
    """Ops that may start on an engine, the one that waits longest first."""

    def __init__(self, env: _Instants) -> None:
        self._env = env
        self._waiting: list[tuple[int, int]] = []
        self._asker: simpy.Event | None = None
        self.taken = -1

    def put(self, op: int) -> None:
        heapq.heappush(self._waiting, (self._env.now, op))
        self._choose_soon()

    def next(self) -> simpy.Event:
        """An event once ``taken`` is the next op."""
        self._asker = simpy.Event(self._env)
        self._choose_soon()
        return self._asker

    def _choose_soon(self) -> None:
        self._env.soon(self._choose, _CHOOSE_WORK)

    def _choose(self, event: simpy.Event) -> None:
        if self._waiting and self._asker is not None:
            asker, self._asker = self._asker, None
            _, self.taken = heapq.heappop(self._waiting)
            asker.succeed()


def _intervals(log: array[int]) -> Intervals:
    op, channel, start, end, moved = np.array(log, np.int64).reshape(-1, 5).T
    return Intervals(op=op, channel=channel, start=start, end=end, moved=moved)
