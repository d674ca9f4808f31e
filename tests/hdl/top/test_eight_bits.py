"""FP8 on the whole machine: bytes wherever they lie, both encodings on the way in, on the way out and in products."""

from __future__ import annotations

import numpy as np
import pytest

from weft.analysis.verify.rtl_difference import require_cycles
from weft.dataflow.program.checker import check
from weft.dataflow.program.emitter import Emitter
from weft.dataflow.program.isa import BEAT_BYTES, LATENCY, Unit
from weft.dataflow.program.moves import Moves
from weft.dataflow.program.program import Program
from weft.dataflow.program.spaces import WIDE, Element, Form, Space, Target, place
from weft.dataflow.program.vector_operations import VectorOpcode
from weft.simulator.machine.chip import Chip
from weft.simulator.machine.program_time import program_time
from weft.workloads.sparsity import NMPattern

from ...analysis.verify.rtl_networks import machine_of, target_of
from .commands import BANK

PATTERN = NMPattern(keep=2, group=8)
READ, WINDOW = 1 << 14, 1 << 16
"""Bytes that are there and are read; behind them others are written."""
ROWS, COLUMNS, LANES = 4, 16, 4


def aligned(rng: np.random.Generator, element: Element, least: int, most: int) -> int:
    return int(rng.integers(least // element.bytes, most // element.bytes)) * element.bytes


def moved(emitter: Emitter, target: Target, rng: np.random.Generator, at: int) -> int:
    """Lines through the vector unit, from one element to another; gives where what was written ends."""
    taken, made = ((WIDE, target.operand(), target.operand(gradient=True))[int(i)] for i in rng.integers(3, size=2))
    words, lines, move, half = (
        int(rng.integers(1, 30)),
        int(rng.integers(1, 6)),
        Moves(emitter).move,
        int(rng.integers(2)),
    )
    beats = -(-words // LANES)
    usual = {"words": words, "inner": [(0, 1), (LANES, BANK)], "outer": [(0, beats)]}
    from_, step = aligned(rng, taken, 0, READ // 2), aligned(rng, taken, 0, 400)
    move(Unit.LOAD, Space.OPERANDS, half, form=taken, address=from_, lines=[(lines, step)], **usual)  # type: ignore[arg-type]
    halves = {"operands_half": half, "results_half": half}
    emitter.command(Unit.VECTOR, operation=VectorOpcode.COPY, beats=beats, rows=lines, **halves)
    apart = made.bytes * (words + int(rng.integers(3)))
    to = -(-(at + int(rng.integers(9))) // made.bytes) * made.bytes
    watch = int(rng.integers(2))
    move(Unit.STORE, Space.RESULTS, half, form=made, address=to, lines=[(lines, apart)], watch=watch, **usual)  # type: ignore[arg-type]
    return to + lines * apart


def multiplied(emitter: Emitter, target: Target, rng: np.random.Generator, at: int) -> int:
    """A dense product, or one of pairs that SORE makes, of operands in any encodings that begin at any byte."""
    k, half, reduce = 8 * int(rng.integers(1, 5)), int(rng.integers(2)), int(rng.integers(2))
    left, right = (int(rng.integers(2)) for _ in range(2))
    rows = {"count3": ROWS, "step3": k + int(rng.integers(9)), "inner2": k, "inner2_step": 1}
    rows |= {"outer2": ROWS, "outer2_step": BANK, "address": int(rng.integers(READ // 2))}
    emitter.command(Unit.LOAD, space=Space.W2E, half=half, form=Form.OPERAND, words=k, **rows)
    columns = {"count3": COLUMNS, "step3": k + int(rng.integers(9)), "inner2": k, "inner2_step": ROWS}
    columns |= {
        "outer2": 4,
        "outer2_step": BANK,
        "outer1": 4,
        "outer1_step": 1,
        "address": int(rng.integers(READ // 2)),
    }
    emitter.command(Unit.LOAD, space=Space.N2S, half=half, form=Form.OPERAND, words=k, reduce=reduce, **columns)
    pattern = (
        {"keep": 2, "group": 8, "rest": 8, "parts": k // 8}
        if reduce
        else {"keep": 1, "group": 1, "rest": 1, "parts": k}
    )
    halves = {"w2e_half": half, "n2s_half": half, "output_half": half, "w2e_gradient": left, "n2s_gradient": right}
    counts = {"stationary": 0, "runs": 1, "interleave": 4, "rows": ROWS, "across": 1, "down": 1}
    emitter.command(Unit.PRODUCT, **counts, **pattern, **halves)
    made = target.operand(gradient=bool(rng.integers(2)))
    lines = {"count3": ROWS, "step3": COLUMNS, "place": place(0, (ROWS - 1) * 4), "inner2": 4, "inner2_step": BANK}
    lines |= {"inner1": 4, "inner1_step": 1, "outer2": ROWS, "outer2_step": -4, **made.registers}
    emitter.command(Unit.STORE, space=Space.OUTPUT, half=half, address=at, words=COLUMNS, **lines)
    return at + ROWS * COLUMNS


def drawn(seed: int, target: Target) -> Program:
    rng, emitter, at = np.random.default_rng(seed), Emitter(target, WINDOW), READ
    for number in range(60):
        at = (multiplied if number % 3 == 2 else moved)(emitter, target, rng, at)
    assert at < WINDOW
    return emitter.program()


def filled(seed: int) -> np.ndarray:
    """Any bytes, NaNs and infinities too, behind them none."""
    memory = np.zeros(WINDOW, np.uint8)
    memory[:READ] = np.random.default_rng(seed).integers(0, 256, READ)
    return memory


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
def test_whatever_moves_and_multiplies_bytes_is_as_the_model_has_it(seed: int) -> None:
    target, rtl = target_of("tiny", PATTERN, "fp8"), machine_of("tiny", PATTERN, "fp8")
    made, memory = drawn(seed, target), filled(seed)
    check(made, target, WINDOW)
    chip = Chip(target, memory.copy())
    chip.run(made.instructions)
    rtl.write(0, memory)
    require_cycles(program_time(made, target, BEAT_BYTES, LATENCY), rtl.run(made))
    np.testing.assert_array_equal(rtl.read(0, WINDOW), chip.memory)
    assert np.count_nonzero(chip.memory[READ:]) > 1000
