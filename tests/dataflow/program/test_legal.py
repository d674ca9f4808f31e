"""Commands that machines run and refuse, unit by unit; the parts that vector work and updates touch."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

import pytest

from weft.dataflow.pregenerate import tile_plan
from weft.dataflow.program.accesses import NONFINITE, SORE, Part, accesses, part_name
from weft.dataflow.program.assembly import assemble
from weft.dataflow.program.checker import Rule, RuleError, check
from weft.dataflow.program.commands import Command, ProgramError
from weft.dataflow.program.control import CONTROL, MachineError, control
from weft.dataflow.program.instruction import Set
from weft.dataflow.program.isa import REGISTERS, Unit, register, registers_of
from weft.dataflow.program.legal import check_command, check_units
from weft.dataflow.program.spaces import Form, Space, Target
from weft.dataflow.program.vector_operations import OPERATIONS, Slot, VectorOpcode
from weft.workloads.errors import InputError
from weft.workloads.update_rule import SGD

from .interleavings import tiny

OS = {
    **{"stationary": 0, "keep": 2, "group": 8, "rest": 4, "interleave": 2, "rows": 4},
    **{"parts": 2, "runs": 3, "across": 2, "down": 2},
}
WS = {**OS, "stationary": 1, "rest": 8, "runs": 1}
UPDATE = {"beats": 32}


def refused(unit: Unit, values: dict[str, int], target: Target | None = None) -> ProgramError | None:
    held = {r.name: r.reset for r in REGISTERS[unit]} | values
    command = Command(7, unit, tuple(held.values()), 0, 0, 0, 0)
    try:
        check_command(command, target or tiny(), 4096)
    except ProgramError as error:
        assert error.instruction == 7
        return error
    return None


@pytest.mark.parametrize(
    ("unit", "values"),
    [
        (Unit.PRODUCT, OS),
        (Unit.PRODUCT, WS),
        (Unit.PRODUCT, WS | {"resume": 1}),
        (Unit.VECTOR, {"operation": VectorOpcode.GATHER, "beats": 8, "rows": 16, "terms": 4}),
        (Unit.VECTOR, {"operation": VectorOpcode.MEAN, "beats": 64}),
        (Unit.UPDATE, {"beats": 512}),
        (Unit.STORE, {"space": Space.OUTPUT, "form": Form.OPERAND, "words": 4, "address": 0, "bias": 1}),
        (Unit.LOAD, {"space": Space.N2S, "form": Form.PAIR, "words": 4, "address": 2}),
    ],
)
def test_what_machines_run_passes(unit, values):
    assert refused(unit, values) is None


@pytest.mark.parametrize(
    ("unit", "values", "error", "said"),
    [
        (Unit.PRODUCT, OS | {"rest": 9}, MachineError.COMMAND, "rest is 9; here it is at most 8"),
        (Unit.PRODUCT, OS | {"group": 16, "rest": 16}, MachineError.COMMAND, "group is 16; here it is at most 8"),
        (Unit.PRODUCT, OS | {"interleave": 5}, MachineError.COMMAND, "interleave is 5; here it is at most 4"),
        (Unit.PRODUCT, OS | {"rows": 5}, MachineError.COMMAND, "rows is 5; here it is at most 4"),
        (Unit.PRODUCT, OS | {"resume": 1}, MachineError.COMMAND, "resume is 1"),
        (Unit.PRODUCT, OS | {"down": 40}, MachineError.PLACE, "1440 words of a bank of W2E, which has 1024"),
        (Unit.PRODUCT, OS | {"across": 90}, MachineError.PLACE, "2160 words of a bank of N2S, which has 1024"),
        (Unit.PRODUCT, OS | {"across": 17}, MachineError.PLACE, "272 words of a bank of OUTPUT, which has 256"),
        (Unit.PRODUCT, WS | {"keep": 5}, MachineError.COMMAND, "keep is 5; here it is at most 4"),
        (Unit.PRODUCT, WS | {"interleave": 4}, MachineError.COMMAND, "32 dense words a PE; it holds 16"),
        (Unit.PRODUCT, WS | {"rest": 4}, MachineError.COMMAND, "rest is 4; in WS it must be 8"),
        (Unit.PRODUCT, WS | {"runs": 2}, MachineError.COMMAND, "runs is 2; in WS it must be 1"),
        (Unit.PRODUCT, WS | {"rows": 3}, MachineError.COMMAND, "rows is 3; in WS it must be 4"),
        (Unit.VECTOR, {"operation": VectorOpcode.ADD, "beats": 1, "terms": 2}, MachineError.COMMAND, "ADD has none"),
        (Unit.VECTOR, {"operation": VectorOpcode.MEAN, "beats": 1, "rows": 2}, MachineError.COMMAND, "MEAN has none"),
        (Unit.VECTOR, {"operation": VectorOpcode.SUM, "beats": 65}, MachineError.PLACE, "65 beats of a slot"),
        (Unit.VECTOR, {"operation": VectorOpcode.ADD, "beats": 8, "rows": 65}, MachineError.PLACE, "65 rows x 1 terms"),
        (Unit.VECTOR, {"operation": 19, "beats": 1}, MachineError.COMMAND, "operation is 19; it must be from 0 to 18"),
        (Unit.UPDATE, {"beats": 257, "tiles": 2}, MachineError.PLACE, "2 tiles x 257 beats"),
        (Unit.UPDATE, {"beats": 3, "copies": 1}, MachineError.COMMAND, "with copies a tile of this machine has 16"),
        (
            Unit.LOAD,
            {"space": Space.N2S, "form": Form.OPERAND, "words": 5, "address": 0, "reduce": 1, "across": 1},
            MachineError.COMMAND,
            "lines of 5 words through SORE, line by line; it has 4 lanes",
        ),
        (
            Unit.STORE,
            {"space": Space.OUTPUT, "form": Form.FP32, "words": 4, "address": 0, "bias": 1, "bias_place": 1021},
            MachineError.PLACE,
            "word 1024 is not in BIAS",
        ),
        (
            Unit.STORE,
            {"space": Space.PAIRS, "form": Form.FP32, "words": 4, "address": 0},
            MachineError.COMMAND,
            "form is FP32; PAIRS takes PAIR",
        ),
    ],
)
def test_what_contradicts_itself_or_does_not_fit_is_refused(unit, values, error, said):
    found = refused(unit, values)

    assert found is not None and found.error == error
    assert said in str(found)


def test_copies_need_a_sore_behind_wuve_and_room_for_their_pairs():
    pattern = tiny().pattern
    plan = tile_plan(tiny().spec, SGD, pattern, 2)
    most = 512 // max(plan.fill, plan.rounds * pattern.keep)

    assert refused(Unit.UPDATE, {"beats": plan.fill, "copies": 2, "tiles": most}) is None
    assert refused(Unit.UPDATE, {"beats": plan.fill, "copies": 2, "tiles": most + 1}).error == MachineError.PLACE
    without = Target(spec=tiny().spec, rule=SGD)
    assert "no SORE behind WUVE" in str(refused(Unit.UPDATE, {"beats": plan.fill, "copies": 2}, without))


def test_machines_whose_banks_have_no_place_are_refused():
    spec = tiny().spec
    wide = type(spec.vector)(lanes=4096)
    with pytest.raises(InputError, match="OPERANDS of machine 'tiny' has 12288 banks of 512 words"):
        Target(
            spec=type(spec)(**{name: getattr(spec, name) for name in spec.__dataclass_fields__} | {"vector": wide}),
            rule=SGD,
        )


NORM = """
machine {machine}
; 16 positions of 8 channels, two beats, in two blocks of 8: mean, variance, result, running statistics
set vector beats 2
set vector rows 8
set load form OPERAND
set load words 8
set load count3 8
set load step3 16
set load inner2 4
set load inner2_step 0x100000
set load inner1 65535
set load inner1_step 1
set load outer2 65535
set load outer2_step 2
{trips}
set vector operation RUNNING_MEAN
set vector rows 1
go vector
set vector operation RUNNING_VARIANCE
go vector notify 2
set store space COLUMNS
set store form FP32
set store words 8
set store address 2048
set store place {running}
set store inner2 4
set store inner2_step 0x100000
set store inner1 65535
set store inner1_step 1
go store wait 2
end
"""
SLOTS = """
set load space COLUMNS
set load form FP32
set load count3 1
set load address 1024
set load place {weight}
go load
set load place {bias}
go load
set load place {mean}
go load
set load place {variance}
go load
set load form OPERAND
set load count3 8
set load place 0
set vector operation COPY
"""


def norm() -> str:
    """A batch norm over blocks that are loaded three times, half by half."""
    place = {name: 64 * slot for name, slot in zip(("weight", "bias", "mean", "variance"), list(Slot)[4:], strict=True)}
    lines = [SLOTS.format(**place), "set load space OPERANDS", "set vector first 1"]
    for trip, (operation, after) in enumerate((("SUM", "MEAN"), ("SQUARES", "DEVIATION"), ("NORMALISE", None))):
        for block in (0, 1):
            # A half is free once the vector unit has read it.
            free = "wait 1" if (trip, block) > (0, 1) else ""
            lines += [f"set load address {128 * block}", f"set load half {block}", f"go load {free} notify 0"]
            lines += [f"set vector operation {operation}", "set vector rows 8", f"set vector first {int(block == 0)}"]
            lines += [f"set vector operands_half {block}", f"set vector results_half {block}"]
            lines += [f"go vector wait 0 notify {'1' if trip < 2 else '1,3'}"]
            if trip == 2:
                lines += [
                    "set store space RESULTS",
                    "set store form OPERAND",
                    "set store words 8",
                    "set store count3 8",
                ]
                lines += ["set store step3 16", f"set store address {512 + 128 * block}", f"set store half {block}"]
                lines += ["set store inner2 4", "set store inner2_step 0x100000", "set store inner1 65535"]
                lines += [
                    "set store inner1_step 1",
                    "set store outer2 65535",
                    "set store outer2_step 2",
                    "go store wait 3",
                ]
        if after:
            lines += ["set vector rows 1", f"set vector operation {after}", "go vector"]
    lines += ["set store half 0", "set store count3 1"]
    return NORM.format(machine=tiny().hash, trips="\n".join(lines), running=place["mean"])


def judged(text: str) -> RuleError | ProgramError | int:
    try:
        return check(assemble(text), tiny(), 4096)
    except ProgramError as error:
        return error


def lines_with(text: str, word: str) -> Iterator[tuple[int, str]]:
    return ((i, line) for i, line in enumerate(text.splitlines()) if word in line)


def without(text: str, at: int, to: str = "") -> str:
    lines = text.splitlines()
    lines[at] = to
    return "\n".join(lines)


def test_a_batch_norm_in_blocks_is_well_formed():
    assert judged(norm()) == 4 + 6 + 6 + 2 + 2 + 2 + 1


def test_a_norm_without_one_of_its_steps_is_not():
    """Every trip and every slot that it needs, every event."""
    text = norm()
    for operation, slot in (("MEAN", Slot.MEAN), ("DEVIATION", Slot.DEVIATION)):
        at = next(i for i, _ in lines_with(text, f"operation {operation}"))
        error = judged(without(text, at, "set vector operation RUNNING_VARIANCE"))
        assert isinstance(error, RuleError)
        assert (error.rule, error.part) == (Rule.UNWRITTEN, Part(Space.COLUMNS, 0, slot))
    for kind in ("wait", "notify"):
        for at, line in lines_with(text, kind):
            error = judged(without(text, at, re.sub(rf" {kind} [\d,]+", "", line)))
            # Without one that tells of a free half the next one does, a block later.
            assert isinstance(error, ProgramError) != (kind == "notify" and line.endswith("notify 1")), line


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "set vector rows 8\nset vector first 1",
            "set vector rows 9\nset vector first 1",
            "OPERANDS, half 0, operand 0",
        ),
        ("set store outer2_step 2", "set store outer2_step 3", "RESULTS, half 0"),
        ("set load words 8\nset load count3 8", "set load words 4\nset load count3 8", "OPERANDS, half 0, operand 0"),
    ],
)
def test_what_is_read_beyond_what_was_written_is_refused(old, new, said):
    assert old in norm()
    error = judged(norm().replace(old, new))

    assert isinstance(error, RuleError) and error.rule == Rule.UNWRITTEN
    assert re.search(rf"\({said}\): reads \d+ words of a bank, \d+ were written", str(error))


def test_sore_serves_one_at_a_time():
    plan = tile_plan(tiny().spec, SGD, tiny().pattern, 1)
    text = f"""machine {tiny().hash}
    set load form BLANK
    set load words 16
    set load address 0
    set load inner2 65535
    set load inner2_step 1
    set load count3 12
    set load outer2 65535
    set load outer2_step 0x100000
    set load space WEIGHTS
    go load
    set load space CONSTANTS
    set load count3 1
    go load notify 0
    set update beats {plan.fill}
    set update copies 1
    go update wait 0 notify 1
    set load space N2S
    set load form OPERAND
    set load reduce 1
    go load {{}}
    end"""

    assert judged(text.format("wait 1")) == 4
    error = judged(text.format(""))
    assert isinstance(error, RuleError)
    assert (error.rule, error.part) == (Rule.UNORDERED, Part(SORE, 0, 0))
    assert "go load (SORE): writes what go update of instruction" in str(error)


def test_an_update_is_after_the_gradients_that_are_watched():
    """Otherwise it may look at the flag before it is raised. Nothing watched: it need not wait."""
    text = f"""machine {tiny().hash}
    set load form BLANK
    set load words 16
    set load address 0
    set load inner2 65535
    set load inner2_step 1
    set load count3 12
    set load outer2 65535
    set load outer2_step 0x100000
    set load space WEIGHTS
    go load
    set load space CONSTANTS
    set load count3 1
    go load notify 0
    set load space COLUMNS
    go load notify 1
    set store space COLUMNS
    set store form OPERAND
    set store words 1
    set store address 0
    set store watch {{}}
    go store wait 1 notify 2
    set update beats 1
    go update wait 0{{}}
    end"""

    assert judged(text.format(1, ",2")) == judged(text.format(0, "")) == 5
    error = judged(text.format(1, ""))
    assert isinstance(error, RuleError)
    assert (error.rule, error.part) == (Rule.UNORDERED, Part(NONFINITE, 0, 0))
    assert "go update (the flag nonfinite): reads what go store of instruction" in str(error)


def test_every_operation_reads_and_writes_what_its_table_says():
    for operation in OPERATIONS.values():
        held = {r.name: r.reset for r in REGISTERS[Unit.VECTOR]} | {
            "operation": operation.opcode,
            "beats": 1,
            "first": 0,
        }
        found = accesses(Command(0, Unit.VECTOR, tuple(held.values()), 0, 0, 0, 0), tiny())
        parts = {access.part: access for access in found}

        assert len(parts) == len(found)
        assert [p.part for p in parts if p.space == Space.OPERANDS] == list(range(operation.operands))
        slots = {p.part: a for p, a in parts.items() if p.space == Space.COLUMNS}
        assert {s for s, a in slots.items() if a.writes} == set(operation.writes)
        assert {s for s, a in slots.items() if a.reads} >= set(operation.reads)
        assert operation.columns != bool(operation.operands)
        assert (Part(Space.RESULTS, 0, 0) in parts) == operation.result
    assert set(OPERATIONS) == set(VectorOpcode)


def test_tables_number_what_they_hold():
    for unit, registers in REGISTERS.items():
        assert [r.number for r in registers] == list(range(len(registers)))
        assert len({r.name for r in registers}) == len(registers)
        for r in registers:
            assert r.unit == unit and register(unit, r.name) is r
            assert r.reset is None or r.least <= r.reset <= r.most
            assert r.signed == (r.least < 0) and r.bits <= 32
    assert len({r.address for r in CONTROL}) == len({r.name for r in CONTROL}) == len(CONTROL)
    assert all(r.address % 4 == 0 and control(r.name) is r for r in CONTROL)
    assert part_name(Part(Space.COLUMNS, 1, Slot.MEAN)) == "COLUMNS, half 1, slot 2"


def test_load_and_store_have_their_common_registers_in_the_same_places():
    """One reader of registers serves both ends of DMA."""
    common = [r.name for r in REGISTERS[Unit.LOAD][:24]]

    assert common == [r.name for r in REGISTERS[Unit.STORE][:24]]
    assert common[-1] == "outer2_step"


def test_what_tells_encodings_is_of_machines_that_have_two() -> None:
    one = tiny()
    two = replace(one, spec=replace(one.spec, pe=replace(one.spec.pe, format="fp8")))
    for unit, name in ((Unit.LOAD, "gradient"), (Unit.STORE, "gradient"), (Unit.PRODUCT, "n2s_gradient")):
        told = [Set(unit, register(unit, name).number, 1)]
        check_units(told, two)
        with pytest.raises(ProgramError, match=f"is of register {name}, but the operands of machine 'tiny'") as refusal:
            check_units(told, one)
        assert refusal.value.error == MachineError.REGISTER
        assert name not in {r.name for r in registers_of(unit, one)}


@pytest.mark.parametrize(("form", "address", "well"), [(Form.OPERAND, 3, True), (Form.FP32, 2, False)])
def test_an_operand_of_eight_bits_begins_at_any_byte(form: Form, address: int, well: bool) -> None:
    one = tiny()
    two = replace(one, spec=replace(one.spec, pe=replace(one.spec.pe, format="fp8")))
    load = {"space": Space.OPERANDS, "form": form, "words": 3, "address": address}
    found = refused(Unit.LOAD, load, two)
    assert (found is None) is well
    assert found is None or found.error == MachineError.ALIGNMENT
