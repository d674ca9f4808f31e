"""The unit of binary products: every word of SUMS and SIGNS that of the model of the chip, in the cycles of the closed
form."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.dataflow.config_io import load_spec
from weft.dataflow.program.binary_product import binary_cycles, words_of_binary
from weft.dataflow.program.control import MachineError
from weft.dataflow.program.isa import Unit
from weft.dataflow.program.spaces import Space, Target, place
from weft.dataflow.xnor.spec import XnorSpec
from weft.hdl.flow.cosim import Cosim
from weft.hdl.top.load import write_layout
from weft.hdl.top.xnor_product import XnorUnit
from weft.workloads.update_rule import SGD

from .commands import as_command, usual
from .transfers import LANES, wide
from .units import as_named, emptied, fill, new_chip

pytestmark = pytest.mark.slow  # its RTL is compiled for half a minute and more

ENGINES = {
    "3x5 of 64 bits": XnorSpec(rows=3, cols=5, word_bits=64, accumulators=7, dense_words=4, popcount_latency=2),
    "2x3 of 32 bits": XnorSpec(rows=2, cols=3, word_bits=32, accumulators=4, dense_words=4, popcount_latency=1),
    "1x1 of 256 bits": XnorSpec(rows=1, cols=1, word_bits=256, accumulators=2, dense_words=4, popcount_latency=3),
}


@cache
def target(name: str) -> Target:
    return Target(spec=replace(load_spec("tiny"), xnor=ENGINES[name]), rule=SGD)


@cache
def machine(name: str) -> Cosim:
    unit = XnorUnit(target(name), LANES, blackbox=True)
    return Cosim(unit, unit.parts)


def drawn(rng: np.random.Generator, name: str) -> dict[str, int]:
    """A product that the spaces hold."""
    own = ENGINES[name]
    while True:
        r = {"down": int(rng.integers(1, 4)), "across": int(rng.integers(1, 4)), "words": int(rng.integers(1, 6))}
        r |= {"interleave": int(rng.integers(1, own.accumulators + 1)), "threshold": int(rng.integers(2))}
        r["rows"] = own.rows if r["down"] > 1 else int(rng.integers(1, own.rows + 1))
        for x in "ab":
            signs = int(rng.integers(2))
            r |= {f"signs_{x}": signs, f"planes_{x}": 1 if signs else int(rng.integers(1, 5))}
            r[f"negative_{x}"] = 0 if signs else int(rng.integers(2))
        r |= {f"{x}_half": int(rng.integers(2)) for x in ("w2e", "n2s", "levels", "output")}
        r["length"] = int(rng.integers(own.word_bits * r["words"] + 1))
        r["combine"] = int(rng.integers(2)) & r["threshold"]
        command = as_named(Unit.XNOR, usual(Unit.XNOR, **r))
        if all(words <= target(name).size(s).depth for s, words in words_of_binary(command, target(name)).items()):
            return usual(Unit.XNOR, **r)


def along(space: Space, words: np.ndarray, rng: np.random.Generator) -> list[int]:
    """Writes of a load, from address to address."""
    layout, found = write_layout(LANES), []
    halves, banks, depth = words.shape
    for half in range(halves):
        for bank in range(banks):
            address = 0
            while address < depth:
                count = min(int(rng.integers(1, LANES // 2 + 1)), depth - address)
                values = [0] * LANES
                for i in range(count):
                    values[(address + i) % LANES] = int(words[half, bank, address + i])
                fields = {"space": space, "half": half, "place": place(bank, address), "across": 0, "words": count}
                fields |= {"values": values, "indices": [0] * LANES, "bubble": 0}
                found.append(layout.const(fields).as_value().value)
                address += count
    return found


@pytest.mark.parametrize("name", ENGINES)
@settings(max_examples=20)
@given(seed=st.integers(0, 2**32 - 1))
def test_a_product_is_that_of_the_chip_in_the_cycles_of_the_closed_form(name: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    r, chip, bench = drawn(rng, name), new_chip(target(name)), machine(name)
    command = as_named(Unit.XNOR, r)
    deep = words_of_binary(command, target(name))
    bench.reset()
    for space in (Space.XNOR_W2E, Space.XNOR_N2S, Space.LEVELS):
        words = chip.values[space][:, :, : deep.get(space, 1)]
        words[...] = rng.integers(0, 2**32, words.shape, np.uint32)
        if space == Space.LEVELS:
            near = rng.integers(-(r["length"] // 2 + 9), r["length"] // 2 + 9, words.shape) + r["length"] // 2
            words[...] = (near << 1 | rng.integers(0, 2, words.shape)).astype(np.int32).view(np.uint32)
            fill(bench, target(name), space, words, rng)
        else:
            writes = along(space, words, rng)
            bench.run({"write": wide(writes, len(writes), bench.inputs["write"].words), "writes": 1}, len(writes))
    before = {} if not r["combine"] else r | {"combine": 0, "length": r["length"] // 2, "signs_a": 0, "planes_a": 1}
    for registers in filter(None, (before, r)):
        cycles = binary_cycles(registers, target(name))
        payload = wide([as_command(Unit.XNOR, registers)], cycles + 8, bench.inputs["command__payload"].words)
        seen = bench.run({"command__valid": np.arange(cycles + 8) < 1, "command__payload": payload}, cycles + 8)
        assert not seen["error"].any()
        assert np.flatnonzero(seen["done"]).tolist() == [cycles]
        chip.binary_product(as_named(Unit.XNOR, registers))
    made, port = (Space.SIGNS, "signs_read") if r["threshold"] else (Space.SUMS, "sums_read")
    shown = emptied(bench, target(name), made, port)
    assert (shown[r["output_half"], :, : deep[made]] == chip.values[made][r["output_half"], :, : deep[made]]).all()


@pytest.mark.parametrize(
    "wrong",
    [{"interleave": 8}, {"rows": 4}, {"down": 2, "rows": 2}, {"combine": 1}, {"planes_a": 2}, {"negative_b": 1}],
)
def test_what_no_engine_of_the_size_runs_is_an_error(wrong: dict[str, int]) -> None:
    plain = {"words": 1, "interleave": 1, "rows": 3, "across": 1, "down": 1, "threshold": 0}
    bench = machine("3x5 of 64 bits")
    bench.reset()
    payload = as_command(Unit.XNOR, usual(Unit.XNOR, **plain | wrong))
    words = bench.inputs["command__payload"].words
    seen = bench.run({"command__valid": np.arange(9) < 1, "command__payload": wide([payload], 9, words)}, 9)
    assert seen["error"][-1] == MachineError.COMMAND
    assert not seen["done"].any()
