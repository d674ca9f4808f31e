"""A super-network whose sub-networks share its weights: channels, depth and image side are chosen for each step.

Weights are shared as in once-for-all networks (Cai et al., ICLR 2020, arXiv 1908.09791): a narrower layer has the first
channels of the wide one, a shallower stage its first convolutions. Kernels stay 3 x 3, and channels are not sorted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import require_int
from . import zoo
from .source import ModelSource
from .subnetwork import LARGEST, SMALLEST_SIDE, Subnetwork, require_side, sides_of
from .vision import image_source
from .zoo import ZooModel

__all__ = ["SubNet", "SuperNet", "classifier", "zoo_source"]

_Part = tuple[slice, ...]


class _Unit(nn.Module):
    """3 x 3 convolution without bias, batch norm, ReLU; where channels stay as many, the input is added."""

    def __init__(self, width_in: int, width: int, *, adds: bool) -> None:
        super().__init__()
        self.adds = adds
        self.conv = nn.Conv2d(width_in, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        made = functional.relu(self.norm(self.conv(x)))
        return x + made if self.adds else made


class SubNet(nn.Module):
    """Stages of `path.depths` convolutions, a 2 x 2 pool between two stages, a pool over all positions, linear scores.

    Images [batch, ``inputs``, height, width] of another side than ``side`` are averaged to it first.
    """

    def __init__(self, path: Subnetwork, side: int, classes: int = 10, inputs: int = 3) -> None:
        super().__init__()
        self.path, self.side = path, side
        widths = (inputs, *path.channels)
        self.stages = nn.ModuleList(
            nn.ModuleList(_Unit(width if i else width_in, width, adds=bool(i)) for i in range(depth))
            for (width_in, width), depth in zip(pairwise(widths), path.depths, strict=True)
        )
        self.head = nn.Linear(widths[-1], classes)

    def forward(self, images: Tensor) -> Tensor:
        """Scores [batch, classes] of ``images``, both of one float dtype."""
        x = images if images.shape[-1] == self.side else functional.adaptive_avg_pool2d(images, self.side)
        for i, depth in enumerate(self.path.depths):
            x = functional.max_pool2d(x, 2) if i else x
            for j in range(depth):
                x = self.unit(i, j)(x)
        return self.head(x.mean((2, 3)))  # type: ignore[no-any-return]

    def unit(self, stage: int, number: int) -> _Unit:
        """Convolution ``number`` of a stage, both from 0, with what stands behind it."""
        return cast(_Unit, self.get_submodule(f"stages.{stage}.{number}"))


class SuperNet(SubNet):
    """The largest sub-network for images of ``side``, and by its weights all others, at the smaller `sides` too.

    As it stands it is the largest at full side; inside :meth:`on` it is another one.
    """

    def __init__(self, side: int, classes: int = 10, inputs: int = 3) -> None:
        super().__init__(LARGEST, side, classes, inputs)
        self.sides = sides_of(side)

    @contextmanager
    def on(self, path: Subnetwork, side: int) -> Iterator[None]:
        """Be the sub-network ``path`` at image side ``side``: its parameters are copies of slices of the shared ones.

        A gradient that a copy gets is added to its slice of the shared parameter's, which is zero elsewhere, and from
        then on is that slice: what changes one in place changes both. Running statistics of batch norms are the
        sub-network's own, and forgotten behind it.
        """
        require_side(side, self.sides)
        shared: list[tuple[nn.Module, str, Tensor | None]] = []
        before = self.path, self.side
        self.path, self.side = path, side
        try:
            for module, part in self._parts(path):
                for name, tensor in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
                    shared.append((module, name, tensor))
                    setattr(module, name, _slice_of(tensor, part))
                if isinstance(module, nn.BatchNorm2d):
                    module.reset_running_stats()
            yield
        finally:
            for module, name, whole in shared:
                setattr(module, name, whole)
            self.path, self.side = before

    def extracted(self, path: Subnetwork, side: int) -> SubNet:
        """The sub-network by itself, with copies of its slices; its batch norms have no statistics yet."""
        made = SubNet(path, side, self.head.out_features, self.unit(0, 0).conv.in_channels)
        with self.on(path, side), torch.no_grad():
            own = dict(self.named_parameters())
            for name, parameter in made.named_parameters():
                parameter.copy_(own[name])
        return made.to(self.head.weight.device)

    def _parts(self, path: Subnetwork) -> Iterator[tuple[nn.Module, _Part]]:
        """The modules with weights that ``path`` passes, and which outputs and inputs of them it has."""
        inputs = slice(None)
        for i, (width, depth) in enumerate(zip(path.channels, path.depths, strict=True)):
            for j in range(depth):
                unit = self.unit(i, j)
                yield unit.conv, (slice(width), inputs)
                yield unit.norm, (slice(width),)
                inputs = slice(width)
        yield self.head, (slice(None), inputs)


def _slice_of(tensor: Tensor, part: _Part) -> Tensor:
    """A copy of ``part`` of a parameter, of any shape and dtype, which hands its gradient on; or of a buffer."""
    index = part[: tensor.dim()]
    copied = tensor.detach()[index].clone(memory_format=torch.contiguous_format)
    if not isinstance(tensor, nn.Parameter):
        return copied
    own = nn.Parameter(copied, tensor.requires_grad)

    def hand_on(_: Tensor) -> None:
        if tensor.grad is None:
            tensor.grad = torch.zeros_like(tensor)
        there, given = tensor.grad[index], own.grad
        if given is not None and given.data_ptr() != there.data_ptr():
            there.add_(given)
            own.grad = there

    if tensor.requires_grad:
        own.register_post_accumulate_grad_hook(hand_on)  # type: ignore[no-untyped-call]
    return own


def classifier(path: Subnetwork | None, side: int, shape: tuple[int, int, int], classes: int) -> SubNet:
    """The sub-network ``path`` that averages images of ``shape`` (channels, height, width) to ``side``; without a path
    the super-network for such images."""
    inputs, size, _ = shape
    require_int(f"image side of a sub-network for images of {size} x {size}", side, SMALLEST_SIDE, size)
    return SuperNet(side, classes, inputs) if path is None else SubNet(path, side, classes, inputs)


def zoo_source(model: ZooModel, size: int) -> ModelSource:
    """The source of a model of this file at an image side of ``size``: of a super-network, its largest."""
    build: Callable[[], nn.Module] = partial(SubNet, zoo.subnetwork(model.name) or LARGEST, size)
    return image_source(model, build, size)
