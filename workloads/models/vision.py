"""Image models defined here: MLP, ResNet-9, VGG-19, ViT-S and a small U-Net, and what every image model is fed."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import InputError, require_int
from ..gemm import MAX_DIM
from .source import ModelSource, StepInputs
from .zoo import ZooModel

__all__ = [
    "cnn",
    "image_inputs",
    "image_source",
    "mlp",
    "pixel_loss",
    "resnet9",
    "unet_s",
    "vgg19",
    "vit_s",
    "zoo_source",
]


def image_inputs(
    batch: int | None,
    seq: int | None,
    *,
    name: str,
    default: int,
    shape: tuple[int, int, int],
    keyword: str = "",
    resize: str = "set the input size, as {name}@64",
) -> StepInputs:
    """One batch of images of ``shape`` (channels, height, width), passed by ``keyword`` where the model wants that.

    A sequence length is refused with the advice ``resize``.
    """
    if seq is not None:
        raise InputError(f"sequence length {seq} given, but model {name!r} reads images; {resize.format(name=name)}")
    count = batch or default
    require_int(f"pixels of model {name!r}", count * math.prod(shape), 1, MAX_DIM)
    pixels = torch.empty(count, *shape)
    return StepInputs(
        args=() if keyword else (pixels,),
        kwargs={keyword: pixels} if keyword else {},
        batch=count,
        shape=" x ".join(map(str, (count, *shape))),
    )


def pixel_loss(output: Any, _: StepInputs) -> Tensor:
    """Mean cross-entropy, a scalar of the dtype of the scores [images, classes, *pixels]."""
    scores: Tensor = output
    labels = torch.zeros(scores.shape[:1] + scores.shape[2:], dtype=torch.long, device=scores.device)
    return functional.cross_entropy(scores, labels)


def _conv_bn_relu(width_in: int, width: int) -> list[nn.Module]:
    return [nn.Conv2d(width_in, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]


class _Residual(nn.Module):
    """Two 3x3 convolutions around which the input is added."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(*_conv_bn_relu(width, width), *_conv_bn_relu(width, width))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)  # type: ignore[no-any-return]


class _Scale(nn.Module):
    """Multiplication by a constant."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


def mlp(shape: tuple[int, int, int], classes: int = 10, width: int = 512) -> nn.Module:
    """Perceptron with two hidden layers on images of ``shape`` (channels, height, width)."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(math.prod(shape), width),
        nn.ReLU(),
        nn.Linear(width, width),
        nn.ReLU(),
        nn.Linear(width, classes),
    )


def cnn(classes: int = 10, channels: int = 3, width: int = 16) -> nn.Module:
    """Two 3x3 convolutions with batch norm, the second twice as wide, pooled to one place, and a linear head."""
    return nn.Sequential(
        *_conv_bn_relu(channels, width),
        nn.MaxPool2d(2),
        *_conv_bn_relu(width, 2 * width),
        nn.AdaptiveMaxPool2d(1),
        nn.Flatten(),
        nn.Linear(2 * width, classes),
    )


def resnet9(classes: int = 10, channels: int = 3, width: int = 64) -> nn.Module:
    """The CIFAR-10 network of David Page's DAWNBench entry: 6.57 million parameters, scores scaled by 1/8."""
    return nn.Sequential(
        *_conv_bn_relu(channels, width),
        *_conv_bn_relu(width, 2 * width),
        nn.MaxPool2d(2),
        _Residual(2 * width),
        *_conv_bn_relu(2 * width, 4 * width),
        nn.MaxPool2d(2),
        *_conv_bn_relu(4 * width, 8 * width),
        nn.MaxPool2d(2),
        _Residual(8 * width),
        nn.AdaptiveMaxPool2d(1),
        nn.Flatten(),
        nn.Linear(8 * width, classes, bias=False),
        _Scale(0.125),
    )


_VGG19 = ((2, 64), (2, 128), (4, 256), (4, 512), (4, 512))


def vgg19(classes: int = 1000, channels: int = 3) -> nn.Module:
    """Configuration E of Simonyan and Zisserman without batch-norm; the 7x7 adaptive pool takes any input size."""
    features: list[nn.Module] = []
    width_in = channels
    for convs, width in _VGG19:
        for _ in range(convs):
            features += [nn.Conv2d(width_in, width, 3, padding=1), nn.ReLU()]
            width_in = width
        features.append(nn.MaxPool2d(2))
    return nn.Sequential(
        *features,
        nn.AdaptiveAvgPool2d(7),
        nn.Flatten(),
        nn.Linear(512 * 49, 4096),
        nn.ReLU(),
        nn.Dropout(),
        nn.Linear(4096, 4096),
        nn.ReLU(),
        nn.Dropout(),
        nn.Linear(4096, classes),
    )


class _Attention(nn.Module):
    """Multi-head self-attention with packed projections and the two products written out."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])).softmax(-1)
        return self.proj((weights @ v).transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class _Block(nn.Module):
    """Pre-norm transformer block with a four times wider GELU layer."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = _Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))  # type: ignore[no-any-return]


class _VisionTransformer(nn.Module):
    """Patches, a class token, learned positions, pre-norm blocks, and a linear head on the class token."""

    def __init__(
        self, *, size: int, channels: int, patch: int, width: int, depth: int, heads: int, classes: int
    ) -> None:
        super().__init__()
        self.patches = nn.Conv2d(channels, width, patch, stride=patch)
        self.token = nn.Parameter(0.02 * torch.randn(1, 1, width))
        self.positions = nn.Parameter(0.02 * torch.randn(1, (size // patch) ** 2 + 1, width))
        self.blocks = nn.Sequential(*(_Block(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, images: Tensor) -> Tensor:
        x = self.patches(images).flatten(2).transpose(1, 2)
        x = torch.cat((self.token.expand(len(x), -1, -1), x), dim=1) + self.positions
        return self.head(self.norm(self.blocks(x))[:, 0])  # type: ignore[no-any-return]


def vit_s(
    size: int = 32, classes: int = 100, channels: int = 3, width: int = 384, depth: int = 12, heads: int = 6
) -> nn.Module:
    """ViT-Small with 4x4 patches for CIFAR."""
    return _VisionTransformer(
        size=size, channels=channels, patch=4, width=width, depth=depth, heads=heads, classes=classes
    )


class _UNet(nn.Module):
    """Double convolutions down and up, with the features of every level concatenated on the way up."""

    def __init__(self, widths: tuple[int, ...], middle: int, classes: int) -> None:
        super().__init__()
        steps = (3, *widths)
        self.down = nn.ModuleList(_double(a, b) for a, b in zip(steps, widths, strict=False))
        self.pool = nn.MaxPool2d(2)
        self.middle = _double(widths[-1], middle)
        upward = (middle, *reversed(widths))
        pairs = list(pairwise(upward))
        self.up = nn.ModuleList(nn.ConvTranspose2d(a, b, 2, stride=2) for a, b in pairs)
        self.merge = nn.ModuleList(_double(2 * b, b) for _, b in pairs)
        self.head = nn.Conv2d(widths[0], classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for level in self.down:
            x = level(x)
            skips.append(x)
            x = self.pool(x)
        x = self.middle(x)
        for up, merge, skip in zip(self.up, self.merge, reversed(skips), strict=True):
            x = merge(torch.cat((skip, up(x)), dim=1))
        return self.head(x)  # type: ignore[no-any-return]


def _double(width_in: int, width: int) -> nn.Sequential:
    return nn.Sequential(*_conv_bn_relu(width_in, width), *_conv_bn_relu(width, width))


def unet_s(classes: int = 2) -> nn.Module:
    """U-Net of three levels (32, 64, 128) around a middle of 256."""
    return _UNet((32, 64, 128), 256, classes)


_ANY_SIZE: dict[str, Callable[[], nn.Module]] = {"resnet9": resnet9, "vgg19": vgg19, "unet_s": unet_s}


def image_source(model: ZooModel, build: Callable[[], nn.Module], size: int) -> ModelSource:
    """The source of a built-in model of square images, which ``build`` makes for a side of ``size``."""
    return ModelSource(
        name=model.name,
        title=model.title,
        build=build,
        inputs=partial(image_inputs, name=model.name, default=model.batch, shape=(model.channels, size, size)),
        loss=pixel_loss,
    )


def zoo_source(model: ZooModel, size: int) -> ModelSource:
    """The source of a model of this file at an image side of ``size``."""
    return image_source(model, _ANY_SIZE.get(model.name) or partial(vit_s, size), size)
