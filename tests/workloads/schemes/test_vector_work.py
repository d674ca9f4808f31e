"""Vector work of schemes of few values: what they declare, and the ops that it becomes around the products."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

import weft
from weft.workloads.catalog import trace_module
from weft.workloads.errors import InputError
from weft.workloads.gemm import Pass
from weft.workloads.levels import Levels
from weft.workloads.operand import Role
from weft.workloads.schemes import attach, outside
from weft.workloads.schemes.annotate import annotate
from weft.workloads.schemes.conformance import _check_vector_work, observed
from weft.workloads.schemes.description import Scheme
from weft.workloads.schemes.estimated import Estimated
from weft.workloads.schemes.scheme import SCHEMES, scheme
from weft.workloads.schemes.vector_work import UNDECLARED, ScaleOf, VectorWork
from weft.workloads.step import MatrixOp, Measured, UpdateOp, VectorOp, Workload

from .harness import net

NAMES = [name for name, s in SCHEMES.items() if s.levels]
W, X = Role.WEIGHT, Role.ACTIVATION


# PB-LLM and DB-LLM have an estimator a layer, with a state of its own: `tests/workloads/schemes/test_planes.py`.
@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith(("pb-llm", "db-llm"))])
def test_declared_is_what_the_estimators_do(name):
    """Neither less nor, but for the second look of the median, more."""
    technique = attach(net(), name, None, steps=100)
    assert isinstance(technique, Estimated)
    technique.before_step(0 if name == "biper-real" else 99)
    for role, estimator, shape in (
        (W, technique.weight_estimator(), (2, 4, 3, 9)),
        (X, technique.activation_estimator(), (8, 27)),
    ):
        declared = scheme(name).work_of(role) or VectorWork(gradient=0)
        found = replace(observed(estimator, shape), norm=role is X and technique.options.norm != "none")
        if (name, role) == ("bitnet-median", W):
            found = replace(found, looks=2)
        if (name, role) == ("binarydm", X):
            found = replace(found, gradient=1)  # clipped, but none of these is beyond 7 steps
        assert declared == found, role


@pytest.mark.parametrize(
    ("role", "less", "words"),
    [
        (W, {"gradient": 1}, "gradient=1, but its estimator needs 2"),
        (W, {"scale": ScaleOf.CONSTANT}, "scale=constant, but its estimator gives one of each layer"),
        (W, {"scale": None}, "scale=None"),
        (X, {"norm": False}, "rows are normalised first"),
        (X, {"gradient": 0}, "gradient=0, but its estimator needs 1"),
    ],
)
def test_less_than_that_is_told(monkeypatch, role, less, words):
    own = scheme("reste")
    lighter = {**own.vector_work, role: replace(own.vector_work[role], **less)}
    monkeypatch.setitem(SCHEMES, "reste", replace(own, vector_work=lighter))
    with pytest.raises(AssertionError, match=words):
        _check_vector_work("reste", {})


def test_looks_that_are_not_declared_are_told(monkeypatch):
    own = scheme("bitnet")
    lighter = {**own.vector_work, W: replace(own.vector_work[W], looks=0)}
    monkeypatch.setitem(SCHEMES, "bitnet", replace(own, vector_work=lighter))
    with pytest.raises(AssertionError, match="looks=0, but its estimator needs 1"):
        _check_vector_work("bitnet", {})


def test_a_scheme_that_says_nothing_is_charged_all_the_same():
    levels = {Pass.FF: {W: Levels.BINARY, X: Levels.BINARY}}
    silent = Scheme(name="silent", title="says nothing", levels=levels)
    assert silent.work_of(W) == UNDECLARED[W] and silent.work_of(X) == UNDECLARED[X]
    weights = Scheme(name="w", title="w", levels={Pass.FF: {W: Levels.BINARY}})
    assert weights.work_of(X) == VectorWork(norm=True, gradient=0), "a norm needs no levels"
    assert scheme("dense").work_of(X) is scheme("bdwp").work_of(W) is None
    for refused, words in (
        ({"levels": levels, "vector_work": {Role.GRADIENT: VectorWork()}}, "weights and activations"),
        ({"levels": levels, "vector_work": {W: VectorWork(norm=True)}}, "a norm of weights"),
        ({"vector_work": {W: VectorWork()}}, "give it levels"),
    ):
        with pytest.raises(InputError, match=words):
            Scheme(name="odd", title="odd", **refused)
    with pytest.raises(InputError, match="looks of vector work"):
        VectorWork(looks=-1)


def test_the_default_of_an_outside_scheme_reaches_the_step():
    silent = Scheme(name="says-nothing", title="t", levels={Pass.FF: {W: Levels.BINARY, X: Levels.BINARY}})
    outside.register(silent, Estimated)
    try:
        step = trace_module(nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 8)), torch.zeros(2, 4), loss=lambda y: y.sum())
        made = annotate(step, "says-nothing", None)
        assert {str(p): [op.op for op in added(made, "1") if op.pass_ is p] for p in (Pass.FF, Pass.BP, Pass.WU)} == {
            "FF": ["norm", "quantise", "scale"],
            "BP": ["scale gradient", "estimator gradient", "norm backward"],
            "WU": ["scale gradient", "estimator gradient"],
        }
        update = next(op for op in made.ops if isinstance(op, UpdateOp) and op.name == "1.weight")
        assert (update.looks, update.scales) == (1, 8)
    finally:
        outside._KNOWN.pop("says-nothing")


# --- in a step


def added(step: Workload, layer: str) -> list[VectorOp]:
    return [op for op in step.ops if isinstance(op, VectorOp) and op.parameter is not None and op.name == layer]


class Twice(nn.Module):
    """A layer that is used twice, on different rows."""

    def __init__(self):
        super().__init__()
        self.into, self.again, self.head = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, x):
        x = self.again(self.into(x))
        return self.head(self.again(x[:2]))


def twice() -> Workload:
    return annotate(trace_module(Twice(), torch.zeros(6, 8), loss=lambda y: y.sum()), "bitnet", None)


def test_every_use_of_a_layer_has_tensors_of_its_own():
    step = twice()
    ops = added(step, "again")
    quantised = [op for op in ops if op.op == "quantise"]
    assert [[(p.pass_, p.elements) for p in op.packs] for op in quantised] == [
        [(Pass.FF, 48), (Pass.WU, 48)],
        [(Pass.FF, 16), (Pass.WU, 16)],
    ]
    assert [op.wide_write for op in quantised] == [4 * 6, 4 * 2]
    # Each WU waits for what packed its own rows.
    for i, op in enumerate(step.ops):
        if isinstance(op, MatrixOp) and op.name == "again" and op.pass_ is Pass.WU:
            elements = op.packed(X).elements
            assert any(isinstance(step.ops[j], VectorOp) and step.ops[j].packs[:1] and
                       step.ops[j].packs[0].elements == elements for j in step.after[i])  # fmt: skip


def test_a_layer_whose_forward_a_training_left_alone_has_the_work_of_its_other_passes():
    step = trace_module(nn.Sequential(*(nn.Linear(8, 8) for _ in range(3))), torch.zeros(4, 8), loss=lambda y: y.sum())
    alone = annotate(step, "xnor", None, (Measured(layer="1", kept_dense={Pass.FF: "for once"}),))
    whole = annotate(step, "xnor", None)
    backward = [op for op in added(whole, "1") if op.pass_ is not Pass.FF]
    found = [op for op in added(alone, "1") if op.op not in ("norm", "quantise")]
    assert sorted(map(str, found)) == sorted(map(str, backward)), "with the same rows and outputs"
    (quantised,) = (op for op in added(alone, "1") if op.op == "quantise")
    assert (quantised.pass_, [p.pass_ for p in quantised.packs]) == (Pass.WU, [Pass.WU])


def test_who_waits_for_a_layer_waits_for_its_scaled_result():
    step = weft.sparsify(weft.trace("tfc", batch=4), "xnor")
    plain = weft.trace("tfc", batch=4)
    for i, op in enumerate(step.ops):
        assert all(j < i for j in step.after[i])
        for j in step.after[i]:
            source = step.ops[j]
            if isinstance(source, MatrixOp) and source.name == "4" and not isinstance(op, UpdateOp):
                own = isinstance(op, VectorOp) and op.parameter == source.parameter
                assert own, f"{op} waits for a product of a layer at work, not for what stands behind it"
    assert weft.sparsify(step, "dense") == weft.sparsify(plain, "dense")


def test_what_is_recomputed_is_quantised_again_and_the_first_time_for_ff_alone():
    model = nn.Sequential(nn.Linear(8, 8), nn.Sequential(nn.Linear(8, 8), nn.ReLU()), nn.Linear(8, 4))
    step = weft.sparsify(weft.trace(model, torch.zeros(4, 8), recompute=["1"]), "xnor")
    quantised = [op for op in added(step, "1.0") if op.op == "quantise"]
    assert [(op.recompute, [str(p.pass_) for p in op.packs]) for op in quantised] == [
        (False, ["FF"]),
        (True, ["FF", "WU"]),
    ]


def test_a_step_without_a_trace_has_its_vector_work_too():
    plain = replace(weft.trace("tfc", batch=4), after=())
    step = weft.sparsify(plain, "xnor")
    assert step.after == () and len(step.ops) > len(plain.ops)
    assert weft.sparsify(step, "dense") == weft.sparsify(plain, "dense")


def test_scaled_results_stand_behind_their_product():
    step = weft.sparsify(weft.trace("tfc", batch=4), "xnor")
    moved = next(op for op in step.ops if isinstance(op, VectorOp) and op.edge)
    with pytest.raises(InputError, match="right behind its product"):
        replace(step, ops=(moved, *step.ops), after=())


def moved(workload: Workload, name: str, pass_: Pass) -> list[tuple[str, int, int]]:
    """Operator, bytes read and written of the vector work that a scheme added for a layer or a module."""
    return [
        (op.op, op.read_bytes + op.wide_read, op.write_bytes + op.wide_write + sum(copy.bytes for copy in op.packs))
        for op in added(workload, name)
        if op.pass_ is pass_
    ]


def test_spikes_of_a_models_own_neurons_are_packed_and_nothing_else():
    """`snn` fires by itself: no norm, no neuron of the scheme, no derivative of one; `tfc` has all three."""
    own = weft.sparsify(weft.trace("snn@8", batch=8), "spiking")
    # 8 images of 64 channels of 8 x 8, traced in FP32; two forms of a bit each, for FF and WU; a scale for the layer.
    assert moved(own, "convs.1", Pass.FF) == [("quantise", 131_072, 8_192), ("scale", 32_768 + 4, 32_768)]
    assert [name for name, *_ in moved(own, "convs.1", Pass.BP)] == ["scale gradient"]
    for layer in ("convs.1", "convs.2"):
        assert not {"norm", "estimator gradient"} & {name for name, *_ in moved(own, layer, Pass.FF)}

    others = weft.sparsify(weft.trace("tfc", batch=8), "spiking")
    hidden = next(op.name for op in others.matrix_ops if op.a.levels is Levels.SPIKE)
    assert [name for name, *_ in moved(others, hidden, Pass.FF)] == ["norm", "quantise", "scale"]
    assert [name for name, *_ in moved(others, hidden, Pass.BP)] == [
        "scale gradient",
        "estimator gradient",
        "norm backward",
    ]


class Attention(nn.Module):
    """One head over 6 tokens of width 8, between layers in full precision."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.head = nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.into(x)
        return self.head((y @ y.transpose(-2, -1)).softmax(-1) @ y)


def test_parts_of_attention_are_packed_scaled_and_estimated():
    """By hand, of 2 sequences: Q, K, V of 96 numbers, S and A of 72; a scale a row, each gone over once before."""
    step = trace_module(Attention(), torch.zeros(2, 6, 8), loss=lambda y: y.sum())
    made = weft.sparsify(step, "bivit")
    module = next(op.name for op in made.matrix_ops if op.parameter is None)

    # 12 bytes of bits of Q, K or V for FF, as many in the form that BP reads; 9 of A. 12 rows, 16 of V as A V reads it.
    assert moved(made, module, Pass.FF) == [
        ("quantise", 2 * 384, 12 * 4 + 24),
        ("quantise", 2 * 384, 12 * 4 + 24),
        ("scale", 288 + 24 * 4, 288),
        ("quantise", 2 * 288, 12 * 4 + 18),
        ("quantise", 2 * 384, 16 * 4 + 24),
        ("scale", 384 + 28 * 4, 384),
    ]
    work = moved(made, module, Pass.BP)
    assert [name for name, *_ in work] == ["scale gradient", "estimator gradient"] * 4
    assert weft.sparsify(made, "dense") == weft.sparsify(step, "dense")
