"""The first wrong word that was written is named; the record of what was written is the model's, with a bit changed."""

from __future__ import annotations

from functools import cache
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.analysis.verify.rtl_difference import DifferenceError, Executed, first_wrong_write, late_command, require_same
from weft.analysis.verify.rtl_train import RtlTrainer
from weft.dataflow.program.commands import Command
from weft.dataflow.program.isa import Unit
from weft.dataflow.program.program import Program
from weft.dataflow.program.transfers import line_addresses
from weft.hdl.drivers.accelerator import AcceleratorRun, Beats, UnitRun
from weft.simulator.machine.chip import Chip
from weft.workloads.graph import PortKind

from ...examples_drawn import examples
from .rtl_networks import target_of, work_of


class Recorded(Chip):
    """Every line that is stored, in one beat of its own, a cycle each."""

    def start(self) -> None:
        self.beats: list[tuple[int, bytes]] = []
        self.ended: list[UnitRun] = []
        self.commands: list[Command] = []

    def store(self, c: Command) -> None:
        super().store(c)
        took, size = len(self.beats), c.words * (4 if c.form else 2)
        for at in line_addresses(c):
            self.beats.append((int(at), self.memory[at : at + size].tobytes()))
        self.commands.append(c)
        self.ended.append(UnitRun(Unit.STORE, took, len(self.beats) - 1))


@cache
def executed(
    network: str, of: Literal["forward", "backward"] = "forward"
) -> tuple[RtlTrainer, Executed, list[Command]]:
    """A program of a step, as if the RTL had run it; a beat is as wide as the longest line."""
    trainer = RtlTrainer(work_of(network), target_of(), 1, rate=0.1)
    trainer.host.put_input(next(trainer.work.batches()).pixels)
    before = trainer.memory.copy()
    chip = Recorded(trainer.target, before.copy())
    chip.start()
    program: Program = getattr(trainer.compiled, of)
    chip.run(program.instructions)
    width = max(len(data) for _, data in chip.beats)
    data, strobe = (np.zeros((len(chip.beats), width), kind) for kind in (np.uint8, np.bool_))
    for i, (_, line) in enumerate(chip.beats):
        data[i, : len(line)], strobe[i, : len(line)] = np.frombuffer(line, np.uint8), True
    beats = Beats(np.arange(len(data)), np.array([at for at, _ in chip.beats]), data, strobe)
    nothing = np.zeros((0, 2), np.int64)
    ran = AcceleratorRun(
        cycles=len(data),
        counters={},
        commands=tuple(chip.ended),
        writes=beats,
        reads=nothing,
        placed=nothing,
        stopped=None,
    )
    return trainer, Executed(program, before, ran), chip.commands


@pytest.mark.parametrize("network", ["mlp", "cnn"])
def test_nothing_is_wrong_with_what_the_model_wrote(network: str) -> None:
    trainer, run, _ = executed(network)
    assert first_wrong_write(trainer.work.graph, trainer.target, [run]) == ""


@settings(max_examples=examples(30), deadline=None)
@given(st.sampled_from(["mlp", "cnn"]), st.data())
def test_the_first_wrong_word_is_named_by_command_and_cycle(network: str, data: st.DataObject) -> None:
    trainer, run, stores = executed(network)
    beat = data.draw(st.integers(0, len(run.ran.writes.cycle) - 1))
    width = int(run.ran.writes.strobe[beat].sum())
    byte = data.draw(st.integers(0, width - 1))
    changed = run.ran.writes.data.copy()
    changed[beat, byte] ^= 1 << data.draw(st.integers(0, 7))
    writes = Beats(run.ran.writes.cycle, run.ran.writes.address, changed, run.ran.writes.strobe)
    ran = AcceleratorRun(**{name: getattr(run.ran, name) for name in run.ran.__slots__} | {"writes": writes})
    said = first_wrong_write(trainer.work.graph, trainer.target, [Executed(run.program, run.before, ran)])
    own = next(i for i, r in enumerate(run.ran.commands) if r.took <= beat <= r.last)
    assert f"of the store of instruction {stores[own].instruction}," in said
    assert f"wrote it in cycle {beat}" in said
    assert " of what aten." in said


def test_a_tensor_is_named_with_the_index_of_its_word() -> None:
    """The last line of the forward program is of the scores."""
    trainer, run, _ = executed("mlp")
    (scores,) = trainer.work.graph.leaving(PortKind.OUTPUT)
    out = trainer.compiled.output
    at = out.address + 2 * int(out.elements()[7, 3])
    writes = run.ran.writes
    beat = int(np.flatnonzero((writes.address <= at) & (at < writes.address + writes.strobe.sum(axis=1)))[-1])
    changed = writes.data.copy()
    changed[beat, at - writes.address[beat]] ^= 1
    ran = AcceleratorRun(
        **{name: getattr(run.ran, name) for name in run.ran.__slots__}
        | {"writes": Beats(writes.cycle, writes.address, changed, writes.strobe)}
    )
    said = first_wrong_write(trainer.work.graph, trainer.target, [Executed(run.program, run.before, ran)])
    assert said.startswith(f"the first wrong word is [7, 3] of what aten.addmm of '3' makes, t{scores.tensor}")
    assert f"at byte {at}: " in said


def test_what_lies_at_the_second_address_is_named() -> None:
    """An update stores the operand copy of a weight there."""
    trainer, run, stores = executed("mlp", "backward")
    (weight,) = (p for p in trainer.compiled.parameters if p.name == "3.weight")
    assert weight.weight is not None
    own = next(i for i, c in enumerate(stores) if c.which and c.address1 == weight.weight.address)
    writes, beat = run.ran.writes, run.ran.commands[own].took
    changed = writes.data.copy()
    changed[beat, 0] ^= 1
    ran = AcceleratorRun(
        **{name: getattr(run.ran, name) for name in run.ran.__slots__}
        | {"writes": Beats(writes.cycle, writes.address, changed, writes.strobe)}
    )
    said = first_wrong_write(trainer.work.graph, trainer.target, [Executed(run.program, run.before, ran)])
    assert said.startswith("the first wrong word is [0, 0] of operand copy of 3.weight at byte ")


def test_a_wrong_bit_is_named_by_index_and_both_values() -> None:
    wanted = np.arange(6, dtype=np.float32).reshape(2, 3)
    require_same("x", wanted.copy(), wanted)
    found = wanted.copy()
    found[1, 2] = -0.0
    with pytest.raises(DifferenceError, match=r"^x\[1, 2\] is -0.0 \(0x80000000\) in the RTL, but 5.0 .*; 1 differ$"):
        require_same("x", found, wanted)


@pytest.mark.parametrize("units", [(Unit.LOAD, Unit.LOAD), (Unit.LOAD,), (Unit.LOAD, Unit.STORE, Unit.STORE)])
def test_commands_of_other_units_than_predicted_are_late(units: tuple[Unit, ...]) -> None:
    """As many commands, or as many cycles, are not yet the same commands."""

    def ran(*units: Unit) -> Any:
        return SimpleNamespace(commands=[UnitRun(unit, 5 * i, 5 * i + 4) for i, unit in enumerate(units)], cycles=20)

    wanted = [(UnitRun(unit, 5 * i, 5 * i + 4), 3 * i) for i, unit in enumerate((Unit.LOAD, Unit.STORE))]
    said: Any = SimpleNamespace(
        ran=[
            SimpleNamespace(command=SimpleNamespace(unit=run.unit, instruction=at), took=run.took, last=run.last)
            for run, at in wanted
        ],
        cycles=20,
    )
    assert late_command(said, ran(Unit.LOAD, Unit.STORE)) is None
    assert late_command(said, ran(*units)) is not None
