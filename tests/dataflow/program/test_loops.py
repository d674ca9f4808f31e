"""Loops that are found: the commands of the program are those that were given, register by register."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from weft.dataflow.program.instruction import Add, Go, Instruction, Loop, Next, Set
from weft.dataflow.program.isa import LOOPS, REGISTERS, Unit
from weft.dataflow.program.loops import Issue, instructions_of

from ...examples_drawn import examples

REGISTER = {unit: [REGISTERS[unit][i] for i in (1, 4, 9)] for unit in (Unit.LOAD, Unit.STORE)}
"""A half of a bit, an address, a signed step."""
NEVER = {Unit.LOAD: 3, Unit.STORE: None}
"""A register that is never set."""


def issue(unit: Unit, values: Sequence[int], wait: int = 0) -> Issue:
    """A command with these values of `REGISTER`, modulo their bits."""
    registers: list[int | None] = [r.reset or 0 for r in REGISTERS[unit]]
    never = NEVER[unit]
    if never is not None:
        registers[never] = None
    for r, value in zip(REGISTER[unit], values, strict=True):
        low = -(1 << r.bits - 1) if r.signed else 0
        registers[r.number] = (value - low) % (1 << r.bits) + low
    return Issue(unit, tuple(registers), wait, 0)


def given_by(instructions: Sequence[Instruction]) -> list[Issue]:
    """Every command, by a reading of the instructions that is as plain as can be."""
    held = {(u, r.number): r.reset for u, rs in REGISTERS.items() for r in rs}
    found: list[Issue] = []

    def body_end(at: int) -> int:
        depth = 0
        for i in range(at, len(instructions)):
            depth += isinstance(instructions[i], Loop) - isinstance(instructions[i], Next)
            if depth == 0:
                return i
        raise AssertionError("a loop without an end")

    def run(lo: int, hi: int, depth: int) -> None:
        assert depth <= LOOPS
        at = lo
        while at < hi:
            match instructions[at]:
                case Set(unit, number, value):
                    held[unit, number] = value
                case Add(unit, number, value):
                    r, before = REGISTERS[unit][number], held[unit, number]
                    assert before is not None, "an add to what was never set"
                    low = -(1 << r.bits - 1) if r.signed else 0
                    held[unit, number] = (before + value - low) % (1 << r.bits) + low
                case Go(unit, wait, notify):
                    found.append(Issue(unit, tuple(held[unit, r.number] for r in REGISTERS[unit]), wait, notify))
                case Loop(turns):
                    end = body_end(at)
                    for _ in range(turns):
                        run(at + 1, end, depth + 1)
                    at = end
            at += 1

    run(0, len(instructions), 0)
    return found


Leaf = tuple[Unit, tuple[int, ...], int]


@st.composite
def nests(draw: st.DrawFn) -> list[Issue]:
    """Nested loops of commands, whose registers go on by a step a level: one of their unit or, now and then, one of
    their own; and commands between them."""
    made: list[Issue] = []

    def turn(depth: int, offsets: dict[Unit, tuple[int, ...]]) -> None:
        for part in plan[depth]:
            if part is None:
                if depth + 1 < len(plan):
                    loop(depth + 1, offsets)
                continue
            unit, values, wait = part
            made.append(issue(unit, [a + b for a, b in zip(values, offsets[unit], strict=True)], wait))

    def loop(depth: int, offsets: dict[Unit, tuple[int, ...]]) -> None:
        turns, steps = numbers[depth]
        for i in range(turns):
            turn(depth, {u: tuple(a + i * s for a, s in zip(offsets[u], steps[u], strict=True)) for u in offsets})

    value = st.tuples(st.integers(0, 1), st.integers(0, 2**32 - 1), st.integers(-9, 9))
    step = st.tuples(st.integers(0, 1), st.integers(-3, 70), st.integers(-2, 2))
    leaf = st.tuples(st.sampled_from(list(REGISTER)), value, st.sampled_from((0, 0, 0, 3)))
    for _ in range(draw(st.integers(1, 3))):
        depth = draw(st.integers(1, 3))
        plan = [draw(st.lists(st.one_of(st.none(), leaf), min_size=1, max_size=4)) for _ in range(depth)]
        numbers = [(draw(st.integers(1, 5)), {u: draw(step) for u in REGISTER}) for _ in range(depth)]
        loop(0, dict.fromkeys(REGISTER, (0, 0, 0)))
    return made


@settings(max_examples=examples(200), deadline=None)
@given(nests())
def test_a_program_with_loops_has_the_same_commands(issues: list[Issue]) -> None:
    assert given_by(instructions_of(issues)) == issues


def test_a_loop_counts_addresses_and_turns_halves() -> None:
    issues = [issue(Unit.LOAD, (turn, 64 * turn, 0)) for turn in range(100)]
    found = instructions_of(issues)
    assert given_by(found) == issues
    half, address, _ = (r.number for r in REGISTER[Unit.LOAD])
    assert found[-5] == Loop(100) and found[-4:] == [
        Add(Unit.LOAD, half, -1),
        Add(Unit.LOAD, address, 64),
        Go(Unit.LOAD, 0, 0),
        Next(),
    ]
    assert len(found) <= 9 and instructions_of([]) == []


def test_loops_inside_one_another_are_as_few_instructions_as_their_bodies() -> None:
    """Images by rows by blocks; the first row of an image is another one, and halves take turns all along."""
    issues, half = [], 0
    for image in range(7):
        for row in range(9):
            issues.append(issue(Unit.LOAD, (half, 10_000 * image + 100 * row, 0), wait=int(row == 0)))
            for block in range(5):
                half = 1 - half
                issues.append(issue(Unit.STORE, (half, 70_000 * image + 1000 * row + 30 * block, 2)))
    found = instructions_of(issues)
    assert given_by(found) == issues
    assert sum(isinstance(i, Loop) for i in found) >= 3 and len(found) < 60


def test_commands_of_a_unit_that_go_on_by_steps_of_their_own_stay_as_they_are() -> None:
    issues = [issue(Unit.LOAD, (0, at, 0)) for turn in range(20) for at in (2 * turn, 1000 + 4 * turn)]
    found = instructions_of(issues)
    assert given_by(found) == issues and not any(isinstance(i, Loop) for i in found)
