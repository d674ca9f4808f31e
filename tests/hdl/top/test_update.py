"""The unit that updates: WUVE's bits as the chip's model has them, in the cycles that are said; skipped steps."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from amaranth import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.dataflow.accelerator import SoreSpec, WuveSpec
from weft.dataflow.pregenerate import tile_plan
from weft.dataflow.program.control import MachineError
from weft.dataflow.program.isa import Unit
from weft.dataflow.program.spaces import HALVES, VECTOR_DEPTH, Space, Target
from weft.dataflow.program.unit_time import update_cycles
from weft.hdl.blocks.sorter import Sore, drive_sore
from weft.hdl.flow.cosim import Cosim
from weft.hdl.top.update import UpdateUnit
from weft.workloads.sparsity import NMPattern
from weft.workloads.update_rule import update_rule

from .commands import TARGET as TINY
from .commands import usual
from .transfers import LANES
from .units import as_named, emptied, fill, new_chip, ran, random_words

pytestmark = pytest.mark.slow  # its RTL is compiled for half a minute and more

SEEDS = st.integers(0, 2**32 - 1)
SPEC = replace(TINY.spec, wuve=WuveSpec(lanes=3))
RULES = ("sgd", pytest.param("adamw", marks=pytest.mark.slow))


def target(rule: str) -> Target:
    """Other lanes than those of a beat."""
    return replace(TINY, spec=SPEC, pattern=None, rule=update_rule(rule))


class WithSore(wiring.Component):
    """An update unit, and the SORE behind it."""

    def __init__(self, target: Target) -> None:
        assert target.pattern is not None
        self.unit = UpdateUnit(target, LANES, blackbox=True)
        self.sore = Sore(target.spec, target.pattern, blackbox=True)
        members = {name: member for name, member in self.unit.signature.members.items() if name != "sore"}
        super().__init__(members)

    @property
    def parts(self) -> dict[str, Any]:
        return self.unit.parts | self.sore.parts

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.unit, m.submodules.sore = unit, sore = self.unit, self.sore
        m.d.comb += drive_sore(unit.sore, sore)
        for name, member in self.signature.members.items():
            ours, theirs = wiring.Signature({name: member}).flatten, getattr(unit, name)
            outer, inner = (list(ours(SimpleNamespace(**{name: x}))) for x in (getattr(self, name), theirs))
            for (_, own, out), (_, _, its) in zip(outer, inner, strict=True):
                m.d.comb += its.eq(out) if own.flow == In else out.eq(its)
        return m


@cache
def machine_with_sore(kind: str, wuve: int, sore: int, keep: int) -> tuple[Target, Cosim]:
    spec = replace(TINY.spec, wuve=WuveSpec(lanes=wuve, pregenerate=True), sore=SoreSpec(lanes=sore, kind=kind))
    made = replace(TINY, spec=spec, pattern=NMPattern(keep=keep, group=4))
    bench = WithSore(made)
    return made, Cosim(bench, bench.parts)


@cache
def machine(rule: str) -> Cosim:
    unit = UpdateUnit(target(rule), LANES, blackbox=True)
    return Cosim(unit, unit.parts)


def drawn_update(rng: np.random.Generator, most: int) -> dict[str, int]:
    beats = min(int(rng.integers(1, 20)), most)
    halves = {name: int(rng.integers(2)) for name in ("weights_half", "constants_half", "updated_half")}
    return usual(Unit.UPDATE, beats=beats, tiles=int(rng.integers(1, most // beats + 1)), **halves)


@pytest.mark.parametrize("rule", RULES)
@settings(max_examples=20)
@given(SEEDS, st.booleans())
def test_an_update_makes_the_bits_that_the_chip_makes(rule: str, drawing: int, skip: bool) -> None:
    rng, machine_of = np.random.default_rng(drawing), target(rule)
    r = drawn_update(rng, 40)
    bench, chip = machine(rule), new_chip(machine_of)
    bench.reset()
    weights = random_words(rng, (HALVES, machine_of.size(Space.WEIGHTS).banks, r["tiles"] * r["beats"]))
    constants = random_words(rng, (HALVES, 1, 16))
    if rng.random() < 0.7:
        constants = rng.uniform(0.01, 1, constants.shape).astype(np.float32).view(np.uint32)
    for space, words in ((Space.WEIGHTS, weights), (Space.CONSTANTS, constants)):
        fill(bench, machine_of, space, words, rng)
        chip.values[space][:, :, : words.shape[2]] = words
    chip.nonfinite = skip
    chip.update(as_named(Unit.UPDATE, r))
    cycles = update_cycles(r, machine_of)
    # it is looked at in the first cycle alone
    skips = np.where(np.arange(cycles + 10) == 0, skip, rng.integers(2, size=cycles + 10))
    seen = ran(bench, Unit.UPDATE, r, cycles + 10, skip=skips)
    assert np.flatnonzero(seen["done"]).tolist() == [cycles]
    assert seen["busy"].sum() == cycles
    assert not seen["error"].any()
    made = emptied(bench, machine_of, Space.UPDATED, "updated_read")
    np.testing.assert_array_equal(made, chip.values[Space.UPDATED])


@pytest.mark.parametrize("machine_of", [("serial", 5, 1, 2), ("serial", 2, 6, 4), ("network", 4, 4, 3)])
@settings(max_examples=20)
@given(SEEDS, st.booleans())
def test_copies_behind_an_update_are_the_pairs_that_the_chip_makes(
    machine_of: tuple[str, int, int, int], drawing: int, skip: bool
) -> None:
    rng, (made, bench) = np.random.default_rng(drawing), machine_with_sore(*machine_of)
    assert made.pattern is not None
    plan = tile_plan(made.spec, made.rule, made.pattern, 1)
    bench.reset()
    chip = new_chip(made)
    for _ in range(2):
        r = usual(
            Unit.UPDATE,
            copies=int(rng.integers(3)),
            beats=plan.fill,
            tiles=int(rng.integers(1, 1 + 60 // plan.fill)),
            **{f"{name}_half": int(rng.integers(2)) for name in ("weights", "constants", "updated", "pairs")},
        )
        weights = random_words(rng, (HALVES, made.size(Space.WEIGHTS).banks, r["tiles"] * r["beats"]))
        constants = rng.uniform(0.01, 1, (HALVES, 1, 16)).astype(np.float32).view(np.uint32)
        for space, words in ((Space.WEIGHTS, weights), (Space.CONSTANTS, constants)):
            fill(bench, made, space, words, rng)
            chip.values[space][:, :, : words.shape[2]] = words
        chip.nonfinite = skip
        chip.update(as_named(Unit.UPDATE, r))
        cycles = update_cycles(r, made)
        seen = ran(bench, Unit.UPDATE, r, cycles + 10, skip=skip)
        assert np.flatnonzero(seen["done"]).tolist() == [cycles]
        assert not seen["error"].any()
    for space, name in ((Space.UPDATED, "updated_read"), (Space.PAIRS, "pairs_read")):
        wanted = chip.values[space].astype(np.uint32)
        if space == Space.PAIRS:
            wanted |= chip.indices[space].astype(np.uint32) << 16
        np.testing.assert_array_equal(emptied(bench, made, space, name), wanted)


@pytest.mark.parametrize(
    ("registers", "given_", "error", "value"),
    [
        ({"copies": 3, "beats": 4}, {}, MachineError.COMMAND, 0),
        ({"copies": 2, "beats": 5}, {}, MachineError.COMMAND, 0),
        ({"copies": 2, "beats": 4}, {"sore_busy": 1}, MachineError.SORE, 0),
        ({"copies": 1, "beats": 4, "tiles": 65}, {}, MachineError.PLACE, 512),
    ],
)
def test_an_error_stops_an_update_with_copies(
    registers: dict[str, int], given_: dict[str, int], error: MachineError, value: int
) -> None:
    made, bench = machine_with_sore("serial", 5, 1, 2)
    assert made.pattern is not None
    assert tile_plan(made.spec, made.rule, made.pattern, 2).fill == 4
    bench.reset()
    seen = ran(bench, Unit.UPDATE, usual(Unit.UPDATE, **registers), 2000, **given_)
    assert (seen["error"][-1], seen["value"][-1]) == (error, value)
    assert not seen["done"].any()


@settings(max_examples=20)
@given(SEEDS)
def test_updates_follow_each_other_in_the_cycles_that_are_said(drawing: int) -> None:
    rng, bench = np.random.default_rng(drawing), machine("sgd")
    bench.reset()
    for _ in range(2):
        r = drawn_update(rng, VECTOR_DEPTH)
        cycles = update_cycles(r, target("sgd"))
        assert np.flatnonzero(ran(bench, Unit.UPDATE, r, cycles + 1)["done"]).tolist() == [cycles]


@pytest.mark.parametrize(
    ("registers", "error", "value"),
    [
        ({"copies": 1}, MachineError.COMMAND, 0),
        ({"copies": 2}, MachineError.COMMAND, 0),
        ({"tiles": 3, "beats": 171}, MachineError.PLACE, 512),
    ],
)
def test_an_error_stops_the_unit(registers: dict[str, int], error: MachineError, value: int) -> None:
    bench = machine("sgd")
    bench.reset()
    seen = ran(bench, Unit.UPDATE, usual(Unit.UPDATE, **registers), 800)
    assert (seen["error"][-1], seen["value"][-1]) == (error, value)
    assert not seen["done"].any()
    assert seen["busy"][-1]
