"""Copies behind the update, to memory and back, on the whole machine: the same products as by SORE on the way in."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from weft.analysis.verify.rtl_difference import require_cycles
from weft.dataflow.program.checker import check
from weft.dataflow.program.emitter import Emitter
from weft.dataflow.program.isa import BEAT_BYTES, LATENCY, Unit
from weft.dataflow.program.program import Program
from weft.dataflow.program.spaces import Form, Space, place
from weft.hdl.drivers.accelerator import Accelerator
from weft.simulator.compact import compress
from weft.simulator.machine.chip import Chip
from weft.simulator.machine.program_time import program_time

from .commands import BANK, TARGET

OUT, IN, ROWS = 16, 24, 4
"""Of a weight [OUT, IN], and of what it is multiplied by."""
MASTER, STATE, GRADIENT, LEFT, CONSTANTS, WEIGHT, FF, BP, MADE, MADE_ONLINE = (n << 11 for n in range(10))
WINDOW = 10 << 11
LINE = 16
"""Bytes from line to line of pairs."""


def program() -> Program:
    """Update a weight with both copies; multiply by its pairs from memory, and by those that SORE makes on the way."""
    emitter = Emitter(TARGET, WINDOW)
    tile, blocks = 16, (IN // 8, OUT // 8)

    def weights(unit: Unit, space: Space, stream: int, address: int, form: Form) -> None:
        """Block by block, those along outputs first: a line of eight inputs for each output of a block."""
        each = 4 if form == Form.FP32 else 2
        emitter.command(
            unit,
            space=space,
            form=form,
            address=address,
            words=8,
            **{"count1": blocks[0], "step1": 8 * each, "count2": blocks[1], "step2": 8 * IN * each},
            **{"count3": 8, "step3": IN * each, "place": place(4 * stream), "inner2": 8, "inner2_step": 2},
            **{"outer2": 4, "outer2_step": BANK, "outer1": 2, "outer1_step": 1, "outer0_step": tile},
        )

    def pairs(copy: int, address: int, lines: int, words: int, along: int, beside: int) -> None:
        """Lines of pairs, each of ``words``, whose tiles are ``along`` addresses apart, and ``beside`` of lines."""
        emitter.command(
            Unit.STORE,
            space=Space.PAIRS,
            form=Form.PAIR,
            address=address,
            words=words,
            **{"count3": lines, "step3": LINE, "place": place(4 * copy), "inner2": 2, "inner2_step": 1},
            **{"inner1": words // 2, "inner1_step": along, "outer2": 4, "outer2_step": BANK},
            **{"outer1": 2, "outer1_step": 2, "outer0_step": beside},
        )

    def multiply(made: int, half: int, **columns: int) -> None:
        columns |= {"count3": OUT, "inner2": 6, "inner2_step": 4, "outer2": 4, "outer2_step": BANK}
        emitter.command(Unit.LOAD, space=Space.N2S, half=half, outer1=4, outer1_step=1, **columns)
        names = {"w2e_half": 0, "n2s_half": half, "output_half": half}
        groups = {"keep": 2, "group": 8, "rest": 8, "parts": IN // 8, "runs": 1, "interleave": 4, "rows": ROWS}
        emitter.command(Unit.PRODUCT, stationary=0, across=1, down=1, **groups, **names)
        emitter.command(
            Unit.STORE,
            space=Space.OUTPUT,
            half=half,
            form=Form.FP32,
            address=made,
            words=OUT,
            **{"count3": ROWS, "step3": 4 * OUT, "place": place(0, (ROWS - 1) * 4), "inner2": 4, "inner2_step": BANK},
            **{"inner1": 4, "inner1_step": 1, "outer2": ROWS, "outer2_step": -4},
        )

    for stream, (address, form) in enumerate(((GRADIENT, Form.OPERAND), (MASTER, Form.FP32), (STATE, Form.FP32))):
        weights(Unit.LOAD, Space.WEIGHTS, stream, address, form)
    constants = len(TARGET.rule.constants)
    inner = {"inner2": constants, "inner2_step": 1}
    emitter.command(Unit.LOAD, space=Space.CONSTANTS, form=Form.FP32, address=CONSTANTS, words=constants, **inner)
    emitter.command(Unit.UPDATE, tiles=blocks[0] * blocks[1], beats=tile, copies=2)
    weights(Unit.STORE, Space.UPDATED, 0, MASTER, Form.FP32)
    weights(Unit.STORE, Space.UPDATED, 0, WEIGHT, Form.OPERAND)
    weights(Unit.STORE, Space.UPDATED, 1, STATE, Form.FP32)
    pairs(0, FF, OUT, 2 * blocks[0], 4 * blocks[1], 4)
    pairs(1, BP, IN, 2 * blocks[1], 4, 4 * blocks[1])
    rows = {"count3": ROWS, "step3": 2 * IN, "inner2": IN, "inner2_step": 1, "outer2": ROWS, "outer2_step": BANK}
    emitter.command(Unit.LOAD, space=Space.W2E, form=Form.OPERAND, address=LEFT, words=IN, **rows)
    multiply(MADE, 0, form=Form.PAIR, address=FF, words=6, step3=LINE)
    multiply(MADE_ONLINE, 1, form=Form.OPERAND, address=WEIGHT, words=IN, step3=2 * IN, reduce=1)
    return emitter.program()


def memory() -> npt.NDArray[np.uint8]:
    rng, found = np.random.default_rng(5), np.zeros(WINDOW, np.uint8)
    constants = {"inverse_scale": 1 / 64, "weight_decay": 0.01, "momentum": 0.9, "rate": 0.1}
    for address, values in (
        (MASTER, rng.normal(0, 1, (OUT, IN)).astype(np.float32)),
        (STATE, rng.normal(0, 0.1, (OUT, IN)).astype(np.float32)),
        (GRADIENT, rng.normal(0, 9, (OUT, IN)).astype(np.float16)),
        (LEFT, rng.normal(0, 1, (ROWS, IN)).astype(np.float16)),
        (CONSTANTS, np.array([constants[name] for name in TARGET.rule.constants], np.float32)),
    ):
        raw = np.ascontiguousarray(values).view(np.uint8).ravel()
        found[address : address + len(raw)] = raw
    return found


def as_lines(operand: npt.NDArray[np.float16]) -> npt.NDArray[np.uint8]:
    """The compact form of ``operand`` [k, n] in memory: a line of pairs a column, 19 bits each."""
    assert TARGET.pattern is not None
    kept, out = compress(operand, TARGET.pattern), np.zeros((operand.shape[1], LINE), np.uint8)
    for line, bits, index in zip(out, kept.values.view(np.uint16).T.tolist(), kept.indices.T.tolist(), strict=True):
        packed = sum((b | i << 16) << 19 * n for n, (b, i) in enumerate(zip(bits, index, strict=True)))
        line[:] = np.frombuffer(packed.to_bytes(LINE, "little"), np.uint8)
    return out.ravel()


def test_copies_behind_the_update_are_what_sore_makes_of_the_weight_on_the_way_in() -> None:
    made = program()
    check(made, TARGET, WINDOW)
    chip = Chip(TARGET, memory())
    chip.run(made.instructions)
    weight = chip.memory[WEIGHT : WEIGHT + 2 * OUT * IN].view(np.float16).reshape(OUT, IN)
    for address, operand in ((FF, weight.T), (BP, weight)):
        lines = as_lines(np.ascontiguousarray(operand))
        np.testing.assert_array_equal(chip.memory[address : address + len(lines)], lines)
    one, other = (chip.memory[at : at + 4 * ROWS * OUT] for at in (MADE, MADE_ONLINE))
    np.testing.assert_array_equal(one, other)
    assert one.view(np.float32).all()


@pytest.mark.slow
def test_the_rtl_does_the_same_in_the_cycles_that_are_said() -> None:
    made, chip, rtl = program(), Chip(TARGET, memory()), Accelerator(TARGET, WINDOW, 1 << 11)
    rtl.write(0, chip.memory)
    chip.run(made.instructions)
    require_cycles(program_time(made, TARGET, BEAT_BYTES, LATENCY), rtl.run(made))
    np.testing.assert_array_equal(rtl.read(0, WINDOW), chip.memory)
