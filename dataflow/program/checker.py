"""Proof that a program may run: it comes to an end, and whatever order its units take, it computes the same.

The program is executed, loops and all, without values. Units run side by side, each in order, held together by events
alone: a command is *after* another one if the same unit runs both in this order, or if it takes an event that the other
told, or by such steps; of a full queue nothing is concluded. Where every event is told, and taken, in one order,
all orders of execution that there are tell and take the same, so one of them proves for all: no deadlock, no counter
too far, and of two commands that touch the same half, one writing, one is after the other.
"""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import dataclass, field
from enum import StrEnum

from .accesses import NONFINITE, SORE, Access, Part, part_name
from .commands import Begun, Command, ProgramError, events_of, execution
from .control import MachineError
from .isa import EVENT_LIMIT, EVENTS, Unit
from .legal import check_units
from .looks import Looks
from .program import Program
from .rectangles import Rectangle, meet
from .spaces import Target
from .transfers import Lines

__all__ = ["MOST_COMMANDS", "Rule", "RuleError", "check"]

MOST_COMMANDS = 1_000_000
"""Commands that are executed; a longer program is refused, not believed."""


class Rule(StrEnum):
    """What a program must keep besides what stops a machine."""

    EVENT_ORDER = "an event is told, and taken, in one order"
    EVENT_LIMIT = "an event counts to 255 at most"
    UNWRITTEN = "what is read was written before"
    LOST = "what was written is read before it is written again"
    UNORDERED = "of two commands that touch the same words, one writing, one is after the other"
    MEMORY = "a load and a store that touch the same bytes are one after the other"


class RuleError(ProgramError):
    """A program breaks ``rule``: by instruction, unit, and, where it is one, ``part`` of a space."""

    def __init__(self, rule: Rule, command: Command, message: str, part: Part | None = None) -> None:
        where = f" ({part_name(part)})" if part else ""
        super().__init__(MachineError.NONE, command.instruction, f"{command.said}{where}: {message}; {rule}")
        self.rule = rule
        self.unit = command.unit
        self.part = part


Clock = tuple[int, ...]
"""Commands of each unit that have ended."""


@dataclass(slots=True)
class _Event:
    """``told`` times, of which ``gone`` are known to be taken by now; ``takes``: those that were not known yet."""

    told: int = 0
    gone: int = 0
    takes: deque[tuple[Unit, int]] = field(default_factory=deque)
    teller: tuple[Unit, Command, int] | None = None
    taker: tuple[Unit, Command, int] | None = None


@dataclass(slots=True)
class _State:
    """Of a part of a half: the last command of each unit that read it or wrote it, how far into a bank words were
    written, and places not read since."""

    wrote: dict[Unit, tuple[int, Command]] = field(default_factory=dict)
    read: dict[Unit, tuple[int, Command]] = field(default_factory=dict)
    filled: int = 0
    fresh: list[tuple[tuple[Rectangle, ...] | None, Command]] = field(default_factory=list)


def check(program: Program, target: Target, window: int, event_limit: int = EVENT_LIMIT) -> int:
    """Refuse a program that is not well formed for a machine whose window has ``window`` bytes; else say how many
    commands it has."""
    if program.machine != target.hash:
        raise ProgramError(
            MachineError.NONE,
            0,
            f"the program is for machine {program.machine}, but {target.spec.name!r} with its pattern and rule is "
            f"{target.hash}; compile it for this one",
        )
    check_units(program.instructions, target)
    proof = _Proof(target, window, event_limit)
    for step in execution(program.instructions):
        if isinstance(step, Begun):
            proof.begun(step)
            if proof.commands > MOST_COMMANDS:
                raise ProgramError(
                    MachineError.NONE, step.command.instruction, f"more than {MOST_COMMANDS} commands; check its parts"
                )
    return proof.commands


class _Proof:
    """What is known after the commands so far, executed one by one."""

    def __init__(self, target: Target, window: int, event_limit: int) -> None:
        self.looks, self.limit = Looks(target, window), event_limit
        self.commands = 0
        self.known = [[0] * len(Unit) for _ in Unit]
        self.clocks: dict[tuple[Unit, int], tuple[int, Clock]] = {}
        self.events = [_Event() for _ in range(EVENTS)]
        self.parts: defaultdict[Part, _State] = defaultdict(_State)
        self.moved: dict[Unit, deque[tuple[int, Lines, Command]]] = {Unit.LOAD: deque(), Unit.STORE: deque()}

    def begun(self, step: Begun) -> None:
        """A command runs from beginning to end."""
        command, number = step.command, step.number
        touched, lines = self.looks.at(command)
        self.commands += 1
        clock = self.known[command.unit]
        clock[command.unit] = number
        # Who takes an event first must not be known by that event: another order would have given it to somebody else.
        for shared in (False, True):
            mine = [after for after in step.after if self._is_shared(after[0], command.unit) is shared]
            for event, _, _ in mine:
                self._require_order(event, command, clock)
            for _, unit, of in mine:
                self._join(clock, unit, of)
        for event, _, _ in step.after:
            self.events[event].taker = (command.unit, command, number)
            self.events[event].takes.append((command.unit, number))
        for access in touched:
            self._access(access, command, number, clock)
        if lines:
            self._move(lines, command, number, clock)
        for event in events_of(command.notify):
            self._tell(event, command, number, clock)
        clock[command.unit] = number + 1
        if command.notify:
            self.clocks[command.unit, number] = (command.notify.bit_count(), tuple(clock))

    def _join(self, clock: list[int], unit: Unit, number: int) -> None:
        """What was over when a command ended is over now; its clock goes with the last event that it told."""
        left, ended = self.clocks[unit, number]
        if left == 1:
            del self.clocks[unit, number]
        else:
            self.clocks[unit, number] = (left - 1, ended)
        for i, count in enumerate(ended):
            if count > clock[i]:
                clock[i] = count

    def _is_shared(self, event: int, unit: Unit) -> bool:
        """Whether another unit took it last."""
        taker = self.events[event].taker
        return taker is not None and taker[0] != unit

    def _require_order(self, event: int, command: Command, clock: list[int]) -> None:
        """Refuse to take an event that the unit that took it last may want at the same time."""
        taker = self.events[event].taker
        if taker and taker[0] != command.unit and taker[2] >= clock[taker[0]]:
            raise RuleError(Rule.EVENT_ORDER, command, f"event {event} may be taken by it or by {_other(taker[1])}")

    def _tell(self, event: int, command: Command, number: int, clock: list[int]) -> None:
        e, unit = self.events[event], command.unit
        if e.teller and e.teller[0] != unit and e.teller[2] >= clock[e.teller[0]]:
            raise RuleError(
                Rule.EVENT_ORDER, command, f"event {event} may be told by it or by {_other(e.teller[1])} first"
            )
        e.teller = (unit, command, number)
        e.told += 1
        while e.takes and (e.takes[0][1] <= number if e.takes[0][0] == unit else e.takes[0][1] < clock[e.takes[0][0]]):
            e.takes.popleft()
            e.gone += 1
        if e.told - e.gone > self.limit:
            raise RuleError(Rule.EVENT_LIMIT, command, f"event {event} may come to {e.told - e.gone}")

    def _access(self, access: Access, command: Command, number: int, clock: list[int]) -> None:
        state, part = self.parts[access.part], access.part
        earlier = [("wrote", state.wrote)] + ([("read", state.read)] if access.writes else [])
        for what, by in earlier:
            for unit, (last, other) in by.items():
                if unit != command.unit and last >= clock[unit]:
                    does = "writes" if access.writes else "reads"
                    before = "uses" if part.space == SORE else {"wrote": "writes", "read": "reads"}[what]
                    raise RuleError(Rule.UNORDERED, command, f"{does} what {_other(other)} {before} at any time", part)
        if access.reads:
            if not state.wrote and part.space != NONFINITE:
                raise RuleError(Rule.UNWRITTEN, command, "nothing was written there", part)
            if access.reach > state.filled:
                raise RuleError(
                    Rule.UNWRITTEN, command, f"reads {access.reach} words of a bank, {state.filled} were written", part
                )
            state.fresh.clear()
            state.read[command.unit] = (number, command)
        if access.writes:
            for places, other in state.fresh:
                if places is None or access.places is None or meet(places, access.places):
                    raise RuleError(Rule.LOST, command, f"writes over what {_other(other)} wrote", part)
            # A load adds to what is there, whoever computes makes all of it anew.
            adds = command.unit == Unit.LOAD or access.reads
            state.filled = max(state.filled, access.reach) if adds else access.reach
            if access.kept:
                state.fresh.append((access.places, command))
            state.wrote[command.unit] = (number, command)

    def _move(self, lines: Lines, command: Command, number: int, clock: list[int]) -> None:
        """Against the transfers of the other direction that may not be over."""
        mine, other = command.unit, Unit.STORE if command.unit == Unit.LOAD else Unit.LOAD
        moved = self.moved[other]
        while moved and moved[0][0] < clock[other]:
            moved.popleft()
        for _, its, there in moved:
            if lines.meets(its):
                raise RuleError(Rule.MEMORY, command, f"bytes that {_other(there)} touches at any time")
        self.moved[mine].append((number, lines, command))


def _other(command: Command) -> str:
    return f"{command.said} of instruction {command.instruction}"
