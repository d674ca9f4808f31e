"""The control of the accelerator: commands in an order in which its units run them, and the cycles of each.

What a command computes is of no concern here: units are called back. Nor is what it takes by itself: durations are
asked for. The rest is docs/design/accelerator.md: the sequencer executes an instruction a cycle, queues hold two
commands, events hold units back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ...dataflow.program.commands import Begun, Command, Dispatched, Ended, execution
from ...dataflow.program.instruction import Instruction
from ...dataflow.program.isa import BEGIN, ENTER, JUMP, QUEUE, START, TELL, Unit

__all__ = ["Ran", "Timeline", "run_commands", "timeline"]


def run_commands(instructions: Sequence[Instruction], units: Mapping[Unit, Callable[[Command], None]]) -> int:
    """Execute a program: each command is handed to its unit, in an order in which the machine may run them; of a
    program that `check` lets pass any such order computes the same. Gives how many there were.

    A program that stands still, or is none, is a `ProgramError`.
    """
    count = 0
    for step in execution(instructions):
        if isinstance(step, Begun):
            units[step.command.unit](step.command)
            count += 1
    return count


@dataclass(frozen=True, slots=True)
class Ran:
    """A command, with its first and its last cycle; ``entered`` is the cycle of its `go`, ``took`` that in which it
    took its events. Cycle 0 is that of `start`."""

    command: Command
    entered: int
    took: int
    first: int
    last: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """Commands in the order of their `go`s, and the counters that the host reads, in cycles."""

    ran: tuple[Ran, ...]
    cycles: int
    """From start to done: the last one of `end` and of all commands, and one."""
    fetch_stalls: int
    queue_stalls: Mapping[Unit, int]
    busy: Mapping[Unit, int]
    event_stalls: Mapping[Unit, int]


def timeline(instructions: Sequence[Instruction], duration: Callable[[Command], int], latency: int) -> Timeline:
    """When each command of a program that `check` lets pass runs, if it takes ``duration`` cycles, from 1.

    ``latency``: cycles until the memory that instructions come from answers; then it gives one a cycle.
    """
    clock = _Clock(duration, START + latency, JUMP + latency)
    for step in execution(instructions):
        match step:
            case Dispatched():
                clock.dispatched(step)
            case Begun():
                clock.begun(step)
            case Ended():
                return clock.ended(step)
    raise AssertionError("an execution ends, or is an error")


class _Clock:
    """Cycles as far as commands are known; of a unit's commands by their number."""

    def __init__(self, duration: Callable[[Command], int], start: int, jump: int) -> None:
        self.duration, self.start, self.jump = duration, start, jump
        self.late = 0
        self.order: list[tuple[Unit, int]] = []
        self.entered: dict[Unit, list[int]] = {unit: [] for unit in Unit}
        self.ran: dict[Unit, list[Ran]] = {unit: [] for unit in Unit}
        self.queue_stalls = dict.fromkeys(Unit, 0)
        self.event_stalls = dict.fromkeys(Unit, 0)

    def dispatched(self, step: Dispatched) -> None:
        """A `go` is executed once its unit's queue has room, and delays all that comes after."""
        command, unit = step.command, step.command.unit
        due = self._executed(command.executed, command.jumps)
        at = due
        if step.number >= QUEUE:
            # Room for it is made when the command before the one before it leaves the queue.
            at = max(due, self.ran[unit][step.number - QUEUE].took + 1)
        self.queue_stalls[unit] += at - due
        self.late += at - due
        self.order.append((unit, step.number))
        self.entered[unit].append(at)

    def begun(self, step: Begun) -> None:
        """A unit that is free begins the command that it sees when its events are there."""
        unit, ran = step.command.unit, self.ran[step.command.unit]
        entered = self.entered[unit][step.number]
        seen = max(entered + ENTER, ran[-1].last + TELL if ran else 0)
        told = [self.ran[of][number].last + TELL for _, of, number in step.after]
        took = max(seen, *told) if told else seen
        self.event_stalls[unit] += took - seen
        first = took + BEGIN
        ran.append(Ran(step.command, entered, took, first, first + self.duration(step.command) - 1))

    def ended(self, step: Ended) -> Timeline:
        """All is done when the `end` was executed and every unit has ended."""
        end = self._executed(step.executed, step.jumps)
        ran = tuple(self.ran[unit][number] for unit, number in self.order)
        return Timeline(
            ran=ran,
            cycles=max(end, *(r.last for r in ran)) + 1 if ran else end + 1,
            fetch_stalls=self.start + self.jump * step.jumps,
            queue_stalls=self.queue_stalls,
            busy={unit: sum(r.last - r.first + 1 for r in of) for unit, of in self.ran.items()},
            event_stalls=self.event_stalls,
        )

    def _executed(self, instructions: int, jumps: int) -> int:
        """The cycle of an instruction, by those before it."""
        return self.start + instructions + self.jump * jumps + self.late
