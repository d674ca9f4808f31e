"""Patterns by layer for the cycles of a uniform one: uniform, ERK, Fisher, Hessian traces and the measured loss.

A dense training is scored, every layer costed on the machine, and what each choice leaves is pruned at once and tuned
for an epoch: `by_sensitivity.py [EPOCHS [MODEL [MACHINE]]]`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

import weft
from weft.analysis.layer_costs import LayerCosts, layer_costs
from weft.workloads.data import normalised, open_data, order
from weft.workloads.schemes.allocation import allocate
from weft.workloads.schemes.layer import SparseLayer
from weft.workloads.schemes.policies import patterns_of
from weft.workloads.schemes.scores import Scores, candidate
from weft.workloads.schemes.sensitivity import brought_to, changed
from weft.workloads.training import TrainResult, plan, resume, step_workload, train
from weft.workloads.training.scored import score

PATTERNS = ("1:8", "2:8", "4:8")
METHODS = ("fisher", "hessian-trace", "zeroq", "loss")
Choice = dict[str, str]


def choices(scores: Scores, costs: LayerCosts, trained: TrainResult) -> dict[str, Choice]:
    """Every policy at the cycles of uniform 4:8 and of uniform 2:8; ERK at their densities."""
    step, found = step_workload(trained.spec), {}
    for pattern, density in (("4:8", 0.5), ("2:8", 0.25)):
        uniform = dict.fromkeys(costs.cycles, pattern)
        found[f"uniform {pattern}"] = uniform
        rules = patterns_of(f"erk@{density}", step)
        found[f"erk@{density}"] = {layer.layer: str(rules.of(layer.names) or "dense") for layer in costs.layers}
        for method in METHODS:
            table = {layer: {"dense": 0.0, **by} for layer, by in scores.by(method).items()}
            found[f"{method}, cycles of {pattern}"] = allocate(
                table, costs.cycles, costs.of(uniform) - costs.rest
            ).choice
    return found


def accuracies(trained: TrainResult, layers: dict[str, SparseLayer], choice: Choice) -> tuple[float, float]:
    """On the validation set, pruned at once, and after an epoch with what is zero held at zero."""
    data = open_data(trained.spec.data)
    model, before = trained.model, {k: v.clone() for k, v in trained.model.state_dict().items()}
    pruned = {layers[name]: brought_to(layers[name], candidate(c)) for name, c in choice.items() if c != "dense"}
    with changed(pruned):
        once = trained.measure("validation", data.validation)[1]
        optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
        model.train()
        for index in order(len(data.train.labels), torch.Generator().manual_seed(1)).split(64):
            pixels, labels = normalised(data, data.train.fetch(index)), data.train.labels[index]
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(pixels), labels).backward()
            optimizer.step()
            with torch.no_grad():
                for layer, weight in pruned.items():
                    layer.weight.mul_(weight != 0)
        tuned = trained.measure("validation", data.validation)[1]
    model.load_state_dict(before)
    return once, tuned


def main(epochs: int = 4, model: str = "resnet9", machine: str = "sat-ecp5") -> None:
    torch.set_num_threads(1)
    with TemporaryDirectory() as folder:
        train(plan(model, scheme="dense", epochs=epochs), Path(folder) / "run")
        trained = resume(Path(folder) / "run")
        scores = score(Path(folder) / "run", PATTERNS, METHODS, images=128, probes=16)
    layers = trained.technique.layers
    trained.technique.detach()
    costs = layer_costs(step_workload(trained.spec), "bdwp", PATTERNS, weft.machine(machine))
    dense = costs.of(dict.fromkeys(costs.cycles, "dense"))
    for method in METHODS[:-1]:
        print(f"{method}: rank correlation with the loss {scores.agreement(method, PATTERNS):.2f}")
    print(f"dense: {dense:,} cycles a step, {100 * trained.validation:.2f} % of the validation images")
    print(f"{'choice':28} {'cycles':>10} {'of dense':>8} {'loss rise':>9} {'pruned':>8} {'tuned':>8}  by layer")
    rise = scores.by("loss")
    for name, choice in choices(scores, costs, trained).items():
        once, tuned = accuracies(trained, layers, choice)
        cycles = costs.of(choice)
        predicted = sum(rise[layer][c] for layer, c in choice.items() if c != "dense")
        patterns = " ".join("d" if c == "dense" else c for c in choice.values())
        print(f"{name:28} {cycles:10,} {cycles / dense:8.1%} {predicted:9.3f} {once:8.2%} {tuned:8.2%}  {patterns}")


if __name__ == "__main__":
    main(*(int(argument) if i == 0 else argument for i, argument in enumerate(sys.argv[1:])))  # type: ignore[arg-type]
