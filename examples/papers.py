"""What the schemes of docs/papers.md measure here: a small network trained, its step simulated, a row a scheme.

`mlp` on the digits, seed 0, 2:8 where a scheme takes a pattern; speed-up and joules of a training step against dense on
`sat-ecp5`, or on `bnn-ecp5` where operands have few values. `examples/papers.py [SCHEME ..] [--model M] [--epochs N]`

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
    *("mdgf-linear", "sdgf-stepwise", "sdgf-geometric", "sdgp-rescaled", "bdwp-x"),
    *("cast", "step", "wanda", "magnitude", "sparsegpt", "gmp", "set", "rigl", "granet", "erk", "sparse-ift", "sparcl"),
    *("lottery", "lottery-late", "soup", "jackpot", "turbo-vbi"),
    *("group-1x16", "group-16x1", "group-4x4", "group-kernel", "group-level"),
    *("xnor", "bireal", "mst", "reste", "biper-real", "biper", "bitnet", "bitnet-median", "integer"),
    *("pb-llm", "pb-llm-mean", "pb-llm-int8", "db-llm", "db-llm-int8", "binarydm", "bipft"),
)
"""Those of `mlp`; `spiking` is of `snn`, and `bivit`, `tbt-binary` and `tbt-ternary` of `vit_s`."""
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


def beside_dense(model: str, name: str) -> tuple[float, float, str]:
    """Of a step of ``model`` under a scheme, how often a dense one is as long, its joules over those of the dense
    one, and the machine. A model that its scheme makes wider stands beside the one that it was."""
    machine, spec = "bnn-ecp5" if scheme(name).levels else "sat-ecp5", plan(model, scheme=name)
    cycles, joules = costs(weft.sparsify(step_workload(spec), name, spec.pattern), machine)
    all_cycles, all_joules = costs(step_workload(plan(model, scheme="dense")), machine)
    return all_cycles / cycles, joules / all_joules, machine


def trained(schemes: Sequence[str], model: str, epochs: int | None) -> None:
    """A row a scheme."""
    dense = train(plan(model, scheme="dense", epochs=epochs))
    print(f"dense: {100 * dense.accuracy:.1f} % of the test images\n")
    print("| scheme | test, % | points lost | speed-up of a step | joules / dense | machine |\n" + "|---" * 6 + "|")
    for name in schemes:
        found = weft.train(model, name, "2:8" if scheme(name).takes_pattern else None, epochs=epochs)
        times, joules, machine = beside_dense(model, name)
        numbers = (
            f"{100 * found.accuracy:.1f}",
            f"{100 * (dense.accuracy - found.accuracy):+.1f}",
            f"{times:.2f}",
            f"{joules:.2f}",
        )
        print(f"| `{name}` | {' | '.join(numbers)} | {machine} |", flush=True)


def main() -> None:
    """Print the table that is asked for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("schemes", nargs="*", default=SCHEMES)
    parser.add_argument("--model", default="mlp")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--steps", type=int, default=STEPS)
    asked = parser.parse_args()
    if asked.schemes == ["attention"]:
        attention(asked.steps)
    else:
        trained(asked.schemes, asked.model, asked.epochs)


if __name__ == "__main__":
    main()
