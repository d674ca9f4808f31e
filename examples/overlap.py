"""What overlapping ops saves, from batch 1 to 512: the step op after op against the system, dense and BDWP 2:8.

Prints the table of docs/results/overlap.md.
"""

from __future__ import annotations

import sys

import weft
from weft.simulator.system import step_time

MODEL, BATCHES = "resnet18@64", (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)

machine = weft.machine("sat-vcu1525")
print("| batch | dense, step ms | system ms | saved | bdwp, step ms | system ms | saved | speed-up, step | system |")
print("|---" * 9 + "|")
for batch in map(int, sys.argv[1:]) if len(sys.argv) > 1 else BATCHES:
    traced = weft.trace(MODEL, batch=batch)
    took: dict[str, tuple[float, float]] = {}
    for scheme in ("dense", "bdwp"):
        plan = weft.schedule(weft.sparsify(traced, scheme, "2:8"), machine)
        cycles = weft.simulate(plan).cycles.total, step_time(plan)
        took[scheme] = (1e3 * cycles[0] / machine.clock_hz, 1e3 * cycles[1] / machine.clock_hz)
    cells = [
        f"{ms:,.2f}" if i < 2 else f"{1 - both[1] / both[0]:.1%}"
        for both in took.values()
        for i, ms in enumerate((*both, 0))
    ]
    gains = [f"**{dense / sparse:.2f}x**" for dense, sparse in zip(took["dense"], took["bdwp"], strict=True)]
    print(f"| {batch} | " + " | ".join([*cells, *gains]) + " |")
