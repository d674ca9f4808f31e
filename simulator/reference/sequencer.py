"""The control of the accelerator cycle by cycle: a sequencer, queues, events, units that count down; slow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

__all__ = ["RunOfCommand", "step_control"]


@dataclass
class RunOfCommand:
    """A command: the number of its instruction, and its cycles; -1 where it has not come to them."""

    instruction: int
    entered: int
    took: int = -1
    first: int = -1
    last: int = -1


@dataclass
class _Unit:
    queue: list[tuple[int, int, int]] = field(default_factory=list)
    left: int = 0
    begins: bool = False
    running: tuple[int, RunOfCommand] | None = None


def step_control(
    words: Sequence[int], durations: Sequence[int], start: int, jump: int, limit: int
) -> tuple[list[RunOfCommand], int, dict[str, list[int]]]:
    """Execute ``words``, instructions of 64 bits, until all is done. The i-th `go` of the program, as executed, takes
    ``durations[i]`` cycles.

    Gives every command in the order of its `go`, the cycles from start to done, and cycles of each unit by cause:
    ``queue``, ``busy``, ``events``. A program that has not ended after ``limit`` cycles is a RuntimeError.
    """
    machine = _Machine(words, durations, start, jump)
    for cycle in range(limit):
        # What registers hold at the beginning of the cycle.
        waiting = [len(u.queue) for u in machine.units]
        free = [u.running is None for u in machine.units]
        if machine.done and not any(waiting) and all(free):
            return machine.commands, cycle, machine.counters
        machine.step_units(cycle, waiting, free)
        machine.step_sequencer(cycle, waiting)
    raise RuntimeError(f"the program has not ended after {limit} cycles")


class _Machine:
    def __init__(self, words: Sequence[int], durations: Sequence[int], start: int, jump: int) -> None:
        self.words, self.durations, self.jump = words, durations, jump
        self.units = [_Unit() for _ in range(6)]
        self.events = [0] * 16
        self.commands: list[RunOfCommand] = []
        self.loops: list[list[int]] = []
        self.counters = {name: [0] * 6 for name in ("queue", "busy", "events")}
        self.at, self.wait, self.done = 0, start, False

    def step_units(self, cycle: int, waiting: list[int], free: list[bool]) -> None:
        """Events told in this cycle can be taken in the next one."""
        seen = list(self.events)
        for number, u in enumerate(self.units):
            if u.running is not None:
                self._run(u, cycle)
                self.counters["busy"][number] += 1
            if free[number] and waiting[number]:
                wanted, tells, index = u.queue[0]
                if all(seen[e] for e in range(16) if wanted >> e & 1):
                    for e in range(16):
                        self.events[e] -= wanted >> e & 1
                        seen[e] -= wanted >> e & 1
                    u.queue.pop(0)
                    self.commands[index].took = cycle
                    u.running, u.begins, u.left = (tells, self.commands[index]), True, self.durations[index]
                else:
                    self.counters["events"][number] += 1

    def _run(self, u: _Unit, cycle: int) -> None:
        assert u.running is not None
        if u.begins:
            u.running[1].first = cycle
            u.begins = False
        u.left -= 1
        if u.left == 0:
            u.running[1].last = cycle
            for e in range(16):
                self.events[e] += u.running[0] >> e & 1
            u.running = None

    def step_sequencer(self, cycle: int, waiting: list[int]) -> None:
        """One instruction, unless one is to be fetched or its queue was full at the beginning of the cycle."""
        if self.wait:
            self.wait -= 1
            return
        if self.done:
            return
        word = self.words[self.at]
        opcode, unit, low = word >> 56, word >> 48 & 255, word & 0xFFFFFFFF
        if opcode == 3 and waiting[unit] == 2:
            self.counters["queue"][unit] += 1
            return
        if opcode == 0:
            self.done = True
        elif opcode == 3:
            self.units[unit].queue.append((low >> 16, low & 0xFFFF, len(self.commands)))
            self.commands.append(RunOfCommand(self.at, cycle))
        elif opcode == 4:
            self.loops.append([self.at, low])
        elif opcode == 5:
            self.loops[-1][1] -= 1
            if self.loops[-1][1]:
                self.at, self.wait = self.loops[-1][0], self.jump
            else:
                self.loops.pop()
        self.at += 1
