"""Masks that are N:M along rows and columns: exact counts, and the largest sum there is."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.workloads.schemes.transposable import best_of_all, best_of_flow, transposable_mask
from weft.workloads.sparsity import NMPattern

from ...examples_drawn import examples


def _blocks(count: int, m: int, seed: int) -> torch.Tensor:
    rng = torch.Generator().manual_seed(seed)
    x = torch.rand(count, m, m, generator=rng)
    return torch.where(torch.rand(x.shape, generator=rng) < 0.3, (4 * x).round() / 4, x).double()


def test_there_are_90_masks_at_2_of_4():
    from weft.workloads.schemes.transposable import _all_masks

    assert _all_masks(2, 4).shape == (90, 16)


@settings(max_examples=examples(30))
@given(seed=st.integers(0, 2**31), pattern=st.sampled_from(((1, 2), (1, 3), (2, 3), (1, 4), (2, 4), (3, 4), (4, 4))))
def test_flow_finds_the_best_of_all_masks(seed, pattern):
    keep, m = pattern
    blocks = _blocks(20, m, seed)
    flow, best = best_of_flow(blocks, keep), best_of_all(blocks, keep)

    assert (flow.sum(dim=1) == keep).all() and (flow.sum(dim=2) == keep).all()
    torch.testing.assert_close((blocks * flow).sum((1, 2)), (blocks * best).sum((1, 2)), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("pattern", ["2:4", "2:8", "3:8", "1:16", "8:16"])
def test_whole_blocks_have_exact_counts_along_both_channels(pattern):
    nm = NMPattern.parse(pattern)
    weight = torch.randn(2, 2 * nm.group, 3 * nm.group, 2, generator=torch.Generator().manual_seed(0))
    mask = transposable_mask(weight, nm)

    for dim in (1, 2):
        assert all((part.sum(dim) == nm.keep).all() for part in mask.split(nm.group, dim))


def test_edge_blocks_have_at_most_the_pattern():
    nm = NMPattern(keep=2, group=8)
    mask = transposable_mask(torch.randn(1, 11, 13, 3, generator=torch.Generator().manual_seed(0)), nm)

    for dim in (1, 2):
        assert all((part.sum(dim) <= nm.keep).all() for part in mask.split(nm.group, dim))
    assert mask[:, :8, :8].sum() == 3 * 16
    assert mask[:, 8:].any() and mask[:, :, 8:].any()


def test_a_block_of_zeros_and_one_with_nan_still_get_masks():
    blocks = torch.zeros(2, 8, 8)
    blocks[1, 0, 0] = torch.nan
    mask = best_of_flow(blocks, 2)

    assert (mask.sum(dim=1) == 2).all() and (mask.sum(dim=2) == 2).all()
