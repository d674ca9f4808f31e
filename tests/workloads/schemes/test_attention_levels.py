"""Attention of few values in a whole step: what a trace says of its products, and what a training does to them."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import weft
import weft.testing
from weft.simulator.xnor import pack, xnor_product
from weft.workloads.catalog import trace_module
from weft.workloads.errors import InputError
from weft.workloads.gemm import Pass
from weft.workloads.levels import Levels
from weft.workloads.operand import Role
from weft.workloads.schemes import attach, outside
from weft.workloads.schemes.attention import Part, attention_parts
from weft.workloads.schemes.conformance import _check_attention
from weft.workloads.schemes.estimated import Estimated
from weft.workloads.schemes.estimator import Estimator
from weft.workloads.schemes.scheme import SCHEMES, Scheme
from weft.workloads.step import MatrixOp

from .attended_net import HEADS, TOKENS, WIDTH, Net, net, signs, whole

NAMES = [name for name, s in SCHEMES.items() if s.attention]
B, S, T = Levels.BINARY, Levels.SPIKE, Levels.TERNARY


@pytest.fixture(scope="module")
def step():
    return trace_module(Net().double(), torch.zeros(2, TOKENS, WIDTH, dtype=torch.float64), loss=lambda y: y.sum())


def of_products(workload):
    """By pass and shape, the levels of the products without a weight."""
    return {
        (str(op.pass_), (op.gemm.m, op.gemm.k, op.gemm.n), op.a.role is Role.GRADIENT): (op.a.levels, op.b.levels)
        for op in workload.matrix_ops
        if op.parameter is None
    }


@pytest.mark.parametrize(("name", "scored"), [("bivit", B), ("tbt-binary", B), ("tbt-ternary", T)])
def test_every_product_of_attention_reads_the_levels_of_its_parts(step, name, scored):
    found = of_products(weft.sparsify(step, name))
    width = WIDTH // HEADS
    assert found == {
        ("FF", (TOKENS, width, TOKENS), False): (scored, scored),
        ("FF", (TOKENS, TOKENS, width), False): (S, B),
        ("BP", (TOKENS, width, TOKENS), True): (None, B),
        ("BP", (TOKENS, TOKENS, width), False): (S, None),
        ("BP", (TOKENS, TOKENS, width), True): (None, scored),
        ("BP", (width, TOKENS, TOKENS), False): (scored, None),
    }
    assert weft.sparsify(weft.sparsify(step, name), "dense") == weft.sparsify(step, "dense")
    assert set(of_products(weft.sparsify(step, "xnor")).values()) == {(None, None)}
    # A file of an older version says nothing of what goes before what.
    assert attention_parts(replace(step, after=())) == attention_parts(step)


@pytest.mark.parametrize(
    ("model", "settings"),
    [
        ("vit_s", {}),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (("gpt2", {"seq": 64}), ("bert_base", {"seq": 64}), ("swin_t", {}))
        ),
    ],
)
def test_all_products_of_known_transformers_are_found(model, settings):
    traced = weft.trace(model, batch=2, **settings)
    bare = {i for i, op in enumerate(traced.ops) if isinstance(op, MatrixOp) and op.parameter is None}
    parts = attention_parts(traced)
    assert parts.keys() == bare and len(bare) == 72
    for i in bare:
        op = traced.ops[i]
        assert [x.role is Role.GRADIENT for x in (op.a, op.b)] == [part is None for part in parts[i]]


def seen_in_training(name):
    model, x = net()
    technique, seen = attach(model, name, None, steps=4), {}
    technique.attended.observer = lambda part, values: seen.setdefault(part, []).append(values)
    technique.before_step(0)
    model(x)
    return seen


@pytest.mark.parametrize("name", NAMES)
def test_operands_in_training_hold_the_values_of_their_levels_and_make_the_sums_of_the_engine(name):
    """The product of one head by PyTorch is that of the XNOR engine, on words of 8 bits."""
    seen = seen_in_training(name)
    assert seen.keys() == SCHEMES[name].attention.keys()
    for part, (values,) in seen.items():
        assert set(values.unique().tolist()) <= set(map(float, SCHEMES[name].attention[part].values))
    for left, right in ((Part.QUERY, Part.KEY), (Part.MAP, Part.VALUE)):
        a, b = (seen[part][0][1, 1].numpy().astype(np.int64) for part in (left, right))
        packed = [pack(x, SCHEMES[name].attention[part], 8) for x, part in ((a, left), (b, right))]
        assert np.array_equal(xnor_product(*packed, a.shape[1]), a @ b.T)


def test_learned_scales_follow_the_optimizer_of_pytorch():
    """ds = sum of dW sign(W), by Adam along a cosine; from the mean |W| of each filter on."""
    model, x = net()
    technique = attach(model, "bivit", None, steps=4, scale_rate=0.1)
    own = technique.layers["qkv"]
    assert technique.layers.keys() == {"qkv", "proj"}
    torch.testing.assert_close(own.state["scale"], model.qkv.weight.detach().float().abs().mean(1))
    scale = nn.Parameter(own.state["scale"].clone())
    adam = torch.optim.Adam([scale], 0.1)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for step in range(4):
        technique.before_step(step)
        optimizer.zero_grad()
        torch.autograd.backward((model(x) ** 2).sum())
        torch.testing.assert_close(own.scale.float(), scale.detach())
        signs_ = signs(model.qkv.weight.detach())
        scale.grad = (model.qkv.weight.grad * signs_).sum(1).float()
        technique.adjust_gradients(step)
        optimizer.step()
        technique.after_step(step, optimizer)
        adam.param_groups[0]["lr"] = 0.1 * (1 + math.cos(math.pi * step / 4)) / 2
        adam.step()
        torch.testing.assert_close(own.state["scale"], scale.detach())
    assert attach(net()[0], "bivit", None, steps=1, scales="mean").layers["qkv"].state == {}


def test_a_scale_skips_a_gradient_that_is_not_finite():
    model, x = net()
    technique = attach(model, "bivit", None, steps=2)
    technique.before_step(0)
    torch.autograd.backward(model(x).sum())
    model.qkv.weight.grad[0, 0] = math.inf
    before = {name: layer.state["scale"].clone() for name, layer in technique.layers.items()}
    technique.adjust_gradients(0)
    technique.after_step(0, torch.optim.SGD(model.parameters(), 0.1))
    assert torch.equal(technique.layers["qkv"].state["scale"], before["qkv"])
    assert not torch.equal(technique.layers["proj"].state["scale"], before["proj"])


def test_a_copy_attends_like_the_original_and_detach_leaves_nothing():
    model, x = net()
    technique = attach(model, "bivit", None, steps=1)
    technique.before_step(0)
    few = model(x)
    torch.testing.assert_close(copy.deepcopy(model)(x), few, rtol=0, atol=0)
    technique.detach()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert torch.equal(model(x), net()[0](x)) and not torch.equal(model(x), few)


@pytest.mark.parametrize("amp", [torch.float16, torch.bfloat16])
def test_under_autocast_products_have_its_type(amp):
    model, x = net(whole)
    model, x = model.float(), x.float()
    attach(model, "bivit", None, steps=1).before_step(0)
    with torch.autocast("cpu", amp):
        found = model(x)
    assert found.dtype == amp
    torch.autograd.backward(found.float().sum())
    assert all(p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("bivit", {"share": 1.5}, "option 'share' must be a number from 0 to 1, not 1.5"),
        ("bivit", {"scales": "means"}, "option 'scales' is 'means': did you mean 'mean'"),
        ("tbt-binary", {"map_step": 0}, "option 'map_step' must be a number from 1e-06"),
        ("tbt-binary", {"edge": "one"}, "option 'edge' of scheme 'tbt-binary' is unknown"),
    ],
)
def test_bad_options_are_refused(name, options, message):
    with pytest.raises(InputError, match=message):
        attach(net()[0], name, None, steps=1, **options)


def test_forward_products_run_on_the_xnor_engine_and_gradients_on_the_array(step):
    schedule = weft.schedule(weft.sparsify(step, "bivit"), "bnn-ecp5")
    engines = {
        (op.pass_, placement.engine)
        for op, placement in zip(schedule.workload.ops, schedule.placements, strict=True)
        if isinstance(op, MatrixOp) and op.parameter is None
    }
    assert engines == {(Pass.FF, "XNOR"), (Pass.BP, "STCE")}


class Unsaid(Estimated):
    """Says that its maps are spikes, and leaves them as they are."""

    def attention_estimators(self):
        return {Part.MAP: Estimator()}


class Silent(Estimated):
    """Says so, and has no estimator for them."""


@pytest.mark.parametrize(
    ("technique", "message"),
    [
        (Unsaid, "the map of attention is spike, but holds 0"),
        (Silent, r"levels are of \[<Part.MAP: 'map'>\], estimators of \[\]"),
    ],
)
def test_the_conformance_test_looks_at_attention(technique, message, monkeypatch):
    monkeypatch.setattr(outside, "_KNOWN", {})
    levels = {p: {Role.WEIGHT: Levels.BINARY} for p in (Pass.FF, Pass.BP)}
    weft.register_scheme(Scheme(name="own", title="own", levels=levels, attention={Part.MAP: Levels.SPIKE}), technique)
    with pytest.raises(AssertionError, match=message):
        _check_attention("own", {})
