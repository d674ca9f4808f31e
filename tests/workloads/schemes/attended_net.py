"""A small model with attention that can be written in several ways."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional

TOKENS, WIDTH, HEADS = 6, 16, 2
CAUSAL = torch.full((TOKENS, TOKENS), -math.inf, dtype=torch.float64).triu(1)


def signs(x):
    return torch.where(x < 0, -1.0, 1.0).to(x.dtype)


def written_out(q, k, v):
    return (q @ k.transpose(-2, -1) / 4).add(CAUSAL).softmax(-1) @ v


def whole(q, k, v):
    return functional.scaled_dot_product_attention(q, k, v, is_causal=True, scale=0.25)


class Net(nn.Module):
    """A layer in full precision at either end; between, queries, keys and values by one layer, and a way to attend."""

    def __init__(self, attend=written_out):
        super().__init__()
        self.into, self.qkv = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 3 * WIDTH)
        self.proj, self.head = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 4)
        self.attend = attend

    def parts(self, x):
        return self.qkv(self.into(x)).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)

    def forward(self, x):
        return self.head(self.proj(self.attend(*self.parts(x)).transpose(1, 2).flatten(2))).mean(1)


def net(attend=written_out):
    torch.manual_seed(0)
    return Net(attend).double(), torch.randn(3, TOKENS, WIDTH, dtype=torch.float64)
