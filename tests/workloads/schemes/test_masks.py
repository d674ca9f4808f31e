"""N:M selection by magnitude: the rule of SORE, the fast way and the obvious one, along any axis."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.simulator.compact import compress, from_mask
from weft.simulator.engines import run_sore
from weft.workloads.errors import InputError
from weft.workloads.schemes.masks import (
    grouped,
    largest,
    largest_by_sorting,
    mask_of_largest,
    pack,
    soft_threshold,
    ungrouped,
)
from weft.workloads.sparsity import NMPattern

from ...examples_drawn import examples
from ...strategies import halves, make_spec, patterns

views = st.tuples(st.integers(1, 4), st.integers(1, 40), st.sampled_from((1, 2, 9, 31, 32, 130)))


def _values(draw_seed: int, view: tuple[int, int, int], dtype: torch.dtype) -> torch.Tensor:
    rng = torch.Generator().manual_seed(draw_seed)
    x = torch.randn(view, generator=rng)
    # Half of the values tie with others.
    return torch.where(torch.rand(view, generator=rng) < 0.5, x.round(), x).to(dtype)


@given(
    view=views,
    pattern=patterns(32, 32),
    seed=st.integers(0, 2**31),
    dtype=st.sampled_from((torch.float16, torch.bfloat16, torch.float32, torch.float64)),
)
def test_fast_selection_equals_sorting(view, pattern, seed, dtype):
    x = _values(seed, view, dtype)
    mask = largest_by_sorting(x, view, pattern)

    assert torch.equal(mask_of_largest(x, view, pattern), mask)
    assert torch.equal(largest(x, view, pattern), torch.where(mask, x, 0))
    counts = grouped(mask, view, pattern.group).sum(dim=2)
    lengths = grouped(torch.ones_like(mask), view, pattern.group).sum(dim=2)
    assert torch.equal(counts, lengths.clamp_max(pattern.keep))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("inner", [1, 9, 127, 128, 300])
@pytest.mark.parametrize("pattern", ["1:4", "2:4", "2:8", "7:8", "3:5", "2:16"])
def test_fast_selection_equals_sorting_over_many_sweeps(pattern, inner, dtype):
    """More groups than one sweep of the kernel takes, with a short last one behind every row of them."""
    view, nm = (3, 8 * 70 + 7, inner), NMPattern.parse(pattern)
    x = _values(5, view, dtype)
    mask = largest_by_sorting(x, view, nm)

    assert torch.equal(mask_of_largest(x, view, nm), mask)
    assert torch.equal(largest(x, view, nm), torch.where(mask, x, 0))


def test_selection_passes_every_bit_and_any_layout():
    # Two NaNs, infinities of either sign, the largest subnormal and the smallest, zeros of either sign.
    words = np.array([0x7C01, 0x7E00, 0x8000, 0x83FF, 0x7C00, 0x0001, 0x0000, 0xFC00], np.uint16)
    x, pattern = torch.from_numpy(words.view(np.float16)), NMPattern(keep=3, group=8)
    assert mask_of_largest(x, (1, 8, 1), pattern).nonzero().flatten().tolist() == [0, 1, 4]
    kept = largest(x, (1, 8, 1), NMPattern(keep=5, group=8)).numpy().view(np.uint16)
    assert kept.tolist() == [0x7C01, 0x7E00, 0, 0x83FF, 0x7C00, 0, 0, 0xFC00]
    turned = _values(1, (24, 16), torch.float32).T
    assert torch.equal(
        largest(turned, (1, 16, 24), pattern), torch.where(largest_by_sorting(turned, (1, 16, 24), pattern), turned, 0)
    )


@settings(max_examples=examples(40))
@given(data=st.data(), pattern=patterns(16, 16), k=st.integers(1, 40), n=st.integers(1, 5))
def test_selection_is_that_of_the_reduction_engine(data, pattern, k, n):
    """Bits, ties, zeros of either sign, infinities and NaNs of FP16 alike."""
    values = data.draw(halves(k, n))
    spec = make_spec(array=_array())
    sore = run_sore(spec, values, pattern).compact
    mask = mask_of_largest(torch.from_numpy(values), (1, k, n), pattern).numpy()

    ours = from_mask(values, mask, pattern)
    assert np.array_equal(ours.values.view(np.uint16), sore.values.view(np.uint16))
    assert np.array_equal(ours.indices, sore.indices)


def _array():
    from weft.dataflow.stce.spec import ArraySpec

    return ArraySpec(rows=2, cols=2)


@settings(max_examples=examples(40))
@given(data=st.data(), pattern=patterns(16, 16), runs=st.integers(1, 3), run=st.integers(1, 20), n=st.integers(1, 5))
def test_compact_form_is_that_of_the_machine(data, pattern, runs, run, n):
    values = data.draw(halves(runs * run, n))
    mask = mask_of_largest(torch.from_numpy(values), (runs, run, n), pattern).numpy()
    mask &= np.random.default_rng(0).random(mask.shape) < 0.8

    ours, theirs = pack(values[None], mask[None], pattern, run), from_mask(values, mask, pattern, run)
    assert np.array_equal(ours.values[0].view(np.uint16), theirs.values.view(np.uint16))
    assert np.array_equal(ours.indices[0], theirs.indices)
    assert (ours.k, ours.run, ours.pattern) == (theirs.k, theirs.run, theirs.pattern)
    whole = mask_of_largest(torch.from_numpy(values), (runs, run, n), pattern).numpy()
    assert np.array_equal(
        pack(values[None], whole[None], pattern, run).indices[0], compress(values, pattern, run).indices
    )


def test_packing_refuses_what_is_not_n_to_m():
    values = np.ones((1, 8, 1), np.float16)
    with pytest.raises(InputError, match="not 2:8 along its contraction: 3 are kept"):
        pack(values, values > 0.5 * (np.arange(8) > 2)[None, :, None] * 4, NMPattern(keep=2, group=8), 8)


def test_soft_threshold_by_hand():
    x = torch.tensor([3.0, -1.0, 2.0, -4.0, 5.0, 1.0, 1.0])

    assert soft_threshold(x, (1, 7, 1), NMPattern(keep=2, group=4)).tolist() == [1, 0, 0, -2, 4, 0, 0]


def test_soft_threshold_is_continuous_where_the_mask_flips():
    pattern = NMPattern(keep=2, group=4)
    a, b = (soft_threshold(torch.tensor([3.0, 2.0 + e, 2.0 - e, 1.0]), (1, 4, 1), pattern) for e in (1e-6, -1e-6))

    assert torch.allclose(a, b, atol=1e-5)


def test_groups_round_trip():
    x = torch.arange(2 * 11 * 3).reshape(2, 11, 3)

    assert grouped(x, (2, 11, 3), 4).shape == (2, 3, 4, 3)
    assert torch.equal(ungrouped(grouped(x, (2, 11, 3), 4), (2, 11, 3), x.shape), x)


def test_integers_are_refused():
    with pytest.raises(InputError, match=r"for floating tensors, not torch\.int64"):
        largest(torch.arange(8), (1, 8, 1), NMPattern(keep=2, group=8))
