"""What a program asks of the units: its commands, in the order of their `go`s, and an order in which they may run."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple, assert_never

from ...workloads.errors import InputError
from .control import MachineError
from .instruction import Add, End, Go, Instruction, Loop, Next, Set
from .isa import EVENTS, LOOPS, QUEUE, REGISTERS, Register, Unit

__all__ = ["Begun", "Command", "Dispatched", "Ended", "ProgramError", "commands", "events_of", "execution"]

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

    A loop that is not one, or a program without an end, is a :class:`ProgramError`.
    """
    state = [[r.reset for r in registers] for registers in REGISTERS.values()]
    loops: list[list[int]] = []
    at = executed = jumps = 0
    while at < len(instructions):
        instruction = instructions[at]
        match instruction:
            case Set(unit, number, value):
                state[unit][number] = value
            case Add(unit, number, value):
                before = state[unit][number]
                if before is not None:
                    state[unit][number] = _wrapped(REGISTERS[unit][number], before + value)
            case Go(unit, wait, notify):
                yield Command(at, unit, tuple(state[unit]), wait, notify, executed, jumps)
            case Loop(turns):
                if len(loops) == LOOPS:
                    raise ProgramError(
                        MachineError.LOOP, at, f"a loop inside {LOOPS} others; there may be {LOOPS} in all"
                    )
                loops.append([at, turns])
            case Next():
                if not loops:
                    raise ProgramError(MachineError.LOOP, at, "a next without a loop")
                loops[-1][1] -= 1
                if loops[-1][1]:
                    at, jumps = loops[-1][0], jumps + 1
                else:
                    loops.pop()
            case End():
                yield Ended(at, executed, jumps)
                return
            case _:
                assert_never(instruction)
        at, executed = at + 1, executed + 1
    raise ProgramError(MachineError.FETCH, at, "the program goes on past its last instruction; it must come to an end")


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
