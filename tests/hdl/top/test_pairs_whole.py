"""Copies behind the update, to memory and back, on the whole machine: the same products as by SORE on the way in."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from weft.analysis.verify.rtl_difference import require_cycles
from weft.dataflow.operand import FormatName
from weft.dataflow.program.checker import check
from weft.dataflow.program.emitter import Emitter
from weft.dataflow.program.isa import BEAT_BYTES, LATENCY, Unit
from weft.dataflow.program.program import Program
from weft.dataflow.program.spaces import Form, Space, Target, place
from weft.simulator.compact import compress
from weft.simulator.machine.chip import Chip
from weft.simulator.machine.program_time import program_time
from weft.simulator.operand import narrow, operand_type
from weft.workloads.sparsity import NMPattern

from ...analysis.verify.rtl_networks import machine_of, target_of
from .commands import BANK

OUT, IN, ROWS = 16, 24, 4
"""Of a weight [OUT, IN], and of what it is multiplied by."""
MASTER, STATE, GRADIENT, LEFT, CONSTANTS, WEIGHT, FF, BP, MADE, MADE_ONLINE = (n << 11 for n in range(10))
WINDOW = 10 << 11
LINE = 16
"""Bytes from line to line of pairs."""


PATTERN = NMPattern(keep=2, group=8)
FORMATS: tuple[FormatName, ...] = ("fp16", "fp8")


def program(target: Target) -> Program:
    """Update a weight with both copies; multiply by its pairs from memory, and by those that SORE makes on the way."""
    emitter = Emitter(target, WINDOW)
    bytes_ = target.operand().bytes
    tile, blocks = 16, (IN // 8, OUT // 8)

    def weights(unit: Unit, space: Space, stream: int, address: int, form: Form, **more: int) -> None:
        """Block by block, those along outputs first: a line of eight inputs for each output of a block."""
        each = 4 if form == Form.FP32 else bytes_
        emitter.command(
            unit,
            space=space,
            form=form,
            address=address,
            words=8,
            **{"count1": blocks[0], "step1": 8 * each, "count2": blocks[1], "step2": 8 * IN * each},
            **{"count3": 8, "step3": IN * each, "place": place(4 * stream), "inner2": 8, "inner2_step": 2},
            **{"outer2": 4, "outer2_step": BANK, "outer1": 2, "outer1_step": 1, "outer0_step": tile},
            **more,
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

    encoded = {key: value for key, value in target.operand(gradient=True).registers.items() if key != "form"}
    weights(Unit.LOAD, Space.WEIGHTS, 0, GRADIENT, Form.OPERAND, **encoded)
    for stream, address in ((1, MASTER), (2, STATE)):
        weights(Unit.LOAD, Space.WEIGHTS, stream, address, Form.FP32)
    constants = len(target.rule.constants)
    inner = {"inner2": constants, "inner2_step": 1}
    emitter.command(Unit.LOAD, space=Space.CONSTANTS, form=Form.FP32, address=CONSTANTS, words=constants, **inner)
    emitter.command(Unit.UPDATE, tiles=blocks[0] * blocks[1], beats=tile, copies=2)
    weights(Unit.STORE, Space.UPDATED, 0, MASTER, Form.FP32)
    weights(Unit.STORE, Space.UPDATED, 0, WEIGHT, Form.OPERAND)
    weights(Unit.STORE, Space.UPDATED, 1, STATE, Form.FP32)
    pairs(0, FF, OUT, 2 * blocks[0], 4 * blocks[1], 4)
    pairs(1, BP, IN, 2 * blocks[1], 4, 4 * blocks[1])
    rows = {"count3": ROWS, "step3": bytes_ * IN, "inner2": IN, "inner2_step": 1, "outer2": ROWS, "outer2_step": BANK}
    emitter.command(Unit.LOAD, space=Space.W2E, form=Form.OPERAND, address=LEFT, words=IN, **rows)
    multiply(MADE, 0, form=Form.PAIR, address=FF, words=6, step3=LINE)
    multiply(MADE_ONLINE, 1, form=Form.OPERAND, address=WEIGHT, words=IN, step3=bytes_ * IN, reduce=1)
    return emitter.program()


def memory(target: Target) -> npt.NDArray[np.uint8]:
    of = target.spec.pe.format
    rng, found = np.random.default_rng(5), np.zeros(WINDOW, np.uint8)
    constants = {"inverse_scale": 1 / 64, "weight_decay": 0.01, "momentum": 0.9, "rate": 0.1}
    for address, values in (
        (MASTER, rng.normal(0, 1, (OUT, IN)).astype(np.float32)),
        (STATE, rng.normal(0, 0.1, (OUT, IN)).astype(np.float32)),
        (GRADIENT, narrow(rng.normal(0, 9, (OUT, IN)).astype(np.float32), of, gradient=True)),
        (LEFT, narrow(rng.normal(0, 1, (ROWS, IN)).astype(np.float32), of)),
        (CONSTANTS, np.array([constants[name] for name in target.rule.constants], np.float32)),
    ):
        raw = np.ascontiguousarray(values).view(np.uint8).ravel()
        found[address : address + len(raw)] = raw
    return found


def as_lines(operand: Any, size: int) -> npt.NDArray[np.uint8]:
    """The compact form of ``operand`` [k, n] in memory: a line of pairs a column, ``size`` and 3 bits each."""
    kept, out = compress(operand, PATTERN), np.zeros((operand.shape[1], LINE), np.uint8)
    for line, bits, index in zip(
        out, kept.values.view(f"u{size // 8}").T.tolist(), kept.indices.T.tolist(), strict=True
    ):
        packed = sum((b | i << size) << (size + 3) * n for n, (b, i) in enumerate(zip(bits, index, strict=True)))
        line[:] = np.frombuffer(packed.to_bytes(LINE, "little"), np.uint8)
    return out.ravel()


@pytest.mark.parametrize("format", FORMATS)
def test_copies_behind_the_update_are_what_sore_makes_of_the_weight_on_the_way_in(format: FormatName) -> None:
    target = target_of("tiny", PATTERN, format)
    made, kind = program(target), np.dtype(operand_type(target.spec.pe))
    check(made, target, WINDOW)
    chip = Chip(target, memory(target))
    chip.run(made.instructions)
    weight = chip.memory[WEIGHT : WEIGHT + kind.itemsize * OUT * IN].view(kind).reshape(OUT, IN)
    for address, operand in ((FF, weight.T), (BP, weight)):
        lines = as_lines(np.ascontiguousarray(operand), 8 * kind.itemsize)
        np.testing.assert_array_equal(chip.memory[address : address + len(lines)], lines)
    one, other = (chip.memory[at : at + 4 * ROWS * OUT] for at in (MADE, MADE_ONLINE))
    np.testing.assert_array_equal(one, other)
    assert (one.view(np.float32) != 0).mean() > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
def test_the_rtl_does_the_same_in_the_cycles_that_are_said(format: FormatName) -> None:
    target, rtl = target_of("tiny", PATTERN, format), machine_of("tiny", PATTERN, format)
    made, chip = program(target), Chip(target, memory(target))
    rtl.write(0, chip.memory)
    chip.run(made.instructions)
    require_cycles(program_time(made, target, BEAT_BYTES, LATENCY), rtl.run(made))
    np.testing.assert_array_equal(rtl.read(0, WINDOW), chip.memory)
