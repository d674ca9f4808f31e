"""Every order in which the units may run a tiny program: the witness of the checker, which shares no code with it.

A program is a list of :class:`Op`, whose instructions are made here too. The machine is that of
docs/design/accelerator.md: units with queues, events, commands that begin and end.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from weft.dataflow.config_io import load_spec
from weft.dataflow.program.instruction import End, Go, Instruction, Set
from weft.dataflow.program.isa import Unit, register
from weft.dataflow.program.program import Program
from weft.dataflow.program.spaces import Form, Space, Target
from weft.workloads.sparsity import NMPattern
from weft.workloads.update_rule import SGD

WINDOW = 4096
REGION = 64


@cache
def tiny() -> Target:
    return Target(spec=load_spec("tiny"), rule=SGD, pattern=NMPattern(keep=2, group=8))


@dataclass(frozen=True)
class Op:
    """``unit`` reads and writes halves (space, half) and a ``region`` of memory (None: none)."""

    unit: Unit
    halves: tuple[tuple[Space, int], ...]
    region: int | None
    wait: frozenset[int]
    notify: frozenset[int]

    @property
    def reads(self) -> set[tuple[Space, int]]:
        return (
            set(self.halves[:2])
            if self.unit == Unit.PRODUCT
            else set(self.halves)
            if self.unit == Unit.STORE
            else set()
        )

    @property
    def writes(self) -> set[tuple[Space, int]]:
        return set(self.halves) - self.reads

    def instructions(self) -> list[Instruction]:
        space, half = self.halves[0]
        if self.unit == Unit.PRODUCT:
            ones = ("keep", "group", "rest", "interleave", "rows", "parts", "runs", "across", "down")
            values = {"stationary": 0, **dict.fromkeys(ones, 1)}
            values |= {f"{s.name.lower()}_half": h for s, h in self.halves}
        else:
            assert self.region is not None
            form = Form.FP32 if self.unit == Unit.STORE else Form.OPERAND
            values = {"space": space, "half": half, "form": form, "words": 4, "address": REGION * self.region}
            values |= {"inner2": 4, "inner2_step": 1}
            if self.unit == Unit.STORE:
                values["words"] = 1
        sets = [Set(self.unit, register(self.unit, name).number, int(value)) for name, value in values.items()]
        return [*sets, Go(self.unit, sum(1 << e for e in self.wait), sum(1 << e for e in self.notify))]


def load(space: Space, half: int, region: int, wait: set[int] = frozenset(), notify: set[int] = frozenset()) -> Op:
    return Op(Unit.LOAD, ((space, half),), region, frozenset(wait), frozenset(notify))


def product(west: int, north: int, south: int, wait: set[int] = frozenset(), notify: set[int] = frozenset()) -> Op:
    halves = ((Space.W2E, west), (Space.N2S, north), (Space.OUTPUT, south))
    return Op(Unit.PRODUCT, halves, None, frozenset(wait), frozenset(notify))


def store(half: int, region: int, wait: set[int] = frozenset(), notify: set[int] = frozenset()) -> Op:
    return Op(Unit.STORE, ((Space.OUTPUT, half),), region, frozenset(wait), frozenset(notify))


def program(ops: list[Op]) -> Program:
    return Program((*(i for op in ops for i in op.instructions()), End()), tiny().hash)


def pipeline(tiles: int) -> list[Op]:
    """Load, product, store, each with both halves in turns: well formed."""
    ops = []
    for i in range(tiles):
        again = i >= 2
        ops += [
            load(Space.W2E, i % 2, 0, {1} if again else set()),
            load(Space.N2S, i % 2, 1, notify={0}),
            product(i % 2, i % 2, i % 2, {0, 3} if again else {0}, {1, 2}),
            store(i % 2, 2 + i % 2, {2}, {3}),
        ]
    return ops


def problems(ops: list[Op], limit: int) -> set[str]:
    """What may happen in some order, with queues of any length; and whether it may stand still, with queues of two."""
    return _run(ops, limit, None) | (_run(ops, limit, 2) & {"deadlock"})


def _run(ops: list[Op], limit: int, queue: int | None) -> set[str]:
    units = sorted({op.unit for op in ops})
    mine = {u: [op for op in ops if op.unit == u] for u in units}
    found: set[str] = set()
    nobody = dict.fromkeys(units, 0)
    start = (0, tuple(nobody.values()), tuple(nobody.values()), (0,) * 16, frozenset(), frozenset())
    todo, seen = [start], {start}
    while todo:
        state = todo.pop()
        following = list(_steps(ops, units, mine, state, limit, queue, found))
        if not following and sum(state[2]) < len(ops):
            found.add("deadlock")
        for after in following:
            if after not in seen:
                seen.add(after)
                todo.append(after)
    return found


def _steps(ops, units, mine, state, limit, queue, found):
    """What may happen next: an op enters its queue, begins, or ends. ``begun`` and ``ended`` count ops of each unit."""
    entered, begun, ended, events, written, fresh = state
    at = [sum(op.unit == u for op in ops[:entered]) for u in units]
    if entered < len(ops):
        u = units.index(ops[entered].unit)
        if queue is None or at[u] - begun[u] < queue:
            yield (entered + 1, begun, ended, events, written, fresh)
    running = [mine[u][ended[i]] for i, u in enumerate(units) if begun[i] > ended[i]]
    for i, u in enumerate(units):
        if begun[i] > ended[i]:
            op = mine[u][ended[i]]
            counted = tuple(n + (e in op.notify) for e, n in enumerate(events))
            if max(counted) > limit:
                found.add("event limit")
            more = (written | op.writes, fresh | op.writes)
            yield (entered, begun, _more(ended, i), counted, *more)
        elif begun[i] < at[i] and all(events[e] for e in mine[u][begun[i]].wait):
            op = mine[u][begun[i]]
            for other in running:
                if op.writes & (other.reads | other.writes) or op.reads & other.writes:
                    found.add("unordered")
                if {op.unit, other.unit} == {Unit.LOAD, Unit.STORE} and op.region == other.region:
                    found.add("memory")
            if op.reads - written:
                found.add("unwritten")
            left = fresh - op.reads
            if op.writes & left:
                found.add("lost")
            counted = tuple(n - (e in op.wait) for e, n in enumerate(events))
            yield (entered, _more(begun, i), ended, counted, written, left - op.writes)


def _more(counts: tuple[int, ...], i: int) -> tuple[int, ...]:
    return (*counts[:i], counts[i] + 1, *counts[i + 1 :])
