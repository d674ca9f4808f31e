"""Checking and timing a program of 200,000 commands in a loop, by CPU time; what is found holds turn by turn."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest

from weft.dataflow.config_io import load_spec
from weft.dataflow.program.checker import check
from weft.dataflow.program.instruction import Add, End, Go, Loop, Next, Set
from weft.dataflow.program.isa import Unit, register
from weft.dataflow.program.program import Program
from weft.dataflow.program.spaces import Form, Space, Target
from weft.simulator.machine.sequencer import timeline
from weft.workloads.update_rule import SGD

TURNS = 50_000
SLOWEST = 12.0
"""CPU seconds for either."""

VALUES = {
    Unit.LOAD: {"form": Form.OPERAND, "words": 64, "address": 0, "inner2": 65535, "inner2_step": 1},
    Unit.PRODUCT: {
        **{"stationary": 0, "keep": 1, "group": 1, "rest": 1, "interleave": 4, "rows": 4, "parts": 64, "runs": 1},
        **{"across": 1, "down": 1},
    },
    Unit.STORE: {
        **{"space": Space.OUTPUT, "form": Form.OPERAND, "words": 16, "address": 8 << 20},
        **{"inner2": 65535, "inner2_step": 1},
    },
}


def number(unit: Unit, name: str) -> int:
    return register(unit, name).number


def double_buffered() -> Program:
    """Two loads, a product and a store a turn, all of other addresses; two turns find both halves free."""
    sets = [Set(unit, number(unit, name), int(value)) for unit, held in VALUES.items() for name, value in held.items()]
    turn = [
        Set(Unit.LOAD, number(Unit.LOAD, "space"), Space.W2E),
        Add(Unit.LOAD, number(Unit.LOAD, "address"), 128),
        Go(Unit.LOAD, 0b0010, 0),
        Set(Unit.LOAD, number(Unit.LOAD, "space"), Space.N2S),
        Go(Unit.LOAD, 0, 0b0001),
        Add(Unit.LOAD, number(Unit.LOAD, "half"), 1),
        Go(Unit.PRODUCT, 0b1001, 0b0110),
        *(Add(Unit.PRODUCT, number(Unit.PRODUCT, f"{space}_half"), 1) for space in ("w2e", "n2s", "output")),
        Go(Unit.STORE, 0b0100, 0b1000),
        Add(Unit.STORE, number(Unit.STORE, "address"), 32),
        Add(Unit.STORE, number(Unit.STORE, "half"), 1),
    ]
    first = [Go(i.unit, i.wait & 0b0101, i.notify) if isinstance(i, Go) else i for i in turn]
    machine = Target(spec=load_spec("tiny"), rule=SGD)
    body = [*sets, *first, *first, Loop(TURNS - 2), *turn, Next(), End()]
    return Program(tuple(body), machine.hash)


def test_a_long_program_is_checked_and_timed() -> None:
    program, target = double_buffered(), Target(spec=load_spec("tiny"), rule=SGD)
    begun = time.process_time()
    commands = check(program, target, 1 << 24)
    checked = time.process_time()
    timed = timeline(program.instructions, lambda command: 40 if command.unit == Unit.PRODUCT else 30, 4)
    took = checked - begun, time.process_time() - checked

    if max(took) >= SLOWEST:
        pytest.fail(f"{commands:,} commands: checked in {took[0]:.1f} CPU s, timed in {took[1]:.1f}")
    assert commands == 4 * TURNS == len(timed.ran)
    ends = [ran.last for ran in timed.ran if ran.command.unit == Unit.PRODUCT]
    # Two loads of 30 cycles and one more from each to the next: the port is the bound.
    assert {later - earlier for earlier, later in pairwise(ends[10:])} == {62}
