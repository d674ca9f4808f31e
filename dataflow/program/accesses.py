"""What a command reads and writes on chip: the halves of spaces, part by part."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, assert_never

import numpy as np

from .commands import Command
from .isa import Unit
from .spaces import COLUMN_BEATS, Form, Space, Target
from .transfers import Places, banks_and_addresses, places_of, reduces
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
    """``places``: what a load writes, int64 [places], sorted; None: all that matter. ``kept``: whether what is written
    must be read before it is written again."""

    part: Part
    reads: bool
    writes: bool
    kept: bool = False
    places: Places | None = None


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
                Access(Part(Space.OUTPUT, command.output_half, 0), bool(command.resume), True, kept=True),
            ]
        case Unit.VECTOR:
            return list(_vector(command))
        case Unit.UPDATE:
            return list(_update(command, target))
        case _:
            assert_never(command.unit)


def _read(part: Part) -> Access:
    return Access(part, reads=True, writes=False)


def _load(c: Command, target: Target) -> Iterator[Access]:
    places = places_of(c, target)
    part = _parts(Space(c.space), places, target)
    for number in np.unique(part).tolist():
        # Bubbles and zeros are written below what comes to lie there.
        yield Access(Part(c.space, c.half, number), False, True, c.form != Form.BLANK, places[part == number])
    if reduces(c):
        yield Access(Part(SORE, 0, 0), False, True)


def _store(c: Command, target: Target) -> Iterator[Access]:
    for number in np.unique(_parts(Space(c.space), places_of(c, target), target)).tolist():
        yield _read(Part(c.space, c.half, number))
    if c.space == Space.OUTPUT and c.bias:
        yield _read(Part(Space.BIAS, c.bias_half, 0))
    if c.watch:
        yield Access(Part(NONFINITE, 0, 0), False, True)


def _parts(space: Space, places: Places, target: Target) -> Places:
    """The part of each place."""
    bank, address = banks_and_addresses(places)
    spec = target.spec
    match space:
        case Space.COLUMNS:
            return address // COLUMN_BEATS
        case Space.OPERANDS:
            return bank // spec.vector.lanes
        case Space.WEIGHTS | Space.UPDATED:
            return bank // spec.wuve.lanes
        case Space.PAIRS:
            return bank // spec.sore.lanes
        case Space.W2E | Space.N2S | Space.OUTPUT | Space.BIAS | Space.RESULTS | Space.CONSTANTS:
            return np.zeros_like(places)
        case _:
            assert_never(space)


def _vector(c: Command) -> Iterator[Access]:
    operation = OPERATIONS[VectorOpcode(c.operation)]
    operands = operation.operands - (operation.opcode == VectorOpcode.SELECT and c.first)
    for number in range(operands):
        yield _read(Part(Space.OPERANDS, c.operands_half, number))
    goes_on = operation.accumulates and not c.first
    for slot in sorted({*operation.reads, *operation.writes}):
        writes = slot in operation.writes
        yield Access(Part(Space.COLUMNS, c.columns_half, slot), slot in operation.reads or (writes and goes_on), writes)
    if operation.result:
        yield Access(Part(Space.RESULTS, c.results_half, 0), False, True, kept=True)


def _update(c: Command, target: Target) -> Iterator[Access]:
    for number in range(len(target.rule.enters)):
        yield _read(Part(Space.WEIGHTS, c.weights_half, number))
    yield _read(Part(Space.CONSTANTS, c.constants_half, 0))
    yield _read(Part(NONFINITE, 0, 0))
    for number in range(len(target.rule.held)):
        yield Access(Part(Space.UPDATED, c.updated_half, number), False, True, kept=True)
    for number in range(c.copies):
        yield Access(Part(Space.PAIRS, c.pairs_half, number), False, True, kept=True)
    if c.copies:
        yield Access(Part(SORE, 0, 0), False, True)
