"""What the registers of a transfer mean, by their definition; transfers drawn at random that stay where they may."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import numpy as np

from weft.dataflow.config_io import load_spec
from weft.dataflow.program.isa import REGISTERS, Unit, registers_of
from weft.dataflow.program.spaces import PLACE_ADDRESS_BITS, Form, Space, Target, place
from weft.hdl.top.command import command_layout
from weft.workloads.sparsity import NMPattern
from weft.workloads.update_rule import SGD

from .transfers import BEAT, DEPTH

BANK = 1 << PLACE_ADDRESS_BITS
TARGET = Target(spec=load_spec("tiny"), rule=SGD, pattern=NMPattern(keep=2, group=8))


def usual(unit: Unit, **given: int) -> dict[str, int]:
    """Registers of a command: what is given, what they are reset to, or the least that they may be."""
    own = {r.name: r.least if r.reset is None else r.reset for r in REGISTERS[unit]}
    assert set(given) <= set(own), set(given) - set(own)
    return own | given


def starts(r: dict[str, int]) -> Iterator[tuple[int, int]]:
    """Byte offset of each line, and the place of its first word."""
    for number, at in enumerate(itertools.product(*(range(r[f"count{i}"]) for i in range(4)))):
        offset = r["address1" if r["which"] else "address"] + sum(n * r[f"step{i}"] for i, n in enumerate(at))
        two = number // r["outer2"]
        one = two // r["outer1"]
        on_chip = r["place"] + one * r["outer0_step"]
        on_chip += two % r["outer1"] * r["outer1_step"] + number % r["outer2"] * r["outer2_step"]
        yield offset, on_chip


def inner(r: dict[str, int], word: int) -> int:
    """How far word ``word`` of a line lies from the first."""
    two = word // r["inner2"]
    one = two // r["inner1"]
    return one * r["inner0_step"] + two % r["inner1"] * r["inner1_step"] + word % r["inner2"] * r["inner2_step"]


def places(r: dict[str, int]) -> Iterator[tuple[int, int, int, int]]:
    """Of each word: byte offset of its line, its number in the line, bank, address."""
    for offset, first in starts(r):
        for word in range(r["words"]):
            at = (first + inner(r, word)) % 2**32
            yield offset, word, at >> PLACE_ADDRESS_BITS, at & BANK - 1


def drawn(
    rng: np.random.Generator, unit: Unit, space: Space, form: Form, own: Callable[[np.random.Generator], dict[str, int]]
) -> dict[str, int]:
    """A transfer that stays within memory and space; by rejection, which Hypothesis would end at the smallest ones."""
    size, each = TARGET.size(space), 4 if form == Form.FP32 else 2
    while True:
        r = {f"count{i}": int(rng.integers(1, 4)) for i in range(4)}
        r |= {f"step{i}": each * int(rng.integers(-150, 151)) for i in range(4)}
        r |= {"words": int(rng.integers(1, 40)), "space": space, "form": form, "half": int(rng.integers(2))}
        r["which"] = int(rng.integers(2))
        r["address"], r["address1"] = (each * int(x) for x in rng.integers(DEPTH * BEAT // each, size=2))
        for side in ("inner", "outer"):
            r |= {f"{side}{i}_step": int(rng.integers(-1, 2)) * BANK + int(rng.integers(-8, 9)) for i in range(3)}
            r |= {f"{side}{i}": int(rng.integers(1, 8)) for i in (1, 2)}
        if rng.random() < 0.7:
            r["inner2_step"] = int(rng.choice((1, BANK)))
        r["place"] = place(int(rng.integers(size.banks)), int(rng.integers(size.depth)))
        registers = usual(unit, **r, **own(rng))
        lines = [offset for offset, _ in starts(registers)]
        if min(lines) < 0 or max(lines) + 4 * r["words"] >= DEPTH * BEAT:
            continue
        if all(bank < size.banks and address < size.depth for _, _, bank, address in places(registers)):
            return registers


def as_command(unit: Unit, registers: dict[str, int]) -> int:
    """The bits of a command."""
    layout = command_layout(registers_of(unit, TARGET))
    return layout.const({name: registers[name] for name, _ in layout}).as_value().value % (1 << layout.size)
