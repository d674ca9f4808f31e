"""Programs as text: one instruction a line, `;` before a comment, values in decimal or 0x.

The first instruction is `machine` with the hash of the machine. Spaces, forms and vector operations go by their names.
"""

from __future__ import annotations

import re
from enum import IntEnum
from typing import assert_never

from ...workloads.errors import InputError, nearest
from .instruction import Add, End, Go, Instruction, Loop, Next, Opcode, Set, encode
from .isa import EVENTS, REGISTERS, Register, Unit
from .program import Program
from .spaces import Form, Space
from .vector_operations import VectorOpcode

__all__ = ["SYMBOLS", "assemble", "disassemble", "instruction_text"]

SYMBOLS: dict[str, type[IntEnum]] = {"space": Space, "form": Form, "operation": VectorOpcode}
"""Registers whose values have names."""

_UNITS = {unit.name.lower(): unit for unit in Unit}
_OPCODES = [opcode.name.lower() for opcode in Opcode]


def assemble(text: str, source: str = "text") -> Program:
    """The program of a text; ``source`` names it in errors, which say the line."""
    machine, instructions = None, []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition(";")[0].split()
        if not words:
            continue
        try:
            if machine is None:
                machine = _machine(words)
                Program((), machine)
                continue
            instruction = _instruction(words)
            encode(instruction)
        except InputError as error:
            raise InputError(f"{source}, line {number}: {error}") from None
        instructions.append(instruction)
    if machine is None:
        raise InputError(f"{source}: holds no line; the first says `machine` and its hash")
    return Program(tuple(instructions), machine)


def disassemble(program: Program) -> str:
    """The text of a program, which `assemble` reads back as it was."""
    lines, depth = [f"machine {program.machine}"], 0
    for instruction in program.instructions:
        depth -= isinstance(instruction, Next) and depth > 0
        lines.append("  " * depth + instruction_text(instruction))
        depth += isinstance(instruction, Loop)
    return "\n".join(lines) + "\n"


def instruction_text(instruction: Instruction) -> str:
    """A line of text."""
    match instruction:
        case End():
            return "end"
        case Next():
            return "next"
        case Loop(turns):
            return f"loop {turns}"
        case Set(unit, number, value):
            r = REGISTERS[unit][number]
            return f"set {unit.name.lower()} {r.name} {_value_text(r, value)}"
        case Add(unit, number, value):
            return f"add {unit.name.lower()} {REGISTERS[unit][number].name} {value}"
        case Go(unit, wait, notify):
            parts = [f"go {unit.name.lower()}"]
            parts += [f"{name} {_events_text(mask)}" for name, mask in (("wait", wait), ("notify", notify)) if mask]
            return " ".join(parts)
        case _:
            assert_never(instruction)


def _machine(words: list[str]) -> str:
    if words[0] != "machine" or len(words) != 2:
        raise InputError(f"{' '.join(words)!r} stands where `machine` and its hash must, before all instructions")
    return words[1]


def _instruction(words: list[str]) -> Instruction:
    match words:
        case ["end"]:
            return End()
        case ["next"]:
            return Next()
        case ["loop", turns]:
            return Loop(_integer("turns", turns))
        case ["set", unit, name, value]:
            r = _register(unit, name)
            return Set(r.unit, r.number, _value(r, value))
        case ["add", unit, name, value]:
            r = _register(unit, name)
            return Add(r.unit, r.number, _integer(name, value))
        case ["go", unit, *masks]:
            return _go(_unit(unit), masks)
        case [first, *_] if first in _OPCODES:
            raise InputError(f"{' '.join(words)!r} is not of the form {_FORMS[first]!r}")
        case _:
            raise InputError(f"instruction {words[0]!r} is unknown: {nearest(words[0], _OPCODES)}")


_FORMS = {
    "end": "end",
    "next": "next",
    "loop": "loop TURNS",
    "set": "set UNIT REGISTER VALUE",
    "add": "add UNIT REGISTER VALUE",
    "go": "go UNIT [wait EVENT,..] [notify EVENT,..]",
}


def _go(unit: Unit, masks: list[str]) -> Go:
    found = {"wait": 0, "notify": 0}
    names = masks[::2]
    if len(masks) % 2 or names not in ([], ["wait"], ["notify"], ["wait", "notify"]):
        raise InputError(f"{' '.join(['go', unit.name.lower(), *masks])!r} is not of the form {_FORMS['go']!r}")
    for name, events in zip(names, masks[1::2], strict=True):
        for text in events.split(","):
            event = _integer("event", text)
            if not 0 <= event < EVENTS:
                raise InputError(f"event {event} must be from 0 to {EVENTS - 1}")
            if found[name] >> event & 1:
                raise InputError(f"event {event} stands twice in {events!r}")
            found[name] |= 1 << event
    return Go(unit, found["wait"], found["notify"])


def _unit(text: str) -> Unit:
    if text not in _UNITS:
        raise InputError(f"unit {text!r} is unknown: {nearest(text, _UNITS)}")
    return _UNITS[text]


def _register(unit: str, name: str) -> Register:
    known = {r.name: r for r in REGISTERS[_unit(unit)]}
    if name not in known:
        raise InputError(f"register {name!r} of {unit} is unknown: {nearest(name, known)}")
    return known[name]


def _value(r: Register, text: str) -> int:
    symbols = SYMBOLS.get(r.name)
    if symbols is None or re.match(r"[-\d]", text):
        return _integer(r.name, text)
    names = symbols.__members__
    if text not in names:
        raise InputError(f"{r.name} {text!r} is unknown: {nearest(text, names)}")
    return int(names[text])


def _integer(what: str, text: str) -> int:
    if not re.fullmatch(r"-?(\d{1,20}|0x[0-9a-fA-F]{1,16})", text, re.ASCII):
        raise InputError(f"{what} {text!r} is no integer, in decimal or 0x")
    return int(text, 16 if "0x" in text else 10)


def _value_text(r: Register, value: int) -> str:
    symbols = SYMBOLS.get(r.name)
    if symbols is not None and value in set(symbols):
        return symbols(value).name
    return f"{value:#010x}" if r.measure in ("FP32", "place") and not r.signed else str(value)


def _events_text(mask: int) -> str:
    return ",".join(str(event) for event in range(EVENTS) if mask >> event & 1)
