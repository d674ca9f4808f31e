"""A network trained by the RTL of the whole accelerator: not a bit and not a cycle differs from the model's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from weft.analysis.verify.rtl_train import DifferenceError, _Both, rtl_train
from weft.dataflow.config_io import load_spec
from weft.dataflow.program.compiler import compile_step
from weft.dataflow.program.spaces import Target
from weft.simulator.update_settings import Sgd
from weft.workloads.training.plan import plan
from weft.workloads.training.prepared import Prepared, prepared
from weft.workloads.update_rule import SGD

NET = """
from torch import nn
def small(classes=10):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, classes))
"""
TARGET = Target(spec=load_spec("tiny"), rule=SGD)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """A perceptron on digits, eight images a step."""
    path: Path = tmp_path_factory.mktemp("nets") / "nets.py"
    path.write_text(NET)
    spec = plan(f"{path}:small", data="digits", scheme="dense", batch=8, optimizer="sgd", weight_decay=0.0)
    return prepared(spec)


@pytest.mark.slow
def test_ten_steps_on_the_rtl_are_those_of_the_model(work: Prepared) -> None:
    """rtl_train compares scores, weights, momentum and the cycles of every command; it would raise."""
    found = rtl_train(work, TARGET, 10, rate=0.1)
    assert [step.cycles for step in found.steps] == [step.predicted for step in found.steps]
    losses = [step.loss for step in found.steps]
    assert np.mean(losses[-3:]) < np.mean(losses[:3])
    assert found.accuracy > 0.2
    assert found.counters["update_busy"] > 0


@pytest.mark.slow
def test_one_bit_that_is_wrong_is_named(work: Prepared) -> None:
    both = _Both(work, compile_step(work.graph, TARGET), Sgd(rate=0.1))
    (parameter,) = (p for p in both.compiled.parameters if p.name == "3.weight")
    assert parameter.master is not None
    at = parameter.master.address + 4 * 21
    byte = both.rtl.read(at, 1)
    both.rtl.write(at, byte ^ 1)
    with pytest.raises(DifferenceError, match=r"weight 3.weight\[1, 5\] is .* in the RTL, but .*; 1 differ"):
        both.step(next(work.batches()), 1.0)
