"""The networks of FINN (Umuroglu et al., arXiv 1612.07119): CNV for CIFAR-10, and three perceptrons for MNIST.

In floats, as every model here: where the binarised network takes the sign, these clip to [-1, 1], whose gradient is the
straight-through one of that sign.
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise

from torch import nn

from .source import ModelSource
from .vision import image_source
from .zoo import ZooModel

__all__ = ["classifier", "cnv", "perceptron", "zoo_source"]

_CNV = ((64, 64), (128, 128), (256, 256))
"""Widths of the convolutions; a 2 x 2 pool stands between two of the pairs."""
_CNV_LINEAR = (512, 512)
_WIDTHS = {"tfc": 64, "sfc": 256, "lfc": 1024}


def cnv(size: int = 32, classes: int = 10, channels: int = 3) -> nn.Module:
    """Six 3 x 3 convolutions without padding or bias and three linear layers, batch-norm behind all but the last."""
    features: list[nn.Module] = []
    width_in, side = channels, size
    for i, pair in enumerate(_CNV):
        if i:
            features.append(nn.MaxPool2d(2))
            side //= 2
        for width in pair:
            features += [nn.Conv2d(width_in, width, 3, bias=False), nn.BatchNorm2d(width), nn.Hardtanh()]
            width_in, side = width, side - 2
    return nn.Sequential(*features, nn.Flatten(), *_linear((width_in * side * side, *_CNV_LINEAR, classes)))


def perceptron(width: int, inputs: int = 784, classes: int = 10) -> nn.Module:
    """Three hidden layers of ``width`` without bias, batch-norm behind each."""
    return nn.Sequential(nn.Flatten(), *_linear((inputs, width, width, width, classes)))


def _linear(widths: tuple[int, ...]) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for inner, outer in pairwise(widths):
        layers += [nn.Linear(inner, outer, bias=False), nn.BatchNorm1d(outer), nn.Hardtanh()]
    return layers[:-2]


def classifier(model: ZooModel, size: int, classes: int, channels: int) -> nn.Module:
    """A model of this file for images of other sizes and classes."""
    if model.name == "cnv":
        return cnv(size, classes, channels)
    return perceptron(_WIDTHS[model.name], channels * size * size, classes)


def zoo_source(model: ZooModel, size: int) -> ModelSource:
    """The source of a model of this file at an image side of ``size``."""
    return image_source(model, partial(classifier, model, size, 10, model.channels), size)
