"""What it buys on a gather engine that kept weights stand side by side: masks of `gmp` and `turbo-vbi`, equally dense.

Prints the table of docs/gather.md: `mlp` on the digits, trained under each scheme, all of its layers; weights of 16
bits, a batch of 16. `examples/bursts.py [--nm N:M] [--epochs N]`
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import weft
from weft.dataflow.gather.spec import GatherSpec
from weft.simulator.gather import step_mask
from weft.workloads.recorded import Recorded
from weft.workloads.sparsity import NMPattern
from weft.workloads.training import plan
from weft.workloads.training.recording import record, recorded_step
from weft.workloads.unstructured import Unstructured, counted_mask, counted_runs

MACHINE = weft.machine(Path(__file__).with_name("tiny-gather.toml"))
SCHEMES: dict[str, dict[str, Any]] = {"gmp": {}, "turbo-vbi": {}, "turbo-vbi, burst=2": {"burst": 2.0}}
BANKS = (0, 16, 4)
BATCH = 16
"""So that a slot is no shorter than its adder: of one image the scheduler may take a product dense."""


def stored(recorded: Recorded) -> list[int]:
    """Bytes of all weights as bitmaps, with places, and in runs."""
    found = np.zeros(3, np.int64)
    for op in recorded_step(recorded).matrix_ops:
        mask = recorded.weights[op.name].T
        form = partial(Unstructured, operand="b", kept=counted_mask(mask, "b"))
        forms = (form(stored="bitmap"), form(stored="csr"), form(stored="runs", runs=counted_runs(mask, "b")))
        found += [one.bytes(op.gemm, 16) for one in forms]
    return found.tolist()


def slots(recorded: Recorded, banks: int) -> int:
    """Of all products, lanes as they are on the machine."""
    own = GatherSpec(lanes=4, width=4, balance="sorted", banks=banks)
    return sum(step_mask(own, mask.T)[0].slots for mask in recorded.weights.values())


def row(name: str, recorded: Recorded) -> None:
    """A line of the table."""
    kept = sum(int(mask.sum()) for mask in recorded.weights.values())
    runs = sum(counted_runs(mask, "a") for mask in recorded.weights.values())
    schedule = weft.schedule(weft.sparsify(recorded_step(recorded, BATCH), recorded), MACHINE)
    cycles = weft.simulate(schedule).cycles.total
    numbers = [*stored(recorded), *(slots(recorded, banks) for banks in BANKS), cycles]
    shown = " | ".join(f"{number:,}" for number in numbers)
    print(f"| {name} | {100 * recorded.about.score:.1f} | {kept:,} | {kept / runs:.1f} | {shown} |", flush=True)


parser = argparse.ArgumentParser()
parser.add_argument("--nm", default="2:8")
parser.add_argument("--epochs", type=int, default=40)
asked = parser.parse_args()
print("| masks | test, % | kept | mean run | bitmap, B | csr, B | runs, B | slots | 16 banks | 4 banks | cycles |")
print("|---" * 11 + "|")
for name, options in SCHEMES.items():
    pattern = NMPattern.parse(asked.nm)
    row(name, record(plan("mlp", scheme=name.split(",")[0], pattern=pattern, epochs=asked.epochs, options=options)))
