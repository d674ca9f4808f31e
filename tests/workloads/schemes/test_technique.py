"""The protocol: attaching and refusing, phases, state that resumes exactly, metrics, compact operands."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from weft.simulator.compact import Compact, compress, decompress
from weft.workloads.catalog import trace_module
from weft.workloads.errors import InputError
from weft.workloads.gemm import Pass
from weft.workloads.schemes import attach
from weft.workloads.schemes.annotate import annotate
from weft.workloads.schemes.scheme import SCHEMES, Phase, phase_at, phases
from weft.workloads.sparsity import NMPattern

from .harness import TWO_OF_EIGHT, batch, net, train


@pytest.mark.parametrize("name", SCHEMES)
def test_training_resumes_exactly(name):
    """Weights and losses after a state in the middle equal those of a run without a break, to the bit."""
    options = {"bimask": {"period": 2, "candidates": 3}, "transposable": {"period": 3}}.get(name, {})
    if SCHEMES[name].groups:
        options = {"period": 3, "shape": SCHEMES[name].groups.replace("16", "4")}

    def start():
        model = net()
        return model, attach(model, name, None if SCHEMES[name].levels else TWO_OF_EIGHT, seed=3, steps=8, **options)

    model, technique = start()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    train(model, technique, batch(), range(4), optimizer)
    saved = copy.deepcopy((model.state_dict(), optimizer.state_dict(), technique.state_dict()))
    losses = train(model, technique, batch(), range(4, 8), optimizer)

    again, resumed = start()
    second = torch.optim.SGD(again.parameters(), 0.1, momentum=0.9)
    for part, state in zip((again, second, resumed), saved, strict=True):
        part.load_state_dict(state)
    assert train(again, resumed, batch(), range(4, 8), second) == losses
    for ours, theirs in zip(again.parameters(), model.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert resumed.metrics() == technique.metrics()


def test_the_seed_decides_the_samples():
    def weight(seed: int) -> torch.Tensor:
        model = net()
        technique = attach(model, "bdwp-x", TWO_OF_EIGHT, seed=seed, steps=10, dense_head=0.0)
        train(model, technique, batch(), range(2), torch.optim.SGD(model.parameters(), 0.1))
        return model.conv.weight.detach()

    assert torch.equal(weight(1), weight(1)) and not torch.equal(weight(1), weight(2))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "srste"}, "has scheme 'bdwp', but this one has 'srste'"),
        ({"pattern": NMPattern(keep=1, group=4)}, "has pattern '2:8', but this one has '1:4'"),
        ({"seed": 1}, "has seed 0, but this one has 1"),
        ({"decay": 0.1}, "has options"),
        ({"model": nn.Linear(8, 8)}, "of another model"),
    ],
)
def test_the_state_of_something_else_is_refused(change, message):
    state = attach(net(), "bdwp", TWO_OF_EIGHT, steps=4).state_dict()
    made = {"model": net(), "name": "bdwp", "pattern": TWO_OF_EIGHT, "steps": 4, **change}
    model, name, pattern = (made.pop(k) for k in ("model", "name", "pattern"))
    with pytest.raises(InputError, match=message):
        attach(model, name, pattern, **made).load_state_dict(state)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("bwdp", TWO_OF_EIGHT, {}), "scheme 'bwdp' is unknown: did you mean 'bdwp'"),
        (("bdwp", None, {}), "needs an N:M pattern, for example 2:8"),
        (("srste", TWO_OF_EIGHT, {"deca": 1.0}), "option 'deca' of scheme 'srste' is unknown: did you mean 'decay'"),
        (("sdwp", TWO_OF_EIGHT, {"decay": 1.0}), "option 'decay' of scheme 'sdwp' is unknown: it has none"),
        (("srste", TWO_OF_EIGHT, {"decay": -1.0}), "option 'decay' must be a number from 0 to 1, not -1.0"),
        (("srste", TWO_OF_EIGHT, {"decay": float("nan")}), "must be a number from 0 to 1, not nan"),
        (("bimask", TWO_OF_EIGHT, {"period": 0}), "option 'period' must be an integer from 1"),
        (("bdwp-x", TWO_OF_EIGHT, {"dense_head": 0.7, "dense_tail": 0.7}), "must not add up to more than 1"),
        (("bdwp", TWO_OF_EIGHT, {"steps": 0}), "steps of a training must be an integer from 1"),
        (("bdwp", TWO_OF_EIGHT, {"seed": -1}), "seed of a technique must be an integer from 0"),
    ],
)
def test_bad_input_is_refused(arguments, message):
    name, pattern, options = arguments
    with pytest.raises(InputError, match=message):
        attach(net(), name, pattern, **{"steps": 4, **options})


def test_a_pattern_longer_than_every_dimension_leaves_nothing_and_says_why():
    model = nn.Sequential(nn.Linear(6, 7))
    with pytest.raises(InputError) as error:
        attach(model, "bdwp", NMPattern(keep=2, group=8), steps=1)

    assert "no sparsifiable layer for scheme 'bdwp' at 2:8" in str(error.value)
    assert "0: FF: contraction runs of 6 are shorter than a group of 8" in str(error.value)
    assert "BP: contraction runs of 7 are shorter than a group of 8" in str(error.value)
    assert type(model[0]) is nn.Linear


def test_two_techniques_at_once_are_refused():
    model = net()
    attach(model, "bdwp", TWO_OF_EIGHT, steps=1)
    with pytest.raises(InputError, match="already attached to the model; detach it first"):
        attach(model, "srste", TWO_OF_EIGHT, steps=1)


def test_every_scheme_names_a_technique_and_its_phases_add_up():
    for name, scheme in SCHEMES.items():
        made = phases(name, None if scheme.levels else TWO_OF_EIGHT)
        assert sum(p.share for p in made) == pytest.approx(1) and all(p.scheme in SCHEMES for p in made)
        assert scheme.technique.count(".") == 1 and scheme.title


@pytest.mark.parametrize("name", [name for name, scheme in SCHEMES.items() if scheme.sparse or name == "dense"])
@pytest.mark.parametrize("pattern", ["2:8", "1:16", "3:20"])
def test_training_and_annotation_thin_out_the_same_operands(name, pattern):
    """The traced step of the very model, parameter by parameter and pass by pass, and why the others are dense."""
    nm, model = NMPattern.parse(pattern), net()
    made = annotate(trace_module(model, torch.zeros(32, 3, 8, 8), loss=lambda y: y.sum()), name, nm)
    # Its earlier phases have longer groups, which fewer layers can hold.
    options = {"frames": 1} if name == "sdgf-geometric" else {}
    technique = attach(model, name, nm, steps=100, **options)
    technique.before_step(50)
    marked = {(op.parameter, op.pass_) for op in made.matrix_ops if op.sparse}
    reasons = {(op.parameter, op.pass_): op.kept_dense for op in made.matrix_ops if op.kept_dense}

    assert marked == {(f"{key}.weight", p) for key, layer in technique.layers.items() for p in layer.passes}
    for key, layer in technique.layers.items():
        assert layer.kept_dense == {p: why for (q, p), why in reasons.items() if q == f"{key}.weight"}
    for key, why in technique.kept_dense.items():
        own = {p: reason for (q, p), reason in reasons.items() if q == f"{key}.weight"}
        # The stem has no BP, and a dense scheme no reasons.
        assert set(own.values()) <= {why} or why == "; ".join(f"{p}: {reason}" for p, reason in own.items())


def test_phases_end_at_the_step_nearest_to_their_share():
    made = phases("bdwp-x", TWO_OF_EIGHT, dense_head=0.2, dense_tail=0.3)
    names = [phase_at(made, step, 10).scheme for step in range(11)]

    assert names == ["bdwp"] * 2 + ["bdwp-x"] * 5 + ["bdwp"] * 4
    assert phases("bdwp", TWO_OF_EIGHT) == (Phase(share=1.0, scheme="bdwp", pattern=TWO_OF_EIGHT),)
    with pytest.raises(InputError, match="share of a training phase"):
        Phase(share=1.5, scheme="bdwp", pattern=None)


def test_metrics_count_what_is_there():
    model = net()
    technique = attach(model, "bdwp", TWO_OF_EIGHT, steps=3)
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    train(model, technique, batch(), range(2), optimizer)
    still = technique.metrics()["tokens"]

    # 40 inputs are five groups of 8; 20 outputs are 8 + 8 + 4, which keep 6.
    assert (still.density_ff, still.density_bp, still.density_wu) == (0.25, 0.3, 1.0)
    assert (still.flip_rate, still.sad) == (0.0, 0.0)
    with torch.no_grad():
        # The two largest of the first group become the smallest, so two masks bits go and two come.
        group = model.tokens.weight[0, :8]
        group[group.abs().topk(2).indices] = 1e-9
    train(model, technique, batch(), range(2, 3), optimizer)
    moved = technique.metrics()["tokens"]
    assert moved.flip_rate == moved.sad == 4 / (20 * 40)


@pytest.mark.parametrize("name", ["srste", "bdwp", "transposable", "bimask"])
def test_compact_operands_are_those_of_the_machine(name):
    """The whole operand comes back, from the simulator's own form, for every convolution group."""
    technique = attach(net(), name, TWO_OF_EIGHT, steps=1)
    technique.before_step(0)
    for key, operands in technique.compact().items():
        layer = technique.layers[key]
        groups, outputs, inputs, taps = layer.shape
        assert operands.keys() == layer.passes
        for pass_, made in operands.items():
            dense = layer.canonical(layer.operand(pass_)).detach().half().numpy()
            for g in range(groups):
                packed = Compact(
                    values=made.values[g], indices=made.indices[g], pattern=made.pattern, k=made.k, run=made.run
                )
                whole = decompress(packed)
                if pass_ == Pass.FF:
                    assert np.array_equal(whole, dense[g].transpose(2, 1, 0).reshape(taps * inputs, outputs))
                else:
                    order = slice(None) if made.order is None else made.order
                    assert np.array_equal(whole, dense[g][order].reshape(outputs, inputs * taps))


def test_fp16_training_selects_what_the_machine_would():
    technique = attach(net(), "bdwp", TWO_OF_EIGHT, steps=1)
    layer = technique.layers["tokens"]
    layer.module.half()
    made = technique.compact()["tokens"]

    weight = layer.weight.detach().numpy()
    for pass_, stored in ((Pass.FF, weight.T), (Pass.BP, weight)):
        machine = compress(np.ascontiguousarray(stored), TWO_OF_EIGHT)
        assert np.array_equal(made[pass_].values[0].view(np.uint16), machine.values.view(np.uint16))
        assert np.array_equal(made[pass_].indices[0], machine.indices)
