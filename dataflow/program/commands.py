"""What a program asks of the units: its commands, in the order of their `go`s, and an order in which they may run."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple, assert_never

from ...workloads.errors import InputError
from .control import MachineError
from .instruction import Add, End, Go, Instruction, Loop, Next, Opcode, Set
from .isa import EVENTS, LOOPS, QUEUE, REGISTERS, Register, Unit

__all__ = [
    "MOST_INSTRUCTIONS",
    "Begun",
    "Command",
    "Dispatched",
    "Ended",
    "ProgramError",
    "commands",
    "events_of",
    "execution",
]

_END, _SET, _ADD, _GO, _LOOP, _NEXT = (int(opcode) for opcode in Opcode)

MOST_INSTRUCTIONS = 1 << 24
"""Instructions that are executed here, all turns of loops among them: a loop of 2^32 turns would take days."""

_NUMBERS = {unit: {r.name: r.number for r in registers} for unit, registers in REGISTERS.items()}
_EVENTS = tuple(tuple(e for e in range(EVENTS) if mask >> e & 1) for mask in range(1 << 8))


class ProgramError(InputError):
    """What stops a program: the error that the machine would show, and the number of the instruction."""

    def __init__(self, error: MachineError, instruction: int, message: str) -> None:
        super().__init__(f"instruction {instruction}: {message}")
        self.error = error
        self.instruction = instruction


class Command(NamedTuple):
    """A copy of a unit's registers at the `go` that is instruction ``instruction``; None: never set.

    ``executed``: instructions before it, as often as they were executed; ``jumps``: how many of them went back.
    """

    instruction: int
    unit: Unit
    registers: tuple[int | None, ...]
    wait: int
    notify: int
    executed: int
    jumps: int

    def __getattr__(self, name: str) -> int:
        """The register of that name."""
        try:
            value = self.registers[_NUMBERS[self.unit][name]]
        except KeyError:
            raise AttributeError(name) from None
        if value is None:
            raise AttributeError(f"{name} was never set")
        return value

    @property
    def said(self) -> str:
        """The command in words."""
        return f"go {self.unit.name.lower()}"


class Ended(NamedTuple):
    """The `end`: instructions before it, as often as they were executed, and how many went back."""

    instruction: int
    executed: int
    jumps: int


class Dispatched(NamedTuple):
    """A command enters its unit's queue, as the unit's ``number``-th from 0."""

    command: Command
    number: int


class Begun(NamedTuple):
    """A command runs. ``after``: the event, and unit and number of the command whose notification of it is taken."""

    command: Command
    number: int
    after: tuple[tuple[int, Unit, int], ...]


def events_of(mask: int) -> tuple[int, ...]:
    """Events of a mask."""
    return _EVENTS[mask & 0xFF] + tuple(e + 8 for e in _EVENTS[mask >> 8])


def commands(instructions: Sequence[Instruction]) -> Iterator[Command | Ended]:
    """Execute instructions as the sequencer does, one after the other; the last is an :class:`Ended`.

    A loop that is not one, a program without an end, or more than `MOST_INSTRUCTIONS` is a :class:`ProgramError`.
    """
    steps = [_step(instruction) for instruction in instructions]
    state = [[r.reset for r in registers] for registers in REGISTERS.values()]
    loops: list[list[int]] = []
    at = executed = jumps = 0
    while at < len(steps):
        opcode, unit, a, b = steps[at]
        if opcode == _SET:
            state[unit][a] = b
        elif opcode == _ADD:
            before = state[unit][a]
            if before is not None:
                state[unit][a] = _wrapped(REGISTERS[Unit(unit)][a], before + b)
        elif opcode == _GO:
            yield Command(at, Unit(unit), tuple(state[unit]), a, b, executed, jumps)
        elif opcode == _NEXT:
            if not loops:
                raise ProgramError(MachineError.LOOP, at, "a next without a loop")
            if executed > MOST_INSTRUCTIONS:
                raise ProgramError(MachineError.NONE, at, f"more than {MOST_INSTRUCTIONS} instructions are executed")
            loops[-1][1] -= 1
            if loops[-1][1]:
                at, jumps = loops[-1][0], jumps + 1
            else:
                loops.pop()
        elif opcode == _LOOP:
            if len(loops) == LOOPS:
                raise ProgramError(MachineError.LOOP, at, f"a loop inside {LOOPS} others; there may be {LOOPS} in all")
            loops.append([at, a])
        else:
            yield Ended(at, executed, jumps)
            return
        at, executed = at + 1, executed + 1
    raise ProgramError(MachineError.FETCH, at, "the program goes on past its last instruction; it must come to an end")


def _step(instruction: Instruction) -> tuple[int, int, int, int]:
    """Numbers, which are told apart faster than classes: opcode, unit, and what it has of register, value, masks."""
    match instruction:
        case Set(unit, number, value):
            return _SET, int(unit), number, value
        case Add(unit, number, value):
            return _ADD, int(unit), number, value
        case Go(unit, wait, notify):
            return _GO, int(unit), wait, notify
        case Loop(turns):
            return _LOOP, 0, turns, 0
        case Next():
            return _NEXT, 0, 0, 0
        case End():
            return _END, 0, 0, 0
        case _:
            assert_never(instruction)


def _wrapped(r: Register, value: int) -> int:
    value &= (1 << r.bits) - 1
    return value - (value >> r.bits - 1 << r.bits) if r.signed else value


def execution(instructions: Sequence[Instruction], queue: int | None = QUEUE) -> Iterator[Dispatched | Begun | Ended]:
    """A program's commands in an order in which the units may run them: each begins as soon as its events are there,
    and ends before the next one begins.

    Of commands that wait for the same event the first that can takes it. A program that stands still for ever is a
    :class:`ProgramError`. ``queue``: commands that wait in a unit; None: any number.
    """
    waiting: list[deque[tuple[Command, int]]] = [deque() for _ in Unit]
    given = [0] * len(Unit)
    told: list[deque[tuple[Unit, int]]] = [deque() for _ in range(EVENTS)]
    for command in commands(instructions):
        if isinstance(command, Ended):
            if any(waiting):
                raise _stuck(waiting, told, None)
            yield command
            return
        line = waiting[command.unit]
        if len(line) == queue:
            raise _stuck(waiting, told, command)
        line.append((command, given[command.unit]))
        yield Dispatched(command, given[command.unit])
        given[command.unit] += 1
        yield from _begin(waiting, told)


def _begin(waiting: list[deque[tuple[Command, int]]], told: list[deque[tuple[Unit, int]]]) -> Iterator[Begun]:
    """Run whatever can begin, until nothing can."""
    again = True
    while again:
        again = False
        for line in waiting:
            while line and all(told[e] for e in events_of(line[0][0].wait)):
                command, number = line.popleft()
                yield Begun(command, number, tuple((e, *told[e].popleft()) for e in events_of(command.wait)))
                for e in events_of(command.notify):
                    told[e].append((command.unit, number))
                    again = True


def _stuck(
    waiting: list[deque[tuple[Command, int]]], told: list[deque[tuple[Unit, int]]], full: Command | None
) -> ProgramError:
    """Who waits for what."""
    heads = [line[0][0] for line in waiting if line]
    lacks = [
        f"{c.said} of instruction {c.instruction} waits for event "
        f"{', '.join(str(e) for e in events_of(c.wait) if not told[e])}"
        for c in heads
    ]
    for_room = f"{full.said} waits for room in its queue, " if full else ""
    at = full.instruction if full else min(c.instruction for c in heads)
    return ProgramError(MachineError.WATCHDOG, at, f"deadlock: {for_room}{'; '.join(lacks)}")
