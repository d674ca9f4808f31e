"""BiPFT's self-attention: queries, keys, values and map are binary, and low-rank estimators add what is lost by it.

weft train examples/bipft.py:plain --scheme bipft
weft train examples/bipft.py:estimated --scheme bipft

With Q = Q_b + R_q and K = K_b + R_k, Q K^T = Q_b K_b^T + Q_b R_k^T + R_q K_b^T + R_q R_k^T: of the last three, the
residual polynomials, each factor is a linear function of the input of rank 1, learned beside the rest; so is that
of the values (Xing et al., arXiv 2312.08937; as in `binary_bert.py` of repository Xingrun-Xing/BiPFT). The estimators
are real: their layers have a forward of their own, so a scheme leaves them alone in training. What is only traced does
not show that; `weft study` tells the machine.
"""

from __future__ import annotations

from math import sqrt
from typing import Any

import torch
from torch import Tensor, nn

WIDTH, HEADS, BLOCKS, PATCH = 64, 4, 2, 2


class Sign(torch.autograd.Function):
    """a sign(x) with a = 2 mean |x|; the gradient is that of x clipped to [-a, a]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        scale = 2 * x.abs().mean()
        ctx.save_for_backward(x, scale)
        return torch.where(x >= 0, scale, -scale)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        x, scale = ctx.saved_tensors
        return g * (x.abs() <= scale)


class Event(torch.autograd.Function):
    """a round(clip(x / a, 0, 1)) with a = 2 mean |x|; the gradient is that of what is clipped."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        scale = 2 * x.abs().mean()
        ctx.save_for_backward(x, scale)
        return (x / scale).clamp(0, 1).round() * scale

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        x, scale = ctx.saved_tensors
        return g * ((x >= 0) & (x <= scale))


class Estimator(nn.Linear):
    """Of rank 1: one number a token. That `forward` is its own keeps it real."""

    def __init__(self) -> None:
        super().__init__(WIDTH, 1)

    def forward(self, input: Tensor) -> Tensor:
        return nn.functional.linear(input, self.weight, self.bias)


class Attention(nn.Module):
    """Binary self-attention, with estimators of its residue or without."""

    def __init__(self, estimated: bool) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        names = ("q", "k", "q_residue", "k_residue", "v_residue") if estimated else ()
        self.low_rank = nn.ModuleDict({name: Estimator() for name in names})

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            Sign.apply(layer(x)).unflatten(-1, (HEADS, -1)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        scores = q @ k.transpose(-1, -2)
        if self.low_rank:
            e = {name: estimator(x).unsqueeze(1) for name, estimator in self.low_rank.items()}
            scores = scores + e["q"] @ e["k_residue"].mT + e["q_residue"] @ e["k"].mT
            scores = scores + e["q_residue"] @ e["k_residue"].mT
        attended = Event.apply(torch.softmax(scores / sqrt(WIDTH // HEADS), -1))
        made = attended @ v
        if self.low_rank:
            made = made + attended @ e["v_residue"].expand(-1, HEADS, -1, -1)
        found: Tensor = self.out(made.transpose(1, 2).flatten(2))
        return found


class Block(nn.Module):
    """Attention and two layers, a norm behind each, as in BERT."""

    def __init__(self, estimated: bool) -> None:
        super().__init__()
        self.attention = Attention(estimated)
        self.norm, self.last_norm = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.rise, self.fall = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x + self.attention(x))
        found: Tensor = self.last_norm(x + self.fall(torch.relu(self.rise(x))))
        return found


class Reader(nn.Module):
    """Digits of 8 x 8 as 16 tokens of 2 x 2 pixels."""

    def __init__(self, classes: int, channels: int, estimated: bool) -> None:
        super().__init__()
        self.embed = nn.Linear(channels * PATCH**2, WIDTH)
        self.places = nn.Parameter(torch.randn(16, WIDTH) * 0.02)
        self.blocks = nn.Sequential(*(Block(estimated) for _ in range(BLOCKS)))
        self.head = nn.Linear(WIDTH, classes)

    def forward(self, x: Tensor) -> Tensor:
        patches = x.unfold(2, PATCH, PATCH).unfold(3, PATCH, PATCH)
        tokens = patches.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)
        found: Tensor = self.head(self.blocks(self.embed(tokens) + self.places).mean(1))
        return found


def plain(classes: int = 10, channels: int = 1, batch: int = 64) -> tuple[nn.Module, Tensor]:
    """Without estimators, BiPFT-A."""
    return Reader(classes, channels, False), torch.zeros(batch, channels, 8, 8)


def estimated(classes: int = 10, channels: int = 1, batch: int = 64) -> tuple[nn.Module, Tensor]:
    """With them, BiPFT-B."""
    return Reader(classes, channels, True), torch.zeros(batch, channels, 8, 8)
