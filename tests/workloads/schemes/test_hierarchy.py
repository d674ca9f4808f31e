"""Each update of the three layers is the best of its block, and the bound is that of distributions written out."""

from __future__ import annotations

from itertools import pairwise, product
from math import exp, lgamma, log, pi

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from weft.workloads.errors import InputError
from weft.workloads.schemes.hierarchy import (
    Gamma,
    Precisions,
    expected_loss,
    precision_of,
    prior_bound,
    shrunk,
    support_evidence,
    weight_variance,
)
from weft.workloads.schemes.support import Chain, marginals

from ...examples_drawn import examples
from .test_support import chance

PRIOR = Precisions()
CHAIN = Chain(density=0.25, burst=4.0)
POSITIVE = st.floats(0.05, 20.0)


def row(*values: float) -> Tensor:
    return torch.tensor([values], dtype=torch.float64)


def rows(count: int, each: st.SearchStrategy[float]) -> st.SearchStrategy[Tensor]:
    return st.lists(each, min_size=count, max_size=count).map(lambda values: row(*values))


def bound(mean: Tensor, variance: Tensor, precision: Gamma, evidence: Tensor) -> float:
    log_odds, normaliser = marginals(evidence, CHAIN)
    return prior_bound(mean, variance, precision, log_odds, (evidence, normaliser), PRIOR)


@pytest.mark.slow
@settings(deadline=None, max_examples=examples(15))
@given(rows(2, st.floats(-3, 3)), rows(2, POSITIVE), rows(2, POSITIVE), rows(2, POSITIVE), rows(2, st.floats(-4, 4)))
def test_the_bound_is_that_of_the_distributions_written_out(
    mean: Tensor, variance: Tensor, shape: Tensor, rate: Tensor, evidence: Tensor
) -> None:
    """By SciPy's expectations and entropies and by all supports, element by element."""
    joint = {
        s: chance(s, CHAIN) * exp(sum(e for e, one in zip(evidence[0].tolist(), s, strict=True) if one))
        for s in product((0, 1), repeat=2)
    }
    whole = sum(joint.values())
    q = {s: p / whole for s, p in joint.items()}
    expected = sum(p * (log(chance(s, CHAIN)) - log(p)) for s, p in q.items())
    for i in range(2):
        m, v = float(mean[0, i]), float(variance[0, i])
        rho = stats.gamma(float(shape[0, i]), scale=1 / float(rate[0, i]))
        # E[ln rho] as the derivative of ln E[rho^t] at 0, so that no digamma of ours is read.
        a, t = float(shape[0, i]), 1e-5
        mean_log = (lgamma(a + t) - lgamma(a - t)) / (2 * t) - log(float(rate[0, i]))
        expected += 0.5 * (mean_log - log(2 * pi) - rho.mean() * (m * m + v)) + stats.norm(0, v**0.5).entropy()
        expected += rho.entropy()
        for s, p in q.items():
            a, b = PRIOR.kept if s[i] else PRIOR.gone
            expected += p * (a * log(b) - lgamma(a) + (a - 1) * mean_log - b * rho.mean())

    assert bound(mean, variance, Gamma(shape, rate), evidence) == pytest.approx(expected, abs=1e-4)


@pytest.mark.slow
@settings(deadline=None, max_examples=examples(40))
@given(
    rows(3, st.floats(-3, 3)),
    rows(3, POSITIVE),
    rows(3, st.floats(-4, 4)),
    rows(3, st.floats(0.5, 2.0)),
    rows(3, st.floats(0.5, 2.0)),
)
def test_no_other_precisions_have_a_higher_bound(
    mean: Tensor, variance: Tensor, evidence: Tensor, by: Tensor, other: Tensor
) -> None:
    kept = marginals(evidence, CHAIN)[0].sigmoid()
    best = precision_of(mean.square() + variance, kept, PRIOR)
    moved = Gamma(best.shape * by, best.rate * other)

    assert bound(mean, variance, best, evidence) >= bound(mean, variance, moved, evidence) - 1e-9


@pytest.mark.slow
@settings(deadline=None, max_examples=examples(40))
@given(rows(3, POSITIVE), rows(3, POSITIVE), rows(3, st.floats(-6, 6)))
def test_no_other_supports_have_a_higher_bound(shape: Tensor, rate: Tensor, by: Tensor) -> None:
    mean, precision = row(0.1, -2.0, 1.0), Gamma(shape, rate)
    best = support_evidence(precision, PRIOR)

    one = torch.ones_like(mean)
    assert bound(mean, one, precision, best) >= bound(mean, one, precision, best + by) - 1e-9


@pytest.mark.slow
@settings(deadline=None, max_examples=examples(40))
@given(rows(3, st.floats(0.0, 9.0)), rows(3, POSITIVE), rows(3, POSITIVE), rows(3, st.floats(0.5, 2.0)))
def test_no_other_variances_have_a_higher_bound(curvature: Tensor, shape: Tensor, rate: Tensor, by: Tensor) -> None:
    mean, precision, evidence = row(0.1, -2.0, 1.0), Gamma(shape, rate), torch.zeros(1, 3, dtype=torch.float64)

    def whole(variance: Tensor) -> float:
        return bound(mean, variance, precision, evidence) - expected_loss(0.0, curvature, variance)

    best = weight_variance(curvature, precision)
    assert whole(best) >= whole(best * by) - 1e-9


def test_updates_by_hand() -> None:
    # Half kept: shapes 1 and 1, rates (1 + 0.01) / 2, and half of 1 and of E[w^2] = 3 more.
    found = precision_of(row(3.0), row(0.5), PRIOR)
    assert (float(found.shape), float(found.rate)) == pytest.approx((1.5, 0.505 + 1.5))
    # Of shape 1 both priors are exponential: ln(1 / 0.01) - (1 - 0.01) E[rho].
    assert float(support_evidence(Gamma(row(6.0), row(2.0)), PRIOR)) == pytest.approx(log(100) - 0.99 * 3)
    assert float(weight_variance(row(1.0), Gamma(row(6.0), row(2.0)))) == 0.25
    # The gradient where it ends, 3 w, led there: 2 - 0.5 * 3 * 0.8 = 0.8.
    assert float(shrunk(row(2.0), Gamma(row(6.0), row(2.0)), 0.5)) == pytest.approx(0.8)
    assert expected_loss(1.0, row(2.0, 4.0), row(0.5, 0.25)) == 2.0


def test_the_bound_rises_and_a_burst_of_a_regression_is_found() -> None:
    """24 weights, of which six side by side are not zero: every update of a block raises the bound."""
    drawn = torch.Generator().manual_seed(0)
    x = torch.randn(60, 24, dtype=torch.float64, generator=drawn)
    truth = torch.zeros(24, dtype=torch.float64)
    truth[5:11] = row(2.0, -1.5, 1.8, -2.2, 0.7, 1.9)[0]
    y, noise = x @ truth + torch.randn(60, dtype=torch.float64, generator=drawn) / 5, 1 / 25
    curvature = x.square().sum(0, keepdim=True) / noise
    mean, variance, evidence = torch.zeros_like(curvature), torch.ones_like(curvature), torch.zeros_like(curvature)
    precision = precision_of(variance, marginals(evidence, CHAIN)[0].sigmoid(), PRIOR)
    bounds: list[float] = []

    def note() -> None:
        loss = float((y - x @ mean[0]).square().sum()) / noise / 2
        bounds.append(bound(mean, variance, precision, evidence) - expected_loss(loss, curvature, variance))

    for _ in range(8):
        system = x.T @ x / noise + torch.diag(precision.mean[0])
        mean, variance = torch.linalg.solve(system, x.T @ y / noise)[None], weight_variance(curvature, precision)
        note()
        kept = marginals(evidence, CHAIN)[0].sigmoid()
        precision = precision_of(mean.square() + variance, kept, PRIOR)
        note()
        evidence = support_evidence(precision, PRIOR)
        note()

    assert all(later >= before - 1e-9 for before, later in pairwise(bounds))
    assert bounds[-1] - bounds[0] > 10
    assert ((marginals(evidence, CHAIN)[0] > 0)[0] == (truth != 0)).all()
    assert mean[0].tolist() == pytest.approx(truth.tolist(), abs=0.1)


def test_priors_the_wrong_way_round_are_refused() -> None:
    with pytest.raises(InputError, match="precisions of kept weights must be below those of others"):
        Precisions(kept=(1.0, 0.01), gone=(1.0, 1.0))
    with pytest.raises(InputError, match="must be above 0"):
        Precisions(kept=(0.0, 1.0))
