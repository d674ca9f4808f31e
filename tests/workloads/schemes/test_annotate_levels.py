"""A workload under a scheme of few values: which operands have levels, which layers keep all of theirs and why."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

import weft
from weft.workloads.catalog import trace_module
from weft.workloads.errors import InputError
from weft.workloads.gemm import Pass
from weft.workloads.io import dumps_workload, loads_workload, save_workload
from weft.workloads.levels import Levels
from weft.workloads.operand import Role
from weft.workloads.schemes import attach
from weft.workloads.schemes.annotate import annotate
from weft.workloads.schemes.scheme import SCHEMES
from weft.workloads.step import Measured

from .harness import net

B, T, I8 = Levels.BINARY, Levels.TERNARY, Levels.INT8
NAMES = [name for name, s in SCHEMES.items() if s.levels and not s.planes]


class Attended(nn.Module):
    """A linear layer first, a product without weight, a convolution that is not the first layer, a head."""

    def __init__(self):
        super().__init__()
        self.into = nn.Linear(16, 16)
        self.conv = nn.Conv1d(4, 4, 3, padding=1)
        self.again = nn.Conv1d(4, 4, 3, padding=1)
        self.middle = nn.Linear(16, 16)
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        x = self.again(self.conv(self.into(x)))
        return self.head(self.middle(torch.softmax(x @ x.transpose(1, 2), -1) @ x))


@pytest.fixture(scope="module")
def step():
    return trace_module(Attended(), torch.zeros(2, 4, 16), loss=lambda y: y.sum())


def levels_of(workload):
    return {(op.name, op.pass_): (op.a.levels, op.b.levels) for op in workload.matrix_ops if op.a.levels or op.b.levels}


def roles_of(workload, name, pass_):
    op = next(op for op in workload.matrix_ops if (op.name, op.pass_) == (name, pass_))
    return {x.role: x.levels for x in (op.a, op.b)}


BINARY = {
    Pass.FF: {Role.ACTIVATION: B, Role.WEIGHT: B},
    Pass.BP: {Role.GRADIENT: None, Role.WEIGHT: B},
    Pass.WU: {Role.GRADIENT: None, Role.ACTIVATION: B},
}
TERNARY = {
    Pass.FF: {Role.ACTIVATION: I8, Role.WEIGHT: T},
    Pass.BP: {Role.GRADIENT: None, Role.WEIGHT: T},
    Pass.WU: {Role.GRADIENT: None, Role.ACTIVATION: I8},
}
REAL = {
    Pass.FF: {Role.ACTIVATION: B, Role.WEIGHT: None},
    Pass.BP: {Role.GRADIENT: None, Role.WEIGHT: None},
    Pass.WU: {Role.GRADIENT: None, Role.ACTIVATION: B},
}
SPIKING = {
    Pass.FF: {Role.ACTIVATION: Levels.SPIKE, Role.WEIGHT: T},
    Pass.BP: {Role.GRADIENT: None, Role.WEIGHT: T},
    Pass.WU: {Role.GRADIENT: None, Role.ACTIVATION: Levels.SPIKE},
}
ONLY_TERNARY = {
    Pass.FF: {Role.ACTIVATION: T, Role.WEIGHT: T},
    Pass.BP: {Role.GRADIENT: None, Role.WEIGHT: T},
    Pass.WU: {Role.GRADIENT: None, Role.ACTIVATION: T},
}
INTEGER = {
    Pass.FF: {Role.ACTIVATION: I8, Role.WEIGHT: I8},
    Pass.BP: {Role.GRADIENT: None, Role.WEIGHT: I8},
    Pass.WU: {Role.GRADIENT: None, Role.ACTIVATION: I8},
}
EXPECTED = {
    "integer": INTEGER,
    "spiking": SPIKING,
    **dict.fromkeys(("xnor", "bireal", "mst", "reste", "biper", "bipft", "bivit", "tbt-binary"), BINARY),
    "biper-real": REAL,
    **dict.fromkeys(("bitnet", "bitnet-median"), TERNARY),
    "tbt-ternary": ONLY_TERNARY,
}
WHOLE_FIRST = [name for name in NAMES if "first layer" in SCHEMES[name].full_precision]
WHOLE_LAST = [name for name in NAMES if "last layer" in SCHEMES[name].full_precision]


@pytest.mark.parametrize("name", NAMES)
def test_operands_have_the_levels_of_their_roles(step, name):
    made = weft.sparsify(step, name)
    marked = {op.name for op in made.matrix_ops if op.parameter and (op.a.levels or op.b.levels)}

    last = () if name in WHOLE_LAST else ("head",)
    assert marked == {"again", "middle", *(() if name in WHOLE_FIRST else ("into",)), *last}
    for layer in marked:
        for pass_ in (Pass.FF, Pass.BP, Pass.WU):
            if (layer, pass_) != ("into", Pass.BP):  # the first layer has none
                assert roles_of(made, layer, pass_) == EXPECTED[name][pass_]
    assert all(op.c.levels is None and op.sparse is None for op in made.matrix_ops)
    assert (made.scheme, made.pattern) == (name, None)


def test_layers_in_full_precision_say_why(step):
    why = {(op.name, op.pass_): op.kept_dense for op in weft.sparsify(step, "xnor").matrix_ops}

    assert {p: why["into", p] for p in (Pass.FF, Pass.WU)} == dict.fromkeys((Pass.FF, Pass.WU), "first layer")
    for pass_ in (Pass.FF, Pass.BP, Pass.WU):
        assert why["conv", pass_] == "first convolution"
        assert why["head", pass_] == "last layer"
        assert why["again", pass_] == why["middle", pass_] == ""
    assert {op.kept_dense for op in weft.sparsify(step, "xnor").matrix_ops if not op.parameter} == {"no weight operand"}
    heads = {op.name: op.kept_dense for op in weft.sparsify(step, "biper-real").matrix_ops if op.pass_ is Pass.BP}
    assert set(heads.values()) == {""}, "a pass that is not the scheme's needs no reason"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("model", [net, Attended])
def test_training_and_annotation_bring_the_same_operands_to_few_values(name, model):
    """And give the same reasons for the others."""
    made, shape = model(), (32, 3, 8, 8) if model is net else (2, 4, 16)
    workload = annotate(trace_module(made, torch.zeros(shape), loss=lambda y: y.sum()), name, None)
    technique = attach(made, name, None, steps=100)
    technique.before_step(99)
    reasons = {op.parameter: op.kept_dense for op in workload.matrix_ops if op.parameter and op.pass_ is Pass.FF}

    assert {op for op, why in reasons.items() if not why} == {f"{layer}.weight" for layer in technique.layers}
    assert technique.kept_dense == {op.removesuffix(".weight"): why for op, why in reasons.items() if why}
    marked = {(op.parameter, op.pass_) for op in workload.matrix_ops if op.parameter and (op.a.levels or op.b.levels)}
    expected = {(f"{key}.weight", p) for key, layer in technique.layers.items() for p in layer.passes}
    assert marked == {one for one in expected if one != ("into.weight", Pass.BP)}


def test_another_scheme_takes_the_levels_back(step):
    xnor = weft.sparsify(step, "xnor")

    assert weft.sparsify(xnor, "dense") == weft.sparsify(step, "dense")
    assert weft.sparsify(xnor, "bdwp", "2:4") == weft.sparsify(step, "bdwp", "2:4")
    assert weft.sparsify(xnor, "bitnet") == weft.sparsify(step, "bitnet")
    assert weft.sparsify(xnor, "xnor") == xnor


def test_levels_that_an_operand_has_of_its_own_stay(step):
    ops = [
        replace(op, a=replace(op.a, levels=Levels.SPIKE)) if getattr(op, "parameter", None) == "middle.weight" else op
        for op in step.ops
    ]
    own = replace(step, ops=tuple(ops))
    made = weft.sparsify(own, "xnor")
    found = next(op for op in made.matrix_ops if op.name == "middle" and op.pass_ is Pass.FF)

    assert (found.a.levels, found.b.levels) == (Levels.SPIKE, None)
    assert found.kept_dense == "its operands have few values of their own"
    assert weft.sparsify(made, "dense") == weft.sparsify(own, "dense")
    assert levels_of(weft.sparsify(own, "bdwp", "2:4")) == levels_of(own)


def test_what_a_training_left_alone_stays_so(step):
    measured = (Measured(layer="middle", kept_dense=dict.fromkeys((Pass.FF, Pass.BP, Pass.WU), "no such layer")),)
    made = annotate(step, "xnor", None, measured)

    assert {op for op, _ in levels_of(made)} == {"again"}
    assert {op.kept_dense for op in made.matrix_ops if op.name == "middle"} == {"no such layer"}


def test_a_file_keeps_levels_and_its_scheme(step, tmp_path, capsys):
    from weft.cli import main

    made = weft.sparsify(step, "xnor")
    assert loads_workload(dumps_workload(made)) == made
    path = tmp_path / "step.json"
    save_workload(made, path)
    assert main(["run", str(path), "--arch", "tiny", "--json"]) == 0
    assert '"scheme": "xnor"' in capsys.readouterr().out
    assert main(["run", str(path), "--arch", "tiny", "--nm", "2:8"]) == 2
    assert "scheme 'xnor' takes no N:M pattern, but 2:8 is given" in capsys.readouterr().err


def test_several_schemes_share_a_pattern_where_they_have_a_use_for_it(step):
    rows = weft.compare(step, "tiny", ("dense", "xnor", "bdwp"), "2:4").rows

    assert [(row.scheme, row.pattern) for row in rows] == [("dense", None), ("xnor", None), ("bdwp", "2:4")]


def test_an_unknown_scheme_with_levels_is_named(step):
    odd = replace(weft.sparsify(step, "xnor"), scheme="gone.py:Class")
    with pytest.raises(InputError, match="gone"):
        weft.sparsify(odd, "dense")
