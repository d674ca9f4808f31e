"""The vector unit: every operation bit for bit as the chip's model has it, in the cycles that are said."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.dataflow.accelerator import VectorSpec
from weft.dataflow.program.control import MachineError
from weft.dataflow.program.isa import Unit
from weft.dataflow.program.spaces import COLUMN_BEATS, HALVES, VECTOR_DEPTH, Space
from weft.dataflow.program.unit_time import vector_cycles
from weft.dataflow.program.vector_operations import OPERATIONS, VectorOpcode
from weft.hdl.flow.cosim import Cosim
from weft.hdl.top.vector import VectorUnit

from .commands import TARGET as TINY
from .commands import usual
from .transfers import LANES
from .units import as_named, emptied, fill, new_chip, ran, random_words

pytestmark = pytest.mark.slow  # its RTL is compiled for half a minute and more

TARGET = replace(TINY, spec=replace(TINY.spec, vector=VectorSpec(lanes=2)))
"""Other lanes than those of a beat."""
VECTOR_LANES = TARGET.spec.vector.lanes
SEEDS = st.integers(0, 2**32 - 1)
HALF = ("operands_half", "columns_half", "results_half")


@cache
def machine() -> Cosim:
    unit = VectorUnit(TARGET, LANES, blackbox=True)
    return Cosim(unit, unit.parts)


def drawn_vector(rng: np.random.Generator, opcode: VectorOpcode, most: int = 60) -> dict[str, int]:
    """Any operation that may be, on at most ``most`` beats."""
    operation = OPERATIONS[opcode]
    r = {name: int(rng.integers(2)) for name in (*HALF, "first")} | {"operation": opcode}
    r["beats"] = min(int(rng.integers(1, 20)), most)
    r["rows"] = 1 if operation.columns else int(rng.integers(1, max(1, min(most // r["beats"], 8)) + 1))
    if operation.of_terms:
        r["terms"] = int(rng.integers(1, max(1, most // (r["beats"] * r["rows"])) + 1))
    r |= {name: int(random_words(rng, ())) for name in ("factor", "epsilon", "momentum", "rest")}
    if rng.random() < 0.7:  # a mean of positive numbers has a deviation
        r |= {"factor": int(np.float32(1 / 3).view(np.uint32)), "epsilon": int(np.float32(1e-5).view(np.uint32))}
    return usual(Unit.VECTOR, **r)


@pytest.mark.parametrize("opcode", VectorOpcode, ids=lambda o: o.name)
@settings(max_examples=6)
@given(SEEDS)
def test_an_operation_makes_the_bits_that_the_chip_makes(opcode: VectorOpcode, drawing: int) -> None:
    rng = np.random.default_rng(drawing)
    r = drawn_vector(rng, opcode)
    bench, chip = machine(), new_chip(TARGET)
    bench.reset()
    block = r["rows"] * r["terms"] * r["beats"]
    operands = random_words(rng, (HALVES, 3 * VECTOR_LANES, block))
    if opcode == VectorOpcode.SELECT and rng.random() < 0.8:
        hit = rng.random((HALVES, VECTOR_LANES, block)) < 0.5
        operands[:, VECTOR_LANES : 2 * VECTOR_LANES][hit] = r["factor"]
    columns = random_words(rng, (HALVES, VECTOR_LANES, VECTOR_DEPTH))
    for space, words in ((Space.OPERANDS, operands), (Space.COLUMNS, columns)):
        fill(bench, TARGET, space, words, rng)
        chip.values[space][:, :, : words.shape[2]] = words
    chip.vector(as_named(Unit.VECTOR, r))
    cycles = vector_cycles(r, TARGET)
    seen = ran(bench, Unit.VECTOR, r, cycles + 10)
    assert np.flatnonzero(seen["done"]).tolist() == [cycles]
    assert seen["busy"].sum() == cycles
    assert not seen["error"].any()
    for space, name in ((Space.RESULTS, "results_read"), (Space.COLUMNS, "columns_read")):
        np.testing.assert_array_equal(emptied(bench, TARGET, space, name), chip.values[space], err_msg=space.name)


def test_a_norm_of_a_real_batch_goes_on_from_block_to_block() -> None:
    """SUM in two blocks, MEAN, SQUARES, DEVIATION, NORMALISE: what NumPy says of all of it, nearly."""
    rng = np.random.default_rng(5)
    x = rng.normal(3, 2, (2, 6, VECTOR_LANES)).astype(np.float32)
    operands = np.zeros((HALVES, 3 * VECTOR_LANES, 6), np.uint32)
    for half in range(HALVES):
        operands[half, :VECTOR_LANES] = x[half].T.view(np.uint32)
    columns = np.zeros((HALVES, VECTOR_LANES, VECTOR_DEPTH), np.uint32)
    columns[0, :, COLUMN_BEATS * 4] = np.float32(1).view(np.uint32)
    bench = machine()
    bench.reset()
    fill(bench, TARGET, Space.OPERANDS, operands, rng)
    fill(bench, TARGET, Space.COLUMNS, columns, rng)
    mean, eps = int(np.float32(1 / 12).view(np.uint32)), int(np.float32(1e-5).view(np.uint32))
    of = VectorOpcode
    for opcode, registers in (
        (of.SUM, {"rows": 6}),
        (of.SUM, {"rows": 6, "operands_half": 1, "first": 0}),
        (of.MEAN, {"factor": mean}),
        (of.SQUARES, {"rows": 6}),
        (of.SQUARES, {"rows": 6, "operands_half": 1, "first": 0}),
        (of.DEVIATION, {"factor": mean, "epsilon": eps}),
        (of.NORMALISE, {"rows": 6, "operands_half": 1}),
    ):
        r = usual(Unit.VECTOR, operation=opcode, **registers)
        assert ran(bench, Unit.VECTOR, r, vector_cycles(r, TARGET) + 1)["done"][-1]
    made = emptied(bench, TARGET, Space.RESULTS, "results_read")[0, :, :6].view(np.float32)
    everything = x.reshape(-1, VECTOR_LANES)
    expected = (x[1] - everything.mean(0)) / np.sqrt(everything.var(0) + 1e-5)
    np.testing.assert_allclose(made.T, expected, rtol=1e-5, atol=1e-5)


@settings(max_examples=40)
@given(SEEDS)
def test_an_operation_takes_the_cycles_that_are_said(drawing: int) -> None:
    rng = np.random.default_rng(drawing)
    r = drawn_vector(rng, VectorOpcode(rng.choice(len(VectorOpcode))), most=VECTOR_DEPTH)
    bench = machine()
    bench.reset()
    cycles = vector_cycles(r, TARGET)
    assert np.flatnonzero(ran(bench, Unit.VECTOR, r, cycles + 20)["done"]).tolist() == [cycles]


def _plain(operation: VectorOpcode, **given: int) -> dict[str, int]:
    return usual(Unit.VECTOR, operation=operation, **given)


@pytest.mark.parametrize(
    ("registers", "error", "value"),
    [
        (_plain(VectorOpcode.ADD, terms=2), MachineError.COMMAND, 0),
        (_plain(VectorOpcode.SUM, terms=2), MachineError.COMMAND, 0),
        (_plain(VectorOpcode.MEAN, rows=2), MachineError.COMMAND, 0),
        (_plain(VectorOpcode.NORMALISE, beats=65), MachineError.PLACE, 64),
        (_plain(VectorOpcode.MEANS, beats=65), MachineError.PLACE, 64),
        (_plain(VectorOpcode.COPY, rows=57, beats=9), MachineError.PLACE, 512),
        (_plain(VectorOpcode.GATHER, rows=2, terms=257), MachineError.PLACE, 512),
    ],
)
def test_an_error_stops_the_unit(registers: dict[str, int], error: MachineError, value: int) -> None:
    bench = machine()
    bench.reset()
    seen = ran(bench, Unit.VECTOR, registers, 4000)
    assert (seen["error"][-1], seen["value"][-1]) == (error, value)
    assert not seen["done"].any()
    assert seen["busy"][-1]


def test_every_word_of_a_bank_and_every_beat_of_a_slot_is_used() -> None:
    for registers in (_plain(VectorOpcode.COPY, beats=VECTOR_DEPTH), _plain(VectorOpcode.SUM, rows=8, beats=64)):
        bench = machine()
        bench.reset()
        cycles = vector_cycles(registers, TARGET)
        seen = ran(bench, Unit.VECTOR, registers, cycles + 1)
        assert seen["done"][-1]
        assert not seen["error"].any()
