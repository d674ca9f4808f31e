"""Tokens of an image that leave a vision transformer on the way, so that all later products are smaller.

Two ways to choose them, neither of which needs a training: by what attention says (Zero-TPrune, Wang et al., arXiv
2305.17328) and by the neurons that they share with the others (CoreMatching, Wang et al., arXiv 2505.19235). Of both
the abstracts were read; numbers and formulae are ours, and assumed.
"""

from __future__ import annotations

import copy
import math
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import InputError

__all__ = ["fewer_tokens", "leaving_after", "page_rank", "shared_neurons", "spread_out"]

By = Literal["tokens", "core"]

_ROUNDS = 8
"""Of page rank (assumed)."""
_ACTIVE, _CORE = 0.2, 0.4
"""Share of the neurons that count as active for a token, and share that are the core of an image (assumed)."""


def page_rank(attention: Tensor, rounds: int = _ROUNDS) -> Tensor:
    """Importance of tokens, [images, tokens]: that of a token flows to those that it attends to, from equal shares, in
    ``rounds``; of heads the root of the mean of squares. ``attention``: of any dtype, [images, heads, tokens, tokens],
    rows add up to 1."""
    share = attention.new_full((*attention.shape[:-2], 1, attention.shape[-1]), 1.0 / attention.shape[-1])
    for _ in range(rounds):
        share = share @ attention
    return share.squeeze(-2).square().mean(1).sqrt()


def spread_out(importance: Tensor, keys: Tensor, kept: int) -> Tensor:
    """Places of the ``kept`` tokens, int64 [images, kept]: of those that go half are the least important; of the others
    every second one by importance is held against the rest, and those most like one of them go too. ``keys`` [images,
    tokens, width]: cosines of them say how alike tokens are."""
    gone = importance.shape[1] - kept
    ranked = torch.argsort(importance, dim=1, descending=True, stable=True)[:, : importance.shape[1] - gone // 2]
    firm, loose = ranked[:, ::2], ranked[:, 1::2]
    again = gone - gone // 2
    if again > loose.shape[1]:  # more go than half: the least important of them, too
        return ranked[:, :kept]
    unit = functional.normalize(keys, dim=-1)
    a, b = (_at(unit, places) for places in (firm, loose))
    alike = (b @ a.transpose(-1, -2)).amax(-1)
    apart = torch.argsort(alike, dim=1, stable=True)[:, : loose.shape[1] - again]
    return torch.cat((firm, loose.gather(1, apart)), 1)


def shared_neurons(hidden: Tensor) -> Tensor:
    """How many core neurons are active for each token, [images, tokens]: the core are those that are active for most
    tokens of their image. ``hidden``: of any dtype, [images, tokens, neurons], what the second layer reads."""
    neurons = hidden.shape[-1]
    least = hidden.topk(max(round(_ACTIVE * neurons), 1), -1).values[..., -1:]
    active = (hidden >= least).to(hidden.dtype)
    core = torch.zeros_like(active[:, 0])
    core = core.scatter(1, active.sum(1).topk(max(round(_CORE * neurons), 1), -1).indices, 1.0)
    return (active @ core[..., None]).squeeze(-1)


def leaving_after(depth: int) -> list[int]:
    """Blocks behind which tokens leave: a quarter, half and three quarters through (assumed), none behind the last."""
    return sorted({max(round(depth * quarter / 4), 1) - 1 for quarter in (1, 2, 3)} - {depth - 1})


class _Leaving(nn.Module):
    """A block of the vision transformer, behind which a share of the tokens is left; the class token always is."""

    def __init__(self, block: Any, by: By, share: float) -> None:
        super().__init__()
        self.norm1, self.attention, self.norm2, self.mlp = block.norm1, block.attention, block.norm2, block.mlp
        self.by, self.share = by, share

    def forward(self, x: Tensor) -> Tensor:
        heads = self.attention.heads
        q, k, v = self.attention.qkv(self.norm1(x)).reshape(*x.shape[:2], 3, heads, -1).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])).softmax(-1)
        x = x + self.attention.proj((weights @ v).transpose(1, 2).flatten(2))
        first, between, second = self.mlp
        hidden = between(first(self.norm2(x)))
        x = x + second(hidden)
        kept = max(round(self.share * (x.shape[1] - 1)), 1)
        with torch.no_grad():
            if self.by == "tokens":
                own = spread_out(page_rank(weights)[:, 1:], k.transpose(1, 2).flatten(2)[:, 1:], kept)
            else:
                own = shared_neurons(hidden[:, 1:]).topk(kept, -1).indices
        return torch.cat((x[:, :1], _at(x[:, 1:], own)), 1)


def _at(x: Tensor, places: Tensor) -> Tensor:
    """Rows of ``x`` [images, tokens, width] at ``places`` [images, some]."""
    return x.gather(1, places[..., None].expand(-1, -1, x.shape[-1]))


def fewer_tokens(model: nn.Module, by: By, share: float) -> nn.Module:
    """A copy of ``model``, a `vit_s`, in which a ``share`` of the tokens is left behind each of `leaving_after`."""
    small: Any = copy.deepcopy(model)
    blocks = getattr(small, "blocks", None)
    if not isinstance(blocks, nn.Sequential) or not hasattr(blocks[0], "attention"):
        raise InputError(f"{type(model).__name__} has no blocks of vit_s, whose tokens could leave: choose vit_s")
    for place in leaving_after(len(blocks)):
        blocks[place] = _Leaving(blocks[place], by, share)
    found: nn.Module = small
    return found
