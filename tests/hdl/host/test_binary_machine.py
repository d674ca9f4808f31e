"""Binary networks on the XNOR engine of a whole core behind a pseudo-terminal, as a board is."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from weft.cli import main
from weft.dataflow.config_io import load_spec
from weft.dataflow.program.isa import BEAT_BYTES, LATENCY
from weft.dataflow.program.spaces import Target
from weft.hdl.boards.core import Core, CoreShape
from weft.hdl.host import Machine, PseudoTerminal, SimulatedLine, Tty
from weft.simulator.machine.binary_host import BinaryHost, compile_folded
from weft.simulator.machine.program_time import program_time
from weft.simulator.network import threshold_of
from weft.workloads.errors import InputError
from weft.workloads.update_rule import SGD

from ...simulator.machine.binary_networks import SIDE, by_integers, drawn_network

EXAMPLES = Path(__file__).parents[3] / "examples"
TARGET = Target(spec=load_spec(str(EXAMPLES / "tiny-xnor.toml")), rule=SGD)
SHAPE = CoreShape(memory=1 << 16, instructions=1 << 12, hz=4_000_000)
"""That of the example, so that both have one compiled design."""


@pytest.fixture(scope="module")
def line() -> SimulatedLine:
    return SimulatedLine(Core(TARGET, SHAPE, blackbox=True), SHAPE.divisor, SHAPE.hz)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [2, 5])
def test_a_network_over_a_terminal_has_the_bits_of_integers(line: SimulatedLine, seed: int) -> None:
    """Convolutions, pools, linear layers, in the cycles that were predicted."""
    rng = np.random.default_rng(seed)
    network, _ = drawn_network(rng)
    channels = len(network.table)
    compiled = compile_folded(network, TARGET, 3, (channels, SIDE, SIDE))
    pixels = rng.integers(0, 256, (3, channels, SIDE, SIDE)).astype(np.uint8)
    want = by_integers(network, [threshold_of(layer) for layer in network.layers[:-1]], pixels)
    host = BinaryHost(compiled, network, compiled.memory.copy())
    host.put(pixels)

    line.reset()
    with PseudoTerminal(line) as terminal, Tty(terminal.path) as tty:
        machine = Machine(tty, TARGET, patience=60.0)
        machine.write(0, host.memory)
        ran = machine.run(compiled.program)
        host.memory[:] = machine.read(0, len(host.memory))

    found = host.forward(3)
    assert (found.sums == want.sums).all() and (found.classes == want.classes).all()
    for mine, its in zip(found.inputs, want.inputs, strict=True):
        assert (mine.reshape(its.shape) == its).all()
    assert ran.cycles == program_time(compiled.program, TARGET, BEAT_BYTES, LATENCY).cycles
    assert ran.counters["xnor_busy"] > 0


@pytest.mark.slow
def test_a_trained_network_over_a_terminal_is_that_of_pytorch(tmp_path: Path) -> None:
    """The example as it is called."""
    options = "--scheme xnor --option norm=none --option ends=int6 --optimizer adamw --epochs 4"
    assert main(["train", "tfc", *options.split(), "-o", str(tmp_path / "run")]) == 0
    script = [sys.executable, EXAMPLES / "binary_on_board.py", tmp_path / "run", "simulated", "18"]
    done = subprocess.run(script, capture_output=True, text=True, check=False, timeout=1200)

    assert done.returncode == 0, done.stderr
    said = re.match(r"(\d+) of 18 right, 18 as PyTorch has them; ([\d,]+) cycles", done.stdout)
    assert said is not None, done.stdout
    assert int(said[1]) > 6, "ten classes"
    assert "0 sent again, 0 answers damaged" in done.stdout


@pytest.mark.slow
def test_a_network_of_another_machine_or_too_large_is_refused(line: SimulatedLine) -> None:
    network, _ = drawn_network(np.random.default_rng(5))
    image = (len(network.table), SIDE, SIDE)
    line.reset()
    machine = Machine(line, TARGET)
    other = Target(spec=load_spec("bnn-ecp5"), rule=SGD)
    with pytest.raises(InputError, match=f"the program is for machine {other.hash}, not for {TARGET.hash}"):
        machine.run(compile_folded(network, other, 1, image).program)
    large = compile_folded(network, TARGET, 1024, image)
    with pytest.raises(InputError, match=r"do not lie in the 65,536 bytes of the board's memory"):
        machine.write(0, large.memory)
