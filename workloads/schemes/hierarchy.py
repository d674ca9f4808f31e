"""Variational inference under a prior of three layers: weights w, their precisions rho, their supports s.

w ~ N(0, 1 / rho); rho ~ Gamma(a, b) where s = 1, Gamma(a', b') where s = 0; s ~ a Markov chain (`support.py`). The
posterior is q(w) q(rho) q(s), w normal and rho gamma element by element, s a chain; each update maximises the evidence
bound over its block. Derived here for real weights; the repository of the authors (cxiaab/D-turbo-vbi-FL) adds 1 and
E[w^2] to shape and rate of rho, where real ones add half of each. Tensors are float64 of one shape [...].
"""

from __future__ import annotations

from dataclasses import dataclass
from math import lgamma, log

import torch
from torch import Tensor

from ..errors import InputError

__all__ = [
    "Gamma",
    "Precisions",
    "expected_loss",
    "precision_of",
    "prior_bound",
    "shrunk",
    "support_evidence",
    "weight_variance",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Precisions:
    """Gamma priors of a precision, (shape, rate), of weights that are kept and of those that are not.

    The defaults are those of the repository: precisions of 1 and of 100 on average.
    """

    kept: tuple[float, float] = (1.0, 1.0)
    gone: tuple[float, float] = (1.0, 0.01)

    def __post_init__(self) -> None:
        if min(*self.kept, *self.gone) <= 0.0:
            raise InputError(f"shapes and rates of precisions must be above 0, not {self.kept} and {self.gone}")
        if self.kept[0] / self.kept[1] >= self.gone[0] / self.gone[1]:
            raise InputError(
                f"precisions of kept weights must be below those of others, not {self.kept} and {self.gone}"
            )


@dataclass(frozen=True, slots=True, eq=False)
class Gamma:
    """q(rho) of every weight: its shape and rate, float64 [...]."""

    shape: Tensor
    rate: Tensor

    @property
    def mean(self) -> Tensor:
        """E[rho], float64 [...]."""
        return self.shape / self.rate

    @property
    def mean_log(self) -> Tensor:
        """E[ln rho], float64 [...]."""
        return torch.digamma(self.shape) - self.rate.log()

    @property
    def entropy(self) -> Tensor:
        """Of each, float64 [...]."""
        return self.shape - self.rate.log() + torch.lgamma(self.shape) + (1 - self.shape) * torch.digamma(self.shape)


def precision_of(second_moment: Tensor, kept: Tensor, prior: Precisions) -> Gamma:
    """The best q(rho), given E[w^2] and q(s = 1), both float64 [...]."""
    (shape, rate), (other_shape, other_rate) = prior.kept, prior.gone
    return Gamma(
        kept * shape + (1 - kept) * other_shape + 0.5, kept * rate + (1 - kept) * other_rate + 0.5 * second_moment
    )


def _expected_log(precision: Gamma, shape: float, rate: float) -> Tensor:
    """E[ln Gamma(rho; shape, rate)] over ``precision``, float64 [...]."""
    return shape * log(rate) - lgamma(shape) + (shape - 1) * precision.mean_log - rate * precision.mean


def support_evidence(precision: Gamma, prior: Precisions) -> Tensor:
    """What q(rho) says of s: log-odds of being kept, without those of the chain, float64 [...].

    The best q(s) given q(rho) is the chain under this evidence (:func:`.support.marginals`).
    """
    return _expected_log(precision, *prior.kept) - _expected_log(precision, *prior.gone)


def weight_variance(curvature: Tensor, precision: Gamma) -> Tensor:
    """The best variance of q(w) where the loss curves by ``curvature`` along each weight, both float64 [...].

    Exact where the loss is quadratic, as in linear regression; elsewhere Laplace's.
    """
    return 1.0 / (curvature + precision.mean)


def shrunk(mean: Tensor, precision: Gamma, rate: float) -> Tensor:
    """``mean`` behind a step of ``rate`` down its prior, E[rho] w^2 / 2, by the implicit rule, float64 [...].

    No rate makes it overshoot, however large a precision is.
    """
    return mean / (1.0 + rate * precision.mean)


def expected_loss(loss: float, curvature: Tensor, variance: Tensor) -> float:
    """Loss that q(w) expects, given the ``loss`` at its mean: half the curvature times the variance more, float64
    [...]; exact where it is quadratic."""
    return loss + 0.5 * float((curvature * variance).sum())


def prior_bound(
    mean: Tensor, variance: Tensor, precision: Gamma, log_odds: Tensor, support: tuple[Tensor, float], prior: Precisions
) -> float:
    """What evidence bound has beside the expected likelihood: -KL(q(w) q(rho) q(s) | p(w, rho, s)).

    ``support``: the evidence that made q(s), and the normaliser of the chain under it; ``log_odds``: the marginals of
    q(s) = p(s) exp(s . evidence) / normaliser. Tensors are float64 [...].
    """
    evidence, normaliser = support
    kept = log_odds.sigmoid()
    weights = 0.5 * (precision.mean_log - precision.mean * (mean.square() + variance) + variance.log() + 1)
    precisions = (
        kept * _expected_log(precision, *prior.kept)
        + (1 - kept) * _expected_log(precision, *prior.gone)
        + precision.entropy
    )
    return float((weights + precisions - kept * evidence).sum()) + normaliser
