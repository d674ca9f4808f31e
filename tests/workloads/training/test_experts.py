"""A network in experts: its values by loops over experts, and what its loss counts."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from weft.workloads.models.zoo import source
from weft.workloads.skip_rows import EXPERTS
from weft.workloads.training.characters import recorded_rows, trained_characters
from weft.workloads.training.experts import CHUNK, Routed, in_experts, unlike

pytestmark = pytest.mark.usefixtures("one_thread")


@torch.no_grad()
def test_a_network_in_experts_is_the_sum_of_those_that_pass() -> None:
    torch.manual_seed(1)
    first, second = nn.Linear(12, 512), nn.Linear(512, 12, bias=False)
    layer = Routed(first)
    layer.scale.uniform_(0.5, 2)
    x = torch.randn(5, 12)
    found = second(layer(x))
    for token in range(5):
        scores = [max(0.0, float(layer.router.weight[e] @ x[token])) for e in range(EXPERTS)]
        root = math.sqrt(sum(s * s for s in scores) / EXPERTS + 1e-6)
        expected = torch.zeros(12)
        for expert, score in enumerate(scores):
            own = range(13 * expert, min(13 * expert + 13, 512))  # 40 experts of 13, the last of 5
            for neuron in own:
                value = float(first.weight[neuron] @ x[token] + first.bias[neuron])
                gain = score / root * float(layer.scale[expert])
                expected += value / (1 + math.exp(-value)) * gain * second.weight[:, neuron]
        torch.testing.assert_close(found[token], expected, rtol=1e-3, atol=1e-4)
        silent = [e for e, score in enumerate(scores) if score == 0]
        assert silent and not layer(x)[token, 13 * silent[0] : 13 * silent[0] + 13].any()


def test_tokens_that_share_their_experts_lose_less() -> None:
    apart, together = torch.zeros(2 * CHUNK, 4), torch.zeros(2 * CHUNK, 4)
    for token in range(2 * CHUNK):
        apart[token, token % 4] = 3.0
        together[token, 0] = 3.0
    # An expert of which two of eight tokens have three quarters is unused with a chance of 1/16; of all eight, 4^-8.
    assert float(unlike(apart)) == pytest.approx(1 - 1 / 16)
    assert float(unlike(together)) == pytest.approx((1 - 4.0**-8) / 4)
    assert float(unlike(torch.zeros(CHUNK, 4))) == 0


def test_experts_take_the_place_of_the_networks_of_an_opt() -> None:
    model = source("characters").build()
    routed = in_experts(model)
    assert len(routed) == 3
    logits = model(input_ids=torch.zeros(2, 64, dtype=torch.long)).logits
    loss = logits.square().mean() + sum(unlike(network.scores) for network in routed)
    torch.autograd.backward(loss)
    assert all(network.router.weight.grad.abs().sum() > 0 for network in routed)
    assert all(network.scores.shape == (128, EXPERTS) for network in routed)


@pytest.mark.slow
def test_masks_are_of_whole_experts() -> None:
    from weft.workloads.data.text import open_text

    text = open_text("pydoc")
    found = recorded_rows(trained_characters(text, experts=True, steps=3), text, "blockffn", 32)
    for mask in found.inputs.values():
        for expert in range(EXPERTS):
            own = mask[:, 13 * expert : 13 * expert + 13]
            assert (own.all(1) | ~own.any(1)).all()
    assert found.about.said == "blockffn"
