"""A small network trained by a machine on a board, over its serial line, or by the same design in simulation.

    python examples/on_board.py /dev/ttyUSB0 100        # the ULX3S with the bitstream of tiny-ecp5
    python examples/on_board.py simulated 3             # compiles the design first, which takes minutes

Forward, backward and update run on the machine; the loss is the host's.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path

import numpy as np

import weft
from weft.dataflow.program.compiler import compile_step
from weft.dataflow.program.layout import Region
from weft.dataflow.program.spaces import Target
from weft.hdl.boards.core import Core, CoreShape
from weft.hdl.host import Machine, PseudoTerminal, SimulatedLine, Tty
from weft.simulator.machine.host import Host
from weft.simulator.update_settings import Sgd
from weft.workloads.training import plan
from weft.workloads.training.prepared import prepared
from weft.workloads.update_rule import SGD

SCALE = 1024.0
SIMULATED = CoreShape(memory=1 << 15, instructions=1 << 11, hz=4_000_000)
where, steps = sys.argv[1], int(sys.argv[2])

target = Target(spec=weft.machine("tiny-ecp5"), rule=SGD)
net = f"{Path(__file__).with_name('small_net.py')}:small"
work = prepared(plan(net, data="digits", scheme="dense", batch=8, optimizer="sgd", weight_decay=0.0))
step = compile_step(work.graph, target)
memory = np.zeros(step.window, np.uint8)
host = Host(step, memory)
host.begin(work.held)
host.put_settings(Sgd(rate=0.1, momentum=0.9, inverse_scale=1.0 / SCALE))

with ExitStack() as held:
    if where == "simulated":
        design = SimulatedLine(Core(target, SIMULATED, blackbox=True), SIMULATED.divisor, SIMULATED.hz)
        where = held.enter_context(PseudoTerminal(design)).path
    line = held.enter_context(Tty(where))
    # a simulated second takes minutes
    machine = Machine(line, target, patience=60.0 if where.startswith("/dev/pts") else None)
    machine.write(0, memory)

    def send(region: Region) -> None:
        machine.write(region.address, memory[region.address :][: region.bytes])

    def fetch(region: Region) -> None:
        memory[region.address :][: region.bytes] = machine.read(region.address, region.bytes)

    for number, batch in zip(range(steps), work.batches(), strict=False):
        host.put_input(batch.pixels)
        send(step.input)
        forward = machine.run(step.forward)
        fetch(step.output)
        scores = host.scores().astype(np.float64)
        share = np.exp(scores - scores.max(axis=1, keepdims=True))
        share /= share.sum(axis=1, keepdims=True)
        rows = np.arange(len(batch.labels))
        loss = -np.log(share[rows, batch.labels]).mean()
        share[rows, batch.labels] -= 1.0
        host.put_gradient((share * (SCALE / len(rows))).astype(np.float32))
        send(step.gradient)
        backward = machine.run(step.backward)
        print(f"step {number + 1}: loss {loss:.6f}, {forward.cycles + backward.cycles:,} cycles")
    use = machine.link.use
    print(f"{use.requests:,} requests, {use.repeats} sent again, {use.damaged} answers damaged")
