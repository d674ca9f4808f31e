"""The built-in models by name. Importing this costs nothing: torch loads only when a model is asked for."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING, Literal

from ..errors import InputError, nearest
from .subnetwork import Subnetwork, read_subnetwork, sides_of

if TYPE_CHECKING:
    from .source import ModelSource

__all__ = ["MODELS", "ZooModel", "base", "find", "names", "source", "subnetwork", "subnetworks"]

_LARGEST_SIZE = 8192

_Module = Literal["vision", "finn", "bireal", "snn", "supernet", "language", "hf"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ZooModel:
    """What is known of a built-in model without building it.

    ``size`` is the default image side or sequence length; an image side must be a multiple of ``stride`` and at least
    ``smallest``. ``channels`` are those of an image. ``module`` holds the definition.
    """

    name: str
    title: str
    batch: int
    kind: Literal["image", "tokens"]
    size: int
    module: _Module
    stride: int = 1
    smallest: int = 1
    channels: int = 3

    @property
    def input(self) -> str:
        """Default input of one sample, in words."""
        return f"{self.channels} x {self.size} x {self.size}" if self.kind == "image" else f"{self.size} tokens"


def _image(
    name: str,
    title: str,
    module: Literal["vision", "bireal", "supernet", "hf"],
    batch: int,
    size: int,
    stride: int,
    smallest: int,
) -> ZooModel:
    return ZooModel(
        name=name, title=title, batch=batch, kind="image", size=size, module=module, stride=stride, smallest=smallest
    )


def _finn(name: str, title: str, size: int, smallest: int, channels: int) -> ZooModel:
    return ZooModel(
        name=name, title=title, batch=100, kind="image", size=size, module="finn", smallest=smallest, channels=channels
    )


def _snn(name: str, title: str) -> ZooModel:
    return ZooModel(name=name, title=title, batch=64, kind="image", size=28, module="snn", channels=1)


def _text(name: str, title: str, module: Literal["language", "hf"], batch: int, seq: int) -> ZooModel:
    return ZooModel(name=name, title=title, batch=batch, kind="tokens", size=seq, module=module)


MODELS: dict[str, ZooModel] = {
    model.name: model
    for model in (
        _image("resnet9", "ResNet-9 of DAWNBench (CIFAR-10, 10 classes)", "vision", 512, 32, 1, 8),
        _image("resnet18", "ResNet-18 (ImageNet, 1,000 classes)", "hf", 512, 224, 1, 32),
        _image("resnet50", "ResNet-50 (ImageNet, 1,000 classes)", "hf", 512, 224, 1, 32),
        _image("vgg19", "VGG-19 without batch-norm (ImageNet, 1,000 classes)", "vision", 512, 224, 1, 32),
        _image("vit_s", "ViT-S/4: 384 wide, 12 blocks, 6 heads (CIFAR-100, 100 classes)", "vision", 512, 32, 4, 4),
        _image("vit_b_16", "ViT-B/16 (ImageNet, 1,000 classes)", "hf", 512, 224, 16, 16),
        _image("swin_t", "Swin-T (ImageNet, 1,000 classes)", "hf", 512, 224, 32, 32),
        _image("mobilenet_v2", "MobileNetV2 1.0 (ImageNet, 1,000 classes)", "hf", 512, 224, 1, 32),
        _image("convnext_t", "ConvNeXt-T (ImageNet, 1,000 classes)", "hf", 512, 224, 1, 32),
        _text("bert_base", "BERT base, masked language model (vocabulary 30,522)", "hf", 64, 512),
        _text("gpt2", "GPT-2 124M, causal language model (vocabulary 50,257)", "hf", 16, 1024),
        _text("characters", "OPT of 3 blocks, 128 wide, with ReLU, over 97 characters", "hf", 32, 64),
        _text("llama2_7b", "Llama-2 7B in bfloat16 (vocabulary 32,000)", "hf", 4, 4096),
        _text("llama2_70b", "Llama-2 70B in bfloat16, 8 key-value heads (vocabulary 32,000)", "hf", 4, 4096),
        _text("mixtral_8x7b", "Mixtral 8x7B in bfloat16, 2 of 8 experts (vocabulary 32,000)", "hf", 4, 4096),
        _text("lstm_lm", "two-layer LSTM language model, 650 wide (vocabulary 10,000)", "language", 64, 35),
        _image("unet_s", "small U-Net, 3 levels from 32 channels (segmentation, 2 classes)", "vision", 16, 256, 8, 8),
        _finn("cnv", "CNV of FINN: 6 unpadded 3 x 3 convolutions, 3 linear layers (CIFAR-10, 10 classes)", 32, 32, 3),
        _finn("tfc", "TFC of FINN: 3 hidden layers of 64 (MNIST, 10 classes)", 28, 1, 1),
        _finn("sfc", "SFC of FINN: 3 hidden layers of 256 (MNIST, 10 classes)", 28, 1, 1),
        _finn("lfc", "LFC of FINN: 3 hidden layers of 1,024 (MNIST, 10 classes)", 28, 1, 1),
        _image("birealnet", "Bi-Real Net: 16 convolutions, a shortcut round each (CIFAR-10)", "bireal", 128, 32, 1, 8),
        _image("supernet9", "super-network: 3 stages of 1 to 3 convolutions (10 classes)", "supernet", 128, 32, 1, 4),
        _snn("snn", "spiking network: 3 convolutions from 64 channels, 1 time step (MNIST, 10 classes)"),
        _snn("snn_t4", "the same over 4 time steps (MNIST, 10 classes)"),
    )
}
"""Every built-in model by name."""


def names() -> tuple[str, ...]:
    """Names of the built-in models, in the order of the catalogue."""
    return tuple(MODELS)


def _side(model: ZooModel, text: str) -> int:
    """Image side written after the ``@`` of a model name."""
    where = f"input size of model '{model.name}@{text}'"
    if model.kind != "image":
        raise InputError(f"{where}: {model.name} reads tokens; give a sequence length instead of an input size")
    size = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else -1
    if not model.smallest <= size <= _LARGEST_SIZE or size % model.stride:
        rule = f"from {model.smallest} to {_LARGEST_SIZE}"
        if model.stride > 1:
            rule = f"that is a multiple of {model.stride}, {rule}"
        raise InputError(f"{where} must be an integer {rule}; the default is {model.name}@{model.size}")
    return size


def base(name: str) -> str:
    """The part of a model's name that the catalogue has: what stands before a sub-network and a size."""
    return re.split("[:@]", name, maxsplit=1)[0]


def find(name: str, models: Mapping[str, ZooModel] = MODELS) -> tuple[ZooModel, int]:
    """The one of ``models`` called ``name``, or ``name@side``, and its image side or sequence length.

    Behind the name of a super-network may stand one of its sub-networks, which the model that is returned is called by.
    """
    before, at, size = name.partition("@")
    known, colon, path = before.partition(":")
    model = models.get(known)
    if model is None:
        raise InputError(f"model {known!r} is unknown: {nearest(known, models)}")
    if colon and model.module != "supernet":
        those = ", ".join(other.name for other in models.values() if other.module == "supernet")
        raise InputError(f"model {before!r}: {known} is no super-network, so it has no sub-networks; {those} has")
    if colon:
        model = replace(model, name=read_subnetwork(known, path).named(known))
    return model, _side(model, size) if at else model.size


def is_supernet(name: str) -> bool:
    """Whether ``name`` is a super-network as a whole, and none of its sub-networks."""
    model = MODELS.get(name.partition("@")[0])
    return model is not None and model.module == "supernet"


def subnetwork(name: str) -> Subnetwork | None:
    """The sub-network that the name of a model ends in; None where it names none."""
    known, colon, path = name.partition("@")[0].partition(":")
    return read_subnetwork(known, path) if colon else None


def subnetworks(supernet: str) -> Iterator[str]:
    """Names of all sub-networks of ``supernet``, or ``supernet@side``, at each of the image sides it is trained at.

    Each of them is a model: what an axis ``model`` of a space is made of. The smallest images come first, and of them
    the narrowest networks.
    """
    model, side = find(supernet)
    if not is_supernet(supernet):
        those = ", ".join(other.name for other in MODELS.values() if other.module == "supernet")
        raise InputError(f"model {supernet!r} is no super-network: choose {those}")
    for smaller in sides_of(side):
        for path in Subnetwork.every():
            yield f"{path.named(model.name)}@{smaller}"


def source(name: str) -> ModelSource:
    """The built-in model ``name``, or ``name@side`` for another image side, ready to be traced; of a super-network
    without a sub-network the largest."""
    model, side = find(name)
    definition = import_module(f".{model.module}", __package__)
    found: ModelSource = definition.zoo_source(model, side)
    return found
