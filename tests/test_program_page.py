"""docs/results/program.md says what compiling and simulating say."""

from __future__ import annotations

import pytest

from weft.dataflow.config_io import load_spec
from weft.dataflow.program.command_time import command_cycles
from weft.dataflow.program.compiler import compile_step
from weft.dataflow.program.spaces import Target
from weft.simulator.machine.program_time import bus_bytes, program_time
from weft.simulator.machine.sequencer import timeline
from weft.workloads.training import plan
from weft.workloads.training.model import training_graph
from weft.workloads.update_rule import NESTEROV

from . import program_page


@pytest.mark.slow
def test_the_table_is_what_programs_and_the_system_level_take() -> None:
    """`python -m weft.tests.program_page` writes it anew."""
    assert program_page.table() in program_page.PAGE.read_text()


def test_the_time_of_a_program_is_that_of_each_of_its_commands() -> None:
    """Commands are asked once for all that take as long; here each is asked."""
    target = Target(spec=load_spec("tiny"), rule=NESTEROV)
    step = compile_step(training_graph(plan("cnn", scheme="dense", batch=1)), target)
    for width, latency in ((8, 4),):
        plain = timeline(step.backward.instructions, lambda c: command_cycles(c, target, width, latency), latency)  # noqa: B023
        assert program_time(step.backward, target, width, latency) == plain
    assert bus_bytes(target) == 16
