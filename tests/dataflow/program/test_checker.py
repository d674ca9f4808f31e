"""The checker against every order of execution, and what it says of each rule."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from weft.dataflow.program import commands
from weft.dataflow.program.accesses import Part
from weft.dataflow.program.assembly import assemble
from weft.dataflow.program.checker import Rule, RuleError, check
from weft.dataflow.program.commands import ProgramError
from weft.dataflow.program.control import MachineError
from weft.dataflow.program.isa import Unit
from weft.dataflow.program.spaces import Space
from weft.workloads.errors import InputError

from .interleavings import REGION, WINDOW, Op, load, pipeline, problems, product, program, store, tiny

LIMIT = 2
"""Of events, in place of 255."""

SAID = {
    Rule.EVENT_ORDER: "order",
    Rule.EVENT_LIMIT: "event limit",
    Rule.UNWRITTEN: "unwritten",
    Rule.LOST: "lost",
    Rule.UNORDERED: "unordered",
    Rule.MEMORY: "memory",
}


def verdict(ops: list[Op]) -> str | None:
    try:
        check(program(ops), tiny(), WINDOW, LIMIT)
    except RuleError as error:
        return SAID[error.rule]
    except ProgramError as error:
        assert error.error == MachineError.WATCHDOG, error
        return "deadlock"
    return None


def agree(ops: list[Op]) -> str | None:
    said = verdict(ops)
    if said is None:
        assert problems(ops, LIMIT) == set()
    elif said != "order":
        assert said in problems(ops, LIMIT)
    return said


halves = st.integers(0, 1)
masks = st.frozensets(st.integers(0, 2), max_size=2)
regions = st.integers(0, 2)
any_op = st.one_of(
    st.builds(load, st.sampled_from([Space.W2E, Space.N2S]), halves, regions, masks, masks),
    st.builds(product, halves, halves, halves, masks, masks),
    st.builds(store, halves, regions, masks, masks),
)


@given(st.lists(any_op, min_size=1, max_size=6))
def test_any_program_is_judged_as_all_its_orders_are(ops):
    agree(ops)


@st.composite
def changed(draw) -> list[Op]:
    """A pipeline that is well formed, but for up to two changes."""
    ops = pipeline(draw(st.integers(2, 3)))
    for _ in range(draw(st.integers(0, 2))):
        i = draw(st.integers(0, len(ops) - 1))
        op, event = ops[i], draw(st.integers(0, 3))
        match draw(st.sampled_from(["wait", "notify", "half", "region", "order", "drop"])):
            case "wait":
                ops[i] = replace(op, wait=op.wait ^ {event})
            case "notify":
                ops[i] = replace(op, notify=op.notify ^ {event})
            case "half":
                which = draw(st.integers(0, len(op.halves) - 1))
                ops[i] = replace(op, halves=tuple((s, h ^ (at == which)) for at, (s, h) in enumerate(op.halves)))
            case "region":
                ops[i] = replace(op, region=None if op.region is None else op.region ^ 2)
            case "order":
                ops.insert(draw(st.integers(0, len(ops) - 1)), ops.pop(i))
            case "drop" if len(ops) > 1:
                ops.pop(i)
    return ops


@given(changed())
@example(pipeline(3))
def test_a_changed_pipeline_is_judged_as_all_its_orders_are(ops):
    agree(ops)


@pytest.mark.slow
def test_every_change_of_a_pipeline_is_judged_as_all_its_orders_are():
    """One at a time: events, halves, bytes. Every rule is broken by some but that of lost words, which comes last."""
    found: Counter[str | None] = Counter()
    ops = pipeline(4)
    for i, op in enumerate(ops):
        others = [replace(op, wait=op.wait ^ {e}) for e in range(4)] + [
            replace(op, notify=op.notify ^ {e}) for e in range(4)
        ]
        for which in range(len(op.halves)):
            others.append(replace(op, halves=tuple((s, h ^ (at == which)) for at, (s, h) in enumerate(op.halves))))
        if op.region is not None:
            others += [replace(op, region=r) for r in range(4) if r != op.region]
        for other in others:
            found[agree([*ops[:i], other, *ops[i + 1 :]])] += 1

    assert set(found) == {None, "deadlock", *SAID.values()} - {"lost"}
    assert found[None] < sum(found.values()) / 4


def test_a_pipeline_is_well_formed_and_counted():
    assert verdict(pipeline(4)) is None
    assert check(program(pipeline(4)), tiny(), WINDOW) == 16


TOLD = [load(Space.W2E, 0, 0, notify={0}), load(Space.N2S, 0, 0, notify={0}), load(Space.W2E, 1, 0, notify={0})]
BROKEN = [
    ([load(Space.W2E, 0, 0), product(0, 0, 0)], Rule.UNORDERED, Unit.PRODUCT, Part(Space.W2E, 0, 0)),
    ([product(0, 0, 0)], Rule.UNWRITTEN, Unit.PRODUCT, Part(Space.W2E, 0, 0)),
    ([load(Space.N2S, 1, 0), load(Space.N2S, 1, 1)], Rule.LOST, Unit.LOAD, Part(Space.N2S, 1, 0)),
    (TOLD, Rule.EVENT_LIMIT, Unit.LOAD, None),
]


@pytest.mark.parametrize(("ops", "rule", "unit", "part"), BROKEN)
def test_what_is_broken_is_said(ops, rule, unit, part):
    with pytest.raises(RuleError) as error:
        check(program(ops), tiny(), WINDOW, LIMIT)

    last = len(program(ops).instructions) - 2
    assert (error.value.rule, error.value.unit, error.value.part) == (rule, unit, part)
    assert error.value.instruction == last
    assert f"instruction {last}: go {unit.name.lower()}" in str(error.value)
    assert rule in str(error.value)


def test_a_load_of_what_a_store_may_still_write_is_refused():
    ops = pipeline(1)
    late = load(Space.W2E, 1, 2)
    assert verdict([*ops, late]) == "memory"
    assert verdict([*ops, replace(late, wait=frozenset({3}))]) is None


LOADS = """
machine {machine}
set load space W2E
set load form {form}
set load words {words}
set load address {address}
set load count3 {lines}
set load step3 {step}
set load inner2 65535
set load inner2_step 1
set load outer2 65535
set load outer2_step 0x100000
{more}
go load
end
"""


def loads(form="OPERAND", words=8, address=0, lines=4, step=16, more=""):
    text = LOADS.format(machine=tiny().hash, form=form, words=words, address=address, lines=lines, step=step, more=more)
    return check(assemble(text), tiny(), WINDOW)


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ({"address": 1}, MachineError.ALIGNMENT, "address is 1"),
        ({"step": 3}, MachineError.ALIGNMENT, "step3 is 3"),
        ({"address": 4096 - 63}, MachineError.ALIGNMENT, "address"),
        ({"address": 4096 - 62}, MachineError.WINDOW, "bytes 4034 to 4097 of memory; the window has bytes 0 to 4095"),
        ({"step": -16}, MachineError.WINDOW, "bytes -48 to 15"),
        ({"lines": 513, "step": 0}, MachineError.NONE, "513 lines of 8 words; half 0 of W2E has 4096 words in all"),
        ({"lines": 5}, MachineError.PLACE, "bank 4, word 0 is not in W2E, half 0, of 4 banks of 1024 words"),
        ({"words": 1025, "step": 0, "lines": 3}, MachineError.PLACE, "bank 0, word 1024"),
        ({"form": "FP32"}, MachineError.COMMAND, "form is FP32; W2E takes OPERAND, BLANK"),
        ({"more": "set load space OUTPUT"}, MachineError.COMMAND, "space is OUTPUT; it must be one of W2E, N2S"),
        ({"more": "set load outer1 0"}, MachineError.COMMAND, "outer1 is 0; it must be from 1 to 65535"),
        ({"more": "go store"}, MachineError.COMMAND, "register space was never set"),
        ({"more": "next"}, MachineError.LOOP, "a next without a loop"),
        ({"more": "loop 2\n" * 9}, MachineError.LOOP, "a loop inside 8 others"),
        ({"more": "go load wait 1"}, MachineError.WATCHDOG, "deadlock: go load of instruction 10 waits for event 1"),
        ({"more": "go load wait 1\n" * 2}, MachineError.WATCHDOG, "deadlock: go load waits for room in its queue"),
    ],
)
def test_a_command_that_no_machine_runs_is_refused(given, error, said):
    with pytest.raises(ProgramError) as refused:
        loads(**given)

    assert refused.value.error == error
    assert said in str(refused.value)


def test_loops_that_take_for_ever_are_refused(monkeypatch):
    monkeypatch.setattr(commands, "MOST_INSTRUCTIONS", 1000)
    assert loads(more="loop 900\nnext") == 1
    with pytest.raises(ProgramError, match="more than 1000 instructions are executed"):
        loads(more="loop 4294967295\n" * 4 + "next\n" * 4)


def test_the_same_commands_inside_their_bounds_pass():
    assert loads() == 1
    assert loads(address=4096 - 64) == 1
    assert loads(step=-16, address=48) == 1
    assert loads(words=1024, step=0) == 1


def test_a_program_of_another_machine_is_refused():
    with pytest.raises(InputError, match="is for machine 0123456789ab"):
        check(assemble("machine 0123456789ab\nend"), tiny(), WINDOW)


def test_a_program_without_an_end_is_refused():
    with pytest.raises(ProgramError, match="goes on past its last instruction") as refused:
        check(assemble(f"machine {tiny().hash}"), tiny(), WINDOW)

    assert refused.value.error == MachineError.FETCH


def test_loops_are_executed_and_a_half_turns_by_one():
    """2 x 3 turns, W2E half by half; the third finds its half not read."""
    text = LOADS.format(machine=tiny().hash, form="OPERAND", words=8, address=0, lines=4, step=16, more="{}")
    turned = text.format("loop {}\nadd load half 1\ngo load\nnext").replace("\ngo load\nend", "\nend")

    assert check(assemble(turned.format(2)), tiny(), WINDOW) == 2
    with pytest.raises(RuleError, match=r"W2E, half 1.*writes over what go load of instruction 12 wrote"):
        check(assemble(turned.format(3)), tiny(), WINDOW)


def test_regions_of_the_witness_do_not_touch():
    assert REGION >= 4 * 4
