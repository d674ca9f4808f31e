"""A pattern, or bits, for every layer at the cycles of a uniform choice: uniform, ERK, and by scores of four methods.

A dense training is scored and every layer costed on a machine; what each choice leaves is measured at once, and pruned
weights after an epoch of tuning, too: `by_sensitivity.py [EPOCHS [bdwp|integer [SEED]]]`.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

import weft
from weft.analysis.layer_costs import LayerCosts, layer_costs
from weft.workloads.data import normalised, open_data, order
from weft.workloads.gemm import Pass
from weft.workloads.schemes.allocation import allocate
from weft.workloads.schemes.layer import SparseLayer
from weft.workloads.schemes.policies import patterns_of
from weft.workloads.schemes.scores import Scores, candidate
from weft.workloads.schemes.sensitivity import brought_to, changed
from weft.workloads.sparsity import NMPattern
from weft.workloads.training import TrainResult, plan, resume, step_workload, train
from weft.workloads.training.scored import score

METHODS = ("fisher", "hessian-trace", "zeroq", "loss")
Choice = dict[str, str]


@dataclass(frozen=True)
class Space:
    """What layers may be brought to, which of it all of them in turn, and the cycles of which passes count, where."""

    machine: str
    candidates: tuple[str, ...]
    uniform: tuple[str, ...]
    passes: tuple[Pass, ...]


SPACES = {
    # A step of training under N:M weights.
    "bdwp": Space("sat-ecp5", ("1:8", "2:8", "4:8"), ("4:8", "2:8"), tuple(Pass)),
    # Inference by planes of bits, inputs of 8 bits.
    "integer": Space("bnn-ecp5", tuple(f"int{bits}" for bits in range(2, 9)), ("int4", "int3"), (Pass.FF,)),
}


def choices(space: Space, scores: Scores, costs: LayerCosts, trained: TrainResult) -> dict[str, Choice]:
    """Every policy at the cycles of each uniform choice; ERK at the density of a pattern."""
    found: dict[str, Choice] = {}
    for text in space.uniform:
        found[f"uniform {text}"] = dict.fromkeys(costs.cycles, text)
        if ":" in text:
            rules = patterns_of(f"erk@{NMPattern.parse(text).density}", step_workload(trained.spec))
            found[f"ERK, density of {text}"] = {
                layer.layer: str(rules.of(layer.names) or "dense") for layer in costs.layers
            }
        budget = costs.of(found[f"uniform {text}"]) - costs.rest
        for method in METHODS:
            table = {layer: {"dense": 0.0, **by} for layer, by in scores.by(method).items()}
            found[f"{method}, cycles of {text}"] = allocate(table, costs.cycles, budget).choice
    return found


def tune(trained: TrainResult, pruned: dict[SparseLayer, torch.Tensor]) -> None:
    """An epoch over the training set, with what is zero held at zero."""
    data, model = open_data(trained.spec.data), trained.model
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
    model.train()
    for index in order(len(data.train.labels), torch.Generator().manual_seed(1)).split(64):
        loss = torch.nn.functional.cross_entropy(
            model(normalised(data, data.train.fetch(index))), data.train.labels[index]
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            for layer, weight in pruned.items():
                layer.weight.mul_(weight != 0)


def accuracies(trained: TrainResult, layers: dict[str, SparseLayer], choice: Choice) -> list[float]:
    """On the validation set: at once and, of pruned weights, tuned."""
    validation = open_data(trained.spec.data).validation
    model, before = trained.model, {k: v.clone() for k, v in trained.model.state_dict().items()}
    made = {layers[name]: brought_to(layers[name], candidate(c)) for name, c in choice.items() if c != "dense"}
    with changed(made):
        found = [trained.measure("validation", validation)[1]]
        if ":" in "".join(choice.values()):
            tune(trained, made)
            found.append(trained.measure("validation", validation)[1])
    model.load_state_dict(before)
    return found


def main(epochs: int = 4, scheme: str = "bdwp", seed: int = 0) -> None:
    torch.set_num_threads(1)
    space = SPACES[scheme]
    with TemporaryDirectory() as folder:
        train(plan("resnet9", scheme="dense", epochs=epochs, seed=seed), Path(folder) / "run")
        trained = resume(Path(folder) / "run")
        scores = score(Path(folder) / "run", space.candidates, METHODS, images=128, probes=16)
    layers = trained.technique.layers
    trained.technique.detach()
    machine = weft.machine(space.machine)
    costs = layer_costs(step_workload(trained.spec), scheme, space.candidates, machine, passes=space.passes)
    dense = costs.of(dict.fromkeys(costs.cycles, "dense"))
    for method in METHODS[:-1]:
        print(f"{method}: rank correlation with the loss {scores.agreement(method, space.candidates):.2f}")
    print(f"dense: {dense:,} cycles on {space.machine}, {trained.validation:.2%} of the validation images")
    rise = scores.by("loss")
    for name, choice in choices(space, scores, costs, trained).items():
        cycles = costs.of(choice)
        predicted = sum(rise[layer][c] for layer, c in choice.items() if c != "dense")
        reached = ", tuned ".join(f"{share:7.2%}" for share in accuracies(trained, layers, choice))
        brief = " ".join(c.removeprefix("int").replace("dense", "-") for c in choice.values())
        print(f"{name:29} {cycles:10,} = {cycles / dense:5.1%}  loss +{predicted:6.3f}  {reached}  {brief}")


if __name__ == "__main__":
    arguments = sys.argv[1:]
    main(*map(int, arguments[:1]), *arguments[1:2], *map(int, arguments[2:]))
