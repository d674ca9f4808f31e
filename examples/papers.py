"""What the schemes of docs/papers.md measure here: a small network trained, its step simulated, a row a scheme.

`mlp` on the digits, seed 0, 2:8 where a scheme takes a pattern; speed-up and joules of a training step against dense on
`sat-ecp5`, or on `bnn-ecp5` where operands have few values. `examples/papers.py [SCHEME ..] [--epochs N]`

`examples/papers.py attention [--steps N]` trains `characters` instead, with all of its attention, and then lets it read
the test text with less.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import weft
from weft.analysis.energy import energy
from weft.workloads.blocks import Blocks
from weft.workloads.data.text import open_text
from weft.workloads.schemes.scheme import scheme
from weft.workloads.step import Workload
from weft.workloads.training import plan, train
from weft.workloads.training.attending import bits_attending
from weft.workloads.training.characters import trained_characters
from weft.workloads.training.model import step_workload
from weft.workloads.training.text_spec import STEPS

SCHEMES = (
    *("srste", "sdgp", "sdwp", "bdwp", "bimask", "transposable", "transposable-mvue", "sste", "mdgf-exponential"),
    *("cast", "step", "wanda", "gmp", "set", "rigl", "granet", "erk", "sparcl", "lottery", "lottery-late", "soup"),
    *("group-1x16", "group-16x1", "group-4x4", "group-kernel", "group-level"),
    *("jackpot", "turbo-vbi", "xnor", "bireal", "mst", "reste", "biper", "bitnet", "bitnet-median", "integer"),
)
ATTENTION = (
    *("causal", "window@16/8", "window@12:4/8", "best-blocks@2/8", "best-blocks@4/4", "vertical-slash@2:2/4"),
    *("top-keys@16:8", "top-keys@8:8", "spark-keys@16:8", "spark-keys@8:8", "routed@4"),
    *(f"scatterbrain@32+{of}" for of in ("window@1/8", "window@16/8", "top-keys@8:8/8", "routed@4/8")),
)


def costs(step: Workload, machine: str) -> tuple[int, float]:
    """Cycles and joules."""
    found = weft.simulate(weft.schedule(step, machine))
    return found.cycles.total, energy(found).joules


def attention(steps: int) -> None:
    """A row a pattern, of 64 characters read at once."""
    text = open_text("pydoc")
    model = trained_characters(text, steps=steps)
    print("| attention | pairs seen | bits a character |\n|---|---|---|")
    for pattern in ATTENTION:
        bits, share = bits_attending(model, text, Blocks.read(pattern))
        print(f"| `{pattern}` | {share:.0%} | {bits:.3f} |", flush=True)


def trained(schemes: Sequence[str], epochs: int) -> None:
    """A row a scheme."""
    dense = train(plan("mlp", scheme="dense", epochs=epochs))
    print(f"dense: {100 * dense.accuracy:.1f} % of the test images\n")
    print("| scheme | test, % | points lost | speed-up of a step | joules / dense | machine |\n" + "|---" * 6 + "|")
    for name in schemes:
        pattern = "2:8" if scheme(name).takes_pattern else None
        found = weft.train("mlp", name, pattern, epochs=epochs)
        machine = "bnn-ecp5" if scheme(name).levels else "sat-ecp5"
        traced = step_workload(found.spec)
        cycles, joules = costs(weft.sparsify(traced, name, pattern), machine)
        all_cycles, all_joules = costs(traced, machine)
        numbers = (
            f"{100 * found.accuracy:.1f}",
            f"{100 * (dense.accuracy - found.accuracy):+.1f}",
            f"{all_cycles / cycles:.2f}",
            f"{joules / all_joules:.2f}",
        )
        print(f"| `{name}` | {' | '.join(numbers)} | {machine} |", flush=True)


parser = argparse.ArgumentParser()
parser.add_argument("schemes", nargs="*", default=SCHEMES)
parser.add_argument("--epochs", type=int, default=40)
parser.add_argument("--steps", type=int, default=STEPS)
asked = parser.parse_args()
if asked.schemes == ["attention"]:
    attention(asked.steps)
else:
    trained(asked.schemes, asked.epochs)
