"""Integers of weights by layer: annotated, trained, packed in so many bits, chosen by policies, refused elsewhere."""

from __future__ import annotations

from math import prod
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import weft
from weft.analysis.complexity import parameter_bits
from weft.dataflow.operand import FP16
from weft.workloads.errors import InputError
from weft.workloads.gemm import Pass
from weft.workloads.io import dumps_workload, loads_workload
from weft.workloads.levels import INTEGERS, Levels
from weft.workloads.operand import Role
from weft.workloads.schemes import attach
from weft.workloads.schemes.policies import patterns_of
from weft.workloads.schemes.scores import LayerScores, Scores
from weft.workloads.sparsity import LayerPattern, LayerPatterns
from weft.workloads.step import MatrixOp, Workload

SIZES = {"1": (16, 32), "3": (32, 24), "5": (24, 10)}


def perceptron() -> nn.Module:
    layers = [layer for size in SIZES.values() for layer in (nn.Linear(*size), nn.ReLU())]
    return nn.Sequential(nn.Flatten(), *layers[:-1])


@pytest.fixture(scope="module")
def step() -> Workload:
    return weft.trace(perceptron(), torch.randn(8, 16))


def weight_levels(op: MatrixOp) -> Levels | None:
    return next((x.levels for x in (op.a, op.b) if x.role is Role.WEIGHT), None)


rules = st.lists(st.tuples(st.sampled_from(("*", "1", "3", "5", "[13]")), st.sampled_from((*INTEGERS, "dense"))))


@given(rules=rules)
def test_every_layer_has_what_its_last_rule_says(step: Workload, rules: list[tuple[str, str]]) -> None:
    made = weft.sparsify(step, "integer", [f"{layers}={bits}" for layers, bits in rules])
    for op in made.matrix_ops:
        asked = next(
            (bits for layers, bits in reversed(rules) if layers in ("*", op.name) or op.name in layers), "int8"
        )
        weight = None if op.pass_ is Pass.WU or asked == "dense" else Levels(asked)
        assert weight_levels(op) == weight
        activations = [x.levels for x in (op.a, op.b) if x.role is Role.ACTIVATION]
        assert activations == ([] if op.pass_ is Pass.BP else [None if asked == "dense" else Levels.INT8])
    assert loads_workload(dumps_workload(made)) == made
    # Annotated anew, nothing of it is left.
    assert weft.sparsify(made, "integer") == weft.sparsify(step, "integer")
    assert weft.sparsify(made, "dense") == weft.sparsify(step, "dense")


def test_a_weight_is_stored_in_its_bits(step: Workload) -> None:
    made = weft.sparsify(step, "integer", {"*": "int4", "5": Levels.INT2, "3": "int6"})
    bits = {"1": 4, "3": 6, "5": 2}
    biases = sum(outputs for _, outputs in SIZES.values())
    stored = sum(bits[name] * prod(size) for name, size in SIZES.items()) + FP16.bits * biases
    assert parameter_bits(made, FP16) == stored
    assert [str(rule) for rule in made.layer_patterns] == ["*=int4", "5=int2", "3=int6"]
    copies = {
        update.name: {copy.levels.bits for copy in update.copies} for update in made.ops if update.pass_ is Pass.OPT
    }  # type: ignore[union-attr]
    assert copies["3.weight"] == {6}


def test_fewer_bits_take_fewer_beats(step: Workload) -> None:
    """On the XNOR engine a product takes planes of W times planes of X for each word."""
    from weft.dataflow.xnor.words import words_of

    for bits in range(2, 9):
        made = weft.sparsify(step, "integer", f"int{bits}")
        (op,) = [op for op in made.matrix_ops if op.name == "3" and op.pass_ is Pass.FF]
        assert op.a.levels is not None and op.b.levels is not None
        assert words_of(op.gemm, op.a.levels, op.b.levels, 32).slots == 8 * bits


def test_training_rounds_each_layer_by_its_rule() -> None:
    torch.manual_seed(0)
    model = perceptron()
    technique = attach(model, "integer", None, steps=4, weights="int5, 3=int2")
    seen: dict[str, torch.Tensor] = {}
    for layer in technique.layers.values():
        layer.observer = lambda gemm: seen.update({gemm.layer.name: gemm.right}) if gemm.pass_ is Pass.FF else None
    technique.before_step(0)
    model(torch.randn(8, 16)).sum().backward()
    assert {name: int(right.abs().max()) for name, right in seen.items()} == {"1": 15, "3": 1, "5": 15}
    assert all(torch.equal(right, right.round()) for right in seen.values())
    assert {n: technique.levels_of(l)[Role.WEIGHT] for n, l in technique.layers.items()} == {  # type: ignore[attr-defined] # noqa: E741
        "1": Levels.INT5, "3": Levels.INT2, "5": Levels.INT5,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ("2:8", "option 'weights' is '2:8': it takes integers by layer"),
        ("int4, 1=dense", "it takes integers by layer"),
        ("int9", "N:M pattern 'int9' is not of the form"),
        ("int8, 7=int4", "rule 7=int4 matches no layer"),
    ],
)
def test_rules_of_a_training_that_are_refused(weights: str, said: str) -> None:
    model = perceptron()
    with pytest.raises(InputError, match=said):
        attach(model, "integer", None, steps=1, weights=weights)
    # And nothing of it stays on the model.
    attach(model, "integer", None, steps=1).detach()


def test_who_has_no_use_for_integers_refuses_them(step: Workload) -> None:
    for scheme, asked, said in (
        ("bdwp", ["2:8", "5=int4"], "scheme 'bdwp' takes no integers of weights by layer, but int4 is given"),
        ("xnor", "int4", "scheme 'xnor' takes no integers"),
        ("integer", "2:8", "scheme 'integer' takes no N:M pattern, but 2:8 is given"),
        ("integer", ["int4", "5=1:8"], "scheme 'integer' takes no N:M pattern, but 1:8 is given"),
        ("integer", "9=int4", "rule 9=int4 matches no layer with a weight"),
    ):
        with pytest.raises(InputError, match=said):
            weft.sparsify(step, scheme, asked)
    with pytest.raises(InputError, match="weights by layer are integers, int2, int3"):
        LayerPattern(layers="5", pattern=Levels.BINARY)
    conv = weft.trace(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.LazyLinear(4)), torch.randn(2, 3, 6, 6))
    with pytest.raises(InputError, match=r"rule 0=int4 makes no layer int4: 0 stays dense \(first convolution"):
        weft.sparsify(conv, "integer", "0=int4")


def test_policies_spend_bits_where_scores_say(step: Workload, tmp_path: Path) -> None:
    """Layer 5 is the smallest and loses most: it gets all bits, and the mean stays within the budget."""
    scale = {"1": 1.0, "3": 1.0, "5": 1000.0}
    layers = tuple(
        LayerScores(
            layer=name,
            weights=prod(size),
            scores={"fisher": {f"int{bits}": scale[name] * 4.0**-bits for bits in range(2, 9)}},
        )
        for name, size in SIZES.items()
    )
    path = tmp_path / "s.json"
    Scores(model="m", data="d", digest="", images=1, probes=1, seed=0, layers=layers).save(path)
    whole = sum(prod(size) for size in SIZES.values())
    for budget in (2.0, 3.5, 5.0, 8.0):
        rules = patterns_of(f"fisher@{budget}bits:{path}", step)
        bits = {rule.layers: int(str(rule.pattern).removeprefix("int")) for rule in rules.rules[1:]}
        assert bits.keys() == SIZES.keys()
        spent = sum(bits[name] * prod(size) for name, size in SIZES.items())
        assert spent <= budget * whole
        assert bits["5"] == max(bits.values())
        # Not a bit could be added anywhere.
        assert all(bits[n] == 8 or spent + prod(size) > budget * whole for n, size in SIZES.items())
    assert patterns_of("uniform@4.5bits", step) == LayerPatterns.read({"*": None, **dict.fromkeys(SIZES, "int4")})
    for asked, said in (
        ("uniform@1bits", "budget 1bits of 'uniform@1bits' must be from 2 to 8 bits"),
        ("erk@4bits", "has a budget of bits, but that of erk is a share of the weights"),
    ):
        with pytest.raises(InputError, match=said):
            patterns_of(asked, step)
