"""Instructions, and the 64-bit words that they are: every word is one instruction, or illegal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import assert_never

from ...workloads.errors import InputError
from .isa import EVENTS, REGISTERS, Register, Unit

__all__ = ["Add", "End", "Go", "Instruction", "Loop", "Next", "Opcode", "Set", "decode", "encode"]


class Opcode(IntEnum):
    """Bits 63 to 56 of an instruction."""

    END = 0
    SET = 1
    ADD = 2
    GO = 3
    LOOP = 4
    NEXT = 5


@dataclass(frozen=True, slots=True)
class End:
    """The program has ended when all units have."""


@dataclass(frozen=True, slots=True)
class Set:
    """A register gets ``value``, signed if the register is."""

    unit: Unit
    register: int
    value: int


@dataclass(frozen=True, slots=True)
class Add:
    """A register gets ``value``, signed 32 bits, more, modulo its bits."""

    unit: Unit
    register: int
    value: int


@dataclass(frozen=True, slots=True)
class Go:
    """A copy of the unit's registers becomes a command; bit ``e`` of a mask is event ``e``."""

    unit: Unit
    wait: int
    notify: int


@dataclass(frozen=True, slots=True)
class Loop:
    """What follows, up to its `Next`, is done ``turns`` times."""

    turns: int


@dataclass(frozen=True, slots=True)
class Next:
    """The end of the innermost loop's body."""


Instruction = End | Set | Add | Go | Loop | Next

_LOW = (1 << 32) - 1


def encode(instruction: Instruction) -> int:
    """The word of an instruction."""
    match instruction:
        case End():
            return 0
        case Set(unit, number, value):
            r = _register(unit, number)
            least, most = (-(1 << 31), (1 << 31) - 1) if r.signed else (0, (1 << r.bits) - 1)
            _require(f"value of set {unit.name.lower()} {r.name}", value, least, most)
            return _word(Opcode.SET, unit, number, value & _LOW)
        case Add(unit, number, value):
            r = _register(unit, number)
            _require(f"value of add {unit.name.lower()} {r.name}", value, -(1 << 31), (1 << 31) - 1)
            return _word(Opcode.ADD, unit, number, value & _LOW)
        case Go(unit, wait, notify):
            for name, mask in (("wait", wait), ("notify", notify)):
                _require(f"{name} mask of go {unit.name.lower()}", mask, 0, (1 << EVENTS) - 1)
            return _word(Opcode.GO, unit, 0, wait << 16 | notify)
        case Loop(turns):
            _require("turns of loop", turns, 1, _LOW)
            return _word(Opcode.LOOP, 0, 0, turns)
        case Next():
            return _word(Opcode.NEXT, 0, 0, 0)
        case _:
            assert_never(instruction)


def decode(word: int) -> Instruction:
    """The instruction of a word; an illegal one is an InputError that says why."""
    _require("an instruction", word, 0, (1 << 64) - 1)
    code, unit, number, low = word >> 56, word >> 48 & 0xFF, word >> 32 & 0xFFFF, word & _LOW
    try:
        opcode = Opcode(code)
    except ValueError:
        raise _illegal(word, f"opcode {code}; there are 0 to {max(Opcode)}") from None
    return _DECODERS[opcode](word, unit, number, low)


def _end(word: int, unit: int, number: int, low: int) -> End:
    _unused(word, ((1 << 56) - 1))
    return End()


def _set(word: int, unit: int, number: int, low: int) -> Set:
    r = _known(word, unit, number)
    if not r.signed and low >> r.bits:
        raise _illegal(word, f"{low} in register {r.name} of {r.bits} bits")
    return Set(r.unit, number, _signed(low) if r.signed else low)


def _add(word: int, unit: int, number: int, low: int) -> Add:
    return Add(_known(word, unit, number).unit, number, _signed(low))


def _go(word: int, unit: int, number: int, low: int) -> Go:
    _unused(word, 0xFFFF << 32)
    return Go(_unit(word, unit), low >> 16, low & 0xFFFF)


def _loop(word: int, unit: int, number: int, low: int) -> Loop:
    _unused(word, 0xFFFFFF << 32)
    if low == 0:
        raise _illegal(word, "a loop of 0 turns; the least is 1")
    return Loop(low)


def _next(word: int, unit: int, number: int, low: int) -> Next:
    _unused(word, (1 << 56) - 1)
    return Next()


_DECODERS: dict[Opcode, Callable[[int, int, int, int], Instruction]] = {
    Opcode.END: _end,
    Opcode.SET: _set,
    Opcode.ADD: _add,
    Opcode.GO: _go,
    Opcode.LOOP: _loop,
    Opcode.NEXT: _next,
}


def _word(opcode: Opcode, unit: int, number: int, low: int) -> int:
    return opcode << 56 | unit << 48 | number << 32 | low


def _signed(low: int) -> int:
    return low - (low >> 31 << 32)


def _require(what: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise InputError(f"{what} is {value}; it must be from {least} to {most}")


def _unused(word: int, bits: int) -> None:
    if word & bits:
        raise _illegal(word, f"unused bits {word & bits:#x}; they must be 0")


def _unit(word: int, unit: int) -> Unit:
    try:
        return Unit(unit)
    except ValueError:
        raise _illegal(word, f"unit {unit}; there are 0 to {max(Unit)}") from None


def _known(word: int, unit: int, number: int) -> Register:
    known = REGISTERS[_unit(word, unit)]
    if number >= len(known):
        raise _illegal(word, f"register {number} of {Unit(unit).name.lower()}; there are 0 to {len(known) - 1}")
    return known[number]


def _register(unit: Unit, number: int) -> Register:
    known = REGISTERS[unit]
    _require(f"register of {unit.name.lower()}", number, 0, len(known) - 1)
    return known[number]


def _illegal(word: int, why: str) -> InputError:
    return InputError(f"{word:#018x} is no instruction: {why}")
