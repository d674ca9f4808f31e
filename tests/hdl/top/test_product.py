"""The unit of products: every word of OUTPUT that of the model of the chip, in the cycles of the closed form."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.dataflow.program.commands import Command
from weft.dataflow.program.control import MachineError
from weft.dataflow.program.isa import REGISTERS, Unit
from weft.dataflow.program.legal import words_of_product
from weft.dataflow.program.product_time import product_cycles
from weft.dataflow.program.spaces import Space, place
from weft.hdl.flow.cosim import Cosim
from weft.hdl.top.load import write_layout
from weft.hdl.top.product import ProductUnit
from weft.simulator.machine.chip import Chip

from .commands import TARGET, as_command, usual
from .transfers import LANES, wide

pytestmark = pytest.mark.slow  # its RTL is compiled for half a minute and more

SHAPES = (("os", 1, 1, 4), ("os", 1, 1, 1), ("os", 2, 8, 3), ("os", 2, 4, 4), ("os", 3, 7, 2))
STATIONARY = (("ws", 2, 8, 2), ("ws", 4, 4, 4), ("ws", 1, 1, 3), ("ws", 3, 5, 2))


@cache
def machine() -> Cosim:
    unit = ProductUnit(TARGET, LANES, blackbox=True)
    return Cosim(unit, unit.parts)


def command(registers: dict[str, int]) -> Command:
    return Command(0, Unit.PRODUCT, tuple(registers[r.name] for r in REGISTERS[Unit.PRODUCT]), 0, 0, 0, 0)


def drawn(rng: np.random.Generator) -> dict[str, int]:
    """A product that the spaces hold."""
    array = TARGET.spec.array
    flow, keep, group, interleave = (SHAPES + STATIONARY)[rng.integers(len(SHAPES) + len(STATIONARY))]
    parts, down = int(rng.integers(1, 6)), int(rng.integers(1, 4))
    r = {"keep": keep, "group": group, "interleave": interleave, "parts": parts, "down": down}
    r |= {"across": int(rng.integers(1, 4)), "w2e_half": int(rng.integers(2)), "n2s_half": int(rng.integers(2))}
    r |= {"output_half": int(rng.integers(2)), "stationary": int(flow == "ws")}
    if flow == "ws":
        return usual(Unit.PRODUCT, **r, rest=group, rows=array.rows, runs=1)
    rows = int(rng.integers(1, array.rows + 1)) if down == 1 else array.rows
    return usual(Unit.PRODUCT, **r, rest=int(rng.integers(1, group + 1)), rows=rows, runs=int(rng.integers(1, 4)))


def writes(chip: Chip, r: dict[str, int]) -> list[int]:
    """What a load would write, word by word, of the operands of a product."""
    layout, found = write_layout(LANES), []
    deep = words_of_product(command(r), TARGET)
    for space, half in ((Space.W2E, r["w2e_half"]), (Space.N2S, r["n2s_half"])):
        for bank in range(TARGET.size(space).banks):
            for address in range(0, deep[space]):
                value = int(chip.values[space][half, bank, address])
                index = int(chip.indices[space][half, bank, address]) if space == Space.N2S else 0
                values = [value if x == address % LANES else 0 for x in range(LANES)]
                bubble = int(index == 255)
                fields = {"space": space, "half": half, "place": place(bank, address), "across": 0, "words": 1}
                fields |= {"values": values, "indices": [0 if bubble else index] * LANES, "bubble": bubble}
                found.append(layout.const(fields).as_value().value)
    return found


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1))
def test_a_product_is_that_of_the_chip_in_the_cycles_of_the_closed_form(seed: int) -> None:
    rng = np.random.default_rng(seed)
    r, chip = drawn(rng), Chip(TARGET, np.zeros(4, np.uint8))
    deep = words_of_product(command(r), TARGET)
    for space in (Space.W2E, Space.N2S):
        shape = chip.values[space].shape
        chip.values[space][...] = rng.standard_normal(shape).astype(np.float16).view(np.uint16)
    index = rng.integers(
        0, r["group"] if r["stationary"] else min(r["group"], r["rest"]), chip.indices[Space.N2S].shape
    )
    chip.indices[Space.N2S][...] = np.where(rng.random(index.shape) < 0.1, 255, index)
    fed = writes(chip, r)
    bench, n = machine(), len(fed)
    bench.reset()
    bench.run({"writes": 1, "write": wide(fed, n, bench.inputs["write"].words)}, n)
    cycles = product_cycles(r, TARGET)
    words = bench.inputs["command__payload"].words
    given = {"command__valid": np.arange(cycles + 8) < 1}
    payload = as_command(Unit.PRODUCT, r)
    given["command__payload"] = wide([payload], cycles + 8, words) if words > 2 else np.uint64(payload)
    seen = bench.run(given, cycles + 8)
    assert not seen["error"].any()
    assert np.flatnonzero(seen["done"]).tolist() == [cycles]

    chip.product(command(r))
    out = chip.values[Space.OUTPUT][r["output_half"], :, : deep[Space.OUTPUT]]
    for bank, column in enumerate(out):
        at = np.array([place(bank, address) for address in range(len(column))] + [0], np.uint64)
        read = at << np.uint64(1) | np.uint64(r["output_half"])
        shown = bench.run({"read": read}, len(at))
        assert (shown["lanes_read__0"][1:] == column).all()


@pytest.mark.parametrize(
    "wrong",
    [
        {"keep": 2},
        {"group": 9},
        {"rest": 2},
        {"interleave": 5},
        {"rows": 5},
        {"stationary": 1, "rows": 3},
        {"resume": 1},
    ],
)
def test_what_no_array_of_the_size_runs_is_an_error(wrong: dict[str, int]) -> None:
    plain = {
        "keep": 1,
        "group": 1,
        "rest": 1,
        "interleave": 1,
        "rows": 4,
        "parts": 1,
        "runs": 1,
        "across": 1,
        "down": 1,
    }
    bench = machine()
    bench.reset()
    payload = as_command(Unit.PRODUCT, usual(Unit.PRODUCT, **{"stationary": 0} | plain | wrong))
    words = bench.inputs["command__payload"].words
    seen = bench.run({"command__valid": np.arange(9) < 1, "command__payload": wide([payload], 9, words)}, 9)
    assert seen["error"][-1] == MachineError.COMMAND
    assert not seen["done"].any()
