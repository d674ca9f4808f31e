"""Digits classified by a trained binary network on the XNOR engine of a board, or of the same design in simulation.

    weft train sfc --scheme bireal --option norm=none --option ends=int6 --optimizer adamw -o out/sfc
    python examples/binary_on_board.py out/sfc /dev/ttyUSB0 355     # the ULX3S with the bitstream of tiny-xnor.toml
    python examples/binary_on_board.py out/sfc simulated 16         # compiles the design first, which takes minutes

The host writes pixels as integers and reads the last layer's sums; all layers are one program of the machine.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path

import weft
from weft.dataflow.program.spaces import Target
from weft.hdl.boards.core import Core, CoreShape
from weft.hdl.host import Machine, PseudoTerminal, SimulatedLine, Tty
from weft.simulator.machine.binary_host import BinaryHost, compile_folded
from weft.workloads.training import deploy, trained
from weft.workloads.update_rule import SGD

SIMULATED = CoreShape(memory=1 << 16, instructions=1 << 12, hz=4_000_000)
AT_ONCE = 16
folder, where, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])

target = Target(spec=weft.machine(Path(__file__).with_name("tiny-xnor.toml")), rule=SGD)
made = deploy(trained(folder))
compiled = compile_folded(made.network, target, AT_ONCE, made.run.data.shape)
memory = compiled.memory.copy()
host = BinaryHost(compiled, made.network, memory)
first, sums = compiled.inputs[0], slice(compiled.sums, compiled.sums + 4 * compiled.images * compiled.classes)
pixels_at = slice(first.address, first.address + compiled.images * first.strides[0])

with ExitStack() as held:
    if where == "simulated":
        design = SimulatedLine(Core(target, SIMULATED, blackbox=True), SIMULATED.divisor, SIMULATED.hz)
        where = held.enter_context(PseudoTerminal(design)).path
    line = held.enter_context(Tty(where))
    # a simulated second takes minutes
    machine = Machine(line, target, patience=60.0 if where.startswith("/dev/pts") else None)
    machine.write(0, memory)
    right = same = cycles = 0
    for start in range(0, count, AT_ONCE):
        pixels, labels = made.images(start, min(start + AT_ONCE, count))
        host.put(pixels)
        machine.write(pixels_at.start, memory[pixels_at])
        cycles += machine.run(compiled.program).cycles
        memory[sums] = machine.read(sums.start, sums.stop - sums.start)
        classes = host.forward(len(pixels)).classes
        right += int((classes == labels).sum())
        same += int((classes == made.single(pixels).classes).sum())
    use = machine.link.use
    print(f"{right} of {count} right, {same} as PyTorch has them; {cycles:,} cycles, {cycles / count:,.0f} an image")
    print(f"{use.requests:,} requests, {use.repeats} sent again, {use.damaged} answers damaged")
