"""Unbiased N:M sampling: never more than N of M, the right mean, the least variance."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from weft.workloads.schemes.masks import grouped, largest_by_sorting
from weft.workloads.schemes.sampling import systematic, systematic_by_sums, thresholds, two_draws
from weft.workloads.sparsity import NMPattern

from ...strategies import patterns

GROUP = torch.tensor([0.5, -3.0, 0.25, 0.0, 1.0, -0.5, 2.0, 0.125], dtype=torch.float64)
"""With a zero, two equal magnitudes and one that is certain from 3:8 on."""


def _values(seed: int, view: tuple[int, int, int]) -> torch.Tensor:
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(view, generator=rng) ** 3
    return x.masked_fill(torch.rand(view, generator=rng) < 0.3, 0.0)


@given(
    view=st.tuples(st.integers(1, 3), st.integers(1, 30), st.integers(1, 5)),
    pattern=patterns(),
    seed=st.integers(0, 999),
)
def test_kernel_equals_whole_tensor_steps(view, pattern, seed):
    x = _values(seed, view)
    outer, length, inner = view
    u = torch.rand(
        (outer, -(-length // pattern.group), 1, inner), generator=torch.Generator().manual_seed(7), dtype=torch.float64
    )
    sampled = systematic(x, view, pattern, torch.Generator().manual_seed(7))

    torch.testing.assert_close(sampled, systematic_by_sums(x, view, pattern, u), rtol=1e-6, atol=0)
    assert (grouped(sampled != 0, view, pattern.group).sum(dim=2) <= pattern.keep).all()
    assert ((sampled == 0) | (sampled.sign() == x.sign())).all()


@pytest.mark.parametrize("keep", [1, 2, 3, 5, 8])
def test_systematic_is_unbiased_over_its_uniform_number(keep):
    """The mean over a fine grid of u, not over draws: exact to the width of the grid."""
    count = 40_000
    u = ((torch.arange(count, dtype=torch.float64) + 0.5) / count).reshape(-1, 1, 1, 1)
    x = GROUP.repeat(count).reshape(count, 8, 1)
    sampled = systematic_by_sums(x, (count, 8, 1), NMPattern(keep=keep, group=8), u)
    kept = (sampled != 0).sum(dim=1)

    torch.testing.assert_close(sampled.mean(dim=0).squeeze(1), GROUP, rtol=0, atol=1e-3)
    assert (kept == min(keep, 7)).all()


def test_systematic_keeps_the_large_and_raises_the_small_to_the_threshold():
    pattern = NMPattern(keep=2, group=8)
    # 3 is below 7.375 / 2, so none is certain.
    tau = thresholds(GROUP.abs().reshape(1, 1, 8, 1), 2).item()
    sampled = systematic(GROUP, (1, 8, 1), pattern, torch.Generator().manual_seed(0))

    assert tau == 7.375 / 2
    assert set(sampled[sampled != 0].abs().tolist()) == {tau}
    # With 8 instead of 3 it is certain, and the rest share the other place: tau = 4.375.
    big = GROUP.clone()
    big[1] = -8.0
    sampled = systematic(big, (1, 8, 1), pattern, torch.Generator().manual_seed(0))
    assert sampled[1] == -8.0
    assert sorted(sampled.abs().tolist())[-2:] == [4.375, 8.0]


def test_no_unbiased_choice_of_two_varies_less_than_systematic():
    """Sum of variances against every feasible vector of probabilities on a grid, and against two draws."""
    x = torch.tensor([4.0, 1.0, 2.0, 0.5], dtype=torch.float64)
    tau = thresholds(x.reshape(1, 1, 4, 1), 2).item()
    ours = (x.square() * (1 / (x / tau).clamp_max(1) - 1)).sum()
    grid = torch.linspace(0.05, 1, 20, dtype=torch.float64)
    others = (torch.tensor(p) for p in itertools.product(grid.tolist(), repeat=4) if abs(sum(p) - 2) < 1e-9)

    assert all((x.square() * (1 / p - 1)).sum() >= ours - 1e-9 for p in others)
    pattern, count = NMPattern(keep=2, group=4), 20_000
    drawn = two_draws(x.repeat(count).reshape(count, 4, 1), (count, 4, 1), pattern, torch.Generator().manual_seed(0))
    assert drawn.var(dim=0).sum() > ours


@pytest.mark.parametrize("pattern", ["1:4", "2:4", "2:8", "3:8"])
def test_two_draws_are_unbiased(pattern):
    count, pattern = 50_000, NMPattern.parse(pattern)
    rows = GROUP.clone()
    x = rows.repeat(count).reshape(count, 8, 1)
    sampled = two_draws(x, (count, 8, 1), pattern, torch.Generator().manual_seed(0)).squeeze(2)
    error = (sampled.mean(dim=0) - rows).abs() / (sampled.std(dim=0) / count**0.5 + 1e-12)

    # Eight elements within five standard errors of the mean.
    assert (error < 5).all()
    assert (grouped(sampled != 0, (count, 8, 1), pattern.group).sum(dim=2) <= pattern.keep).all()


def test_two_draws_have_the_published_probabilities():
    """p_i by enumeration of ordered pairs, first drawn in proportion to |x|, second to |x| among the rest."""
    x = torch.tensor([3.0, 1.0, 0.5, 0.25], dtype=torch.float64)
    t = x / x.sum()
    p = [sum(t[i] * t[j] / (1 - t[i]) + t[j] * t[i] / (1 - t[j]) for j in range(4) if j != i).item() for i in range(4)]
    sampled = two_draws(x, (1, 4, 1), NMPattern(keep=2, group=4), torch.Generator().manual_seed(3))

    for value, whole, share in zip(sampled.tolist(), x.tolist(), p, strict=True):
        assert value == 0 or value == pytest.approx(whole / share)


@pytest.mark.parametrize("sample", [systematic, two_draws])
@pytest.mark.parametrize("group", [[1e-20, 1.0, 0.5, 0.0], [1.0, 1e-20, 3e-20, 1e-20], [1e-20, 1.0, 1.0, 1e-300]])
@pytest.mark.parametrize("keep", [1, 2, 3])
def test_what_is_lost_in_the_sum_of_its_group_stays_small(sample, group, keep):
    """Gradients of a softmax span more than 53 bits; a small one must neither drive out a large one nor become one."""
    count, pattern = 4000, NMPattern(keep=keep, group=4)
    rows = torch.tensor(group, dtype=torch.float64)
    sampled = sample(rows.repeat(count, 1)[..., None], (count, 4, 1), pattern, torch.Generator().manual_seed(0))[..., 0]

    assert ((sampled != 0).sum(dim=1) <= keep).all()
    error = (sampled.mean(dim=0) - rows).abs()
    assert (error <= 5 * sampled.std(dim=0) / count**0.5 + 1e-12).all()


@pytest.mark.parametrize("sample", [systematic, two_draws])
@given(pattern=patterns(), seed=st.integers(0, 999))
def test_the_largest_of_a_group_with_an_overflow_are_kept_as_they_are(sample, pattern, seed):
    x = _values(seed, (1, 3 * pattern.group, 2)).masked_fill(torch.arange(2) == 1, 0)
    rng = torch.Generator().manual_seed(seed)
    x[torch.rand(x.shape, generator=rng) < 0.1] = torch.inf
    x[torch.rand(x.shape, generator=rng) < 0.05] = -torch.nan
    sampled = sample(x, tuple(x.shape), pattern, torch.Generator().manual_seed(0))

    overflow = ~grouped(x, tuple(x.shape), pattern.group).isfinite().all(dim=2, keepdim=True)
    chosen = grouped(torch.where(largest_by_sorting(x, tuple(x.shape), pattern), x, 0), tuple(x.shape), pattern.group)
    found = grouped(sampled, tuple(x.shape), pattern.group)
    assert torch.equal(found.masked_fill(~overflow, 0).nan_to_num(), chosen.masked_fill(~overflow, 0).nan_to_num())
    assert found.masked_fill(overflow, 0).isfinite().all()


@pytest.mark.parametrize("sample", [systematic, two_draws])
def test_an_empty_gradient_has_an_empty_sample(sample):
    assert sample(torch.zeros(0, 12, 3), (0, 12, 3), NMPattern(keep=2, group=8), torch.Generator()).shape == (0, 12, 3)


@pytest.mark.parametrize("sample", [systematic, two_draws])
def test_overflow_is_passed_on(sample):
    x = torch.zeros(16)
    x[3], x[9] = torch.inf, torch.nan
    sampled = sample(x, (1, 16, 1), NMPattern(keep=2, group=8), torch.Generator().manual_seed(0))

    assert sampled[3] == torch.inf and sampled[9].isnan()


@pytest.mark.parametrize("sample", [systematic, two_draws])
def test_a_group_with_few_elements_is_kept_whole(sample):
    x = torch.tensor([0.0, 5.0, 0.0, 0.0, -1e-3, 0.0, 0.0, 0.0, 0.0, 7.0])

    sampled = sample(x, (1, 10, 1), NMPattern(keep=2, group=8), torch.Generator().manual_seed(0))
    torch.testing.assert_close(sampled, x)
