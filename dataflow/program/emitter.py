"""Writes a program command by command; what a command must wait for follows from what it touches.

Every unit runs its commands in order, so a command that waits for the i-th of another unit waits for all before it too.
For each pair of units one event: whoever is waited for tells it once, whoever waits takes it once, in the same order.
Commands depend on earlier ones only, so such a program never stands still.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ...workloads.errors import InputError
from .accesses import Access, Part
from .commands import Command
from .instruction import End
from .isa import EVENTS, REGISTERS, Unit
from .looks import Looks
from .loops import Issue, instructions_of
from .program import Program
from .spaces import Form, Space, Target
from .transfers import Lines

__all__ = ["Emitter"]

_FEW = 8
"""Commands of a stretch for which the next one waits one by one."""


@dataclass
class _Issued:
    """A `go`: registers, and the events that it takes and tells."""

    registers: tuple[int | None, ...]
    wait: int = 0
    notify: int = 0


class _Memory:
    """Transfers of one unit: their bytes, and the number of the command of each."""

    def __init__(self) -> None:
        self.lines: list[Lines] = []
        self._spans: npt.NDArray[np.int64] = np.empty((3, 64), np.int64)

    def append(self, number: int, lines: Lines) -> None:
        """One more, beyond all numbers before."""
        count = len(self.lines)
        if count == self._spans.shape[1]:
            self._spans = np.concatenate([self._spans, np.empty_like(self._spans)], axis=1)
        self._spans[:, count] = number, lines.first, lines.last
        self.lines.append(lines)

    def latest(self, lines: Lines, after: int) -> int | None:
        """The last command beyond number ``after`` that touches a byte of ``lines``."""
        number, first, last = self._spans[:, : len(self.lines)]
        begin = int(np.searchsorted(number, after, side="right"))
        near = np.flatnonzero((last[begin:] > lines.first) & (first[begin:] < lines.last)) + begin
        for i in near[::-1].tolist():
            if self.lines[i].meets(lines):
                return int(number[i])
        return None


class Emitter:
    """A program for ``target`` in the making, with ``window`` bytes of memory."""

    def __init__(self, target: Target, window: int) -> None:
        self.target = target
        self._looks = Looks(target, window)
        self._order: list[tuple[Unit, _Issued]] = []
        self._registers: dict[Unit, list[int | None]] = {
            unit: [r.reset for r in registers] for unit, registers in REGISTERS.items()
        }
        self._issued: dict[Unit, list[_Issued]] = {unit: [] for unit in Unit}
        self._writers: dict[Part, dict[Unit, int]] = {}
        self._readers: dict[Part, dict[Unit, int]] = {}
        self._memory = {Unit.LOAD: _Memory(), Unit.STORE: _Memory()}
        self._before, self._begun = dict.fromkeys(Unit, 0), dict.fromkeys(Unit, 0)
        self._waited: dict[tuple[Unit, Unit], int] = {}
        self._events: dict[tuple[Unit, Unit], int] = {}

    def command(self, unit: Unit, **registers: int) -> None:
        """Let ``unit`` run a command with these registers; all others as the machine resets them, or, where it makes no
        difference, as they are."""
        state = self._registers[unit]
        unused = _unused(unit, registers)
        for r in REGISTERS[unit]:
            value = registers.pop(r.name, r.reset)
            if r.name in unused:
                value = 0 if state[r.number] is None else None
            if value is not None:
                state[r.number] = value
        if registers:
            raise TypeError(f"{unit.name} has no registers {sorted(registers)}")
        number, at = len(self._issued[unit]), len(self._order)
        taken = tuple(state)
        touched, lines = self._looks.at(Command(at, unit, taken, 0, 0, at, 0))
        issued = _Issued(taken)
        for other, before in self._needed(unit, touched, lines):
            self._wait(issued, unit, other, before)
        self._remember(unit, number, touched, lines)
        self._issued[unit].append(issued)
        self._order.append((unit, issued))

    def begin_stretch(self) -> None:
        """From here on whoever waits, of load and store, for the memory of a command before this place waits for all
        before it, unless those are few. So waits come where a stretch begins, and what repeats in it repeats in its
        events as well."""
        for unit, issued in self._issued.items():
            if len(issued) - self._begun[unit] > _FEW:
                self._before[unit] = len(issued)
            self._begun[unit] = len(issued)

    def program(self) -> Program:
        """The program, ended, with the loops that are found in it."""
        issues = [Issue(unit, one.registers, one.wait, one.notify) for unit, one in self._order]
        return Program((*instructions_of(issues), End()), self.target.hash)

    def _needed(self, unit: Unit, touched: Sequence[Access], lines: Lines | None) -> Iterator[tuple[Unit, int]]:
        """Units and numbers of the commands that must have ended."""
        for access in touched:
            yield from self._writers.get(access.part, {}).items()
            if access.writes:
                yield from self._readers.get(access.part, {}).items()
        if lines is not None:
            other = Unit.STORE if unit == Unit.LOAD else Unit.LOAD
            number = self._memory[other].latest(lines, self._waited.get((other, unit), -1))
            if number is not None:
                yield other, max(number, self._before[other] - 1)

    def _remember(self, unit: Unit, number: int, touched: Sequence[Access], lines: Lines | None) -> None:
        for access in touched:
            if access.writes:
                self._writers.setdefault(access.part, {})[unit] = number
            if access.reads:
                self._readers.setdefault(access.part, {})[unit] = number
        if lines is not None:
            self._memory[unit].append(number, lines)

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


def _unused(unit: Unit, registers: Mapping[str, int]) -> Sequence[str]:
    """Registers that a command does not look at, which stay as they are."""
    if unit not in (Unit.LOAD, Unit.STORE):
        return ()
    # where words are neither widened nor narrowed nothing asks how they are encoded
    bare = registers["form"] != Form.OPERAND or registers["space"] in (Space.W2E, Space.N2S)
    encoding = ("gradient",) if bare else ()
    if registers["form"] == Form.BLANK:
        return "address", "address1", *encoding
    return "address" if registers.get("which") else "address1", *encoding
