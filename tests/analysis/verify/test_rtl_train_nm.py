"""An N:M network trained by the RTL: its pairs come out of SORE on the way in, and no bit and no cycle differs."""

from __future__ import annotations

import numpy as np
import pytest

from weft.analysis.verify.rtl_train import rtl_train
from weft.dataflow.program.commands import Ended, commands
from weft.dataflow.program.compiler import compile_step
from weft.dataflow.program.isa import Unit
from weft.workloads.sparsity import NMPattern

from .rtl_networks import target_of, work_of

PATTERN = NMPattern(keep=2, group=8)


def test_both_passes_of_bdwp_load_through_sore() -> None:
    """Along lines for FF, across for BP; so the training below asks SORE for both."""
    step = compile_step(work_of("mlp", "bdwp", PATTERN).graph, target_of(pattern=PATTERN))
    for program, across in ((step.forward, 0), (step.backward, 1)):
        loads = [c for c in commands(program.instructions) if not isinstance(c, Ended) and c.unit == Unit.LOAD]
        assert {c.across for c in loads if c.reduce} == {across}


@pytest.mark.slow
def test_ten_steps_of_bdwp_on_the_rtl_are_those_of_the_model() -> None:
    """rtl_train compares scores, weights, momentum and the cycles of every command; it would raise."""
    found = rtl_train(work_of("mlp", "bdwp", PATTERN), target_of(pattern=PATTERN), 10, rate=0.1)
    assert [step.cycles for step in found.steps] == [step.predicted for step in found.steps]
    losses = [step.loss for step in found.steps]
    assert np.mean(losses[-3:]) < np.mean(losses[:3])
