"""One product as a program: C [16, 4] = A [16, 16] B in four tiles of rows, loaded, multiplied and stored side by side.

The program is assembled, proved well formed, run on values, and timed; what it stores is the product, bit for bit.
"""

from __future__ import annotations

import numpy as np

import weft
from weft.dataflow.program.assembly import assemble, disassemble
from weft.dataflow.program.checker import check
from weft.dataflow.program.commands import Command
from weft.dataflow.program.isa import Unit
from weft.dataflow.program.spaces import Space, Target
from weft.dataflow.program.transfers import line_addresses, line_places
from weft.dataflow.stce.mapping import DENSE, ArrayMapping, Dataflow
from weft.dataflow.stce.time import array_cycles
from weft.simulator.compact import compress
from weft.simulator.machine.sequencer import run_commands, timeline
from weft.simulator.reference import gemm_reference
from weft.workloads.gemm import Gemm
from weft.workloads.sparsity import NMPattern
from weft.workloads.update_rule import SGD

machine = Target(spec=weft.machine("tiny"), rule=SGD, pattern=NMPattern.parse("2:8"))
TILE = """
    go load {free}notify 0           ; a tile of A, into one half of W2E
    add load address 128
    add load half 1
    go product wait 0{stored} notify 1,2
    add product w2e_half 1
    add product output_half 1
    go store wait 2 notify 3         ; from one half of OUTPUT
    add store address 32
    add store half 1
"""
text = f"""machine {machine.hash}
set load space N2S                   ; B, kept as [4, 16] from byte 512 on: a line a column
set load form OPERAND
set load words 16
set load address 512
set load count3 4
set load step3 32
set load inner2 65535                ; along a line address by address, from line to line bank by bank
set load inner2_step 1
set load outer2 4
set load outer2_step 0x100000
go load
set load space W2E
set load address 0
set product stationary 0             ; OS, dense: 1:1
set product keep 1
set product group 1
set product rest 1
set product interleave 1
set product rows 4
set product parts 16
set product runs 1
set product across 1
set product down 1
set store space OUTPUT               ; the southernmost row left first
set store form OPERAND
set store words 4
set store address 1024
set store count3 4
set store step3 8
set store place 3
set store inner2 4
set store inner2_step 0x100000
set store outer2 4
set store outer2_step -1
loop 2                               ; both halves are free
{TILE.format(free="", stored="")}
next
loop 2                               ; a half is free when what read it has told so
{TILE.format(free="wait 1 ", stored=",3")}
next
end
"""
program = assemble(text)
assert assemble(disassemble(program)) == program
print(f"{len(program.instructions)} instructions, {check(program, machine, 2048)} commands, well formed")

rng = np.random.default_rng(1)
a, b = (rng.standard_normal(shape).astype(np.float16) for shape in ((16, 16), (16, 4)))
memory = np.zeros(1024, np.float16)
memory[:256], memory[256:320] = a.ravel(), b.T.ravel()
halves = {
    space: np.zeros((2, machine.size(space).banks, machine.size(space).depth), kind)
    for space, kind in ((Space.W2E, np.float16), (Space.N2S, np.float16), (Space.OUTPUT, np.float32))
}


def words(c: Command) -> tuple[np.ndarray, tuple[int, np.ndarray, np.ndarray]]:
    """Where the words of a transfer lie in memory, and on chip: half, bank, address."""
    place = line_places(c, machine)
    return line_addresses(c)[:, None] // 2 + np.arange(c.words), (c.half, place >> 20, place & 0xFFFFF)


def load(c: Command) -> None:
    lines, places = words(c)
    halves[Space(c.space)][places] = memory[lines]


def product(c: Command) -> None:
    west, north = (halves[s][h].astype(np.float32) for s, h in ((Space.W2E, c.w2e_half), (Space.N2S, c.n2s_half)))
    sums = np.full((4, 4), np.float32(-0.0))
    for k in range(c.parts):
        sums += west[:, None, k] * north[None, :, k]
    halves[Space.OUTPUT][c.output_half][:, :4] = sums[::-1].T


def store(c: Command) -> None:
    lines, places = words(c)
    memory[lines] = halves[Space(c.space)][places].astype(np.float16)


run_commands(program.instructions, {Unit.LOAD: load, Unit.PRODUCT: product, Unit.STORE: store})
same = memory[512:576].tobytes() == gemm_reference(a, compress(b, DENSE)).astype(np.float16).tobytes()
print(f"results {'equal' if same else 'differ from'} the k-order FP32 reference, narrowed, bit for bit")

mapping = ArrayMapping(dataflow=Dataflow.OS, pattern=DENSE, interleave=1)
tile = array_cycles(machine.spec, Gemm(m=4, k=16, n=4), mapping).total
timed = timeline(program.instructions, lambda c: tile if c.unit == Unit.PRODUCT else c.words * c.count3, latency=4)
for ran in timed.ran:
    print(f"{ran.command.unit.name.lower():>8} {ran.first:>4} to {ran.last:>4}")
print(f"{timed.cycles} cycles if a word moves in one; the array is busy in {timed.busy[Unit.PRODUCT]} of them")
