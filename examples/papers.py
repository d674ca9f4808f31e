"""What the schemes of docs/papers.md measure here: a small network trained, its step simulated, a row a scheme.

`mlp` on the digits, seed 0, 2:8 where a scheme takes a pattern; speed-up and joules of a training step against dense on
`sat-ecp5`, or on `bnn-ecp5` where operands have few values. `examples/papers.py [SCHEME ..] [--epochs N]`
"""

from __future__ import annotations

import argparse

import weft
from weft.analysis.energy import energy
from weft.workloads.schemes.scheme import scheme
from weft.workloads.step import Workload
from weft.workloads.training import plan, train
from weft.workloads.training.model import step_workload

SCHEMES = (
    *("srste", "sdgp", "sdwp", "bdwp", "bimask", "transposable", "transposable-mvue", "sste", "mdgf-exponential"),
    *("cast", "step", "wanda", "gmp", "set", "rigl", "granet", "erk", "sparcl", "lottery", "lottery-late", "soup"),
    *("jackpot", "xnor", "bireal", "mst", "reste", "biper", "bitnet", "bitnet-median", "integer"),
)


def costs(step: Workload, machine: str) -> tuple[int, float]:
    """Cycles and joules."""
    found = weft.simulate(weft.schedule(step, machine))
    return found.cycles.total, energy(found).joules


parser = argparse.ArgumentParser()
parser.add_argument("schemes", nargs="*", default=SCHEMES)
parser.add_argument("--epochs", type=int, default=40)
asked = parser.parse_args()
dense = train(plan("mlp", scheme="dense", epochs=asked.epochs))
print(f"dense: {100 * dense.accuracy:.1f} % of the test images\n")
print("| scheme | test, % | points lost | speed-up of a step | joules / dense | machine |\n" + "|---" * 6 + "|")
for name in asked.schemes:
    pattern = "2:8" if scheme(name).takes_pattern else None
    found = weft.train("mlp", name, pattern, epochs=asked.epochs)
    machine = "bnn-ecp5" if scheme(name).levels else "sat-ecp5"
    traced = step_workload(found.spec)
    cycles, joules = costs(weft.sparsify(traced, name, pattern), machine)
    all_cycles, all_joules = costs(traced, machine)
    lost = 100 * (dense.accuracy - found.accuracy)
    row = (
        f"{100 * found.accuracy:.1f} | {lost:+.1f} | {all_cycles / cycles:.2f} | {joules / all_joules:.2f} | {machine}"
    )
    print(f"| `{name}` | {row} |", flush=True)
