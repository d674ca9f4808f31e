"""Fully sparse training: WU is an unbiased estimate of the dense one, in the phases that the machine is told."""

from __future__ import annotations

import torch
from torch import nn

from weft.workloads.gemm import Pass
from weft.workloads.schemes import attach
from weft.workloads.schemes.scheme import phases

from .harness import TWO_OF_EIGHT, backward, net


def _small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(72, 8))


def test_weight_gradients_are_unbiased_and_input_gradients_exact():
    """Mean over draws against BDWP with the same weights, within 5 standard errors in every element."""
    model, reference = _small(), _small()
    x, labels = torch.randn(12, 3, 5, 5), torch.arange(12) % 8
    technique = attach(model, "bdwp-x", TWO_OF_EIGHT, steps=10**6, dense_head=0.0)
    attach(reference, "bdwp", TWO_OF_EIGHT, steps=1)
    backward(reference, (x, labels))
    drawn: dict[str, list[torch.Tensor]] = {name: [] for name, _ in model.named_parameters()}
    for step in range(300):
        technique.before_step(step)
        model.zero_grad()
        backward(model, (x, labels))
        for name, p in model.named_parameters():
            drawn[name].append(p.grad)

    for name, p in reference.named_parameters():
        spread, mean = torch.std_mean(torch.stack(drawn[name]).double(), dim=0)
        if name.startswith("0.") or name.endswith("bias"):
            # The first convolution is dense, and what reaches it has passed through W_bp alone.
            torch.testing.assert_close(mean.float(), p.grad, rtol=1e-4, atol=1e-6)
        else:
            assert spread.mean() > 0.05 * p.grad.abs().mean()
            assert ((mean - p.grad).abs() <= 5 * spread / 300**0.5).all()


def test_sampling_varies_less_than_uniform_choice():
    """Against keeping two of eight at random times four, on the gradient of a trained layer."""
    torch.manual_seed(0)
    x, dy = torch.randn(64, 16), torch.randn(64, 16) ** 3
    layer = nn.Linear(16, 16)
    technique = attach(layer, "bdwp-x", TWO_OF_EIGHT, steps=10**6, dense_head=0.0)
    exact = dy.t() @ x
    ours = uniform = 0.0
    for step in range(200):
        technique.before_step(step)
        ours += float((technique.update_gradient(technique.layers[""], dy).t() @ x - exact).square().sum())
        chance = torch.rand(8, 8, 16).argsort(dim=1).reshape(64, 16) < 2
        uniform += float(((4 * dy * chance).t() @ x - exact).square().sum())

    assert ours < 0.35 * uniform


def test_update_is_dense_in_head_and_tail():
    model = net()
    technique = attach(model, "bdwp-x", TWO_OF_EIGHT, steps=10, dense_head=0.2, dense_tail=0.3)
    sparse = []
    for step in range(10):
        technique.before_step(step)
        sparse.append(Pass.WU in technique.layers["conv"].passes)
        assert {Pass.FF, Pass.BP} <= technique.layers["conv"].passes

    assert sparse == [False] * 2 + [True] * 5 + [False] * 3
    assert technique.phases == phases("bdwp-x", TWO_OF_EIGHT, dense_head=0.2, dense_tail=0.3)
