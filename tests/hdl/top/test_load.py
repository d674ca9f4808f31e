"""The unit that loads: every word where its registers say, in a known time, and errors before anything is wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.dataflow.program.control import MachineError
from weft.dataflow.program.isa import Unit
from weft.dataflow.program.spaces import Form, Space, place
from weft.dataflow.program.transfer_time import load_cycles

from .commands import BANK, TARGET, as_command, drawn, usual
from .loads import contents, loaded, machine, words_of
from .transfers import BEAT, DEPTH, LATENCY, holds, wide

SEEDS = st.none() | st.integers(0, 2**16)


def ran(registers: dict[str, int], cycles: int, seed: int | None = None, size: int = DEPTH * BEAT) -> dict[str, Any]:
    """What the unit does with one command."""
    bench = machine()
    bench.reset()
    words = bench.inputs["command__payload"].words
    return bench.run(
        {
            "command__valid": np.arange(cycles) < 1,
            "command__payload": wide([as_command(Unit.LOAD, registers)], cycles, words),
            "size": size,
            **holds(seed, cycles),
        },
        cycles,
    )


def drawn_load(rng: np.random.Generator) -> dict[str, int]:
    """Any load that may be."""
    space = Space(rng.choice(TARGET.loaded))
    forms = {Space.W2E: (Form.OPERAND, Form.BLANK), Space.N2S: (Form.OPERAND, Form.OPERAND, Form.PAIR, Form.BLANK)}.get(
        space, (Form.OPERAND, Form.FP32, Form.BLANK)
    )
    form = Form(rng.choice(forms))

    def own(rng: np.random.Generator) -> dict[str, int]:
        if space != Space.N2S or form != Form.OPERAND:
            return {}
        return {"group": int(rng.integers(1, 9)), "run": int(rng.integers(1, 30)), "across": int(rng.integers(2))}

    return drawn(rng, Unit.LOAD, space, form, own)


@settings(max_examples=150)
@given(st.integers(0, 2**32 - 1), SEEDS)
def test_a_load_writes_each_word_in_its_place(drawing: int, seed: int | None) -> None:
    registers = drawn_load(np.random.default_rng(drawing))
    expected = loaded(registers, contents().tobytes(), TARGET)
    cycles = 40 * len(expected) + 200
    seen = ran(registers, cycles, seed)
    assert not seen["error"].any()
    times = np.flatnonzero(seen["writes"])
    assert [word for t in times for word in words_of(seen["write"][t])] == expected
    assert np.flatnonzero(seen["done"]).tolist() == [times[-1]]
    assert not seen["busy"][times[-1] + 1 :].any()


@settings(max_examples=100)
@given(st.integers(0, 2**32 - 1))
def test_a_load_takes_the_cycles_that_are_said(drawing: int) -> None:
    registers = drawn_load(np.random.default_rng(drawing))
    cycles = load_cycles(registers, TARGET, BEAT, LATENCY)
    seen = ran(registers, cycles + 20)
    assert np.flatnonzero(seen["done"]).tolist() == [cycles]


def _plain(**given: int) -> dict[str, int]:
    return usual(
        Unit.LOAD, **{"space": Space.W2E, "form": Form.OPERAND, "words": 4, "inner2": 4, "inner2_step": 1} | given
    )


W2E, N2S = TARGET.size(Space.W2E), TARGET.size(Space.N2S)


@pytest.mark.parametrize(
    ("registers", "error", "value"),
    [
        (_plain(space=Space.OUTPUT), MachineError.COMMAND, 0),
        (_plain(form=Form.FP32), MachineError.COMMAND, 0),
        (_plain(form=Form.PAIR), MachineError.COMMAND, 0),
        (_plain(address=1), MachineError.ALIGNMENT, 1),
        (_plain(step2=3), MachineError.ALIGNMENT, 0),
        (_plain(space=Space.BIAS, form=Form.FP32, address=2), MachineError.ALIGNMENT, 2),
        (_plain(place=place(W2E.banks)), MachineError.PLACE, place(W2E.banks, 3)),
        (_plain(place=place(0, W2E.depth - 3)), MachineError.PLACE, place(0, W2E.depth)),
        (_plain(place=place(N2S.banks - 3), space=Space.N2S, inner2_step=BANK), MachineError.PLACE, place(4)),
        (_plain(address=DEPTH * BEAT - 6), MachineError.WINDOW, DEPTH * BEAT - 6),
        (_plain(address=2**32 - 8), MachineError.WINDOW, 2**32 - 8),
    ],
)
def test_an_error_stops_the_unit_before_anything_wrong_is_written(
    registers: dict[str, int], error: MachineError, value: int
) -> None:
    seen = ran(registers, 80)
    assert (seen["error"][-1], seen["value"][-1]) == (error, value)
    assert not seen["done"].any()
    assert seen["busy"][-1]
    for t in np.flatnonzero(seen["writes"]):
        size = TARGET.size(Space(registers["space"]))
        assert all(bank < size.banks and address < size.depth for _, _, bank, address, *_ in words_of(seen["write"][t]))


def test_the_last_word_of_a_space_and_of_the_window_is_loaded() -> None:
    seen = ran(_plain(address=DEPTH * BEAT - 8, place=place(W2E.banks - 1, W2E.depth - 4), inner2=4), 80)
    assert seen["done"].any()
    assert not seen["error"].any()


def test_a_bus_that_fails_is_told_with_its_offset() -> None:
    seen = ran(_plain(address=DEPTH * BEAT, words=8, place=0, inner2=8), 80, size=2 * DEPTH * BEAT)
    assert (seen["error"][-1], seen["value"][-1]) == (MachineError.READ, DEPTH * BEAT)
