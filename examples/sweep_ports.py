"""A design question: what does a 2:8 training step gain from wider W2E ports, and what from more accumulators a PE?

Run it on another model: python examples/sweep_ports.py resnet50 64
"""

from __future__ import annotations

import sys
from dataclasses import replace

import weft

model, batch = (sys.argv[1], int(sys.argv[2])) if len(sys.argv) > 2 else ("resnet18@64", 64)
base = weft.machine("sat-vcu1525")
step = weft.trace(model, batch=batch)

print(f"{model}, batch {batch}: samples/s dense and with bdwp 2:8, and where the sparse step still waits")
print(f"{'W2E words':>10} {'accumulators':>13} {'dense':>8} {'bdwp':>8} {'interleave stall':>17} {'port stall':>11}")
for words in (1, 2, 4):
    for accumulators in (1, 2, 4, 8):
        array = replace(base.array, w2e_words=words)
        machine = replace(base, array=array, pe=replace(base.pe, accumulators=accumulators))
        dense, sparse = (
            weft.simulate(weft.schedule(weft.sparsify(step, scheme, "2:8"), machine, "cycles")).cycles
            for scheme in ("dense", "bdwp")
        )
        print(
            f"{words:>10} {accumulators:>13} {batch * machine.clock_hz / dense.total:>8.0f} "
            f"{batch * machine.clock_hz / sparse.total:>8.0f} "
            f"{sparse.interleave_stall / sparse.total:>17.1%} {sparse.port_stall / sparse.total:>11.1%}"
        )
