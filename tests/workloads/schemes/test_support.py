"""Messages along chains against all supports written out, and the field that holds a density."""

from __future__ import annotations

from itertools import pairwise, product
from math import exp, log

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from weft.workloads.errors import InputError
from weft.workloads.schemes.support import Chain, bursts, field_of, marginals

from ...examples_drawn import examples


def chance(support: tuple[int, ...], chain: Chain) -> float:
    """p(s), place by place."""
    ways = ((1 - chain.entering, chain.entering), (chain.leaving, 1 - chain.leaving))
    found = chain.density if support[0] else 1 - chain.density
    for one, other in pairwise(support):
        found *= ways[one][other]
    return found


def enumerated(evidence: list[float], chain: Chain) -> tuple[list[float], float]:
    """q(s = 1) of every place and the normaliser, by all supports."""
    weights = {
        support: chance(support, chain) * exp(sum(e for e, s in zip(evidence, support, strict=True) if s))
        for support in product((0, 1), repeat=len(evidence))
    }
    whole = sum(weights.values())
    return [sum(w for s, w in weights.items() if s[i]) / whole for i in range(len(evidence))], log(whole)


@st.composite
def chains(draw: st.DrawFn) -> Chain:
    density = draw(st.floats(0.05, 0.9))
    return Chain(density=density, burst=draw(st.floats(1.0, 20.0)) / (1.0 - density))


@settings(deadline=None, max_examples=examples(60))
@given(chains(), st.lists(st.floats(-8, 8), min_size=1, max_size=5))
def test_messages_are_those_of_all_supports(chain: Chain, line: list[float]) -> None:
    evidence = [line, line[::-1]]
    found, normaliser = marginals(torch.tensor(evidence, dtype=torch.float64), chain)
    by_hand = [enumerated(one, chain) for one in evidence]

    assert found.sigmoid().tolist() == [pytest.approx(one, rel=1e-9) for one, _ in by_hand]
    assert normaliser == pytest.approx(sum(whole for _, whole in by_hand), abs=1e-9)


def test_evidence_without_bounds_leaves_no_nan() -> None:
    evidence = torch.tensor([[-1e6, 1e6, -1e6, 1e6, 0.0]], dtype=torch.float64)
    found, _ = marginals(evidence, Chain(density=0.25, burst=4.0))
    assert found.isfinite().all() and (found > 0).tolist() == [[False, True, False, True, True]]


@settings(deadline=None, max_examples=examples(20))
@given(chains())
def test_a_chain_keeps_its_density_in_its_bursts(chain: Chain) -> None:
    # What enters is what leaves, and a burst ends at each place with one chance in its length.
    assert (1 - chain.density) * chain.entering == pytest.approx(chain.density * chain.leaving)
    assert chain.leaving == pytest.approx(1 / chain.burst)
    assert sum(chance(support, chain) for support in product((0, 1), repeat=5)) == pytest.approx(1)


@pytest.mark.slow
@settings(deadline=None, max_examples=examples(30))
@given(chains(), st.integers(0, 2**32 - 1), st.floats(0.1, 30), st.integers(1, 40))
def test_a_field_leaves_as_many_as_it_is_asked_for(chain: Chain, seed: int, spread: float, count: int) -> None:
    evidence = torch.randn(4, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * spread
    field, found = field_of(evidence, chain, count, start=1.0)

    assert torch.equal(found, marginals(evidence + field, chain)[0])
    assert int((found >= -1e-3).sum()) >= count and int((found > 1e-3).sum()) < count
    # More of it never takes a marginal down.
    assert (marginals(evidence + field + 0.5, chain)[0] - found >= 0.5 - 1e-9).all()


def rows(*lines: str) -> Tensor:
    return torch.tensor([[letter == "#" for letter in line] for line in lines])


def test_bursts_by_hand() -> None:
    assert bursts(rows("##.#", ".##.", "....")) == 5 / 3
    assert bursts(rows("....")) == 0
    assert bursts(rows("####")) == 4


@pytest.mark.parametrize("density", [0.0, 1.0, float("nan")])
def test_a_density_without_a_chain_is_refused(density: float) -> None:
    with pytest.raises(InputError, match="density of a chain must be above 0 and below 1"):
        Chain(density=density, burst=4.0)


def test_bursts_shorter_than_those_of_chance_are_refused() -> None:
    with pytest.raises(InputError, match=r"keeps 0\.75 must be 4 elements at least, that of elements kept each by"):
        Chain(density=0.75, burst=3.9)
    assert Chain(density=0.75, burst=4.0).entering == pytest.approx(0.75)
