"""Writes a program command by command; what a command must wait for follows from what it touches.

Every unit runs its commands in order, so a command that waits for the i-th of another unit waits for all before it too.
For each pair of units one event: whoever is waited for tells it once, whoever waits takes it once, in the same order.
Commands depend on earlier ones only, so such a program never stands still.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from ...workloads.errors import InputError
from .accesses import Part, accesses
from .commands import Command
from .instruction import End, Go, Instruction, Set
from .isa import EVENTS, REGISTERS, Unit
from .legal import check_command
from .loops import rolled
from .program import Program
from .spaces import Form, Target
from .transfers import Lines, lines_of

__all__ = ["Emitter"]

_NUMBERS = {unit: {r.name: r.number for r in registers} for unit, registers in REGISTERS.items()}


@dataclass
class _Issued:
    """A `go`, where it stands, and the events that it takes and tells."""

    at: int
    wait: int = 0
    notify: int = 0


@dataclass
class _Memory:
    """Transfers of one unit, by the number of their command."""

    lines: list[tuple[int, Lines]] = field(default_factory=list)

    def latest(self, lines: Lines, after: int) -> int | None:
        """The last command beyond number ``after`` that touches a byte of ``lines``."""
        for number, own in reversed(self.lines):
            if number <= after:
                return None
            if own.meets(lines):
                return number
        return None


class Emitter:
    """A program for ``target`` in the making, with ``window`` bytes of memory."""

    def __init__(self, target: Target, window: int) -> None:
        self.target, self.window = target, window
        self._instructions: list[Instruction] = []
        self._registers: dict[Unit, list[int | None]] = {
            unit: [r.reset for r in registers] for unit, registers in REGISTERS.items()
        }
        self._issued: dict[Unit, list[_Issued]] = {unit: [] for unit in Unit}
        self._writers: dict[Part, dict[Unit, int]] = {}
        self._readers: dict[Part, dict[Unit, int]] = {}
        self._memory = {Unit.LOAD: _Memory(), Unit.STORE: _Memory()}
        self._waited: dict[tuple[Unit, Unit], int] = {}
        self._events: dict[tuple[Unit, Unit], int] = {}

    def command(self, unit: Unit, **registers: int) -> None:
        """Let ``unit`` run a command with these registers; all others as the machine resets them."""
        state = self._registers[unit]
        wanted = {r.name: registers.pop(r.name, r.reset) for r in REGISTERS[unit]}
        if registers:
            raise TypeError(f"{unit.name} has no registers {sorted(registers)}")
        for r in REGISTERS[unit]:
            value = wanted[r.name]
            if value is not None and state[r.number] != value:
                self._instructions.append(Set(unit, r.number, value))
                state[r.number] = value
        number = len(self._issued[unit])
        at = len(self._instructions)
        command = Command(at, unit, tuple(state), 0, 0, at, 0)
        check_command(command, self.target, self.window)
        issued = _Issued(at)
        for other, before in self._needed(command):
            self._wait(issued, unit, other, before)
        self._remember(command, number)
        self._issued[unit].append(issued)
        self._instructions.append(Go(unit, 0, 0))

    def program(self) -> Program:
        """The program, ended, with the loops that are found in it."""
        instructions = list(self._instructions)
        for unit, all_issued in self._issued.items():
            for issued in all_issued:
                instructions[issued.at] = Go(unit, issued.wait, issued.notify)
        return Program((*rolled(instructions), End()), self.target.hash)

    def _needed(self, command: Command) -> Iterator[tuple[Unit, int]]:
        """Units and numbers of the commands that must have ended."""
        unit = command.unit
        for access in accesses(command, self.target):
            yield from self._writers.get(access.part, {}).items()
            if access.writes:
                yield from self._readers.get(access.part, {}).items()
        lines = _in_memory(command, self.target)
        if lines is not None:
            other = Unit.STORE if unit == Unit.LOAD else Unit.LOAD
            number = self._memory[other].latest(lines, self._waited.get((other, unit), -1))
            if number is not None:
                yield other, number

    def _remember(self, command: Command, number: int) -> None:
        unit = command.unit
        for access in accesses(command, self.target):
            if access.writes:
                self._writers.setdefault(access.part, {})[unit] = number
            if access.reads:
                self._readers.setdefault(access.part, {})[unit] = number
        lines = _in_memory(command, self.target)
        if lines is not None:
            self._memory[unit].lines.append((number, lines))

    def _wait(self, issued: _Issued, unit: Unit, other: Unit, number: int) -> None:
        pair = other, unit
        if other == unit or self._waited.get(pair, -1) >= number:
            return
        if pair not in self._events:
            if len(self._events) == EVENTS:
                raise InputError(f"the program needs more than the {EVENTS} events of the machine")
            self._events[pair] = len(self._events)
        bit = 1 << self._events[pair]
        if issued.wait & bit:
            # it waits already for an earlier command of that unit: now for this one instead
            self._issued[other][self._waited[pair]].notify &= ~bit
        self._waited[pair] = number
        issued.wait |= bit
        self._issued[other][number].notify |= bit


def _in_memory(command: Command, target: Target) -> Lines | None:
    """What a command moves to or from memory."""
    if command.unit not in (Unit.LOAD, Unit.STORE) or command.form == Form.BLANK:
        return None
    return lines_of(command, target)
