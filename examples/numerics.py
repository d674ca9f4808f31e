"""Does a network learn in the machine's arithmetic as it does in PyTorch's? Both, from the same weights and batches.

Every model is trained on the digits in FP32, in PyTorch's mixed precision and wholly in the machine's arithmetic, with
several seeds. FOLDER keeps the trainings, those that were broken off too; what is printed is the table of
docs/results/numerics.md, and FOLDER/numerics.png its picture (numerics-dark.png, for dark pages).

Models, seeds and epochs are given as: python examples/numerics.py FOLDER mlp,resnet9 2 3
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from statistics import fmean

import matplotlib as mpl
from matplotlib.figure import Figure

from weft.analysis.theme import theme_of
from weft.simulator.machine.numerics import machine_numerics
from weft.workloads.training import plan, resume, train

folder, models, seeds, epochs = (sys.argv[1:] + ["numerics", "mlp,resnet9,vit_s", "3", "0"][len(sys.argv) - 1 :])[:4]
WAYS = {
    "PyTorch, FP32": {},
    "PyTorch, AMP BF16": {"amp": "bf16"},
    "PyTorch, AMP FP16": {"amp": "fp16"},
    "machine, BF16": {"numerics": "machine-bf16"},
    "machine, FP16": {"numerics": "machine"},
}

ONCE = "PyTorch, AMP FP16"
"""By this with one seed: FP16 takes PyTorch many times as long on a CPU."""


def trained(model: str, seed: int, way: str) -> dict:
    """The result of one training as it was written, trained or gone on with if it is not there."""
    place = Path(folder) / f"{model}-{seed}-{'-'.join(map(str, WAYS[way].values())) or 'fp32'}"
    if not (place / "result.json").exists():
        own = {"epochs": int(epochs)} if int(epochs) else {}
        if (place / "checkpoint.pt").exists():
            resume(place, numerics=machine_numerics)
        else:
            spec = plan(model, scheme="dense", seed=seed, **own, **WAYS[way])
            train(spec, place, device="cpu", numerics=machine_numerics)
    return json.loads((place / "result.json").read_text())


every = {
    (model, way): [trained(model, seed, way) for seed in range(1 if way == ONCE else int(seeds))]
    for model in models.split(",")
    for way in WAYS
}
print("| model | numerics | test accuracy by seed, % | mean | last loss |\n|---|---|---|---|---|")
for (model, way), found in every.items():
    right = [100 * result["accuracy"] for result in found]
    last = fmean(result["log"][-1]["loss"] for result in found)
    shown = ", ".join(f"{share:.2f}" for share in right)
    print(f"| `{model}` | {way} | {shown} | {fmean(right):.2f} | {last:.4f} |")


def draw(name: str) -> Figure:
    theme = theme_of(name)
    colours = (theme.muted, theme.causes["fill_drain"], theme.causes["compute"], "#E69F00", "#D55E00")
    shown = models.split(",")
    with mpl.rc_context(theme.rc):
        figure = Figure(figsize=(3.1 * len(shown) + 0.4, 3.4), layout="constrained")
        for model, ax in zip(shown, figure.subplots(1, len(shown), squeeze=False)[0], strict=True):
            for (way, _), colour in zip(WAYS.items(), colours, strict=True):
                for seed, result in enumerate(every[model, way]):
                    losses = [row["loss"] for row in result["log"]]
                    style = "--" if way.startswith("machine") else "-"
                    label = way if seed == 0 else None
                    ax.plot(range(1, len(losses) + 1), losses, style, color=colour, lw=1.1, alpha=0.8, label=label)
            ax.set_yscale("log")
            ax.set_title(model, loc="left")
            ax.set_xlabel("epoch")
        figure.axes[0].set_ylabel("training loss")
        figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=5, frameon=False)
        return figure


for name, file in (("light", "numerics.png"), ("dark", "numerics-dark.png")):
    draw(name).savefig(Path(folder) / file)
