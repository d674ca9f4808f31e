"""Modules that can be put to work, linear layers and convolutions of every kind, and how one is.

A layer is put to work by exchanging the class of its module, so parameters, buffers, hooks, ``state_dict`` keys and the
user's own code stay as they are.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterator
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parameter import UninitializedParameter

from ..errors import InputError
from . import float8
from .annotate import FIRST_CONVOLUTION
from .description import FIRST_LAYER, LAST_LAYER
from .layer import Kind, SparseLayer
from .three_gemms import ThreeGemms, by_channel

__all__ = ["ATTRIBUTE", "find_layers", "first_layer", "install", "uninstall"]

ATTRIBUTE = "weft_layer"
"""Where an exchanged module keeps its :class:`SparseLayer`."""

ATTENTION = "nn.MultiheadAttention multiplies by it without calling the layer"
COMPUTED = "weight is computed from other parameters"
OWN_FORWARD = "forward of the layer is the user's own"
NOT_SUPPORTED = "no layer of a kind that can be sparse"

_MULTIPLY = (nn.RNNBase, nn.RNNCellBase, nn.MultiheadAttention, nn.Bilinear)
"""Modules that multiply by a weight of their own and can never be at work."""

F = TypeVar("F", bound=Callable[..., Any])


def _eager(function: F) -> F:
    """Where a compiled model leaves its graph: Dynamo cannot look into the kernels that make masks."""
    return cast(F, torch.compiler.disable(function))  # type: ignore[no-untyped-call]


@_eager
def _apply(module: nn.Module, x: Tensor, conv: Any) -> Tensor:
    """The layer on ``x``, with the casts that autocast makes in front of a GEMM."""
    layer: SparseLayer = getattr(module, ATTRIBUTE)
    bias = cast("Tensor | None", module.bias)
    if torch.is_autocast_enabled(x.device.type):
        dtype = torch.get_autocast_dtype(x.device.type)
        x, bias = x.to(dtype), None if bias is None else bias.to(dtype)
    elif x.dtype != layer.weight.dtype:
        raise InputError(
            f"layer {layer.name!r} has a weight of {layer.weight.dtype} and an input of {x.dtype}; cast one of them"
        )
    x = float8.operand(x) if float8.active() else x
    x, conv = layer.technique.prepared(layer, x, conv)
    gain = layer.technique.gain(layer, x, conv)
    with float8.paused():
        made = ThreeGemms.apply(x, module.weight, bias if gain is None else None, layer, conv)  # type: ignore[no-untyped-call]
    made = float8.result(made) if float8.active() else made
    if gain is not None:
        made = made * gain if bias is None else made * gain + by_channel(bias, conv)
    return cast(Tensor, made)


class SparseLinear(nn.Linear):
    """nn.Linear at work."""

    def forward(self, input: Tensor) -> Tensor:
        return _apply(self, input, None)


class _Convolution:
    """Forward of the plain convolutions."""

    def forward(self, input: Tensor) -> Tensor:
        conv: Any = self
        dims = len(conv.kernel_size)
        x = input if input.dim() == dims + 2 else input.unsqueeze(0)
        pads = conv._reversed_padding_repeated_twice
        even = all(low == high for low, high in zip(pads[::2], pads[1::2], strict=True))
        if conv.padding_mode != "zeros" or not even:
            x = functional.pad(x, pads, "constant" if conv.padding_mode == "zeros" else conv.padding_mode)
            padding = (0,) * dims
        else:
            padding = tuple(reversed(pads[::2]))
        y = _apply(conv, x, (conv.stride, padding, conv.dilation, False, (0,) * dims, conv.groups))
        return y if input.dim() == dims + 2 else y.squeeze(0)


class _Transposed:
    """Forward of the transposed convolutions."""

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        conv: Any = self
        dims = len(conv.kernel_size)
        if conv.padding_mode != "zeros":
            raise ValueError("only padding_mode 'zeros' is supported for transposed convolutions")
        extra = conv._output_padding(
            input, output_size, conv.stride, conv.padding, conv.kernel_size, dims, conv.dilation
        )
        x = input if input.dim() == dims + 2 else input.unsqueeze(0)
        y = _apply(conv, x, (conv.stride, conv.padding, conv.dilation, True, tuple(extra), conv.groups))
        return y if input.dim() == dims + 2 else y.squeeze(0)


class SparseConv1d(_Convolution, nn.Conv1d):
    """nn.Conv1d at work."""


class SparseConv2d(_Convolution, nn.Conv2d):
    """nn.Conv2d at work."""


class SparseConv3d(_Convolution, nn.Conv3d):
    """nn.Conv3d at work."""


class SparseConvTranspose1d(_Transposed, nn.ConvTranspose1d):
    """nn.ConvTranspose1d at work."""


class SparseConvTranspose2d(_Transposed, nn.ConvTranspose2d):
    """nn.ConvTranspose2d at work."""


class SparseConvTranspose3d(_Transposed, nn.ConvTranspose3d):
    """nn.ConvTranspose3d at work."""


KINDS: dict[type[nn.Module], Kind] = {
    nn.Linear: Kind(sparse=SparseLinear, convolution=False, inputs_first=False),
    **{
        plain: Kind(sparse=sparse, convolution=True, inputs_first=issubclass(sparse, _Transposed))
        for plain, sparse in (
            (nn.Conv1d, SparseConv1d),
            (nn.Conv2d, SparseConv2d),
            (nn.Conv3d, SparseConv3d),
            (nn.ConvTranspose1d, SparseConvTranspose1d),
            (nn.ConvTranspose2d, SparseConvTranspose2d),
            (nn.ConvTranspose3d, SparseConvTranspose3d),
        )
    },
}


def _huggingface_linear() -> type[nn.Module] | None:
    """The linear layer of GPT-2 in transformers, which stores its weight [in, out]; None while not imported."""
    module = sys.modules.get("transformers.pytorch_utils")
    return None if module is None else cast("type[nn.Module]", module.Conv1D)


def _kind(module: nn.Module) -> Kind | None:
    plain = next((k for k in KINDS if isinstance(module, k)), None)
    if plain is not None:
        return KINDS[plain]
    base = _huggingface_linear()
    if base is None or not isinstance(module, base):
        return None
    made = type("SparseConv1D", (base,), {"forward": lambda self, x: _apply(self, x, None)})
    return Kind(sparse=made, convolution=False, inputs_first=True)


def find_layers(
    model: nn.Module, full_precision: Collection[str] = (FIRST_CONVOLUTION,)
) -> Iterator[tuple[str, nn.Module, Kind | None, str]]:
    """Modules with a weight matrix of their own: path, module, kind, and why the technique leaves it alone ("" if it
    does not): that it can never be sparse, or is among ``full_precision`` (`Technique.full_precision`)."""
    ends = _ends(model, full_precision)
    for name, module, kind, reason in _find_layers(model):
        yield name, module, kind, reason or ends.get(id(module), "")


def first_layer(model: nn.Module) -> str | None:
    """Path of the first module that multiplies by a weight."""
    return next((name for name, m in model.named_modules() if _kind(m) is not None or isinstance(m, _MULTIPLY)), None)


def _ends(model: nn.Module, full_precision: Collection[str]) -> dict[int, str]:
    """The first and the last module that multiplies by a weight and the first convolution, as far as they are named."""
    kinds = [id(m) for m in model.modules() if _kind(m) is not None or isinstance(m, _MULTIPLY)]
    convolutions = [id(m) for m in model.modules() if (kind := _kind(m)) is not None and kind.convolution]
    named = {FIRST_LAYER: kinds[:1], LAST_LAYER: kinds[-1:], FIRST_CONVOLUTION: convolutions[:1]}
    return {module: where for where in full_precision for module in named[where]}


def _find_layers(model: nn.Module) -> Iterator[tuple[str, nn.Module, Kind | None, str]]:
    skipped = {
        id(part): ATTENTION
        for module in model.modules()
        if isinstance(module, nn.MultiheadAttention)
        for part in module.modules()
    }
    for name, module in model.named_modules():
        kind, own = _kind(module), list(module.parameters(recurse=False))
        if any(isinstance(p, UninitializedParameter) for p in own):
            raise InputError(f"layer {name!r} has no weight yet; run the model once before a technique is attached")
        if kind is None:
            if any(p.dim() > 1 for p in own) and not isinstance(module, nn.Embedding | nn.EmbeddingBag):
                yield name, module, None, skipped.get(id(module), NOT_SUPPORTED)
            continue
        yield name, module, kind, skipped.get(id(module)) or _reason(module)


def _reason(module: nn.Module) -> str:
    if "weight" not in module._parameters:
        return COMPUTED
    plain = next((base for base in type(module).__mro__ if base in KINDS or base is _huggingface_linear()), None)
    if plain is None or type(module).forward is not plain.forward:
        return OWN_FORWARD
    return ""


def install(layer: SparseLayer) -> None:
    """Exchange the class of the module."""
    module = layer.module
    layer_class = type(module)
    bases = layer.kind.sparse if layer_class in KINDS or layer.kind.sparse.__base__ is layer_class else None
    made = bases or type(f"Sparse{layer_class.__name__}", (layer_class,), {"forward": layer.kind.sparse.forward})
    module.__dict__[ATTRIBUTE] = layer
    module.__dict__["weft_plain_class"] = layer_class
    module.__class__ = made


def uninstall(layer: SparseLayer) -> None:
    """Give the module its own class back."""
    module = layer.module
    module.__class__ = module.__dict__.pop("weft_plain_class")
    del module.__dict__[ATTRIBUTE]
