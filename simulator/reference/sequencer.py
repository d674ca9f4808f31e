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
    units = [_Unit() for _ in range(5)]
    events = [0] * 16
    commands: list[RunOfCommand] = []
    loops: list[list[int]] = []
    counters = {name: [0] * 5 for name in ("queue", "busy", "events")}
    at, wait, done = 0, start, False
    for cycle in range(limit):
        # What registers hold at the beginning of the cycle.
        seen = list(events)
        waiting = [len(u.queue) for u in units]
        free = [u.running is None for u in units]
        if done and not any(waiting) and all(free):
            return commands, cycle, counters

        for number, u in enumerate(units):
            if u.running is not None:
                if u.begins:
                    u.running[1].first = cycle
                    u.begins = False
                counters["busy"][number] += 1
                u.left -= 1
                if u.left == 0:
                    u.running[1].last = cycle
                    for e in range(16):
                        events[e] += u.running[0] >> e & 1
                    u.running = None
            if free[number] and waiting[number]:
                wanted, tells, index = u.queue[0]
                if all(seen[e] for e in range(16) if wanted >> e & 1):
                    for e in range(16):
                        events[e] -= wanted >> e & 1
                        seen[e] -= wanted >> e & 1
                    u.queue.pop(0)
                    commands[index].took = cycle
                    u.running, u.begins, u.left = (tells, commands[index]), True, durations[index]
                else:
                    counters["events"][number] += 1

        if wait:
            wait -= 1
        elif not done:
            word = words[at]
            opcode, unit, low = word >> 56, word >> 48 & 255, word & 0xFFFFFFFF
            if opcode == 3 and waiting[unit] == 2:
                counters["queue"][unit] += 1
                continue
            if opcode == 0:
                done = True
            elif opcode == 3:
                units[unit].queue.append((low >> 16, low & 0xFFFF, len(commands)))
                commands.append(RunOfCommand(at, cycle))
            elif opcode == 4:
                loops.append([at, low])
            elif opcode == 5:
                loops[-1][1] -= 1
                if loops[-1][1]:
                    at, wait = loops[-1][0], jump
                else:
                    loops.pop()
            at += 1
    raise RuntimeError(f"the program has not ended after {limit} cycles")
