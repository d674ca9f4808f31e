"""Policies for patterns by layer: what they keep, counted on the annotated step; the best of all choices; refusals."""

from __future__ import annotations

import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest
import torch
from torch import nn

import weft
from weft.workloads.errors import InputError
from weft.workloads.gemm import Pass
from weft.workloads.schemes.allocation import erk_densities
from weft.workloads.schemes.policies import MENU, layer_choices, patterns_of
from weft.workloads.schemes.scores import LayerScores, Scores
from weft.workloads.sparsity import LayerPatterns, NMPattern
from weft.workloads.step import Workload


class Net(nn.Module):
    """A first convolution, layers of several shapes, one whose inputs fit groups of 4 alone, two of one module."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.wide = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 32, 3, padding=1)
        self.point, self.narrow = nn.Conv2d(32, 24, 1), nn.Linear(24, 4)
        self.four, self.head = nn.Linear(4, 16), nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.point(self.wide(self.first(x).relu()).relu()).relu().mean((2, 3))
        found: torch.Tensor = self.head(self.four(self.narrow(x).relu()).relu())
        return found


@pytest.fixture(scope="module")
def step() -> Workload:
    return weft.trace(Net(), torch.randn(4, 3, 8, 8))


LAYERS = {"wide": 16 * 32 * 9, "point": 32 * 24, "narrow": 24 * 4, "four": 4 * 16, "head": 16 * 10}
SHAPES = {"wide": (32, 16, 3, 3), "point": (24, 32), "narrow": (4, 24), "four": (16, 4), "head": (10, 16)}


def densities(step: Workload, found: LayerPatterns) -> dict[str, float]:
    """Share of the weights that FF multiplies by, of each layer, by the annotated step itself."""
    annotated = weft.sparsify(step, "bdwp", [str(rule) for rule in found.rules])
    return {op.name: op.macs / op.gemm.macs for op in annotated.matrix_ops if op.pass_ is Pass.FF}


def saved(path: Path, scores: dict[str, dict[str, float]]) -> Path:
    layers = tuple(
        LayerScores(layer=layer, weights=LAYERS.get(layer, 1), scores={"fisher": found})
        for layer, found in scores.items()
    )
    Scores(model="m", data="d", digest="", images=1, probes=1, seed=0, layers=layers).save(path)
    return path


def test_what_is_no_policy_reads_as_ever(step: Workload) -> None:
    assert patterns_of("2:8", step) == LayerPatterns.read("2:8")
    assert patterns_of("2:8, wide=1:8,head=dense", step) == LayerPatterns.read(["2:8", "wide=1:8", "head=dense"])
    for asked in (None, NMPattern(keep=1, group=4), ["2:4", "head=dense"], {"*": "2:8"}):
        assert patterns_of(asked, step) == LayerPatterns.read(asked)


def test_choices_are_what_the_annotation_can_make(step: Workload) -> None:
    choices = {layer.layer: layer for layer in layer_choices(step, MENU)}
    assert {name: layer.kept["dense"] for name, layer in choices.items()} == LAYERS
    assert {name: layer.shape for name, layer in choices.items()} == SHAPES
    fits = {name: [c for c in layer.kept if c != "dense"] for name, layer in choices.items()}
    assert fits == {
        "wide": [*MENU], "point": [*MENU], "narrow": ["1:4", "2:4"], "four": ["1:4", "2:4"], "head": [*MENU]
    }  # fmt: skip
    # Two products of 10 outputs: 1:8 keeps 2 of 16 inputs in FF, and of 10 outputs 1 of 8 and 1 of 2 in BP.
    assert choices["head"].kept["1:8"] == 20
    assert choices["head"].macs["1:8"] == 4 * (2 * 10 + 2 * 16)
    assert choices["head"].macs["dense"] == 2 * 4 * 160


def test_uniform_is_the_same_for_all_that_can(step: Workload) -> None:
    found = densities(step, patterns_of("uniform@0.25", step))
    assert found == {"first": 1.0, **dict.fromkeys(LAYERS, 0.25)}
    rules = {str(rule) for rule in patterns_of("uniform@0.3", step).rules}
    assert {"*=dense", "wide=2:8", "narrow=1:4"} <= rules
    with pytest.raises(InputError, match=r"uniform@0.125: layer 'narrow' keeps 0.25 of its weights at least, by 1:4"):
        patterns_of("uniform@0.125", step)


@pytest.mark.parametrize("share", [0.14, 0.25, 0.4, 0.7])
def test_erk_is_the_closest_choice_within_the_budget(step: Workload, share: float) -> None:
    """Of all choices, tried one by one; distances in weights kept."""
    found = densities(step, patterns_of(f"erk@{share}", step))
    targets = dict(zip(SHAPES, erk_densities(SHAPES.values(), share), strict=True))
    fits = {name: (0.25, 0.5, 1.0) if name in ("narrow", "four") else (0.125, 0.25, 0.5, 1.0) for name in LAYERS}

    def distance(chosen: dict[str, float]) -> float:
        return sum(abs(chosen[name] - targets[name]) * n for name, n in LAYERS.items())

    def kept(chosen: dict[str, float]) -> float:
        return sum(chosen[name] * n for name, n in LAYERS.items())

    budget = share * sum(LAYERS.values())
    every = [dict(zip(LAYERS, chosen, strict=True)) for chosen in product(*fits.values())]
    assert found.pop("first") == 1.0
    assert kept(found) <= budget
    assert distance(found) == pytest.approx(min(distance(chosen) for chosen in every if kept(chosen) <= budget))


def test_scores_decide_by_weights_or_by_multiplies(step: Workload, tmp_path: Path) -> None:
    """The convolution has 64 positions an image, the classifier one: which of them is cheap depends on the unit."""
    path = saved(tmp_path / "s.json", {name: {"1:8": 1.0, "2:4": 0.5, "1:4": 0.8} for name in LAYERS})
    for unit, count in (("", lambda op: op.gemm.k * op.gemm.n), ("macs", lambda op: op.gemm.macs)):
        found = weft.sparsify(step, "bdwp", f"fisher@0.3{unit}:{path}")
        passes = (Pass.FF,) if not unit else (Pass.FF, Pass.BP)
        ops = [op for op in found.matrix_ops if op.pass_ in passes and op.name in LAYERS]
        share = sum(op.macs / op.gemm.macs * count(op) for op in ops) / sum(map(count, ops))
        assert share <= 0.3
    # What costs no score is taken even if it keeps least; what costs much is kept.
    dear = saved(tmp_path / "t.json", {name: {"1:8": 0.0 if name == "wide" else 9.0} for name in LAYERS})
    assert [str(r) for r in patterns_of(f"fisher@0.4:{dear}", step).rules] == ["*=dense", "wide=1:8"]


def test_a_budget_of_scores_leaves_the_fewest_multiplies(step: Workload, tmp_path: Path) -> None:
    """Of all choices, tried one by one, on the annotated step."""
    by = {"wide": 0.5, "point": 0.3, "narrow": 0.02, "four": 0.01, "head": 0.2}
    path = saved(tmp_path / "s.json", {name: {"2:4": s, "1:4": 2.5 * s} for name, s in by.items()})
    choices = layer_choices(step, ["2:4", "1:4"])
    rise = {"dense": 0.0, "2:4": 1.0, "1:4": 2.5}
    every = [dict(zip(by, chosen, strict=True)) for chosen in product(rise, repeat=len(by))]
    for budget in (0.02, 0.3, 0.85, 1.4, 9.0):
        found = weft.sparsify(step, "bdwp", f"fisher@{budget}rise:{path}")
        macs = sum(op.macs for op in found.matrix_ops if op.name in by and op.pass_ in (Pass.FF, Pass.BP))
        within = [c for c in every if sum(rise[c[n]] * s for n, s in by.items()) <= budget + 1e-9]
        assert macs == min(sum(layer.macs[c[layer.layer]] for layer in choices) for c in within)


def test_a_module_with_two_weights_has_rules_for_each() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Parameter(torch.randn(16, 16)), nn.Parameter(torch.randn(16, 16))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.linear(nn.functional.linear(x, self.a).relu(), self.b)

    step = weft.trace(nn.Sequential(Two()), torch.randn(4, 16))
    assert [layer.layer for layer in layer_choices(step, ["2:8"])] == ["0.a", "0.b"]
    assert len(patterns_of("erk@0.25", step).rules) == 3


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("erc@0.25", "policy 'erc' of 'erc@0.25' is unknown: did you mean 'erk'"),
        ("erk@0", "budget 0 of 'erk@0' must be a share above 0 and below 1, as 0.25, or 4bits"),
        ("erk@1.0", "budget 1.0 of 'erk@1.0' must be a share"),
        ("erk@0.2.5", "budget 0.2.5 of"),
        ("erk@0.25macs", "has a budget of macs, but that of erk is a share of the weights"),
        ("erk@0.25rise", "has a budget of rise, but that of erk is a share of the weights"),
        ("fisher@0rise:s.json", "budget 0rise of 'fisher@0rise:s.json' must be above 0, as 0.1rise"),
        ("erk@0.25:s.json", "policy 'erk@0.25:s.json' takes no file of scores"),
        ("fisher@0.25", "needs scores, as fisher@0.25:scores.json"),
        ("fisher@0.25:nowhere.json", "nowhere.json: cannot be read"),
        ("erk@0.05", r"erk@0.05: the cheapest candidates of all layers leave 0.1\d* of the weights at least"),
    ],
)
def test_what_is_refused(step: Workload, asked: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        patterns_of(asked, step)


def test_torch_is_not_loaded() -> None:
    """A space of many points names policies where nothing is trained."""
    code = "import sys, weft.workloads.schemes.policies; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_comparison_gives_each_scheme_what_it_has_a_use_for(step: Workload) -> None:
    for nm, named in (("erk@0.25", "bdwp"), ("uniform@3bits", "integer"), ("int3", "integer")):
        found = weft.compare(step, "bnn-ecp5", ["dense", named], nm)
        assert found.results[1] == weft.simulate(weft.schedule(weft.sparsify(step, named, nm), "bnn-ecp5"))
    both = weft.compare(step, "bnn-ecp5", ["bdwp", "integer"], "2:8")
    assert both.results[1].workload == weft.sparsify(step, "integer")


def test_scores_of_another_model_or_method(step: Workload, tmp_path: Path) -> None:
    path = saved(tmp_path / "s.json", {"wide": {"2:8": 1.0}, "other": {"2:8": 1.0}})
    with pytest.raises(InputError, match="there are no scores of layer 'point', only of wide, other"):
        patterns_of(f"fisher@0.25:{path}", step)
    with pytest.raises(InputError, match="no scores by 'zeroq'"):
        patterns_of(f"zeroq@0.25:{path}", step)
    layer = LayerScores(layer="wide", weights=1, scores={})
    with pytest.raises(InputError, match="layer 'wide' has scores twice"):
        Scores(model="m", data="d", digest="", images=1, probes=1, seed=0, layers=(layer, layer))
    (tmp_path / "bad.json").write_text(path.read_text().replace('"schema":1', '"schema":2'))
    with pytest.raises(InputError, match=r"bad.json: schema"):
        patterns_of(f"fisher@0.25:{tmp_path / 'bad.json'}", step)
