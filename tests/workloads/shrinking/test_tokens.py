"""Tokens that leave a vision transformer: who leaves, by loops; what is left, by the whole model's own blocks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from weft.workloads.errors import InputError
from weft.workloads.models.classifier import classifier
from weft.workloads.models.module import module_source
from weft.workloads.models.vision import vit_s
from weft.workloads.shrinking.tokens import fewer_tokens, leaving_after, page_rank, shared_neurons, spread_out
from weft.workloads.trace import trace_use

pytestmark = pytest.mark.usefixtures("one_thread")


def test_importance_flows_along_attention() -> None:
    rng = np.random.default_rng(1)
    attention = rng.random((2, 3, 5, 5))
    attention /= attention.sum(-1, keepdims=True)
    expected = np.zeros((2, 5))
    for image in range(2):
        for head in range(3):
            held = [1 / 5] * 5
            for _ in range(4):
                moved = [0.0] * 5
                for query in range(5):
                    for key in range(5):
                        moved[key] += held[query] * attention[image, head, query, key]
                held = moved
            expected[image] += np.square(held) / 3
    found = page_rank(torch.from_numpy(attention), 4)
    np.testing.assert_allclose(found.numpy(), np.sqrt(expected), rtol=1e-12)


@pytest.mark.parametrize("kept", [9, 7, 6, 4, 2, 1])
def test_the_least_important_and_the_most_alike_leave(kept: int) -> None:
    rng = np.random.default_rng(kept)
    importance, keys = rng.random((3, 10)), rng.normal(size=(3, 10, 4))
    found = spread_out(torch.from_numpy(importance), torch.from_numpy(keys), kept)
    for image in range(3):
        gone = 10 - kept
        ranked = sorted(range(10), key=lambda token: -importance[image, token])
        ranked = ranked[: 10 - gone // 2]
        firm, loose = ranked[::2], ranked[1::2]
        more = gone - gone // 2
        if more > len(loose):
            expected = set(ranked[:kept])
        else:

            def alike(token: int, image: int = image, firm: list[int] = firm) -> float:
                a = keys[image, token] / np.linalg.norm(keys[image, token])
                return max(float(a @ keys[image, f] / np.linalg.norm(keys[image, f])) for f in firm)

            expected = {*firm, *sorted(loose, key=alike)[: len(loose) - more]}
        assert set(found[image].tolist()) == expected
        assert len(expected) == kept


def test_tokens_share_the_neurons_that_most_of_them_have() -> None:
    hidden = np.random.default_rng(2).normal(size=(2, 6, 20))
    found = shared_neurons(torch.from_numpy(hidden))
    for image in range(2):
        active = [set(np.argsort(-hidden[image, token])[:4].tolist()) for token in range(6)]
        counts = [sum(neuron in own for own in active) for neuron in range(20)]
        core = set(sorted(range(20), key=lambda neuron: -counts[neuron])[:8])
        # The last of the core may be one of several that as many tokens have.
        least = min(counts[neuron] for neuron in core)
        sure = {neuron for neuron in range(20) if counts[neuron] > least}
        tied = {neuron for neuron in range(20) if counts[neuron] == least}
        for token in range(6):
            low = len(active[token] & sure)
            assert low <= found[image, token] <= low + len(active[token] & tied)
        assert float(found[image].sum()) == sum(sorted(counts)[-8:])


@pytest.mark.parametrize("by", ["tokens", "core"])
@torch.no_grad()
def test_what_is_left_goes_through_the_models_own_blocks(by: str) -> None:
    torch.manual_seed(4)
    model, pixels = classifier("vit_s", (1, 28, 28), 10).eval(), torch.rand(1, 1, 28, 28)
    torch.testing.assert_close(fewer_tokens(model, by, 1.0)(pixels), model(pixels), rtol=1e-4, atol=1e-5)
    small = fewer_tokens(model, by, 0.4)
    seen: list[torch.Tensor] = []
    small.blocks[1].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    found = small(pixels)
    (left,) = seen
    assert left.shape == (1, 1 + 20, 64)

    x = model.patches(pixels).flatten(2).transpose(1, 2)
    x = torch.cat((model.token, x), dim=1) + model.positions
    whole = model.blocks[0](x)
    # Every token that is left is one of those that were there, none twice, the class token first.
    away = torch.cdist(left[0], whole[0], compute_mode="donot_use_mm_for_euclid_dist")
    places = away.argmin(1).tolist()
    assert float(away.amin(1).max()) < 1e-4 and len(set(places)) == 21 and places[0] == 0
    expected = model.head(model.norm(model.blocks[1](whole[:, sorted(places)]))[:, 0])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_products_of_later_blocks_are_those_of_fewer_tokens() -> None:
    """Of 12 blocks of 384, 64 tokens and one, of which 45, 31 and 22 and one are left behind the 3rd, 6th and 9th."""
    pixels = torch.empty(1, 3, 32, 32)
    step = trace_use(module_source(fewer_tokens(vit_s(), "core", 0.7), pixels), "infer")
    blocks = sum(3 * (t * 384 * (3 * 384 + 384 + 2 * 1536) + 2 * 384 * t * t) for t in (1 + 64, 1 + 45, 1 + 31, 1 + 22))
    choosing = sum(t * 1536 for t in (64, 45, 31))  # active neurons by the core
    assert sum(step.dense_macs.values()) == blocks + 64 * 48 * 384 + 384 * 100 + choosing
    ranked = trace_use(module_source(fewer_tokens(vit_s(), "tokens", 0.7), pixels), "infer")
    rounds = sum(8 * 6 * t * t for t in (65, 46, 32))
    alike = sum(((n + 1) // 2) * (n // 2) * 384 for n in (64 - 9, 45 - 7, 31 - 4))
    assert sum(ranked.dense_macs.values()) == sum(step.dense_macs.values()) - choosing + rounds + alike


def test_where_tokens_leave_and_of_what() -> None:
    assert [leaving_after(depth) for depth in (1, 2, 3, 12)] == [[], [0], [0, 1], [2, 5, 8]]
    with pytest.raises(InputError, match="Flatten has no blocks of vit_s"):
        fewer_tokens(nn.Flatten(), "core", 0.5)
