"""Unbiased N:M sampling of gradients: at most N of every M stay, scaled so that the expectation is the tensor itself.

Both samplers select the N largest of a key per element, as SORE can, and then scale what was kept.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..sparsity import NMPattern
from .masks import View, grouped, kernel, largest_by_sorting, mask_of_largest, ungrouped

__all__ = ["systematic", "systematic_by_sums", "thresholds", "two_draws"]


def systematic(x: Tensor, view: View, pattern: NMPattern, generator: torch.Generator) -> Tensor:
    """Systematic sampling with probabilities proportional to magnitude: unbiased, of the least variance per element.

    With tau from :func:`thresholds`, element i of a group is kept with probability p_i = min(1, |x_i| / tau) as
    sign(x_i) max(|x_i|, tau) = x_i / p_i. The p_i of a group add up to N, so the sum of the variances,
    sum x_i^2 (1 / p_i - 1), is the least that any unbiased choice of N elements has. One uniform number u a group
    decides: with running sums C_i = p_1 + .. + p_i, element i is kept when one of u, u + 1, .. lies in [C_(i-1), C_i).
    That is the selection of the N largest of the keys p_i / frac(C_i - u), of which exactly N are above 1: a top-N. Of
    neighbours seldom both are kept, which helps where their partners in the product are alike, as pixels are.

    Exact up to the rounding of C in double precision. A group that holds Inf or NaN keeps its largest as they are, so
    that a gradient scaler sees the overflow. ``x``: any shape and float dtype, the result's too.
    """
    outer, length, inner = view
    groups = -(-length // pattern.group)
    u = torch.rand((outer, groups, 1, inner), generator=generator, dtype=torch.float64, device=x.device)
    if x.device.type != "cpu":
        return systematic_by_sums(x, view, pattern, u)
    wide = x.detach().contiguous()
    wide = wide.float() if wide.element_size() < 4 else wide
    made = torch.zeros_like(wide)
    finite = _sample(
        wide.numpy().reshape(view), u.numpy()[:, :, 0], pattern.keep, pattern.group, made.numpy().reshape(view)
    )
    made = made.to(x.dtype)
    return made if finite else _with_overflow(made, x, view, pattern)


def systematic_by_sums(x: Tensor, view: View, pattern: NMPattern, u: Tensor) -> Tensor:
    """:func:`systematic` with the uniform numbers ``u``, float64 [outer, groups, 1, inner], in whole-tensor steps.

    The obvious twin, and the way on a GPU.
    """
    groups = grouped(x.double(), view, pattern.group)
    magnitude = groups.abs()
    tau = thresholds(magnitude, pattern.keep)
    share = torch.where(magnitude >= tau, (magnitude > 0).double(), magnitude / tau)
    upto = share.cumsum(dim=2)
    kept = (upto - u).ceil() > (upto - share - u).ceil()
    # A sum that rounding left a hair below or above N moves the last pick by one place; it never makes one too many.
    kept &= kept.cumsum(dim=2) <= pattern.keep
    made = torch.where(kept, groups.sign() * magnitude.maximum(tau), 0.0)
    return _with_overflow(ungrouped(made, view, x.shape).to(x.dtype), x, view, pattern)


@kernel
def _sample(x: Any, u: Any, keep: int, group: int, out: Any) -> bool:
    """The same group by group into ``out``, zeros before; x [outer, length, inner]. False where it met Inf or NaN."""
    outer, length, inner = x.shape
    size = np.empty(group, np.float64)
    certain = np.empty(group, np.bool_)
    finite = True
    for o in range(outer):
        for g in range(u.shape[1]):
            begin = g * group
            count = min(group, length - begin)
            for i in range(inner):
                for j in range(count):
                    size[j] = abs(x[o, begin + j, i])
                    certain[j] = False
                left = keep
                tau, least = 0.0, np.inf
                more = True
                while more:
                    total = 0.0
                    for j in range(count):
                        total += 0.0 if certain[j] else size[j]
                    # An Inf is certain from the first round on, so later sums do not have it.
                    finite = finite and np.isfinite(total)
                    tau = total / left if left > 0 else least
                    more = False
                    if left > 0:
                        for j in range(count):
                            if size[j] >= tau and size[j] > 0.0 and not certain[j]:
                                certain[j] = True
                                more = True
                                left -= 1
                                least = min(least, size[j])
                upto, mark, taken = 0.0, u[o, g, i], 0
                for j in range(count):
                    if size[j] >= tau:
                        upto += 1.0 if size[j] > 0.0 else 0.0
                    else:
                        upto += size[j] / tau
                    if upto > mark and taken < keep:
                        mark += 1.0
                        taken += 1
                        value = max(size[j], tau)
                        out[o, begin + j, i] = value if x[o, begin + j, i] > 0 else -value
    return finite


def thresholds(magnitude: Tensor, keep: int) -> Tensor:
    """tau of every group [outer, groups, M, inner] with sum_i min(1, |x_i| / tau) = keep; 0 where it has fewer.

    Elements above tau are certain; the rest share what is left of ``keep``: tau = (their sum) / (keep - certain). Where
    nothing is left, since rounding lost the rest in the sum, tau is the least that is certain, and the rest has next to
    no chance. Of any float dtype, the result's [outer, groups, 1, inner] too.
    """
    certain = torch.zeros(magnitude.shape, dtype=torch.bool, device=magnitude.device)
    tau = torch.zeros_like(magnitude[:, :, :1])
    for _ in range(keep + 1):
        rest = magnitude.masked_fill(certain, 0.0)
        left = keep - certain.sum(dim=2, keepdim=True)
        least = magnitude.masked_fill(~certain, torch.inf).amin(dim=2, keepdim=True)
        tau = torch.where(left > 0, rest.sum(dim=2, keepdim=True) / left.clamp_min(1), least)
        more = (magnitude >= tau) & (magnitude > 0) & (left > 0) & ~certain
        if not more.any():
            break
        certain |= more
    return tau


def two_draws(x: Tensor, view: View, pattern: NMPattern, generator: torch.Generator) -> Tensor:
    """Two successive draws without replacement, probabilities proportional to magnitude (Hu et al., arXiv 2404.01847).

    With t = |x| / sum |x|, element i is kept with p_i = t_i + t_i sum_(j != i) t_j / (1 - t_j) and becomes x_i / p_i:
    unbiased. The draws are the two largest keys log|x_i| + Gumbel noise (Efraimidis, Spirakis 2006), again a top-N. One
    draw has p_i = t_i; of three draws and more the p_i have no short form, so patterns that keep more than two are
    sampled systematically. ``x``: any shape and float dtype, the result's too.
    """
    if pattern.keep > 2:
        return systematic(x, view, pattern, generator)
    groups = grouped(x.double(), view, pattern.group)
    magnitude = groups.abs()
    t = magnitude / magnitude.sum(dim=2, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)
    share = t
    if pattern.keep == 2:
        # An element that has everything is drawn first and for certain; its odds would be 0 / 0.
        odds = torch.where(t < 1.0, t / (1.0 - t).clamp_min(torch.finfo(torch.float64).tiny), 0.0)
        share = torch.where(t < 1.0, t * (1.0 + odds.sum(dim=2, keepdim=True) - odds), 1.0)
        # Beside an element that has everything but for rounding, the others have the second draw to themselves.
        alone = (t == 1.0).any(dim=2, keepdim=True) & (t < 1.0)
        others = magnitude.masked_fill(~alone, 0.0)
        second = others / others.sum(dim=2, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)
        share = torch.where(alone, second, share)
    noise = torch.empty_like(t).exponential_(generator=generator)
    keys = torch.where(magnitude > 0, magnitude / noise.clamp_min(torch.finfo(torch.float64).tiny), 0.0)
    kept = mask_of_largest(keys, (keys.shape[0] * keys.shape[1], keys.shape[2], keys.shape[3]), pattern)
    made = torch.where(kept & (share > 0), groups / share.clamp_min(torch.finfo(torch.float64).tiny), 0.0)
    return _with_overflow(ungrouped(made, view, x.shape).to(x.dtype), x, view, pattern)


def _with_overflow(made: Tensor, x: Tensor, view: View, pattern: NMPattern) -> Tensor:
    """``made``, but the largest of ``x`` where its group holds Inf or NaN."""
    groups = grouped(x, view, pattern.group)
    finite = groups.isfinite().all(dim=2, keepdim=True)
    if finite.all():
        return made
    inside = ungrouped(finite.expand_as(groups), view, x.shape)
    return torch.where(inside, made, x.masked_fill(~largest_by_sorting(x, view, pattern), 0))
