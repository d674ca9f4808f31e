"""Supports along binary Markov chains: which of the elements of a line are kept, where those that are come in bursts.

All in log-odds of an element being kept, float64 [lines, length], a chain a line. Messages are those of forward and
backward passes (sum-product), exact on a chain.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import softplus

from ..errors import InputError
from ..unstructured import counted_runs

__all__ = ["Chain", "bursts", "field_of", "marginals"]

_TRIES = 60
_SETTLED = 1e-4
"""Log-odds that are a half for all that follows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """A stationary chain that keeps the share ``density``, in bursts of ``burst`` elements on average."""

    density: float
    burst: float

    def __post_init__(self) -> None:
        if not 0.0 < self.density < 1.0:
            raise InputError(f"density of a chain must be above 0 and below 1, not {self.density!r}")
        alone = 1.0 / (1.0 - self.density)
        if not alone <= self.burst < float("inf"):
            raise InputError(
                f"burst of a chain that keeps {self.density:g} must be {alone:.4g} elements at least, that of elements "
                f"kept each by itself, not {self.burst!r}"
            )

    @property
    def leaving(self) -> float:
        """Probability that the next element is not kept, behind one that is."""
        return 1.0 / self.burst

    @property
    def entering(self) -> float:
        """Probability that the next element is kept, behind one that is not."""
        return self.leaving * self.density / (1.0 - self.density)


def _logs(chain: Chain) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Logarithms of the probabilities to go from 0 to 0, from 0 to 1, from 1 to 0 and from 1 to 1; float64 []."""
    odds = torch.tensor(
        [1.0 - chain.entering, chain.entering, chain.leaving, 1.0 - chain.leaving], dtype=torch.float64
    ).log()
    return odds[0], odds[1], odds[2], odds[3]


def marginals(evidence: Tensor, chain: Chain) -> tuple[Tensor, float]:
    """q(s) of lines under ``chain`` and the ``evidence`` of each element, and the logarithm of its normaliser.

    ``evidence``: log p(seen | kept) - log p(seen | not kept), float64 [lines, length]; the marginals are log-odds, the
    same. The normaliser is the sum of p(s) exp(s . evidence) over all supports.
    """
    rest, enter, leave, stay = _logs(chain)
    length = evidence.shape[1]
    ahead, behind = torch.empty_like(evidence), torch.zeros_like(evidence)
    ahead[:, 0] = torch.tensor(chain.density, dtype=torch.float64).logit()
    for place in range(1, length):
        known = ahead[:, place - 1] + evidence[:, place - 1]
        ahead[:, place] = torch.logaddexp(known + stay, enter) - torch.logaddexp(known + leave, rest)
    for place in range(length - 2, -1, -1):
        known = behind[:, place + 1] + evidence[:, place + 1]
        behind[:, place] = torch.logaddexp(known + stay, leave) - torch.logaddexp(known + enter, rest)
    return ahead + evidence + behind, float((softplus(ahead + evidence) - softplus(ahead)).sum())


def field_of(evidence: Tensor, chain: Chain, count: int, start: float = 0.0) -> tuple[float, Tensor]:
    """What, added to the evidence of every element, leaves ``count`` of them with q(s = 1) of a half at least.

    The marginals that it leaves are the second result. ``evidence``: float64 [lines, length], as are they. A field on
    all elements is another density of the chain's prior at the same coupling, and marginals grow with it.
    """
    rank = evidence.numel() - count + 1

    def last(field: float) -> tuple[float, Tensor]:
        found, _ = marginals(evidence + field, chain)
        return float(found.flatten().kthvalue(rank).values), found

    # Log-odds of a marginal grow at least as fast as a field that all elements share: these two are on both sides.
    (one, (at_one, _)), field = (start, last(start)), start
    field -= at_one
    at, found = last(field)
    for _ in range(_TRIES):
        if abs(at) < _SETTLED:
            break
        between = field - at * (one - field) / (at_one - at)
        at_between, found = last(between)
        # Where an end stays it counts half (Illinois rule), or the secant would only creep towards it.
        one, at_one = (field, at) if at_between * at < 0 else (one, at_one / 2)
        field, at = between, at_between
    return field, found


def bursts(mask: Tensor) -> float:
    """Mean number of kept elements side by side in the lines of a mask, bool [lines, length]; 0 of an empty one."""
    runs = counted_runs(mask.numpy(), "a")
    return int(mask.sum()) / runs if runs else 0.0
