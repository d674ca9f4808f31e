"""Which commands a machine can run: registers in their range and in agreement, every word inside its space."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import assert_never

from ..operand import FP32
from ..pregenerate import tile_plan
from ..stce.mapping import REGISTERS as HELD
from ..stce.mapping import Dataflow
from .binary_product import broken_binary
from .commands import Command, ProgramError
from .control import MachineError
from .instruction import Add, Go, Instruction, Set
from .isa import REGISTERS, Unit, registers_of, units_of
from .rectangles import rectangles_of
from .spaces import BIAS_WORDS, BIT_SPACES, COLUMN_BEATS, VECTOR_DEPTH, Form, Space, Target
from .transfers import lines_of, reduces, words_on_chip
from .vector_operations import OPERATIONS, VectorOpcode

__all__ = ["check_command", "check_units", "pairs_of_update", "words_of_product"]

_FORMS: dict[Space, tuple[Form, ...]] = {
    Space.W2E: (Form.OPERAND, Form.BLANK),
    Space.N2S: (Form.OPERAND, Form.PAIR, Form.BLANK),
    Space.PAIRS: (Form.PAIR,),
    **dict.fromkeys(BIT_SPACES, (Form.FP32,)),
}
_FP32 = (Form.OPERAND, Form.FP32, Form.BLANK)
Broken = Iterator[tuple[MachineError, str]]


def check_command(command: Command, target: Target, window: int) -> None:
    """Refuse a command that breaks a rule, with the error that the machine shows; ``window``: bytes that it may touch.

    What the machine cannot see is refused too: a register that was never set, more words than there are places.
    """
    for error, why in _broken(command, target, window):
        raise ProgramError(error, command.instruction, f"{command.said}: {why}")


def check_units(instructions: Iterable[Instruction], target: Target) -> None:
    """Refuse an instruction for a unit, or a register, that the machine has not."""
    units = units_of(target)
    known = {unit: len(registers_of(unit, target)) for unit in units}
    for number, instruction in enumerate(instructions):
        if isinstance(instruction, Set | Add | Go) and instruction.unit not in units:
            raise ProgramError(
                MachineError.UNIT,
                number,
                f"is for unit {instruction.unit.name.lower()}, but machine {target.spec.name!r} has no XNOR engine: "
                f"give it a table [xnor]",
            )
        if isinstance(instruction, Set | Add) and instruction.register >= known[instruction.unit]:
            raise ProgramError(
                MachineError.REGISTER,
                number,
                f"is of register {REGISTERS[instruction.unit][instruction.register].name}, but the operands of machine "
                f"{target.spec.name!r}, pe.format {target.spec.pe.format!r}, have one encoding",
            )


def _broken(c: Command, target: Target, window: int) -> Broken:
    if c.unit not in units_of(target):
        yield MachineError.UNIT, f"machine {target.spec.name!r} has no XNOR engine"
    yield from _ranges(c)
    match c.unit:
        case Unit.LOAD | Unit.STORE:
            yield from _transfer(c, target, window)
        case Unit.PRODUCT:
            yield from _product(c, target)
        case Unit.VECTOR:
            yield from _vector(c)
        case Unit.UPDATE:
            yield from _update(c, target)
        case Unit.XNOR:
            yield from broken_binary(c, target)
        case _:
            assert_never(c.unit)


def _ranges(c: Command) -> Broken:
    for r, value in zip(REGISTERS[c.unit], c.registers, strict=True):
        if value is None:
            yield MachineError.COMMAND, f"register {r.name} was never set"
        elif not r.least <= value <= r.most:
            yield MachineError.COMMAND, f"{r.name} is {value}; it must be from {r.least} to {r.most}"


def _transfer(c: Command, target: Target, window: int) -> Broken:
    load, form = c.unit == Unit.LOAD, Form(c.form)
    spaces = target.loaded if load else target.stored
    if c.space not in spaces:
        names = ", ".join(space.name for space in spaces)
        yield MachineError.COMMAND, f"space is {Space(c.space).name}; it must be one of {names}"
    space = Space(c.space)
    forms = _FORMS.get(space, _FP32)
    if form not in forms:
        names = ", ".join(f.name for f in forms if load or f != Form.BLANK)
        yield MachineError.COMMAND, f"form is {form.name}; {space.name} takes {names}"
    yield from _pattern(c, target)
    yield from _memory(c, target, window)
    size, (words, lines) = target.size(space), words_on_chip(c, target)
    if words * lines > size.banks * size.depth:
        yield (
            MachineError.NONE,
            f"{lines} lines of {words} words; half {c.half} of {space.name} has {size.banks * size.depth} words in all",
        )
    for banks, addresses in rectangles_of(c, target):
        if banks[-1] < size.banks and addresses[-1] < size.depth:
            continue
        # the first word that is outside
        within = addresses[-1] < size.depth
        bank, address = (
            (banks[banks >= size.banks], addresses) if within else (banks, addresses[addresses >= size.depth])
        )
        yield (
            MachineError.PLACE,
            f"bank {bank[0]}, word {address[0]} is not in {space.name}, half {c.half}, of {size.banks} banks of "
            f"{size.depth} words",
        )
    if not load and c.bias and space == Space.OUTPUT and c.bias_place + c.words > BIAS_WORDS:
        yield MachineError.PLACE, f"word {c.bias_place + c.words - 1} is not in BIAS, of {BIAS_WORDS} words"


def _pattern(c: Command, target: Target) -> Broken:
    """What goes through SORE, or has its form."""
    if target.pattern is None:
        if reduces(c) or c.form == Form.PAIR:
            yield MachineError.COMMAND, "pairs of a pattern, but the machine has no SORE"
    elif reduces(c) and c.across and c.words > target.spec.sore.lanes:
        yield (
            MachineError.COMMAND,
            f"lines of {c.words} words through SORE, line by line; it has {target.spec.sore.lanes} lanes",
        )


def _memory(c: Command, target: Target, window: int) -> Broken:
    """Lines begin on their word and lie in the window."""
    if c.form == Form.BLANK:
        return
    by, lines = FP32.bytes if c.form == Form.FP32 else target.spec.pe.operand.bytes, lines_of(c, target)
    steps = ((f"step{i}", step) for i, step in enumerate(lines.steps) if lines.counts[i] > 1)
    for name, value in ((f"address{1 if c.which else ''}", lines.address), *steps):
        if value % by:
            yield MachineError.ALIGNMENT, f"{name} is {value}; words of form {Form(c.form).name} begin on {by} bytes"
    if lines.first < 0 or lines.last > window:
        yield (
            MachineError.WINDOW,
            f"bytes {lines.first} to {lines.last - 1} of memory; the window has bytes 0 to {window - 1}",
        )


def _product(c: Command, target: Target) -> Broken:
    array, pe = target.spec.array, target.spec.pe
    stationary = bool(c.stationary)
    held = HELD[Dataflow.WS if stationary else Dataflow.OS](c.keep, c.group, c.interleave)
    most = {
        "group": pe.max_group,
        "keep": min(c.group, pe.weight_pairs) if stationary else c.group,
        "rest": c.group,
        "interleave": pe.accumulators,
        "rows": array.rows,
    }
    for name, limit in most.items():
        if getattr(c, name) > limit:
            yield MachineError.COMMAND, f"{name} is {getattr(c, name)}; here it is at most {limit}"
    if held.dense_words > pe.dense_words:
        yield MachineError.COMMAND, f"{held.dense_words} dense words a PE; it holds {pe.dense_words}"
    if stationary:
        for name, value in (("rest", c.group), ("rows", array.rows), ("runs", 1)):
            if getattr(c, name) != value:
                yield MachineError.COMMAND, f"{name} is {getattr(c, name)}; in WS it must be {value}"
    elif c.resume:
        yield MachineError.COMMAND, "resume is 1; only WS goes on from sums"
    for space, words in words_of_product(c, target).items():
        if words > target.size(space).depth:
            yield MachineError.PLACE, f"{words} words of a bank of {space.name}, which has {target.size(space).depth}"


def words_of_product(c: Command, target: Target) -> dict[Space, int]:
    """Words of a bank that a product reads or writes, from address 0 on."""
    if c.stationary:
        batches = c.parts * c.interleave
        return {
            Space.W2E: c.down * batches * c.group,
            Space.N2S: c.down * c.across * target.spec.array.rows * c.keep,
            Space.OUTPUT: c.across * batches,
        }
    return {
        Space.W2E: c.down * c.runs * ((c.parts - 1) * c.group + c.rest),
        Space.N2S: c.across * c.interleave * c.runs * ((c.parts - 1) * c.keep + min(c.keep, c.rest)),
        Space.OUTPUT: c.down * c.across * c.rows * c.interleave,
    }


def _vector(c: Command) -> Broken:
    operation = OPERATIONS[VectorOpcode(c.operation)]
    if c.terms > 1 and not operation.of_terms:
        yield MachineError.COMMAND, f"terms is {c.terms}; {operation.opcode.name} has none, so it must be 1"
    if operation.columns and c.rows > 1:
        yield MachineError.COMMAND, f"rows is {c.rows}; {operation.opcode.name} has none, so it must be 1"
    if (operation.reads or operation.writes) and c.beats > COLUMN_BEATS:
        yield MachineError.PLACE, f"{c.beats} beats of a slot, which has {COLUMN_BEATS}"
    if c.rows * c.terms * c.beats > VECTOR_DEPTH:
        yield (
            MachineError.PLACE,
            f"{c.rows} rows x {c.terms} terms x {c.beats} beats are more than the {VECTOR_DEPTH} words of a bank",
        )


def _update(c: Command, target: Target) -> Broken:
    if c.tiles * c.beats > VECTOR_DEPTH:
        yield MachineError.PLACE, f"{c.tiles} tiles x {c.beats} beats are more than the {VECTOR_DEPTH} words of a bank"
    if not c.copies:
        return
    pattern, spec = target.pattern, target.spec
    if pattern is None or not spec.wuve.pregenerate:
        yield MachineError.COMMAND, f"copies is {c.copies}, but there is no SORE behind WUVE; it must be 0"
        return
    plan = tile_plan(spec, target.rule, pattern, c.copies)
    if c.beats != plan.fill:
        yield MachineError.COMMAND, f"beats is {c.beats}; with copies a tile of this machine has {plan.fill}"
    pairs = pairs_of_update(c, target)
    if pairs > VECTOR_DEPTH:
        yield MachineError.PLACE, f"{pairs} pairs of a bank of PAIRS, which has {VECTOR_DEPTH} words"


def pairs_of_update(c: Command, target: Target) -> int:
    """Words of a bank of PAIRS that a copy of an update takes, from address 0 on."""
    assert target.pattern is not None
    return c.tiles * tile_plan(target.spec, target.rule, target.pattern, c.copies).rounds * target.pattern.keep
