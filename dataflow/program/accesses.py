"""What a command reads and writes on chip: the halves of spaces, part by part."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, assert_never

import numpy as np

from .binary_product import words_of_binary
from .commands import Command
from .isa import Unit
from .legal import pairs_of_update, words_of_product
from .rectangles import Rectangle, rectangles_of
from .spaces import COLUMN_BEATS, Form, Space, Target
from .transfers import Places, reduces
from .vector_operations import OPERATIONS, VectorOpcode

__all__ = ["NONFINITE", "SORE", "Access", "Part", "accesses", "part_name"]

SORE = -1
"""In place of a space: SORE, which one command at a time may use."""
NONFINITE = -2
"""In place of a space: the flag that a watched store may raise, and by which an update changes nothing."""


class Part(NamedTuple):
    """Of a half of a space: an operand, a stream, a copy or a slot, by its number; 0 where there is but one."""

    space: int
    half: int
    part: int


class Access(NamedTuple):
    """``reach``: addresses of a bank, from that of the part on, that it reads or writes; 0: it may go beyond what is
    there, as the ragged edges of a product do. ``places``: what a load writes; None: all that
    matter. ``kept``: whether what is written must be read before it is written again."""

    part: Part
    reads: bool
    writes: bool
    reach: int = 0
    kept: bool = False
    places: tuple[Rectangle, ...] | None = None


def part_name(part: Part) -> str:
    """A part in words."""
    if part.space == SORE:
        return "SORE"
    if part.space == NONFINITE:
        return "the flag nonfinite"
    space = Space(part.space)
    kind = {
        Space.OPERANDS: "operand",
        Space.COLUMNS: "slot",
        Space.WEIGHTS: "stream",
        Space.UPDATED: "stream",
        Space.PAIRS: "copy",
    }
    inside = f", {kind[space]} {part.part}" if space in kind else ""
    return f"{space.name}, half {part.half}{inside}"


def accesses(command: Command, target: Target) -> list[Access]:
    """Every part that a command touches, once, of a command that `check_command` lets pass."""
    match command.unit:
        case Unit.LOAD:
            return list(_load(command, target))
        case Unit.STORE:
            return list(_store(command, target))
        case Unit.PRODUCT:
            return [
                _read(Part(Space.W2E, command.w2e_half, 0)),
                _read(Part(Space.N2S, command.n2s_half, 0)),
                Access(
                    Part(Space.OUTPUT, command.output_half, 0),
                    bool(command.resume),
                    True,
                    words_of_product(command, target)[Space.OUTPUT],
                    kept=True,
                ),
            ]
        case Unit.VECTOR:
            return list(_vector(command))
        case Unit.UPDATE:
            return list(_update(command, target))
        case Unit.XNOR:
            return list(_binary(command, target))
        case _:
            assert_never(command.unit)


def _read(part: Part, reach: int = 0) -> Access:
    return Access(part, True, False, reach)


def _load(c: Command, target: Target) -> Iterator[Access]:
    # Bubbles and zeros are written below what comes to lie there.
    for number, reach, places in _parts(c, target):
        yield Access(Part(c.space, c.half, number), False, True, reach, c.form != Form.BLANK, places)
    if reduces(c):
        yield Access(Part(SORE, 0, 0), False, True)


def _store(c: Command, target: Target) -> Iterator[Access]:
    for number, reach, _ in _parts(c, target):
        yield _read(Part(c.space, c.half, number), reach)
    if c.space == Space.OUTPUT and c.bias:
        yield _read(Part(Space.BIAS, c.bias_half, 0), c.bias_place + c.words)
    if c.watch:
        yield Access(Part(NONFINITE, 0, 0), False, True)


def _parts(c: Command, target: Target) -> Iterator[tuple[int, int, tuple[Rectangle, ...]]]:
    """The parts of its space that a transfer touches, how far into a bank, and where."""
    spec, found = target.spec, rectangles_of(c, target)
    match Space(c.space):
        case Space.COLUMNS:
            banks, addresses = 0, COLUMN_BEATS
        case Space.OPERANDS:
            banks, addresses = spec.vector.lanes, 0
        case Space.WEIGHTS | Space.UPDATED:
            banks, addresses = spec.wuve.lanes, 0
        case Space.PAIRS:
            banks, addresses = spec.sore.lanes, 0
        case Space.W2E | Space.N2S | Space.OUTPUT | Space.BIAS | Space.RESULTS | Space.CONSTANTS:
            banks, addresses = 0, 0
        case Space.XNOR_W2E | Space.XNOR_N2S | Space.LEVELS | Space.SUMS | Space.SIGNS:
            banks, addresses = 0, 0
        case space:
            assert_never(space)
    parts: dict[int, list[Rectangle]] = {}
    for rectangle in found:
        if banks:
            for number in _numbers(rectangle.banks, banks):
                own = rectangle.banks[rectangle.banks // banks == number]
                parts.setdefault(number, []).append(rectangle._replace(banks=own))
        elif addresses:
            for number in _numbers(rectangle.addresses, addresses):
                own = rectangle.addresses[rectangle.addresses // addresses == number]
                parts.setdefault(number, []).append(rectangle._replace(addresses=own))
        else:
            parts.setdefault(0, []).append(rectangle)
    for number in sorted(parts):
        last = max(int(rectangle.addresses[-1]) for rectangle in parts[number])
        yield number, last % addresses + 1 if addresses else last + 1, tuple(parts[number])


def _numbers(at: Places, each: int) -> list[int]:
    """Of the parts that are ``each`` wide."""
    found: list[int] = np.unique(at // each).tolist()
    return found


def _vector(c: Command) -> Iterator[Access]:
    operation = OPERATIONS[VectorOpcode(c.operation)]
    operands = operation.operands - (operation.opcode == VectorOpcode.SELECT and c.first)
    for number in range(operands):
        yield _read(Part(Space.OPERANDS, c.operands_half, number), c.rows * c.terms * c.beats)
    goes_on = operation.accumulates and not c.first
    for slot in sorted({*operation.reads, *operation.writes}):
        writes = slot in operation.writes
        reads = slot in operation.reads or (writes and goes_on)
        yield Access(Part(Space.COLUMNS, c.columns_half, slot), reads, writes, c.beats)
    if operation.result:
        yield Access(Part(Space.RESULTS, c.results_half, 0), False, True, c.rows * c.beats, kept=True)


def _binary(c: Command, target: Target) -> Iterator[Access]:
    words = words_of_binary(c, target)
    made = Space.SIGNS if c.threshold else Space.SUMS
    yield _read(Part(Space.XNOR_W2E, c.w2e_half, 0))
    yield _read(Part(Space.XNOR_N2S, c.n2s_half, 0))
    if c.threshold:
        yield _read(Part(Space.LEVELS, c.levels_half, 0), words[Space.LEVELS])
    yield Access(Part(made, c.output_half, 0), bool(c.combine), True, words[made], kept=True)


def _update(c: Command, target: Target) -> Iterator[Access]:
    for number in range(len(target.rule.enters)):
        yield _read(Part(Space.WEIGHTS, c.weights_half, number))
    yield _read(Part(Space.CONSTANTS, c.constants_half, 0), len(target.rule.constants))
    yield _read(Part(NONFINITE, 0, 0))
    for number in range(len(target.rule.held)):
        yield Access(Part(Space.UPDATED, c.updated_half, number), False, True, c.tiles * c.beats, kept=True)
    for number in range(c.copies):
        yield Access(Part(Space.PAIRS, c.pairs_half, number), False, True, pairs_of_update(c, target), kept=True)
    if c.copies:
        yield Access(Part(SORE, 0, 0), False, True)
