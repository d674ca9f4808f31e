"""A unit whose spaces are filled as a load does and emptied as a store does, beside the values of the whole chip."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from weft.dataflow.program.commands import Command
from weft.dataflow.program.isa import REGISTERS, Unit
from weft.dataflow.program.spaces import HALVES, Space, Target, place
from weft.hdl.flow.cosim import Cosim
from weft.hdl.top.banks import READ
from weft.hdl.top.load import write_layout
from weft.simulator.machine.chip import Chip

from .commands import as_command
from .transfers import LANES, wide

Words = npt.NDArray[np.uint32]
_WRITE = write_layout(LANES)
_CASES = (0, 1 << 31, 1, 0x80000001, 0x007FFFFF, 0x00800000, 0x7F7FFFFF, 0x7F800000, 0xFF800000, 0x7FC00000, 0xFF812345)


def random_words(rng: np.random.Generator, shape: tuple[int, ...]) -> Words:
    """FP32 of any bits; numbers of one size, which cancel and tie; few values, among them those that are special."""
    plain = rng.normal(0, 1, shape).astype(np.float32).view(np.uint32)
    few = rng.choice(np.array([*_CASES, 0x3F800000, 0xBF800000, 0x40000000], np.uint32), shape)
    anything = rng.integers(0, 2**32, shape, np.uint32)
    kind = rng.choice(3, shape, p=rng.dirichlet((2, 1, 1)))
    chosen: Words = np.select([kind == 0, kind == 1], [plain, few], anything)
    return chosen


def as_named(unit: Unit, registers: Mapping[str, int]) -> Command:
    """A command of the program's model."""
    return Command(0, unit, tuple(registers[r.name] for r in REGISTERS[unit]), 0, 0, 0, 0)


def new_chip(target: Target) -> Chip:
    """All words 0, as the memories of a simulation are."""
    chip = Chip(target, np.zeros(4, np.uint8))
    for values in chip.values.values():
        values[...] = 0
    return chip


def filled(target: Target, space: Space, words: Words, rng: np.random.Generator) -> list[int]:
    """Writes of a load that give a space ``words`` [half, bank, address]: across the banks, or one by one."""
    found = []
    halves, banks, depth = words.shape
    for half in range(halves):
        for address in range(depth):
            step = int(rng.choice((LANES, LANES - 1, 1), p=(0.9, 0.05, 0.05))) if banks > 1 else 1
            for bank in range(0, banks, step):
                count = min(step, banks - bank)
                across = int(banks > 1 and (count > 1 or rng.random() < 0.5))
                values = [0] * LANES
                for i in range(count):
                    lane = (bank + i if across else address) % LANES
                    values[lane] = int(words[half, bank + i, address])
                fields = {"space": space, "half": half, "place": place(bank, address), "across": across, "words": count}
                payload = sum(value << _WRITE[name].offset for name, value in fields.items())
                found.append(payload + (sum(v << 32 * i for i, v in enumerate(values)) << _WRITE["values"].offset))
    return found


def fill(bench: Cosim, target: Target, space: Space, words: Words, rng: np.random.Generator) -> None:
    writes = filled(target, space, words, rng)
    payload = wide(writes, len(writes), bench.inputs["write"].words)
    bench.run({"write": payload, "writes": 1}, len(writes))


@cache
def _asks(halves: int, banks: int, depth: int) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]:
    """Every word of a space once, across the banks or one by one: what is asked in each cycle, and of each word the
    cycle of its answer, half, bank and address."""
    asks, where = [], []
    offset = {name: READ[name].offset for name in ("half", "place", "across")}
    for half, address in itertools.product(range(halves), range(depth)):
        for bank in range(0, banks, LANES):
            across = (address + bank) % 3 != 0
            found = range(bank, min(bank + LANES, banks))
            for one in (bank,) if across else found:
                at = place(one, address)
                asks.append(half << offset["half"] | at << offset["place"] | across << offset["across"])
                where += [(len(asks), half, each, address) for each in (found if across else (one,))]
    return np.array([*asks, 0], np.uint64), np.array(where).T


def emptied(bench: Cosim, target: Target, space: Space, name: str) -> Words:
    """Words of a space [half, bank, address], read as a store does."""
    size = target.size(space)
    asks, (cycle, half, bank, address) = _asks(HALVES, size.banks, size.depth)
    seen = bench.run({"read": asks}, len(asks))
    shown = np.stack([seen[f"{name}__{x}"] for x in range(LANES)])
    words = np.zeros((HALVES, size.banks, size.depth), np.uint32)
    words[half, bank, address] = shown[bank % LANES, cycle]
    return words


def ran(bench: Cosim, unit: Unit, registers: Mapping[str, int], cycles: int, **fed: npt.ArrayLike) -> dict[str, Any]:
    """What the unit does with one command."""
    words, bits = bench.inputs["command__payload"].words, as_command(unit, dict(registers))
    payload = bits if words <= 2 else wide([bits], cycles, words)
    return bench.run({"command__valid": np.arange(cycles) < 1, "command__payload": payload, **fed}, cycles)
