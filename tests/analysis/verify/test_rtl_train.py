"""Networks trained by the RTL of the whole accelerator: not a bit and not a cycle differs from the model's.

`RtlTrainer` compares scores, weights, momentum, running statistics and the cycles of every command; it would raise.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest

from weft.analysis.verify.rtl_difference import DifferenceError, require_cycles
from weft.analysis.verify.rtl_train import RtlTrainer
from weft.dataflow.operand import FormatName
from weft.dataflow.program.commands import Ended, commands
from weft.dataflow.program.isa import Unit
from weft.workloads.errors import InputError
from weft.workloads.sparsity import NMPattern

from .rtl_networks import machine_of, target_of, work_of

SCHEMES = {"dense": None, "bdwp": NMPattern(keep=2, group=8)}
"""Each with its pattern."""


class Seen(NamedTuple):
    """A command as the RTL ran it."""

    unit: Unit
    took: int
    last: int


class Ran(NamedTuple):
    """As much of a run as its cycles are compared by."""

    cycles: int
    commands: list[Seen]


def trainer(
    network: str = "mlp",
    arch: str = "tiny",
    scheme: str = "dense",
    steps: int = 1,
    format: FormatName = "fp16",
    **how: Any,
) -> RtlTrainer:
    pattern = SCHEMES[scheme]
    target = target_of(arch, pattern, format)
    return RtlTrainer(work_of(network, scheme, pattern), target, steps, **{"rate": 0.05, **how})


@pytest.mark.slow
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("arch", ["tiny", "sat-8x8"])
@pytest.mark.parametrize("network", ["mlp", "cnn"])
def test_two_hundred_steps_are_those_of_the_model(network: str, arch: str, scheme: str) -> None:
    """It learns, too: a training whose bits are all zeros is one as well."""
    found = trainer(network, arch, scheme, steps=200).train(rtl=machine_of(arch, SCHEMES[scheme]))
    assert [step.cycles for step in found.steps] == [step.predicted for step in found.steps]
    assert [step.loss for step in found.steps] == [step.model_loss for step in found.steps]
    assert not any(step.skipped for step in found.steps)
    losses = [step.loss for step in found.steps]
    assert np.mean(losses[-20:]) < 0.8 * np.mean(losses[:20])
    assert found.accuracy > 0.3
    assert found.counters["cycles"] == sum(step.cycles for step in found.steps)
    assert all(found.counters[f"{unit}_busy"] for unit in ("load", "product", "vector", "update", "store"))


def test_ten_steps_at_2_8_are_those_of_the_model() -> None:
    found = trainer(scheme="bdwp", steps=10).train(rtl=machine_of("tiny", SCHEMES["bdwp"]))
    assert [step.cycles for step in found.steps] == [step.predicted for step in found.steps]
    assert [step.loss for step in found.steps] == [step.model_loss for step in found.steps]
    assert len(found.steps) == 10 and not any(step.skipped for step in found.steps)
    assert found.counters["cycles"] == sum(step.cycles for step in found.steps)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "arch", "scheme", "steps"),
    [
        ("mlp", "tiny", "bdwp", 40),
        ("cnn", "tiny", "bdwp", 10),
        ("cnn", "tiny", "dense", 10),
        ("mlp", "sat-8x8", "dense", 10),
    ],
)
def test_steps_of_eight_bits_are_those_of_the_model(network: str, arch: str, scheme: str, steps: int) -> None:
    own = trainer(network, arch, scheme, steps, format="fp8")
    found = own.train(rtl=machine_of(arch, SCHEMES[scheme], "fp8"))
    assert [step.cycles for step in found.steps] == [step.predicted for step in found.steps]
    assert [step.loss for step in found.steps] == [step.model_loss for step in found.steps]
    assert not any(step.skipped for step in found.steps)
    assert steps < 40 or np.mean([s.loss for s in found.steps[-8:]]) < np.mean([s.loss for s in found.steps[:8]])


@pytest.mark.slow
def test_a_gradient_that_e5m2_does_not_hold_skips_the_step() -> None:
    """It ends at 57,344, and is Inf beyond."""
    found = trainer(scheme="bdwp", steps=2, format="fp8", loss_scale=2.0**24).train(
        rtl=machine_of("tiny", SCHEMES["bdwp"], "fp8")
    )
    assert all(step.skipped for step in found.steps)


@pytest.fixture
def built() -> Iterator[RtlTrainer]:
    own = trainer(steps=2)
    own.build(machine_of())
    yield own


@pytest.mark.slow
def test_one_bit_that_is_wrong_is_named_with_its_command_and_cycle(built: RtlTrainer) -> None:
    """A bit of a master weight turned behind the machine's back shows where the update stores what it made of it."""
    (parameter,) = (p for p in built.compiled.parameters if p.name == "3.weight")
    assert parameter.master is not None
    at = parameter.master.address + 4 * 21
    built.rtl.write(at, built.rtl.read(at, 1) ^ 1)
    wrong = r"step 1: weight 3.weight\[1, 5\] is .* in the RTL, but .*; 1 differ; the first wrong word is \[1, 5\] of "
    where = (
        r"weight 3.weight at byte \d+: .*, of the store of instruction \d+, which ran in cycles \d+ to \d+ and wrote"
    )
    with pytest.raises(DifferenceError, match=f"{wrong}{where} it in cycle \\d+$"):
        built.step(next(built.work.batches()))


@pytest.mark.slow
def test_scoring_moves_nothing_in_memory() -> None:
    """Batch norms score by running statistics, which training images alone move."""
    own = trainer("cnn", steps=1)
    own.train(rtl=machine_of())
    before = own.rtl.read(0, own.compiled.window)
    assert own.accuracy() == own.accuracy()
    assert (own.rtl.read(0, own.compiled.window) == before).all()


@pytest.mark.slow
def test_a_gradient_that_is_not_finite_skips_the_step() -> None:
    """FP16 ends at 65504; the loss scale alone is above it."""
    own = trainer(steps=2, loss_scale=2.0**24)
    found = own.train(rtl=machine_of())
    assert all(step.skipped for step in found.steps)
    for name, value in own.work.held.items():
        assert (own.host.masters()[name] == value).all()


def test_a_command_in_another_cycle_is_named() -> None:
    own = trainer()
    said = own.predicted[id(own.compiled.forward)]
    seen = [Seen(r.command.unit, r.took, r.last) for r in said.ran]
    require_cycles(said, Ran(said.cycles, seen))  # type: ignore[arg-type]
    at = len(seen) // 2
    seen[at] = Seen(seen[at].unit, seen[at].took, seen[at].last + 1)
    unit, number = seen[at].unit.name, said.ran[at].command.instruction
    with pytest.raises(DifferenceError, match=f"{unit}: the command of instruction {number} was to run in cycles"):
        require_cycles(said, Ran(said.cycles, seen))  # type: ignore[arg-type]
    with pytest.raises(DifferenceError, match="commands ended in"):
        require_cycles(said, Ran(said.cycles, []))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ({"rate": float("inf")}, "learning rate"),
        ({"momentum": 1.0}, "momentum"),
        ({"loss_scale": 3.0}, "power of two"),
        ({"steps": 0}, "steps"),
    ],
)
def test_settings_that_train_nothing_are_refused(how: dict[str, Any], why: str) -> None:
    with pytest.raises(InputError, match=why):
        trainer(**how)


def test_both_passes_of_bdwp_load_through_sore() -> None:
    """Along lines for FF, across for BP; so the training above asks SORE for both."""
    step = trainer(scheme="bdwp").compiled
    for program, across in ((step.forward, 0), (step.backward, 1)):
        loads = [c for c in commands(program.instructions) if not isinstance(c, Ended) and c.unit == Unit.LOAD]
        assert {c.across for c in loads if c.reduce} == {across}
