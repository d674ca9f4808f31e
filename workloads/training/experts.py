"""A feed-forward network in experts that a router with a ReLU lets pass, and what teaches tokens to share them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..skip_rows import EXPERTS

__all__ = ["CHUNK", "Routed", "in_experts", "unlike"]

CHUNK = 8
"""Tokens that should share their experts (the abstract counts 8)."""
_EPSILON = 1e-6


class Routed(nn.Module):
    """The first layer of a network, its SiLU, and every neuron times what a router says of its expert: ReLU of a linear
    layer, divided by the root of the mean of squares, times a learned scale (BlockFFN, Song et al., arXiv 2507.08771).

    ``scores``: those of the last call, float32 [tokens, experts], behind the ReLU.
    """

    def __init__(self, first: nn.Linear) -> None:
        super().__init__()
        self.first = first
        self.router = nn.Linear(first.in_features, EXPERTS, bias=False)
        self.scale = nn.Parameter(torch.ones(EXPERTS))
        self.scores = torch.empty(0)

    def forward(self, x: Tensor) -> Tensor:
        """Of ``x``, float32 [tokens, width], float32 [tokens, neurons]: zero where an expert does not pass."""
        self.scores = functional.relu(self.router(x))
        normed = self.scores * torch.rsqrt(self.scores.square().mean(-1, keepdim=True) + _EPSILON) * self.scale
        neurons = self.first.out_features
        spread = normed.repeat_interleave(-(-neurons // EXPERTS), -1)[..., :neurons]
        found: Tensor = functional.silu(self.first(x)) * spread
        return found


def in_experts(model: nn.Module) -> list[Routed]:
    """Puts a `Routed` in the place of the first layer and the ReLU of every network of an OPT."""
    layers: list[Any] = [m for m in model.modules() if isinstance(getattr(m, "activation_fn", None), nn.ReLU)]
    for layer in layers:
        layer.fc1, layer.activation_fn = Routed(layer.fc1), nn.Identity()
    return [layer.fc1 for layer in layers]


def unlike(scores: Tensor) -> Tensor:
    """How likely it is that an expert is used in `CHUNK` tokens one behind the other, mean over experts and chunks, a
    scalar: that of a token is s / (1 + s) of its score s, float32 [tokens, experts]. The loss of the paper has this
    form; how a score becomes a chance is assumed."""
    unused = (1 / (1 + scores)).reshape(-1, CHUNK, scores.shape[-1]).prod(1)
    found: Tensor = 1 - unused.mean()
    return found
