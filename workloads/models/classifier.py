"""Models to train: those of the catalogue and of users, made for the images and classes of some data."""

from __future__ import annotations

from math import lcm
from typing import Any

import torch
from torch import Tensor, nn

from ..catalog import is_user
from ..errors import InputError, nearest
from . import bireal, finn, snn, supernet, vision, zoo
from .user import user_module

__all__ = ["SMALL_SIDE", "classifier", "image_side", "scores"]

SMALL_SIDE = 28
"""Images of at most this side get models that train in seconds or minutes; widths stay multiples of 16 for groups up to
16. It is MNIST's, so that the bundled data share one set of models."""

_MLP = zoo.ZooModel(
    name="mlp", title="perceptron with two hidden layers", batch=512, kind="image", size=32, module="vision"
)
_CNN = zoo.ZooModel(
    name="cnn", title="two convolutions with batch norm", batch=512, kind="image", size=32, module="vision"
)
_CLASSIFIERS = {m.name: m for m in (_MLP, _CNN, *zoo.MODELS.values()) if m.kind == "image" and m.name != "unet_s"}


def image_side(model: str) -> int | None:
    """Side of the images that a model name asks for with its ``@``; the name is checked too.

    That of a sub-network asks for nothing: images of any side are averaged to it.
    """
    if is_user(model):
        return None
    base = zoo.base(model)
    if base not in _CLASSIFIERS:
        why = "does not classify images" if base in zoo.MODELS else "is unknown"
        raise InputError(f"model {model!r} {why}: {nearest(model, _CLASSIFIERS)} (file.py:function works too)")
    found, side = zoo.find(model, _CLASSIFIERS)
    return side if "@" in model and not zoo.subnetwork(found.name) else None


_WIDENED = ("mlp", "resnet9", "vit_s")


def classifier(model: str, shape: tuple[int, int, int], classes: int, widen: float = 1.0) -> nn.Module:
    """A fresh model with weights from torch's random numbers, for images of ``shape`` (channels, height, width).

    The function of a user's file gets ``classes``, ``channels`` and ``size`` where it takes them. ``widen`` multiplies
    the widths of mlp, resnet9 and vit_s, to the nearest multiple of 16; other models are only as wide as they are.
    """
    channels, size, _ = shape
    if widen != 1.0 and zoo.base(model) not in _WIDENED:
        raise InputError(
            f"model {model!r} cannot be built {widen:.3g} times as wide: choose one of {', '.join(_WIDENED)}"
        )
    if is_user(model):
        return user_module(model, classes=classes, channels=channels, size=size)
    image_side(model)
    small = size <= SMALL_SIDE
    before, at, _ = model.partition("@")
    found, _ = zoo.find(f"{before}@{size}", _CLASSIFIERS)
    if found is _MLP:
        return vision.mlp(shape, classes, _wider(256 if small else 512, widen))
    if found is _CNN:
        return vision.cnn(classes, channels, 16 if small else 64)
    if found.name == "resnet9":
        return vision.resnet9(classes, channels, _wider(16 if small else 64, widen))
    if found.name == "vit_s":
        width, depth, heads = (64, 2, 4) if small else (384, 12, 6)
        return vision.vit_s(size, classes, channels, _wider(width, widen, heads), depth, heads)
    if found.name == "vgg19":
        return vision.vgg19(classes, channels)
    if found.module == "finn":
        return finn.classifier(found, size, classes, channels)
    if found.module == "bireal":
        return bireal.classifier(classes, channels, small=small)
    if found.module == "snn":
        return snn.classifier(found, size, classes, channels)
    if found.module == "supernet":
        side = zoo.find(model)[1] if at else size
        return supernet.classifier(zoo.subnetwork(model), side, shape, classes)
    from .hf import zoo_classifier

    return zoo_classifier(found, size, classes, channels)


def _wider(width: int, widen: float, heads: int = 1) -> int:
    """The multiple of 16, and of the attention heads, nearest to ``width`` times ``widen``."""
    step = lcm(16, heads)
    return max(round(width * widen / step), 1) * step


def scores(output: Any) -> Tensor:
    """Class scores of what a model returned: a tensor, or the ``logits`` of a transformers model; of any float dtype
    and [samples, classes]."""
    found = output if isinstance(output, Tensor) else getattr(output, "logits", None)
    if not isinstance(found, torch.Tensor):
        raise InputError(f"a model to train must return scores, or have logits, not {type(output).__name__}")
    return found
