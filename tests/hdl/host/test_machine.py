"""A whole core behind a pseudo-terminal, as a board is: a step of a network over the link is the driver's step."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from weft.dataflow.config_io import load_spec
from weft.dataflow.program.compiler import compile_step
from weft.dataflow.program.control import MachineError
from weft.dataflow.program.instruction import End, Next, Set
from weft.dataflow.program.isa import Unit
from weft.dataflow.program.program import Program
from weft.dataflow.program.spaces import Target
from weft.hdl.boards.core import Core, CoreShape
from weft.hdl.drivers.accelerator import Accelerator, StoppedError
from weft.hdl.host import LinkError, Machine, PseudoTerminal, SimulatedLine, Tty
from weft.simulator.machine.host import Host
from weft.simulator.update_settings import Sgd
from weft.workloads.errors import InputError
from weft.workloads.training.plan import plan
from weft.workloads.training.prepared import Prepared, prepared
from weft.workloads.update_rule import SGD

from .linked import Noise

TARGET = Target(spec=load_spec("tiny-ecp5"), rule=SGD)
SHAPE = CoreShape(memory=1 << 15, instructions=1 << 11, hz=4_000_000)
NET = """
from torch import nn
def small(classes=10):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, classes))
"""


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    path: Path = tmp_path_factory.mktemp("nets") / "nets.py"
    path.write_text(NET)
    spec = plan(f"{path}:small", data="digits", scheme="dense", batch=4, optimizer="sgd", weight_decay=0.0)
    return prepared(spec)


@pytest.fixture(scope="module")
def line() -> SimulatedLine:
    return SimulatedLine(Core(TARGET, SHAPE, blackbox=True), SHAPE.divisor, SHAPE.hz)


@pytest.mark.slow
def test_a_step_over_a_terminal_is_the_step_of_the_driver(work: Prepared, line: SimulatedLine) -> None:
    """Every byte of memory, all counters and cycles; forward and backward lie in program memory side by side."""
    step = compile_step(work.graph, TARGET)
    memory = np.zeros(step.window, np.uint8)
    host = Host(step, memory)
    host.begin({name: value.copy() for name, value in work.held.items()})
    host.put_settings(Sgd(rate=0.1))
    host.put_input(next(iter(work.batches())).pixels)
    host.put_gradient(np.random.default_rng(1).normal(size=step.output.shape).astype(np.float32))
    programs = step.forward, step.backward

    rtl = Accelerator(TARGET, SHAPE.memory, 1 << 11)
    rtl.write(0, memory)
    line.reset()
    with PseudoTerminal(line) as terminal, Tty(terminal.path) as tty:
        machine = Machine(tty, TARGET, patience=60.0)
        machine.write(0, memory)
        for program in programs:
            wanted, found = rtl.run(program), machine.run(program)
            assert found.cycles == wanted.cycles
            assert found.counters == wanted.counters
            assert found.counters["product_busy"] + found.counters["update_busy"] > 0
        assert (machine.read(0, len(memory)) == rtl.read(0, len(memory))).all()
        assert (machine.read(0, len(memory)) != memory).any()
        assert machine.link.use.repeats == 0


@pytest.mark.slow
def test_a_noisy_line_trains_the_same(work: Prepared, line: SimulatedLine) -> None:
    """Started once, however often it is asked: a second start would update twice."""
    step = compile_step(work.graph, TARGET)
    memory = np.random.default_rng(2).integers(0, 60, step.window, np.uint8)
    found = []
    for rate in (0.0, 0.0004):
        line.reset()
        noise = Noise(line, 5, rate)
        machine = Machine(noise, TARGET, patience=0.02)
        machine.write(0, memory)
        for program in (step.forward, step.backward):
            machine.run(program)
        found.append(machine.read(0, len(memory)))
        assert (machine.link.use.repeats > 0) == (rate > 0)
    assert (found[0] == found[1]).all()


@pytest.mark.slow
def test_what_goes_wrong_on_the_board_is_said(work: Prepared, line: SimulatedLine) -> None:
    line.reset()
    machine = Machine(line, TARGET)
    step = compile_step(work.graph, TARGET)
    with pytest.raises(StoppedError, match="the machine stopped at instruction 1: LOOP, value") as stopped:
        machine.run(Program((Set(Unit.LOAD, 3, 1), Next(), End()), TARGET.hash))
    assert stopped.value.error == MachineError.LOOP
    with pytest.raises(InputError, match="is for machine 000000000000, not for"):
        machine.run(replace(step.forward, machine="0" * 12))
    with pytest.raises(InputError, match=r"5 bytes at 0x7ffe do not lie in the 32,768 bytes of the board's memory"):
        machine.read(SHAPE.memory - 2, 5)
    with pytest.raises(InputError, match="the machine on the board is"):
        Machine(line, Target(spec=load_spec("tiny"), rule=SGD))
    line.reset()
    with pytest.raises(LinkError, match="it was reset"):
        machine.get("status")
