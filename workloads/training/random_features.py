"""Attention that is exact on some pairs and by random features on all others: Scatterbrain's, as a model runs it.

Chen et al., arXiv 2110.15343, abstract read; features are Performer's positive ones, from memory: with directions w of
a normal distribution exp(w q - |q|^2 / 2) exp(w k - |k|^2 / 2) is exp(q k) on average. Directions in rows of right
angles, as there. What a step pays for it is in `low_rank_attention.py`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["directions", "scattered"]


def directions(features: int, width: int, seed: int) -> Tensor:
    """Normal directions, float64 [features, width]; every ``width`` of them are at right angles."""
    drawn = torch.Generator().manual_seed(seed)
    many = -(-features // width)
    turned, corner = torch.linalg.qr(torch.randn(many, width, width, generator=drawn, dtype=torch.float64))
    # Without its signs the factor is not drawn evenly: LAPACK's have a side that they prefer.
    turned = turned * corner.diagonal(dim1=-2, dim2=-1).sign()[:, None]
    lengths = torch.randn(features, width, generator=drawn, dtype=torch.float64).norm(dim=1, keepdim=True)
    found: Tensor = turned.mT.reshape(-1, width)[:features] * lengths
    return found


def scattered(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, along: Tensor, block: int) -> Tensor:
    """Causal attention, exact where ``mask`` is set and by features ``along`` directions elsewhere, in sums over blocks
    of ``block`` keys.

    ``q``, which come scaled, ``k`` and ``v`` are of one float dtype, [samples, heads, tokens, channels]; ``mask`` is
    bool [samples, heads, queries, keys] and names no key behind its query; ``along`` is float [features, channels]. The
    result is as ``v``. Products of queries and keys are shared out evenly, which changes no product and steadies the
    features.
    """
    root = k.shape[-1] ** 0.25
    of_q, of_k = _logarithms(q * root, along), _logarithms(k / root, along)
    scores = q @ k.mT
    # A row may be multiplied by any number; no exponent is above 0.
    high = of_k.amax((-2, -1), keepdim=True)
    top = torch.maximum(of_q.amax(-1, keepdim=True) + high, scores.masked_fill(~mask, -math.inf).amax(-1, keepdim=True))
    phi_q, phi_k = torch.exp(of_q + high - top), torch.exp(of_k - high)
    kept = (torch.exp(scores - top) - phi_q @ phi_k.mT).masked_fill(~mask, 0)
    ones = functional.pad(v, (0, 1), value=1.0)
    total = kept @ ones + _behind(phi_q, phi_k, ones, block)
    return total[..., :-1] / total[..., -1:]


def _logarithms(x: Tensor, along: Tensor) -> Tensor:
    """Of the features of ``x``, so that products of two are means."""
    return x @ along.mT - x.square().sum(-1, keepdim=True) / 2 - math.log(len(along)) / 2


def _behind(phi_q: Tensor, phi_k: Tensor, v: Tensor, block: int) -> Tensor:
    """What queries weigh of the values of all keys up to their own."""
    found, total = [], torch.zeros(*phi_k.shape[:2], phi_k.shape[-1], v.shape[-1], dtype=v.dtype)
    for own_q, own_k, own_v in zip(*(torch.split(x, block, 2) for x in (phi_q, phi_k, v)), strict=True):
        found.append(own_q @ total + (own_q @ own_k.mT).tril() @ own_v)
        total = total + own_k.mT @ own_v
    return torch.cat(found, 2)
