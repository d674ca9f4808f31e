"""Models to train: those of the catalogue and of users, made for the images and classes of some data."""

from __future__ import annotations

from math import lcm
from typing import Any

import torch
from torch import Tensor, nn

from ..catalog import is_user
from ..errors import InputError, nearest
from . import vision, zoo
from .user import user_module

__all__ = ["SMALL_SIDE", "classifier", "image_side", "scores"]

SMALL_SIDE = 16
"""Images of at most this side get models that train in seconds; widths stay multiples of 16 for groups up to 16."""


def image_side(model: str) -> int | None:
    """Image side that a model name asks for with its ``@``; the name is checked too."""
    if is_user(model) or model == "mlp":
        return None
    found, side = zoo.find(model) if model.partition("@")[0] in zoo.MODELS else (None, 0)
    if found is None or found.kind != "image" or found.name == "unet_s":
        known = ["mlp", *(m.name for m in zoo.MODELS.values() if m.kind == "image" and m.name != "unet_s")]
        why = "does not classify images" if found else "is unknown"
        raise InputError(f"model {model!r} {why}: {nearest(model, known)} (file.py:function works too)")
    return side if "@" in model else None


_WIDENED = ("mlp", "resnet9", "vit_s")


def classifier(model: str, shape: tuple[int, int, int], classes: int, widen: float = 1.0) -> nn.Module:
    """A fresh model with weights from torch's random numbers, for images of ``shape`` (channels, height, width).

    The function of a user's file gets ``classes``, ``channels`` and ``size`` where it takes them. ``widen`` multiplies
    the widths of mlp, resnet9 and vit_s, to the nearest multiple of 16; other models are only as wide as they are.
    """
    channels, size, _ = shape
    if widen != 1.0 and model.partition("@")[0] not in _WIDENED:
        raise InputError(
            f"model {model!r} cannot be built {widen:.3g} times as wide: choose one of {', '.join(_WIDENED)}"
        )
    if is_user(model):
        return user_module(model, classes=classes, channels=channels, size=size)
    image_side(model)
    small = size <= SMALL_SIDE
    if model == "mlp":
        return vision.mlp(shape, classes, _wider(256 if small else 512, widen))
    found, _ = zoo.find(f"{model.partition('@')[0]}@{size}")
    if found.name == "resnet9":
        return vision.resnet9(classes, channels, _wider(16 if small else 64, widen))
    if found.name == "vit_s":
        width, depth, heads = (64, 2, 4) if small else (384, 12, 6)
        return vision.vit_s(size, classes, channels, _wider(width, widen, heads), depth, heads)
    if found.name == "vgg19":
        return vision.vgg19(classes, channels)
    from .hf import zoo_classifier

    return zoo_classifier(found, size, classes, channels)


def _wider(width: int, widen: float, heads: int = 1) -> int:
    """The multiple of 16, and of the attention heads, nearest to ``width`` times ``widen``."""
    step = lcm(16, heads)
    return max(round(width * widen / step), 1) * step


def scores(output: Any) -> Tensor:
    """Class scores of what a model returned: a tensor, or the ``logits`` of a transformers model."""
    found = output if isinstance(output, Tensor) else getattr(output, "logits", None)
    if not isinstance(found, torch.Tensor):
        raise InputError(f"a model to train must return scores, or have logits, not {type(output).__name__}")
    return found
