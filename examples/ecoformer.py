"""EcoFormer's attention in a small transformer for the digits, whose tokens are 2 x 2 pixels, beside whole attention.

weft train examples/ecoformer.py:hashed --scheme dense --epochs 40
weft train examples/ecoformer.py:whole --scheme dense --epochs 40
python examples/ecoformer.py 8 16 28     # what both cost on bnn-vu9p at these sides of an image
"""

from __future__ import annotations

import sys
from math import sqrt

import torch
from torch import Tensor, nn

import weft
from weft.workloads.hashed_attention import HashedAttention

WIDTH, HEADS, BLOCKS, PATCH = 64, 4, 2, 2
PAIRS = 4
"""Of 16 tokens, those that hashing takes for similar to one, and for unlike it; EcoFormer's 10 are of thousands."""


class WholeAttention(nn.Module):
    """Softmax attention whose queries and keys are one projection, as those of `HashedAttention`."""

    def __init__(self) -> None:
        super().__init__()
        self.query_key, self.value, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        both, v = (layer(x).unflatten(-1, (HEADS, -1)).transpose(1, 2) for layer in (self.query_key, self.value))
        attended = torch.softmax(both @ both.mT / sqrt(WIDTH // HEADS), -1) @ v
        found: Tensor = self.out(attended.transpose(1, 2).flatten(2))
        return found


class Block(nn.Module):
    """Attention and two layers, a norm in front of each."""

    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.attention = attention
        self.norm, self.last_norm = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.layers = nn.Sequential(nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm(x))
        found: Tensor = x + self.layers(self.last_norm(x))
        return found


class Reader(nn.Module):
    """Patches with learned places, blocks, and a linear layer on the mean of all tokens."""

    def __init__(self, classes: int, channels: int, size: int, hashed: bool) -> None:
        super().__init__()
        self.embed = nn.Conv2d(channels, WIDTH, PATCH, stride=PATCH)
        self.places = nn.Parameter(torch.randn((size // PATCH) ** 2, WIDTH) * 0.02)
        made = (HashedAttention(WIDTH, HEADS, pairs=PAIRS) if hashed else WholeAttention() for _ in range(BLOCKS))
        self.blocks = nn.Sequential(*map(Block, made))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, classes)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.embed(x).flatten(2).transpose(1, 2) + self.places
        found: Tensor = self.head(self.norm(self.blocks(tokens)).mean(1))
        return found


def hashed(classes: int = 10, channels: int = 1, size: int = 8, batch: int = 64) -> tuple[nn.Module, Tensor]:
    """With attention over codes of 16 bits."""
    return Reader(classes, channels, size, True), torch.zeros(batch, channels, size, size)


def whole(classes: int = 10, channels: int = 1, size: int = 8, batch: int = 64) -> tuple[nn.Module, Tensor]:
    """With softmax attention."""
    return Reader(classes, channels, size, False), torch.zeros(batch, channels, size, size)


def cost(model: nn.Module, images: Tensor) -> str:
    """Of a step on `bnn-vu9p`, of what attention does without a weight: MACs of FF, thousands of cycles of products
    and of vector work, MB from and to DRAM."""
    result = weft.simulate(weft.schedule(weft.trace(model, images), weft.machine("bnn-vu9p")))
    ops = [r for r in result.ops if ".attention" in r.op.name and getattr(r.op, "parameter", None) is None]
    products = [r for r in ops if r.op.kind == "matrix"]
    others = [r for r in ops if r.op.kind == "vector"]
    macs = sum(r.op.macs for r in products if r.op.pass_ == "FF")
    cycles = [sum(r.cycles.total for r in part) / 1e3 for part in (products, others)]
    moved = sum(r.counts.dram_read_bytes + r.counts.dram_write_bytes for r in products + others)
    return f"{macs:>13,} {cycles[0]:>9,.0f} {cycles[1]:>9,.0f} {moved / 1e6:>9,.1f}"


if __name__ == "__main__":
    head = f"{'MACs':>13} {'products':>9} {'vector':>9} {'MB':>9}"
    print(f"tokens {head}, hashed {head}, softmax")
    for side in map(int, sys.argv[1:] or ["8"]):
        print(f"{(side // PATCH) ** 2:>6} {cost(*hashed(size=side))}         {cost(*whole(size=side))}")
