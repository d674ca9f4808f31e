"""A trained model as a network of integers, and what PyTorch makes of the same images."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from math import frexp
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from ..data import normalised
from ..errors import InputError
from ..gemm import Pass
from ..im2col import Window
from ..integer_network import IntegerLayer, IntegerNetwork, Norm
from ..levels import Levels
from ..models.classifier import scores
from ..one_line import OneLine
from ..operand import Role
from ..schemes.estimated import Estimated
from ..schemes.estimator import sign
from ..schemes.layer import Observed, SparseLayer
from .chain import BatchNorm, Block, Call, MaxPool, blocks_of, calls_of
from .run import Run

__all__ = ["Deployed", "Evaluated", "deploy"]

_BINARY_SCHEMES = "train under xnor, bireal, reste or biper"
Pixels = npt.NDArray[np.uint8]
Bytes = npt.NDArray[np.int8]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False, eq=False)
class Evaluated(OneLine):
    """``inputs`` of every layer, int8 [images, channels, ...], and the class of each image, int64 [images]."""

    inputs: tuple[Bytes, ...]
    classes: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False, eq=False)
class Deployed(OneLine):
    """``network``: what the machine has of the trained model of ``run``; ``calls``: its modules in their order."""

    run: Run
    network: IntegerNetwork
    calls: tuple[Call, ...]

    def images(self, start: int, stop: int) -> tuple[Pixels, npt.NDArray[np.int64]]:
        """Of the test set, uint8 [images, channels, height, width], and their classes, int64 [images]."""
        test = self.run.data.test
        return test.fetch(torch.arange(start, stop)).numpy(), test.labels[start:stop].numpy()

    def single(self, pixels: Pixels) -> Evaluated:
        """The trained model itself, in FP32, on images uint8 [images, channels, height, width]."""
        inputs = list[Bytes]()
        technique, layers = _technique(self.run), _at_work(self.run)

        def see(module: nn.Module, given: tuple[Tensor, ...]) -> None:
            inputs.append(_small(technique.activation(layers[id(module)], given[0]).values))

        hooks = [layer.module.register_forward_pre_hook(see) for layer in layers.values()]
        try:
            with torch.no_grad():
                classes = scores(self.run.model(self._normalised(pixels))).argmax(1)
        finally:
            for hook in hooks:
                hook.remove()
        return Evaluated(inputs=tuple(inputs), classes=classes.numpy())

    def double(self, pixels: Pixels) -> Evaluated:
        """The same modules in FP64, on the very FP32 parameters and scales; images uint8 [images, channels, height,
        width]."""
        inputs = list[Bytes]()
        technique, layers = _technique(self.run), _at_work(self.run)
        x, own = self._normalised(pixels), iter(self.network.layers)
        with torch.no_grad():
            for call in self.calls:
                layer = layers.get(id(call.module))
                if layer is None:
                    x = deepcopy(call.module).double()(x)
                    continue
                values = technique.activation(layer, x).values if not inputs else sign(x)
                inputs.append(_small(values))
                x = _in_double(layer, values.double(), next(own))
        return Evaluated(inputs=tuple(inputs), classes=x.argmax(1).numpy())

    def _normalised(self, pixels: Pixels) -> Tensor:
        return normalised(self.run.data, torch.from_numpy(pixels))


def _in_double(layer: SparseLayer, values: Tensor, own: IntegerLayer) -> Tensor:
    """scale (W_q x) + bias, in PyTorch's own products; [images, out, ...] float64."""
    weight = layer.operand(Pass.FF, torch.float32).double()
    if not layer.kind.convolution:
        sums = functional.linear(values, weight.t() if layer.kind.inputs_first else weight)
    else:
        window = own.window
        pads = [size for size in reversed(window.padding) for _ in range(2)]
        padded = functional.pad(values, pads, value=own.edge)
        none = (0,) * len(window.padding)
        sums = torch.ops.aten.convolution(padded, weight, None, window.stride, none, window.dilation, False, none, 1)
    scale, bias = (torch.from_numpy(x).double().reshape(-1, *[1] * (sums.dim() - 2)) for x in (own.scale, own.bias))
    return sums * scale + bias


def deploy(run: Run) -> Deployed:
    """The integers of a trained model; a part that a machine of bits and thresholds cannot have is an `InputError`."""
    technique = _technique(run)
    norm = getattr(technique.options, "norm", "none")
    if norm != "none":
        raise InputError(
            f"scheme {run.spec.scheme!r} normalises every row in front of the sign (norm={norm}), which no threshold "
            "does; train with --option norm=none, with a BatchNorm there"
        )
    run.model.eval()
    seen: dict[str, Observed] = {}
    for layer in technique.layers.values():
        layer.observer = lambda gemm: seen.update({gemm.layer.name: gemm})
    try:
        calls = calls_of(run)
    finally:
        for layer in technique.layers.values():
            layer.observer = None
    blocks = blocks_of(calls, run)
    layers = tuple(_layer(block, seen, run, first=not i) for i, block in enumerate(blocks))
    return Deployed(run=run, network=IntegerNetwork(table=_table(run, blocks[0][0]), layers=layers), calls=calls)


def _technique(run: Run) -> Estimated:
    technique = run.technique
    if not technique.scheme.levels or not isinstance(technique, Estimated):
        raise InputError(
            f"scheme {run.spec.scheme!r} leaves real numbers, which no XNOR engine counts; {_BINARY_SCHEMES}"
        )
    made = technique.scheme.levels.get(Pass.FF, {}).get(Role.ACTIVATION)
    if made is not Levels.BINARY:
        raise InputError(
            f"scheme {run.spec.scheme!r} brings inputs to {made or 'real numbers'}, but thresholds make bits; "
            f"{_BINARY_SCHEMES}"
        )
    return technique


def _at_work(run: Run) -> dict[int, SparseLayer]:
    return {id(layer.module): layer for layer in run.technique.layers.values()}


def _small(values: Tensor) -> Bytes:
    found: Bytes = values.numpy().astype(np.int8)
    return found


def _layer(block: Block, seen: dict[str, Observed], run: Run, *, first: bool) -> IntegerLayer:
    call, technique, layer = block[0], _technique(run), _at_work(run)[id(block[0].module)]
    where, gemm, levels = f"layer {call.name!r}", seen[layer.name], technique.levels_of(layer)
    x, w = levels.get(Role.ACTIVATION), levels.get(Role.WEIGHT)
    if w is None or x is None or (not first and x is not Levels.BINARY):
        raise InputError(
            f"{where} multiplies {x or 'real'} inputs by {w or 'real'} weights in the last step under scheme "
            f"{run.spec.scheme!r}, but thresholds make bits; {_BINARY_SCHEMES}"
        )
    if technique.gain(layer, gemm.left, gemm.conv) is not None:
        raise InputError(f"{where} has an output scale that every image sets anew; train with output_scale=false")
    scale = torch.ones(layer.shape[1]) if layer.scale is None else layer.scale.detach().flatten()
    if scale.dtype != torch.float32:
        raise InputError(f"{where} has a weight of {layer.weight.dtype}; what is deployed is float32")
    bias = cast("Tensor | None", layer.module.bias)
    modules = [other.module for other in block]
    pool = next((i for i, module in enumerate(modules) if isinstance(module, MaxPool)), None)
    norm = next((i for i, module in enumerate(modules) if isinstance(module, BatchNorm)), None)
    window = _window(where, call, gemm, x)
    return IntegerLayer(
        name=call.name,
        weights=_weights(where, layer, gemm.right, w),
        levels=(x, w),
        window=window,
        channels=call.given.shape[1] if window.kernel else call.given[0].numel(),
        edge=1 if x is Levels.BINARY else 0,
        scale=(scale * _input_scale(where, call, layer, technique, first=first)).numpy(),
        bias=np.zeros(len(scale), np.float32) if bias is None else bias.detach().numpy(),
        norm=None if norm is None else _norm(modules[norm]),
        pool=None if pool is None else _pool(block[pool]),
        pool_first=pool is not None and norm is not None and pool < norm,
    )


def _input_scale(where: str, call: Call, layer: SparseLayer, technique: Estimated, *, first: bool) -> float:
    few = technique.activation(layer, call.given)
    if not first and not torch.equal(few.values, sign(call.given)):
        raise InputError(f"{where} multiplies other values than the signs of its input, and thresholds make signs")
    found = {1.0} if few.scale is None else set(few.scale.flatten().tolist())
    if len(found) > 1 or frexp(min(found))[0] != 0.5:
        raise InputError(f"{where} scales its inputs by {min(found):g} to {max(found):g}, not by one power of two")
    return float(min(found))


def _weights(where: str, layer: SparseLayer, weight: Tensor, levels: Levels) -> Bytes:
    """[k, n] of a weight as the layer stores it, taps outermost and channels innermost."""
    groups, outputs, inputs, taps = layer.shape
    if groups > 1 or (layer.kind.convolution and layer.kind.inputs_first):
        raise InputError(f"{where} is a grouped or transposed convolution; what is deployed is one product a layer")
    values = layer.canonical(weight)[0].permute(2, 1, 0).reshape(taps * inputs, outputs)
    wrong = ~torch.isin(values, torch.tensor(list(levels.values), dtype=values.dtype))
    if wrong.any():
        raise InputError(
            f"{where} has a weight of {float(values[wrong][0]):g} after quantisation, which is not {levels}"
        )
    return _small(values)


def _window(where: str, call: Call, gemm: Observed, levels: Levels) -> Window:
    """The windows of a convolution with all that stands around its image; none of a linear layer."""
    if not gemm.conv:
        if call.given.dim() > 2:
            raise InputError(f"{where} reads {tuple(call.given.shape[1:])} an image; put an nn.Flatten in front of it")
        return Window()
    stride, zeros, dilation, *_ = gemm.conv
    image, found = tuple(call.given.shape[2:]), tuple(gemm.left.shape[2:])
    if any(zeros) and levels is Levels.BINARY:
        raise InputError(f"{where} pads its image with 0, which is no value of a bit; train with --option edge=one")
    around = [b - a for a, b in zip(image, found, strict=True)]
    mode = getattr(call.module, "padding_mode", "zeros")
    if any(size % 2 for size in around) or mode != "zeros":
        raise InputError(f"{where} pads its image in a way of its own ({mode}); pad both sides alike, with zeros")
    return Window(
        image=image,
        kernel=tuple(gemm.right.shape[2:]),
        stride=tuple(stride),
        padding=tuple(size // 2 + zero for size, zero in zip(around, zeros, strict=True)),
        dilation=tuple(dilation),
    )


def _norm(module: Any) -> Norm:
    width = module.num_features
    affine = module.weight is not None
    ones, zeros = np.ones(width, np.float32), np.zeros(width, np.float32)
    return Norm(
        gamma=module.weight.detach().numpy() if affine else ones,
        beta=module.bias.detach().numpy() if affine else zeros,
        mean=module.running_mean.numpy(),
        variance=module.running_var.numpy(),
        epsilon=module.eps,
    )


def _pool(call: Call) -> Window:
    module, image = cast(Any, call.module), tuple(call.given.shape[2:])

    def each(size: int | tuple[int, ...]) -> tuple[int, ...]:
        return size if isinstance(size, tuple) else (size,) * len(image)

    return Window(
        image=image,
        kernel=each(module.kernel_size),
        stride=each(module.stride),
        padding=(0,) * len(image),
        dilation=each(module.dilation),
    )


def _table(run: Run, first: Call) -> Bytes:
    """What the first layer multiplies in the place of each value of a pixel, [channels, 256]."""
    technique, layer = _technique(run), _at_work(run)[id(first.module)]
    channels = run.data.shape[0]
    values = torch.arange(256, dtype=torch.uint8).repeat_interleave(channels).reshape(256, channels, 1, 1)
    x = normalised(run.data, values)
    given = x if layer.kind.convolution else x.reshape(-1, 1)
    return _small(technique.activation(layer, given).values.reshape(256, channels).T)
