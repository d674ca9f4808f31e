"""Turbo-VBI at work: a training beside one in plain numbers, lines of every kind of layer, and bursts that it finds."""

from __future__ import annotations

from itertools import product
from math import exp, log

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from weft.workloads.errors import InputError
from weft.workloads.gemm import Pass
from weft.workloads.schemes import attach
from weft.workloads.schemes.conformance import check_technique
from weft.workloads.schemes.scheme import phases
from weft.workloads.schemes.support import Chain
from weft.workloads.sparsity import NMPattern
from weft.workloads.training import plan
from weft.workloads.training.recording import record
from weft.workloads.unstructured import counted_runs

from .harness import TWO_OF_EIGHT, net, train
from .test_support import chance

RATE, MOMENTUM, EXAMPLES, KEPT = 0.2, 0.5, 50.0, 4
STEPS, BEGIN, END = 6, 2, 4
CHAIN = Chain(density=KEPT / 12, burst=3.0)


def batches() -> list[tuple[Tensor, Tensor]]:
    drawn = torch.Generator().manual_seed(1)
    return [(torch.randn(8, 4, generator=drawn), torch.randint(0, 3, (8,), generator=drawn)) for _ in range(STEPS)]


def made() -> nn.Linear:
    torch.manual_seed(3)
    return nn.Linear(4, 3, bias=False)


def gradient(weight: Tensor, batch: tuple[Tensor, Tensor]) -> Tensor:
    free = weight.clone().requires_grad_()
    nn.functional.cross_entropy(batch[0] @ free.T, batch[1]).backward()
    assert free.grad is not None
    return free.grad


def marginal(evidence: list[float]) -> list[float]:
    """By all supports of a line."""
    each = {
        s: chance(s, CHAIN) * exp(sum(e for e, one in zip(evidence, s, strict=True) if one))
        for s in product((0, 1), repeat=len(evidence))
    }
    return [sum(p for s, p in each.items() if s[i]) / sum(each.values()) for i in range(len(evidence))]


def held(evidence: list[list[float]]) -> list[list[float]]:
    """q(s = 1) under the field that leaves as many as are kept, by halving."""
    low, high = -60.0, 60.0
    for _ in range(100):
        field = (low + high) / 2
        found = [marginal([e + field for e in line]) for line in evidence]
        many = sum(q >= 0.5 for line in found for q in line)
        low, high = (low, field) if many >= KEPT else (field, high)
    return found


def by_hand() -> tuple[Tensor, list[list[float]]]:
    """The weights behind the last step, and q(s = 1) that decided the mask."""
    weight, moved, curvature = made().weight.detach().clone(), torch.zeros(3, 4), np.zeros((3, 4))
    kept, rho, unit, mask, seen = np.full((3, 4), KEPT / 12), np.zeros((3, 4)), 0.0, torch.ones(3, 4).bool(), 0
    for step, batch in enumerate(batches()):
        found = gradient(weight, batch).masked_fill(~mask, 0)
        if step < END:
            curvature, seen = 0.95 * curvature + 0.05 * 8 * found.double().numpy() ** 2, seen + 1
        moved = MOMENTUM * moved + found
        weight = weight - RATE * moved
        if step + 1 == BEGIN:
            largest = sorted((float(w) ** 2 for w in weight.flatten()), reverse=True)[:KEPT]
            unit = (sum(largest) / KEPT) ** 0.5
            rho = 1.5 / (kept * 1.0 + (1 - kept) * 0.01)
        if BEGIN <= step + 1 <= END:
            decay = RATE / (1 - MOMENTUM) * rho / unit**2 / EXAMPLES
            weight = (weight.double() / (1 + torch.tensor(decay))).float()
            variance = 1 / (curvature / (1 - 0.95**seen) * EXAMPLES * unit**2 + rho)
            rate = kept + (1 - kept) * 0.01 + ((weight.double().numpy() / unit) ** 2 + variance) / 2
            rho = 1.5 / rate
            # ln Gamma(rho; 1, b) = ln b - b rho: shapes of 1 leave no logarithm of rho.
            evidence = (log(1.0) - log(0.01)) - (1.0 - 0.01) * rho
            kept = np.array(held(evidence.tolist()))
        if step + 1 == END:
            order = sorted(range(12), key=lambda i: -float(kept.flatten()[i]))[:KEPT]
            mask = torch.zeros(12).bool().index_fill(0, torch.tensor(order), True).reshape(3, 4)
            weight, moved = weight.masked_fill(~mask, 0), moved.masked_fill(~mask, 0)
    return weight, kept.tolist()


def test_a_training_is_one_in_plain_numbers() -> None:
    model = made()
    options = {"density": KEPT / 12, "begin": BEGIN / STEPS, "until": END / STEPS, "examples": EXAMPLES}
    technique = attach(model, "turbo-vbi", TWO_OF_EIGHT, steps=STEPS, period=1, burst=3.0, **options)
    optimizer = torch.optim.SGD(model.parameters(), RATE, momentum=MOMENTUM)
    for step, batch in enumerate(batches()):
        train(model, technique, batch, range(step, step + 1), optimizer)
        (layer,) = technique.layers.values()
        assert int(layer.state["mask"].sum()) == (12 if step + 1 < END else KEPT)
    weight, kept = by_hand()

    assert layer.state["kept"].tolist() == [pytest.approx(line, abs=1e-3) for line in kept]
    assert torch.equal(layer.weight != 0, weight != 0)
    assert torch.allclose(layer.weight, weight, atol=1e-5)


def test_lines_are_the_inputs_of_an_output_at_a_tap() -> None:
    for name, layer in attach(net(), "turbo-vbi", TWO_OF_EIGHT, steps=10).layers.items():
        number = torch.arange(layer.weight.numel()).reshape(layer.weight.shape)
        lines = layer.technique.lines(layer, number)
        groups, outputs, inputs, taps = layer.shape
        assert lines.shape == (groups * outputs * taps, inputs), name
        # Of these layers [out, in, ...] is how the weight is stored: taps lie between one input and the next.
        assert (lines.diff() == taps).all()
        assert torch.equal(layer.technique.spread(layer, lines), number)


@pytest.mark.slow
def test_it_keeps_to_what_every_technique_must() -> None:
    check_technique("turbo-vbi", TWO_OF_EIGHT, {"period": 1})


def test_it_is_dense_until_the_mask_stays() -> None:
    assert [(p.share, p.scheme) for p in phases("turbo-vbi", TWO_OF_EIGHT, until=0.75)] == [
        (0.75, "dense"),
        (0.25, "turbo-vbi"),
    ]
    technique = attach(net(), "turbo-vbi", TWO_OF_EIGHT, steps=4)
    assert not any(layer.passes for layer in technique.layers.values())
    technique.before_step(2)
    assert all(layer.passes == {Pass.FF, Pass.BP} for layer in technique.layers.values())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"begin": 0.6}, "option 'begin' .* 0 to 0.5, not 0.6"),
        ({"burst": 1.2}, "burst of a chain that keeps 0.25 must be 1.333 elements at least"),
        ({"examples": 0.5}, "option 'examples' .* 1 to 1e"),
        ({"period": 0}, "option 'period' must be an integer from 1"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        attach(net(), "turbo-vbi", TWO_OF_EIGHT, steps=4, distribution="uniform", **options)


@pytest.mark.slow
def test_what_it_keeps_of_an_mlp_comes_in_bursts() -> None:
    """Beside magnitudes of the same density."""
    found = {}
    for name in ("gmp", "turbo-vbi"):
        masks = record(plan("mlp", scheme=name, pattern=NMPattern(keep=2, group=8), epochs=20)).weights
        found[name] = {layer: mask.sum() / counted_runs(mask, "a") for layer, mask in masks.items()}
        assert all(mask.mean() == pytest.approx(0.25, abs=1e-3) for mask in masks.values())
    assert all(bursts < 2 for bursts in found["gmp"].values())
    assert all(bursts > 4 for bursts in found["turbo-vbi"].values())
