"""Attention that is partly by random features, against loops over pairs and against attention itself."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from weft.workloads.training.random_features import directions, scattered

from ...examples_drawn import examples


def drawn(tokens: int, seed: int, *, width: int = 3, size: float = 1.0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Queries, which come scaled, keys, values, and pairs that are seen, none behind its query: one head of one
    sample."""
    torch.manual_seed(seed)
    q, k, v = size * torch.randn(3, 1, 1, tokens, width, dtype=torch.float64)
    mask = (torch.rand(1, 1, tokens, tokens) < 0.4).tril()
    return q / math.sqrt(width), k, v, mask


def pair_by_pair(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, along: Tensor) -> list[list[float]]:
    """Of one head, a weight after the other."""
    q_rows, k_rows, v_rows, seen = (x[0, 0].tolist() for x in (q, k, v, mask))
    root = len(k_rows[0]) ** 0.25
    made = []
    for i, query in enumerate(q_rows):
        weights = []
        for key, exact in zip(k_rows[: i + 1], seen[i], strict=False):
            if exact:
                weights.append(math.exp(sum(a * b for a, b in zip(query, key, strict=True))))
                continue
            large, small = [x * root for x in query], [x / root for x in key]
            lengths = sum(x * x for x in (*large, *small)) / 2
            every = [
                math.exp(sum(w * (a + b) for w, a, b in zip(row, large, small, strict=True)) - lengths)
                for row in along.tolist()
            ]
            weights.append(sum(every) / len(every))
        made.append(
            [
                sum(w * row[c] for w, row in zip(weights, v_rows, strict=False)) / sum(weights)
                for c in range(len(v_rows[0]))
            ]
        )
    return made


@settings(deadline=None, max_examples=examples(24))
@given(st.integers(1, 12), st.integers(1, 8), st.integers(1, 5), st.integers(0, 99))
def test_sums_over_blocks_are_weights_pair_by_pair(tokens: int, features: int, block: int, seed: int) -> None:
    q, k, v, mask = drawn(tokens, seed)
    along = directions(features, 3, seed)
    found = scattered(q, k, v, mask, along, block)
    torch.testing.assert_close(found[0, 0], torch.tensor(pair_by_pair(q, k, v, mask, along), dtype=torch.float64))


@pytest.mark.parametrize("size", [0.1, 1.0, 12.0])
def test_with_all_pairs_it_is_attention(size: float) -> None:
    """Also where scores are hundreds, of which no exponential is a number."""
    q, k, v, mask = drawn(30, 1, width=4, size=size)
    whole = torch.ones_like(mask).tril()
    found = scattered(q, k, v, whole, directions(8, 4, 0), 7)
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, scale=1.0)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_the_more_features_the_nearer() -> None:
    """To attention, where nothing is exact; and the mean of many is it."""
    q, k, v, mask = drawn(20, 2, width=4, size=0.7)
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, scale=1.0)

    def error(features: int) -> float:
        nothing = torch.zeros_like(mask)
        found = [scattered(q, k, v, nothing, directions(features, 4, seed), 8) - expected for seed in range(6)]
        return float(torch.stack([x.norm() for x in found]).mean())

    few, more, most = error(4), error(128), error(2**14)
    assert few > 2 * more > 4 * most
    assert most < 0.03 * float(expected.norm())


def test_directions_are_normal_and_at_right_angles() -> None:
    along = directions(4000, 4, 0)
    assert float(along.mean()) == pytest.approx(0, abs=0.02)
    assert along.T @ along / 4000 == pytest.approx(torch.eye(4, dtype=torch.float64), abs=0.05)
    blocks = along.reshape(-1, 4, 4)
    products = blocks @ blocks.mT
    assert torch.triu(products, 1).abs().max() < 1e-9
    assert directions(6, 4, 1).shape == (6, 4)
    assert torch.equal(directions(6, 4, 1), directions(6, 4, 1)) and not torch.equal(along[:6], directions(6, 4, 1))
