"""Loops found in a program: instructions that come again and again, with values that grow by the same amount.

What repeats is a stretch of instructions that differ in the values of `set` alone. Each such value that goes on by a
constant becomes an `add`, modulo the register's bits, so that a half that takes turns is an `add` of 1. Every `go` has
the registers and events that it had.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from .instruction import Add, Go, Instruction, Loop, Next, Set
from .isa import REGISTERS, Unit

__all__ = ["rolled"]

_LONGEST = 256
"""Instructions of a body that are looked for."""
_HALF = 1 << 31
_LEAST = 4
"""Instructions that a loop must save."""

Ints = npt.NDArray[np.int64]
_Register = tuple[Unit, int]


class _Found(NamedTuple):
    """``turns`` of ``period`` instructions, which save so many."""

    saved: int
    period: int
    turns: int


def rolled(instructions: Sequence[Instruction]) -> list[Instruction]:
    """The same program with loops; it must have none."""
    best = _candidates(*_columns(instructions))
    made: list[Instruction] = []
    held = {(unit, r.number): r.reset for unit, registers in REGISTERS.items() for r in registers}
    at = 0
    while at < len(instructions):
        loop = None
        for found in sorted(best.get(at, ()), reverse=True):
            loop = _loop(instructions, at, found, held)
            if loop is not None:
                break
        end = at + (1 if loop is None else found.period * found.turns)
        made += [instructions[at]] if loop is None else loop
        for instruction in instructions[at:end]:
            if isinstance(instruction, Set):
                held[instruction.unit, instruction.register] = instruction.value
        at = end
    return made


def _value(instruction: Instruction) -> int:
    """Of a set; 0 of all others."""
    return instruction.value if isinstance(instruction, Set) else 0


def _columns(instructions: Sequence[Instruction]) -> tuple[Ints, Ints, Ints]:
    """By instruction: a number of all that two must have in common to be the same of a body; value and largest value
    of what is set."""
    numbers: dict[object, int] = {}
    kinds, most = [], []
    for instruction in instructions:
        assert not isinstance(instruction, Loop | Next | Add), "a program without loops"
        key: object = instruction
        most.append(0)
        if isinstance(instruction, Set):
            key = instruction.unit, instruction.register
            most[-1] = (1 << REGISTERS[instruction.unit][instruction.register].bits) - 1
        kinds.append(numbers.setdefault(key, len(numbers)))
    values = [_value(instruction) for instruction in instructions]
    return np.array(kinds, np.int64), np.array(values, np.int64), np.array(most, np.int64)


def _candidates(kinds: Ints, values: Ints, most: Ints) -> dict[int, list[_Found]]:
    """By where they begin, bodies that repeat."""
    found: dict[int, list[_Found]] = {}
    for period in range(2, min(_LONGEST, len(kinds) // 2) + 1):
        same = kinds[:-period] == kinds[period:]
        if not same.any():
            continue
        run = _run_lengths(same)
        turns = run // period + 1
        step = values[period:] - values[:-period] & most[:-period]
        steady = np.append(_run_lengths((step[:-period] == step[period:]) & same[:-period]), np.zeros(period, np.int64))
        turns = np.minimum(turns, np.maximum(steady // period + 2, 2))
        saved = (turns - 1) * period
        for at in np.flatnonzero((turns > 1) & (saved > _LEAST + 2)).tolist():
            found.setdefault(at, []).append(_Found(int(saved[at]), period, int(turns[at])))
    return found


def _run_lengths(holds: npt.NDArray[np.bool_]) -> Ints:
    """From each place on, how many hold in a row."""
    ends = np.append(np.flatnonzero(~holds), len(holds))
    places = np.arange(len(holds))
    found: Ints = ends[np.searchsorted(ends, places)] - places
    return found


def _loop(
    instructions: Sequence[Instruction], at: int, found: _Found, held: dict[_Register, int | None]
) -> list[Instruction] | None:
    """The loop and what must be set before it; None: it saves nothing, or cannot be."""
    period, turns = found.period, found.turns
    body, after = list(instructions[at : at + period]), instructions[at + period : at + 2 * period]
    sites: dict[_Register, list[int]] = {}
    if not any(isinstance(i, Go) for i in body):
        return None
    for place, instruction in enumerate(body):
        if isinstance(instruction, Set):
            sites.setdefault((instruction.unit, instruction.register), []).append(place)
    before: list[Instruction] = []
    for (unit, number), places in sites.items():
        r = REGISTERS[unit][number]
        first, second = ([_value(each[place]) for place in places] for each in (body, after))
        steps = {b - a for a, b in zip(first, second, strict=True)}
        if steps == {0}:
            continue
        modulus = 1 << r.bits
        if len({step % modulus for step in steps}) > 1:
            return None
        begins = (first[0] - (second[0] - first[-1])) % modulus
        if r.signed and begins >= modulus // 2:
            begins -= modulus
        now = held[unit, number]
        if now is None or (now - begins) % modulus:
            early = any(isinstance(i, Go) and i.unit == unit for i in body[: places[0]])
            if early:
                return None
            before.append(Set(unit, number, begins))
        previous = begins
        for place, value in zip(places, first, strict=True):
            body[place] = Add(unit, number, (value - previous + _HALF) % (2 * _HALF) - _HALF)
            previous = value
    if found.saved - len(before) - 2 < _LEAST:
        return None
    return [*before, Loop(turns), *body, Next()]
