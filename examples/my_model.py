"""A model of one's own: `weft run examples/my_model.py:residual_net --batch 64`.

The function returns the model and example inputs; whatever it takes as `batch` comes from --batch.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Block(nn.Module):
    """Two convolutions around a shortcut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, groups=4, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.layers(x))


def residual_net(batch: int = 32) -> tuple[nn.Module, Tensor]:
    """A small residual network and one batch for it."""
    model = nn.Sequential(
        nn.Conv2d(3, 64, 3, padding=1), Block(64), Block(64), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)
    )
    return model, torch.zeros(batch, 3, 32, 32)
