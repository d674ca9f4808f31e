"""What a training in the machine's arithmetic computes with: WUVE's update, a learning step, the same bits again."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.dataflow.operand import FormatName
from weft.dataflow.stce.spec import ArraySpec, PESpec
from weft.simulator.engines import run_wuve
from weft.simulator.machine.numerics import machine_numerics, updated
from weft.workloads.errors import InputError
from weft.workloads.training import plan, train
from weft.workloads.update_rule import UPDATE_RULES

from ...examples_drawn import examples
from ...strategies import formats, halves, make_spec, singles
from ..test_wuve import rules


@settings(max_examples=examples(100), deadline=None)
@given(st.data(), rules, formats)
def test_an_update_is_wuves_bit_for_bit(data: st.DataObject, rule: Any, format: FormatName) -> None:
    count = data.draw(st.integers(1, 12))
    master, *state = (data.draw(singles(count)) for _ in range(1 + len(rule.rule.state)))
    gradient = data.draw(halves(count, format=format))
    machine = make_spec(array=ArraySpec(rows=2, cols=2), pe=PESpec(format=format))
    wanted = run_wuve(machine, rule, master, gradient, tuple(state))

    found = updated(rule, master, gradient, tuple(state))
    for mine, theirs in zip(found, (wanted.master, *wanted.state), strict=True):
        assert (mine.view(np.uint32) == theirs.view(np.uint32)).all()
    numerics = machine_numerics("machine" if format == "fp16" else "machine-bf16")
    assert numerics.format == format
    named = {field.name: getattr(rule, field.name) for field in fields(rule)}
    again = numerics.update(rule.rule, named, master, gradient, tuple(state))
    assert all((a.view(np.uint32) == b.view(np.uint32)).all() for a, b in zip(found, again, strict=True))


def test_a_decay_that_a_rule_has_not_is_refused() -> None:
    vector = np.zeros(2, np.float32)
    asked = {"rate": 0.1, "weight_decay": 0.5, "step": 1}
    with pytest.raises(InputError, match="rule 'adam' has no weight decay"):
        machine_numerics("machine").update(
            UPDATE_RULES["adam"], asked, vector, np.zeros(2, np.float16), (vector, vector)
        )


def test_a_network_learns_in_it_and_to_the_same_bits_again() -> None:
    spec = plan("cnn", scheme="bdwp", epochs=2, numerics="machine")
    found, again = (train(spec, numerics=machine_numerics) for _ in range(2))

    assert found.digest == again.digest
    assert [row.loss for row in found.log] == [row.loss for row in again.log]
    assert found.log[-1].loss < 0.6 * found.log[0].loss
    assert found.accuracy > 0.5
    assert found.log[-1].density_ff == pytest.approx(0.25, abs=0.01)


@pytest.mark.parametrize("optimizer", UPDATE_RULES)
def test_a_training_starts_as_pytorchs_does(optimizer: str) -> None:
    """The first losses, before rounding errors have grown; every rule's settings arrive."""
    asked: Any = {"scheme": "dense", "epochs": 1, "optimizer": optimizer, "learning_rate": 2e-3, "seed": 3}
    found = train(plan("mlp", **asked, numerics="machine-bf16"), numerics=machine_numerics)
    plain = train(plan("mlp", **asked))

    assert found.log[0].loss == pytest.approx(plain.log[0].loss, rel=5e-3)
    pairs = zip(found.model.parameters(), plain.model.parameters(), strict=True)
    assert all((mine - theirs).abs().mean() < 2e-3 * theirs.abs().mean() + 1e-3 for mine, theirs in pairs)
