"""EcoFormer's attention against its equations in NumPy: hashing, codes, linear attention, gradients, and its cost."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

import weft
from weft.workloads.errors import InputError
from weft.workloads.gemm import Pass
from weft.workloads.hashed_attention import (
    HashedAttention,
    KernelHashing,
    code,
    hashing_loss,
    linear_attention,
    similar_pairs,
)

from ..examples_drawn import examples

EXAMPLE = Path(__file__).parents[2] / "examples" / "ecoformer.py"


def unit(rng, *shape):
    x = rng.standard_normal(shape)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def signs(rng, *shape):
    return np.where(rng.random(shape) < 0.5, -1.0, 1.0)


def attended(q, k, v):
    """One head, token after token: what every pair of tokens says, in whole numbers, and c times its own value."""
    n, bits = q.shape
    out, c = np.zeros_like(v), bits + 1
    for i in range(n):
        divisor = 0
        for j in range(n):
            same = sum(1 for r in range(bits) if q[i, r] == k[j, r])
            out[i] += (2 * same - bits) * v[j]
            divisor += 2 * same - bits + c
        out[i] = (out[i] + c * v[i]) / divisor
    return out


@settings(max_examples=examples(40), deadline=None)
@given(st.integers(1, 9), st.integers(1, 6), st.integers(1, 5), st.integers(0, 10**6))
def test_linear_attention_is_the_sum_over_all_pairs_of_tokens(n, bits, width, seed):
    rng = np.random.default_rng(seed)
    q, k, v = signs(rng, 2, n, bits), signs(rng, 2, n, bits), rng.standard_normal((2, n, width))

    found = linear_attention(*map(torch.from_numpy, (q, k, v))).numpy()

    np.testing.assert_allclose(found, [attended(*one) for one in zip(q, k, v, strict=True)], atol=1e-12)


def test_gradients_of_linear_attention_on_paper():
    """Two tokens of one bit, q = k = (1, -1), v = (3, 5), c = 2: numerators v0 - v1 + 2 v0 = 4 and v1 - v0 + 2 v1 = 12,
    divisors 1 - 1 + 4 = 4 both. d out0 = d v0 3/4 - d v1 1/4; the rest by the quotient rule."""
    q, k, v = (torch.tensor(x, dtype=torch.float64)[:, None] for x in ([1, -1], [1, -1], [3, 5]))
    for x in (q, k, v):
        x.requires_grad_()
    out = linear_attention(q, k, v)
    out[0].sum().backward()

    assert out.flatten().tolist() == [1, 3]
    assert v.grad.flatten().tolist() == [3 / 4, -1 / 4]
    # context 3 - 5 = -2, sum of keys 0: d out0 / d q0 = (-2 - out0 * 0) / 4; none reaches q1.
    assert q.grad.flatten().tolist() == [-2 / 4, 0]
    # d out0 / d k_j = q0 (v_j - out0) / 4
    assert k.grad.flatten().tolist() == [(3 - 1) / 4, (5 - 1) / 4]


def test_a_code_is_a_sign_whose_gradient_stops_at_one():
    y = torch.tensor([-2.0, -1.0, -0.5, -0.0, 0.0, 0.5, 1.0, 2.0], requires_grad=True)
    found = code(y)
    found.backward(torch.arange(8.0))
    assert found.tolist() == [-1, -1, -1, 1, 1, 1, 1, 1]
    assert y.grad.tolist() == [0, 0, 2, 3, 4, 5, 0, 0]


@settings(max_examples=examples(20), deadline=None)
@given(st.integers(2, 7), st.integers(0, 10**6))
def test_similar_pairs_are_the_nearest_and_the_farthest_by_brute_force(n, seed):
    rng = np.random.default_rng(seed)
    x, pairs = unit(rng, 1, 2, n, 3), int(rng.integers(1, n + 1))
    wanted = np.zeros((1, 2, n, n))
    for h in range(2):
        for i in range(n):
            order = sorted(range(n), key=lambda j: float(np.sum((x[0, h, i] - x[0, h, j]) ** 2)))
            wanted[0, h, i, order[:pairs]] = 1
            wanted[0, h, i, order[n - pairs :]] = -1
    assert np.array_equal(similar_pairs(torch.from_numpy(x), pairs).numpy(), wanted)


def kernel_by_hand(x, anchors):
    out = np.zeros((*x.shape[:3], anchors.shape[1]))
    for b, h in np.ndindex(x.shape[:2]):
        d = np.array([[np.sum((row - a) ** 2) for a in anchors[h]] for row in x[b, h]])
        out[b, h] = np.exp(-d / (2 * d.mean()))
    return out


def loss_by_hand(y, similar, bits):
    """Of y [batch, heads, n]: every pair of tokens that should be alike, or unlike."""
    total = 0.0
    for b, h in np.ndindex(y.shape[:2]):
        for i, j in np.ndindex(similar.shape[2:]):
            total -= y[b, h, i] * similar[b, h, i, j] * y[b, h, j]
    return total / (y.shape[0] * y.shape[1] * y.shape[2] * bits)


def learned_by_hand(x, hashing, before, pairs, steps, rate):
    """Weights after `learn`: SGD with Nesterov's momentum bit by bit, gradients as differences of the loss."""
    kernel = kernel_by_hand(x, hashing.anchors.numpy())
    kernel = kernel - kernel.mean((0, 2))[None, :, None]
    heads, bits, m = before.shape
    left, out = bits * similar_pairs(torch.from_numpy(x), pairs).numpy(), before.copy()

    def loss(w):
        return loss_by_hand(2 / (1 + np.exp(-np.einsum("bhnm,hm->bhn", kernel, w))) - 1, left, bits)

    for r in range(bits):
        w, moved = before[:, r].copy(), np.zeros((heads, m))
        for _ in range(steps):
            g = np.zeros_like(w)
            for at in np.ndindex(w.shape):
                step = np.zeros_like(w)
                step[at] = 1e-5
                g[at] = (loss(w + step) - loss(w - step)) / 2e-5
            moved = 0.9 * moved + g
            w = w - rate * (g + 0.9 * moved)
        old, new = (np.where(np.einsum("bhnm,hm->bhn", kernel, u) > 0, 1.0, -1.0) for u in (before[:, r], w))
        better = loss_by_hand(new, left, bits) < loss_by_hand(old, left, bits)
        out[:, r] = w if better else before[:, r]
        y = new if better else old
        left = left - y[..., :, None] * y[..., None, :]
    return out


@pytest.mark.parametrize("seed", [0, 1, 4])
def test_hash_functions_are_learned_as_slow_numpy_learns_them(seed):
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    x, hashing = unit(rng, 2, 2, 6, 3), KernelHashing(2, 3, bits=3, anchors=4).double()
    before = hashing.weights.numpy().copy()

    hashing.learn(torch.from_numpy(x), pairs=2, steps=4, rate=0.5)

    wanted = learned_by_hand(x, hashing, before, 2, 4, 0.5)
    np.testing.assert_allclose(hashing.weights.numpy(), wanted, rtol=1e-7, atol=1e-10)
    kept = (hashing.weights.numpy() == before).all(-1).all(0)
    assert set(kept) == {False, True}, "some bit was learned, and some stayed"
    rows = {tuple(row) for row in x.reshape(-1, 3).round(9)}
    assert all(tuple(anchor) in rows for anchor in hashing.anchors.numpy().reshape(-1, 3).round(9))
    offsets = kernel_by_hand(x, hashing.anchors.numpy()).mean((0, 2))
    np.testing.assert_allclose(hashing.offsets[:, 0].numpy(), offsets, atol=1e-12)
    sums = np.einsum("bhnm,hrm->bhnr", kernel_by_hand(x, hashing.anchors.numpy()) - offsets[None, :, None], wanted)
    assert np.array_equal(hashing(torch.from_numpy(x)).numpy(), np.where(sums >= 0, 1, -1))


def test_the_loss_is_that_over_all_pairs():
    rng = np.random.default_rng(3)
    y, similar = rng.standard_normal((2, 3, 5)), rng.standard_normal((2, 3, 5, 5))
    found = hashing_loss(torch.from_numpy(y), torch.from_numpy(similar), 4)
    assert float(found) == pytest.approx(loss_by_hand(y, similar, 4))


def test_codes_are_near_where_tokens_are():
    """Tokens of six directions and noise, other ones than were learned from: of the ten nearest by the kernel, codes
    find more than chance does (hypergeometric, each p < 1e-4), more than codes before learning, and ranks agree."""
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    centres = rng.standard_normal((6, 8))

    def tokens(images):
        x = centres[rng.integers(6, size=(images, 1, 32))] + 0.5 * rng.standard_normal((images, 1, 32, 8))
        return torch.from_numpy(x / np.linalg.norm(x, axis=-1, keepdims=True)).float()

    seen, fresh = tokens(4), tokens(6)
    hashing = KernelHashing(1, 8)

    def found():
        codes, hits = hashing(fresh)[:, 0].numpy(), []
        alike, near = [], []
        for image, words in zip(fresh[:, 0].numpy(), codes, strict=True):
            distance = ((image[:, None] - image[None]) ** 2).sum(-1) + 99 * np.eye(32)
            differ = (words[:, None] != words[None]).sum(-1) + 99 * np.eye(32)
            hits += [len({*np.argsort(d)[:10]} & {*np.argsort(w)[:10]}) for d, w in zip(distance, differ, strict=True)]
            upper = np.triu_indices(32, 1)
            alike += list(-differ[upper])
            near += list(-distance[upper])
        return float(np.mean(hits)), sum(hits), stats.spearmanr(alike, near)

    before = found()
    hashing.learn(seen, steps=40)
    after = found()

    # 192 tokens with ten of 31 others each: as many draws, of variance n p (1 - p) (31 - n) / 30.
    share = 10 / 31
    deviation = np.sqrt(192 * 10 * share * (1 - share) * 21 / 30)
    assert stats.norm.sf((after[1] - 1920 * share) / deviation) < 1e-12
    assert after[2].statistic > 0.6
    assert after[2].pvalue < 1e-12
    assert after[0] > before[0]


def test_it_learns_before_its_first_step_and_every_so_often():
    torch.manual_seed(0)
    attention, x = HashedAttention(8, 2, bits=4, anchors=5, pairs=2, every=3), torch.randn(2, 6, 8)
    seen = []
    for _ in range(7):
        attention(x)
        seen.append(attention.hashing.anchors.clone())
    changed = [i for i in range(1, 7) if not torch.equal(seen[i], seen[i - 1])]
    assert changed == [3, 6]
    attention.eval()
    attention(x)
    assert torch.equal(attention.hashing.anchors, seen[-1])
    assert int(attention.calls) == 7


def test_checkpointing_learns_once():
    torch.manual_seed(0)
    attention, x = HashedAttention(8, 2, bits=4, anchors=5, pairs=2, every=1), torch.randn(2, 6, 8)
    checkpoint(attention, x.requires_grad_(), use_reentrant=False).sum().backward()
    assert int(attention.calls) == 1


def test_functions_are_learned_in_full_precision_in_a_training_of_mixed():
    """Same rows, same draws: the functions that FP32 finds, to the bit."""
    found = []
    for mixed in (False, True):
        torch.manual_seed(0)
        hashing, x = KernelHashing(2, 4, bits=4, anchors=5), functional.normalize(torch.randn(2, 2, 6, 4), dim=-1)
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            hashing.learn(x, 2, rate=0.5)
            assert set(hashing(x).flatten().tolist()) == {-1, 1}
        found.append(hashing.weights.clone())
    assert torch.equal(*found)


def test_gradients_reach_all_that_is_trained_and_no_function():
    torch.manual_seed(0)
    attention = HashedAttention(16, 2, anchors=5, pairs=2)
    attention(torch.randn(3, 9, 16)).square().sum().backward()
    assert all(bool(p.grad.ne(0).any()) for p in attention.parameters())
    assert {name.rpartition(".")[2] for name, _ in attention.named_buffers()} == {
        "anchors", "offsets", "weights", "calls"
    }  # fmt: skip


@torch.no_grad()
def test_attention_is_its_parts_by_hand():
    torch.manual_seed(0)
    attention, x = HashedAttention(8, 2, bits=4, anchors=5, pairs=2).eval(), torch.randn(2, 6, 8)
    both = functional.normalize(attention.query_key(x).unflatten(-1, (2, 4)), dim=-1).transpose(1, 2)
    codes, v = attention.hashing(both).numpy(), attention.value(x).unflatten(-1, (2, 4)).transpose(1, 2)
    heads = [[attended(codes[b, h], codes[b, h], v[b, h].numpy()) for h in range(2)] for b in range(2)]
    wanted = attention.out(torch.tensor(np.array(heads), dtype=torch.float32).transpose(1, 2).flatten(2))
    torch.testing.assert_close(attention(x), wanted)


class _Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = HashedAttention(12, 3)

    def forward(self, x):
        return self.attention(x).mean(1)


def step_of(tokens):
    return weft.trace(_Net(), torch.zeros(2, tokens, 12))


def test_ff_is_linear_in_tokens_and_counts_as_by_hand():
    """b images, n tokens of width w: three projections, w to each anchor, 16 sums of anchors, K^T V and Q of that."""
    b, w, heads, m, bits = 2, 12, 3, 25, 16
    for n in (10, 40):
        a_head = n * (w // heads) * m + n * m * bits + 2 * n * bits * (w // heads) + n * bits
        assert step_of(n).dense_macs[Pass.FF] == b * (3 * n * w * w + heads * a_head)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: HashedAttention(10, 3), "10 wide cannot have 3 heads"),
        (lambda: HashedAttention(8, 2, bits=0), "bits of hashing must be an integer from 1"),
        (lambda: HashedAttention(8, 2, every=0), "steps from one learning of hash functions to the next"),
        (lambda: KernelHashing(1, 4, anchors=25).learn(torch.randn(2, 1, 8, 4), 2), "a batch has 16 of them"),
        (lambda: KernelHashing(1, 4, anchors=5).learn(torch.randn(2, 1, 8, 4), 9), "pairs of hashing"),
    ],
)
def test_what_cannot_be_is_refused(wrong, message):
    with pytest.raises(InputError, match=message):
        wrong()


@torch.no_grad()
def test_both_models_of_the_example_run():
    spec = importlib.util.spec_from_file_location("ecoformer", EXAMPLE)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    torch.manual_seed(0)
    for build in (example.hashed, example.whole):
        model, x = build(batch=4)
        assert model.eval()(torch.randn_like(x)).shape == (4, 10)
