"""A residual network made for binary layers: Bi-Real Net (Liu et al., ECCV 2018, arXiv 1808.00278).

In floats, as every model here: where the binary network takes the sign, this one clips to [-1, 1] and a scheme of
binary operands puts the sign behind it, which the clip does not change. So the same network is not linear where it is
not binary.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .source import ModelSource
from .vision import image_source
from .zoo import ZooModel

__all__ = ["birealnet", "classifier", "zoo_source"]

_WIDTHS, _DEPTH = (64, 128, 256, 512), 4
_SMALL_WIDTHS, _SMALL_DEPTH = (32, 64, 128), 2


class _Block(nn.Module):
    """clip -> 3 x 3 convolution -> batch norm -> + shortcut, as ``birealnet.py`` of liuzechun/Bi-Real-net has it.

    The shortcut is never a product: where sides are halved and channels doubled, an average pool and the channels
    twice. The repository has a 1 x 1 convolution there, which it keeps in full precision.
    """

    def __init__(self, width_in: int, width: int) -> None:
        super().__init__()
        self.grows = width != width_in
        self.clip = nn.Hardtanh()
        self.conv = nn.Conv2d(width_in, width, 3, stride=2 if self.grows else 1, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        # A side that is odd is halved upwards, as the convolution does it.
        self.pool = nn.AvgPool2d(2, ceil_mode=True, count_include_pad=False)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x
        if self.grows:
            pooled = self.pool(x)
            shortcut = torch.cat((pooled, pooled), dim=1)
        return self.norm(self.conv(self.clip(x))) + shortcut  # type: ignore[no-any-return]


def birealnet(
    classes: int = 10, channels: int = 3, widths: tuple[int, ...] = _WIDTHS, depth: int = _DEPTH
) -> nn.Module:
    """``depth`` convolutions of each of the ``widths``, each twice the one before it; no ReLU, and a batch norm in
    front of every clip."""
    first = widths[0]
    blocks: list[nn.Module] = []
    width_in = first
    for width in widths:
        for _ in range(depth):
            blocks.append(_Block(width_in, width))
            width_in = width
    return nn.Sequential(
        nn.Conv2d(channels, first, 3, padding=1, bias=False),
        nn.BatchNorm2d(first),
        *blocks,
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(width_in, classes),
    )


def classifier(classes: int, channels: int, *, small: bool) -> nn.Module:
    """The model for images of ``channels``; ``small``: one that trains in seconds."""
    widths, depth = (_SMALL_WIDTHS, _SMALL_DEPTH) if small else (_WIDTHS, _DEPTH)
    return birealnet(classes, channels, widths, depth)


def zoo_source(model: ZooModel, size: int) -> ModelSource:
    """The source of the model at an image side of ``size``."""
    return image_source(model, birealnet, size)
