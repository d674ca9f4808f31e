"""What shrinking leaves of a small network: accuracy, sizes, and its step beside the whole one's, a row a form.

The table of docs/shrinking.md: digits, seed 0, `sat-ecp5`. `examples/shrinking.py [MODEL ..] [--epochs N] [--by ..]`
"""

from __future__ import annotations

import argparse

import weft
from weft.analysis.energy import energy
from weft.workloads.step import Workload
from weft.workloads.training import plan
from weft.workloads.training.model import step_workload

FORMS = ("channels@0.5", "scales@0.5", "rank@0.9", "rank@0.6", "trp@0.98", "maestro@0.9")


def costs(step: Workload) -> tuple[int, float]:
    """Cycles and joules."""
    found = weft.simulate(weft.schedule(step, "sat-ecp5"))
    return found.cycles.total, energy(found).joules


parser = argparse.ArgumentParser()
parser.add_argument("models", nargs="*", default=["mlp", "resnet9"])
parser.add_argument("--epochs", type=int)
parser.add_argument("--by", nargs="*", default=FORMS)
asked = parser.parse_args()
print("| model | form | trained, cut, tuned, % | parameters | MACs of an image | step | joules |\n" + "|---" * 7 + "|")
for model in asked.models:
    whole = step_workload(plan(model, scheme="dense", epochs=asked.epochs))
    cycles, joules = costs(whole)
    for by in asked.by:
        found = weft.shrink(model, by, epochs=asked.epochs)
        step = found.step()
        small_cycles, small_joules = costs(step)
        scores = ", ".join(f"{100 * score:.1f}" for score in (found.trained, found.cut, found.tuned))
        parameters = " to ".join(f"{count:,}" for count in found.parameters)
        macs = " to ".join(f"{sum(s.dense_macs.values()) // s.batch:,}" for s in (whole, step))
        print(
            f"| `{model}` | `{by}` | {scores} | {parameters} | {macs} | {cycles / small_cycles:.2f} times | "
            f"{small_joules / joules:.2f} |",
            flush=True,
        )
