"""Loops that are found: the commands of the program are those of the list, register by register."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from weft.dataflow.program.instruction import Add, Go, Instruction, Loop, Next, Set
from weft.dataflow.program.isa import REGISTERS, Unit
from weft.dataflow.program.loops import rolled

from ...examples_drawn import examples

REGISTER = [REGISTERS[Unit.LOAD][i] for i in (1, 4, 9)] + [REGISTERS[Unit.STORE][i] for i in (1, 4)]
"""Halves of a bit, an address, a signed step."""


def commands(instructions: Sequence[Instruction]) -> list[tuple[object, ...]]:
    """Every command, with its unit's registers as unsigned numbers, by a reading of the instructions that is as plain
    as can be."""
    held: dict[tuple[Unit, int], int | None] = {(u, r.number): r.reset for u, rs in REGISTERS.items() for r in rs}
    found: list[tuple[object, ...]] = []

    def run(lo: int, hi: int) -> None:
        at = lo
        while at < hi:
            match instructions[at]:
                case Set(unit, number, value):
                    held[unit, number] = value % (1 << REGISTERS[unit][number].bits)
                case Add(unit, number, value):
                    before = held[unit, number]
                    assert before is not None, "an add to what was never set"
                    held[unit, number] = (before + value) % (1 << REGISTERS[unit][number].bits)
                case Go(unit, wait, notify):
                    found.append((unit, wait, notify, *(held[unit, r.number] for r in REGISTERS[unit])))
                case Loop(turns):
                    end = next(i for i in range(at, hi) if isinstance(instructions[i], Next))
                    for _ in range(turns):
                        run(at + 1, end)
                    at = end
            at += 1

    run(0, len(instructions))
    return found


@st.composite
def stretches(draw: st.DrawFn) -> list[Instruction]:
    """Bodies that repeat with constant steps, and others between them."""
    made: list[Instruction] = []
    for _ in range(draw(st.integers(1, 3))):
        body = draw(st.lists(st.one_of(st.none(), st.sampled_from(REGISTER)), min_size=1, max_size=6))
        places = [(r, draw(st.integers(0, 50)), draw(st.integers(0, 3))) if r else None for r in body]
        for turn in range(draw(st.integers(1, 6))):
            for place in places:
                if place is None:
                    made.append(Go(Unit.LOAD, 1, 2))
                else:
                    r, base, step = place
                    made.append(Set(r.unit, r.number, (base + turn * step) % (1 << r.bits)))
            made.append(Go(Unit.STORE, 0, 0))
    return made


@settings(max_examples=examples(300), deadline=None)
@given(stretches())
def test_a_program_with_loops_has_the_same_commands(instructions: list[Instruction]) -> None:
    found = rolled(instructions)
    assert commands(found) == commands(instructions)
    assert len(found) <= len(instructions)


def test_a_loop_counts_addresses_and_turns_halves() -> None:
    half, address = REGISTERS[Unit.LOAD][1], REGISTERS[Unit.LOAD][4]
    instructions: list[Instruction] = []
    for turn in range(100):
        instructions += [Set(Unit.LOAD, half.number, turn % 2), Set(Unit.LOAD, address.number, 64 * turn)]
        instructions.append(Go(Unit.LOAD, 0, 0))
    found = rolled(instructions)
    assert commands(found) == commands(instructions)
    assert found[-5] == Loop(100) and found[-4:] == [
        Add(Unit.LOAD, half.number, -1),
        Add(Unit.LOAD, address.number, 64),
        Go(Unit.LOAD, 0, 0),
        Next(),
    ]
    assert len(found) <= 7
