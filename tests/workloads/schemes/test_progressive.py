"""Progressive techniques: equations by hand, schedules at their boundaries, operands that are what a phase claims."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from weft.dataflow.config_io import load_spec
from weft.workloads.errors import InputError
from weft.workloads.gemm import Pass
from weft.workloads.schemes import attach
from weft.workloads.schemes.annotate import annotate
from weft.workloads.schemes.scheme import SCHEMES, Phase, phases, scheme
from weft.workloads.sparsity import NMPattern
from weft.workloads.training import plan, step_workload
from weft.workloads.training import train as train_digits

from .harness import TWO_OF_EIGHT, batch, most_kept, net, train

HALF = NMPattern(keep=1, group=2)
WEIGHT = torch.tensor([[3.0, 1.0], [2.0, -4.0]])
FAMILIES = ("progressive", "oneshot")
NAMES = [name for name, s in SCHEMES.items() if s.technique.partition(".")[0] in FAMILIES]


def layer_at(name: str, steps: int, pattern: NMPattern = HALF, weight: torch.Tensor = WEIGHT, **options):
    layer = nn.Linear(*reversed(weight.shape), bias=False)
    with torch.no_grad():
        layer.weight.copy_(weight)
    return layer, attach(layer, name, pattern, steps=steps, **options)


def patterns(made: tuple[Phase, ...]) -> list[str]:
    return [str(p.pattern) if p.pattern else p.scheme for p in made]


@pytest.mark.parametrize(
    ("name", "options", "remainders"),
    [
        ("mdgf-linear", {"until": 0.5}, {0: 1.0, 1: 0.8, 4: 0.2, 5: 0.0, 9: 0.0}),
        ("mdgf-linear", {"until": 0.0}, {0: 0.0}),
        ("mdgf-exponential", {"until": 0.9, "rate": 11.0}, {0: 1.0, 1: math.exp(-1.1), 8: math.exp(-8.8), 9: 0.0}),
    ],
)
def test_mdgf_scales_what_is_dropped(name, options, remainders):
    """W (m + (1 - m) d), and nothing of it is left exactly from the step on that the machine is told."""
    _, technique = layer_at(name, 10, **options)
    for step, d in remainders.items():
        technique.before_step(step)
        expected = torch.tensor([[3.0, 1.0 * d], [2.0 * d, -4.0]])
        torch.testing.assert_close(technique.layers[""].operand(Pass.FF), expected)
        assert technique.layers[""].operand(Pass.BP) is technique.layers[""].operand(Pass.FF)
        assert (technique.phase.scheme == name) == (d == 0.0) == bool(technique.compact()[""])


def test_mdgf_gradient_is_straight_through():
    layer, technique = layer_at("mdgf-linear", 10)
    technique.before_step(3)
    layer(torch.tensor([[10.0, 100.0]])).backward(torch.tensor([[1.0, 5.0]]))
    technique.adjust_gradients(3)

    assert layer.weight.grad.tolist() == [[10, 100], [50, 500]]


@pytest.mark.parametrize(
    ("name", "pattern", "options", "expected"),
    [
        ("sdgf-stepwise", (1, 8), {}, ["7:8", "4:8", "2:8", "1:8"]),
        ("sdgf-stepwise", (1, 16), {"dense_head": 0.2}, ["dense", "15:16", "8:16", "4:16", "2:16", "1:16"]),
        ("sdgf-stepwise", (2, 4), {}, ["3:4", "2:4"]),
        ("sdgf-stepwise", (3, 4), {}, ["3:4"]),
        ("sdgf-stepwise", (3, 8), {}, ["7:8", "4:8", "3:8"]),
        ("sdgf-stepwise", (8, 8), {}, ["8:8"]),
        ("sdgf-geometric", (1, 4), {"frames": 4}, ["8:32", "4:16", "2:8", "1:4"]),
        ("sdgf-geometric", (2, 8), {}, ["8:32", "4:16", "2:8"]),
        ("sdgf-geometric", (2, 8), {"frames": 1, "dense_head": 0.5}, ["dense", "2:8"]),
    ],
)
def test_sdgf_goes_through_the_patterns_of_the_paper(name, pattern, options, expected):
    made = phases(name, NMPattern(keep=pattern[0], group=pattern[1]), **options)

    assert patterns(made) == expected
    shares = [p.share for p in made if p.scheme != "dense"]
    assert shares == pytest.approx([(1 - options.get("dense_head", 0.0)) / len(shares)] * len(shares))


@given(st.integers(1, 32).flatmap(lambda m: st.tuples(st.integers(1, m), st.just(m))))
def test_stepwise_patterns_get_sparser_and_end_at_the_target(counts):
    target = NMPattern(keep=counts[0], group=counts[1])
    made = [p.pattern for p in phases("sdgf-stepwise", target)]

    assert made[-1] == target and {p.group for p in made} == {target.group}
    assert all(a.keep > b.keep for a, b in pairwise(made))


def test_groups_longer_than_any_machine_holds_are_refused():
    with pytest.raises(InputError, match=r"begins with groups of 64, but a group has at most 32.*use frames=3"):
        phases("sdgf-geometric", TWO_OF_EIGHT, frames=4)
    with pytest.raises(InputError, match=r"use frames=2, or groups of at most 8"):
        phases("sdgf-geometric", NMPattern(keep=1, group=16))


@pytest.mark.parametrize("name", NAMES)
def test_every_claimed_operand_is_n_to_m_and_others_are_claimed_by_none(name):
    """In every step: FF is N:M of the phase's pattern where the annotation of the phase says so."""
    model, steps = net(), 12
    technique = attach(model, name, TWO_OF_EIGHT, steps=steps)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    seen = set()
    for step in range(steps):
        train(model, technique, batch(), range(step, step + 1), optimizer)
        claimed = scheme(technique.phase.scheme).sparse
        seen.add(technique.phase.scheme)
        for key, layer in technique.layers.items():
            if Pass.FF in claimed and layer.run(Pass.FF) >= technique.phase.pattern.group:
                pattern = technique.phase.pattern
                canonical = layer.canonical(layer.operand(Pass.FF))
                assert most_kept(canonical, 2, pattern.group) <= pattern.keep
                assert technique.compact()[key][Pass.FF].pattern == pattern
            else:
                assert not technique.compact()[key]
    assert name in seen and seen == {p.scheme for p in technique.phases}


@pytest.mark.parametrize(("momentum", "expected"), [(None, [0.98, 1.98]), ("adam", None)])
def test_cast_decays_what_the_mask_drops(momentum, expected):
    """SGD: W - lr lambda_t sign(W). Adam: the same over sqrt(v) + eps."""
    layer, technique = layer_at("cast", 10, until=1.0, decay=0.4)
    made = torch.optim.SGD(layer.parameters(), 0.1) if momentum is None else torch.optim.Adam(layer.parameters(), 0.1)
    for step in range(6):
        technique.before_step(step)
        layer.weight.grad = torch.tensor([[0.5, 0.5], [0.5, 0.5]]) if momentum else torch.zeros(2, 2)
        made.step()
        if step < 5:
            continue
        before = layer.weight.detach().clone()
        technique.after_step(step, made)
        # The ramp is at 5 of 10 steps; v of a constant gradient g is g^2.
        amount = 0.1 * 0.4 * 0.5 / (0.5 if momentum else 1.0)
        torch.testing.assert_close(
            before - layer.weight, torch.tensor([[0.0, amount], [amount, 0.0]]), atol=1e-5, rtol=0
        )
        if expected:
            assert [layer.weight[0, 1].item(), layer.weight[1, 0].item()] == pytest.approx(expected)


def test_cast_stops_at_zero_and_stays_there():
    layer, technique = layer_at("cast", 4, until=0.75, decay=1e6)
    optimizer = torch.optim.SGD(layer.parameters(), 0.1, momentum=0.9)
    for step in range(4):
        technique.before_step(step)
        layer.weight.grad = torch.full((2, 2), 0.1)
        technique.adjust_gradients(step)
        optimizer.step()
        technique.after_step(step, optimizer)
        if step:
            assert layer.weight[0, 1] == layer.weight[1, 0] == 0.0
    # What had gathered outside the mask went with it.
    assert optimizer.state[layer.weight]["momentum_buffer"][0, 1] == 0.0


def adam_by_hand(weight, gradients, switch, rate=0.01, betas=(0.9, 0.99), eps=1e-8):
    """Adam, but with the bias-corrected second moment of ``switch`` under the root from then on."""
    m, v, frozen, w = torch.zeros_like(weight), torch.zeros_like(weight), None, weight.double().clone()
    for t, g in enumerate(gradients, start=1):
        m = betas[0] * m + (1 - betas[0]) * g
        if frozen is None:
            v = betas[1] * v + (1 - betas[1]) * g * g
            below = (v / (1 - betas[1] ** t)).sqrt() + eps
        else:
            below = (frozen + eps).sqrt()
        w -= rate * m / (1 - betas[0] ** t) / below
        if t == switch:
            frozen = v / (1 - betas[1] ** t)
    return w


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW])
def test_step_freezes_the_second_moment_of_the_switch(kind):
    torch.manual_seed(0)
    gradients = torch.randn(8, 2, 2, dtype=torch.float64)
    layer, technique = layer_at("step", 8, until=0.5, earliest=0.5)
    layer.double()
    optimizer = kind(layer.parameters(), 0.01, betas=(0.9, 0.99), weight_decay=0.0)
    for step, gradient in enumerate(gradients):
        technique.before_step(step)
        layer.weight.grad = gradient.clone()
        optimizer.step()
        technique.after_step(step, optimizer)
        assert technique.arrived == (step >= 4)

    torch.testing.assert_close(layer.weight.detach(), adam_by_hand(WEIGHT, gradients, 4), atol=1e-12, rtol=0)


def test_step_that_the_scaler_skipped_changes_nothing():
    layer, technique = layer_at("step", 8, until=0.25, earliest=0.25)
    optimizer = torch.optim.Adam(layer.parameters(), 0.01)
    for step in range(4):
        technique.before_step(step)
        layer.weight.grad = torch.ones(2, 2)
        optimizer.step()
        technique.after_step(step, optimizer)
    before = layer.weight.detach().clone(), len(technique._changes)
    technique.before_step(4)
    technique.after_step(4, optimizer)

    assert torch.equal(layer.weight, before[0]) and len(technique._changes) == before[1]


def test_step_switches_when_the_second_moment_settles_and_resumes_so():
    """A constant gradient from v = 0: |v_t - v_(t-1)| = 0.01 * 0.99^(t-1) g^2."""

    def run(layer, technique, optimizer, steps):
        for step in steps:
            technique.before_step(step)
            layer.weight.grad = torch.full((2, 2), 1e-3)
            optimizer.step()
            technique.after_step(step, optimizer)

    def start():
        layer, technique = layer_at("step", 20, until=0.8, earliest=0.3)
        # Z_1 = 1e-8 and falls: below eps = 9.8e-9 once the mean over t steps is.
        return layer, technique, torch.optim.Adam(layer.parameters(), 0.01, betas=(0.9, 0.99), eps=9.8e-9)

    layer, technique, optimizer = start()
    assert [p.share for p in technique.phases] == pytest.approx([0.8, 0.2])
    run(layer, technique, optimizer, range(10))
    # The mean of 0.99^0 ... 0.99^(t-1) is below 0.98 at t = 6; yet ``earliest`` holds it until more than 6 are done.
    assert [p.share for p in technique.phases] == pytest.approx([7 / 20, 13 / 20])
    saved = copy.deepcopy((layer.state_dict(), optimizer.state_dict(), technique.state_dict()))
    run(layer, technique, optimizer, range(10, 20))

    again = start()
    for part, state in zip((again[0], again[2], again[1]), saved, strict=True):
        part.load_state_dict(state)
    assert again[1].phases == technique.phases and again[1].arrived
    run(again[0], again[1], again[2], range(10, 20))
    assert torch.equal(again[0].weight, layer.weight)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("mdgf-linear", {"until": 1.5}, "option 'until' must be a number from 0 to 1, not 1.5"),
        ("mdgf-exponential", {"rate": -1}, "option 'rate'"),
        ("sdgf-stepwise", {"dense_head": "x"}, "option 'dense_head' must be a number from 0 to 1, not 'x'"),
        ("sdgf-geometric", {"frames": 9}, "option 'frames' must be an integer from 1 to 6"),
        ("cast", {"period": 0}, "option 'period'"),
        ("step", {"earliest": 0.6}, "'earliest' of scheme 'step' must be at most 'until', 0.5, not 0.6"),
        ("wanda", {"calibration": 0}, "option 'calibration'"),
    ],
)
def test_bad_options_are_refused(name, options, message):
    with pytest.raises(InputError, match=message):
        attach(net(), name, TWO_OF_EIGHT, steps=4, **options)


@pytest.mark.parametrize("name", ["mdgf-linear", "cast", "magnitude"])
def test_operands_are_there_before_the_first_step(name):
    _, technique = layer_at(name, 4, until=0.0)
    assert technique.layers[""].operand(Pass.FF).tolist() == [[3, 0], [0, -4]]
    assert technique.compact()[""].keys() == {Pass.FF}


@pytest.mark.parametrize("name", NAMES)
def test_every_phase_annotates_a_step_of_its_own(name):
    """Multiplications of FF fall with the density of the phase; the time average lies between dense and sparsest."""
    dense = step_workload(plan("mlp"))
    macs = []
    for phase in phases(name, TWO_OF_EIGHT):
        made = annotate(dense, phase.scheme, phase.pattern)
        ff = sum(op.macs for op in made.matrix_ops if op.pass_ == Pass.FF)
        density = phase.pattern.density if phase.scheme == name else 1.0
        assert ff == density * dense.dense_macs[Pass.FF]
        macs.append(phase.share * ff)
    assert 0.25 * dense.dense_macs[Pass.FF] < sum(macs) + 1 <= dense.dense_macs[Pass.FF]


def test_a_machine_refuses_the_long_groups_of_a_phase_and_says_why():
    spec = load_spec("sat-vcu1525")
    first, *rest = phases("sdgf-geometric", TWO_OF_EIGHT)
    with pytest.raises(InputError, match=r"pattern 8:32 has groups of 32, but pe.max_group of .* is 16"):
        spec.check_pattern(first.pattern)
    for phase in rest:
        spec.check_pattern(phase.pattern)


@pytest.mark.parametrize("name", [n for n in NAMES if SCHEMES[n].technique.startswith("progressive")])
def test_it_trains_the_digits_for_two_epochs(name):
    result = train_digits(replace(plan("mlp", scheme=name, epochs=2, optimizer="adamw"), amp="bf16"))

    assert result.log[-1].density_ff == pytest.approx(0.25, abs=0.01)
    assert result.accuracy > 0.3
