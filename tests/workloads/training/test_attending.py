"""Which keys queries see under a pattern, against loops over tokens; and a model whose attention is by one."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.workloads.blocks import BestBlocks, Blocks, Causal, Routed, SparkKeys, TopKeys, VerticalSlash, Window
from weft.workloads.data.text import open_text
from weft.workloads.errors import InputError
from weft.workloads.models.zoo import source
from weft.workloads.training.attending import bits_attending, seen
from weft.workloads.training.characters import bits
from weft.workloads.training.text_spec import MODEL

from ...examples_drawn import examples

PATTERNS = st.one_of(
    st.just(Causal()),
    st.builds(Window, keys=st.integers(1, 9), sinks=st.integers(0, 4)),
    st.builds(BestBlocks, keep=st.integers(1, 4)),
    st.builds(VerticalSlash, verticals=st.integers(0, 4), slashes=st.integers(1, 4)),
    st.builds(TopKeys, keep=st.integers(1, 9), channels=st.integers(1, 4)),
    st.builds(SparkKeys, keep=st.integers(1, 9), channels=st.integers(1, 4)),
    st.builds(Routed, clusters=st.integers(1, 4)),
)


def dot(a: torch.Tensor, b: torch.Tensor) -> float:
    return sum(float(x) * float(y) for x, y in zip(a, b, strict=True))


def pooled(x: torch.Tensor, block: int) -> list[torch.Tensor]:
    return [x[i : i + block].mean(0) for i in range(0, len(x), block)]


def best(scores: dict[int, float], many: int) -> set[int]:
    return set(sorted(scores, key=lambda i: -scores[i])[:many])


def probed(q: torch.Tensor, k: torch.Tensor, block: int) -> tuple[dict[int, float], dict[int, float]]:
    """Sums of weights by block of keys, and by how many blocks a key lies behind its query."""
    upright = dict.fromkeys(range(-(-len(q) // block)), 0.0)
    slanted = dict(upright)
    for i in range(len(q)):
        weights = [math.exp(dot(q[i], k[j]) / math.sqrt(q.shape[1])) for j in range(i + 1)]
        for j, weight in enumerate(weights):
            upright[j // block] += weight / sum(weights)
            slanted[i // block - j // block] += weight / sum(weights)
    return upright, slanted | {0: math.inf}


def above(scores: dict[int, float], keep: int) -> set[int]:
    """Those above the threshold at which ``keep`` of normal ones would be."""
    if len(scores) <= keep:
        return set(scores)
    found = NormalDist.from_samples(scores.values())
    limit = found.mean + found.stdev * NormalDist().inv_cdf(1 - keep / len(scores))
    return {i for i, score in scores.items() if score > limit}


def walked(blocks: Blocks, q: torch.Tensor, k: torch.Tensor, learned: Any) -> list[list[bool]]:
    """Of one head, token by token."""
    n, size, pattern = len(q), blocks.block, blocks.pattern
    found: dict[int, set[int]] = {}
    match pattern:
        case Causal():
            found = {i: set(range(n)) for i in range(n)}
        case Window(keys=width, sinks=sinks):
            found = {i: {j for j in range(n) if i - j < width or j < sinks} for i in range(n)}
        case BestBlocks(keep=keep):
            of_q, of_k = pooled(q, size), pooled(k, size)
            for i in range(n):
                t = i // size
                met = {t} | best({b: dot(of_q[t], of_k[b]) for b in range(t)}, keep - 1)
                found[i] = {j for j in range(n) if j // size in met}
        case VerticalSlash(verticals=verticals, slashes=slashes):
            upright, slanted = probed(q, k, size)
            columns, behind = best(upright, verticals), best(slanted, slashes)
            found = {
                i: {j for j in range(n) if j // size in columns or i // size - j // size in behind} for i in range(n)
            }
        case TopKeys(keep=keep):
            heavy = learned["heavy"][0]
            found = {i: best({j: dot(q[i][heavy], k[j][heavy]) for j in range(i + 1)}, keep) for i in range(n)}
        case SparkKeys(keep=keep, channels=r):
            found = {i: above({j: dot(q[i][:r], k[j][:r]) for j in range(i + 1)}, keep) for i in range(n)}
        case Routed(clusters=clusters):
            for centre in learned["centres"][0]:
                of_q, of_k = (
                    best({i: dot(x[i], centre) / math.sqrt(dot(x[i], x[i])) for i in range(n)}, -(-n // clusters))
                    for x in (q, k)
                )
                for i in of_q:
                    found[i] = found.get(i, set()) | of_k
    return [[j == i or (j < i and j in found.get(i, ())) for j in range(n)] for i in range(n)]


@settings(deadline=None, max_examples=examples(120))
@given(PATTERNS, st.integers(1, 5), st.integers(1, 14), st.integers(0, 99))
def test_queries_see_what_a_walk_over_tokens_finds(pattern: Any, block: int, tokens: int, seed: int) -> None:
    torch.manual_seed(seed)
    q, k = torch.randn(2, 1, 1, tokens, 4, dtype=torch.float64)
    learned = {}
    if isinstance(pattern, TopKeys):
        learned = {"heavy": torch.randperm(4)[None, : pattern.channels]}
    if isinstance(pattern, Routed):
        learned = {"centres": torch.randn(1, pattern.clusters, 4, dtype=torch.float64)}
    blocks = Blocks(pattern=pattern, block=block)

    assert seen(blocks, q, k, **learned)[0, 0].tolist() == walked(blocks, q[0, 0], k[0, 0], learned)


def test_top_keys_are_as_many_as_the_step_is_charged() -> None:
    torch.manual_seed(3)
    q, k = torch.randn(2, 1, 2, 20, 8)
    blocks = Blocks(pattern=TopKeys(keep=5, channels=8))
    found = seen(blocks, q, k, heavy=torch.arange(8).repeat(2, 1))[0]
    own = found & torch.eye(20, dtype=torch.bool)
    # Beside them a query sees itself, in case it is none of them.
    assert int(found.sum()) - 2 * blocks.pairs(20, 20) == int(own.sum()) - int((own & of_the_best(q, k, 5)).sum())


def test_keys_above_a_threshold_are_as_many_as_asked_for_where_scores_are_normal() -> None:
    torch.manual_seed(5)
    q, k = torch.randn(2, 8, 2, 200, 16)
    blocks = Blocks(pattern=SparkKeys(keep=20, channels=16))
    kept = seen(blocks, q, k)[:, :, 100:].float().sum(-1)
    # And itself, which is one of them by chance.
    expected = 20 + sum(1 - 20 / keys for keys in range(101, 201)) / 100
    assert float(kept.mean()) == pytest.approx(expected, rel=0.02)
    assert float(kept.std()) > 1  # but not of each


def of_the_best(q: torch.Tensor, k: torch.Tensor, keep: int) -> torch.Tensor:
    found = torch.zeros(2, 20, 20, dtype=torch.bool)
    for head in range(2):
        for i in range(20):
            for j in best({j: dot(q[0, head, i], k[0, head, j]) for j in range(i + 1)}, keep):
                found[head, i, j] = True
    return found


@pytest.mark.slow
def test_a_model_reads_what_its_queries_see() -> None:
    """Of a model that nobody trained."""
    torch.manual_seed(0)
    model, text = source(MODEL).build().eval(), open_text("pydoc")
    before = model.config._attn_implementation
    whole, share = bits_attending(model, text, Blocks(pattern=Causal()))
    assert (whole, share) == (pytest.approx(bits(model, text), rel=1e-5), pytest.approx(1.0))
    _, share = bits_attending(model, text, Blocks(pattern=Window(keys=4)))
    assert share == pytest.approx((1 + 2 + 3 + 4 * 61) / (64 * 65 / 2))
    for pattern in (BestBlocks(keep=2), Routed(clusters=4), TopKeys(keep=8, channels=8)):
        _, share = bits_attending(model, text, Blocks(pattern=pattern, block=8))
        assert 0.1 < share < 0.6
    exact, _ = bits_attending(model, text, Blocks(pattern=Causal(), block=8, features=16))
    assert exact == pytest.approx(whole, rel=1e-6)
    for pattern in (TopKeys(keep=1, channels=99), SparkKeys(keep=1, channels=99)):
        kind = pattern.kind.replace("-", " ")
        with pytest.raises(InputError, match=f"channels of {kind} are 99, but a head has 32; choose from 1 to 32"):
            bits_attending(model, text, Blocks(pattern=pattern))
    assert model.config._attn_implementation == before
