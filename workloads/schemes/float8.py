"""FP8 operands in a training: E4M3 forward, E5M2 gradients, each tensor under a power of two of its own; FP32 else.

A product rounds its operands, and the gradient of its result where that comes back, so that backward multiplies E5M2
gradients by the E4M3 operands of forward. What it multiplies are FP8 numbers times powers of two, and their products
are exact in FP32: PyTorch adds up what the machine does, in an order of its own. The scale is the largest power of two
under which the largest magnitude of the tensor, as it is now, does not saturate.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from ..errors import InputError
from .attended import written_out

__all__ = [
    "FORWARD",
    "GRADIENT",
    "Float8",
    "active",
    "operand",
    "paused",
    "require_roundable",
    "result",
    "rounded",
    "unscaled",
    "weight_dtype",
]

FORWARD, GRADIENT = torch.float8_e4m3fn, torch.float8_e5m2
_TOP = {FORWARD: 9, GRADIENT: 16}
"""Binary logarithm of what the largest number, 448 or 57,344, is 0.875 of."""
_LARGEST = 0.875
_MOST_SHIFT = 126
"""A scale and its inverse are normal numbers of FP32."""

_FUNCTIONS: dict[Any, tuple[tuple[int, str], ...]] = {
    **dict.fromkeys(
        (
            functional.linear,
            functional.conv1d,
            functional.conv2d,
            functional.conv3d,
            functional.conv_transpose1d,
            functional.conv_transpose2d,
            functional.conv_transpose3d,
        ),
        ((0, "input"), (1, "weight")),
    ),
    **dict.fromkeys((torch.matmul, Tensor.matmul, Tensor.__matmul__, Tensor.__rmatmul__), ((0, "input"), (1, "other"))),
    **dict.fromkeys((torch.bmm, Tensor.bmm, torch.mm, Tensor.mm), ((0, "input"), (1, "mat2"))),
    **dict.fromkeys((torch.addmm, Tensor.addmm), ((1, "mat1"), (2, "mat2"))),
    **dict.fromkeys((torch.baddbmm, Tensor.baddbmm), ((1, "batch1"), (2, "batch2"))),
}
"""Products, with the places and names of their operands."""
_OWN = (nn.RNNBase, nn.RNNCellBase, nn.MultiheadAttention, nn.Bilinear)
"""Modules whose products are in one operator with other work."""

_active = 0
_paused = 0
_unscaled = 0


def rounded(x: Tensor, kind: torch.dtype) -> Tensor:
    """``x``, float32 of any shape, with every element the nearest number of FP8 ``kind``, ties to even, times the scale
    of the tensor; all NaN where one element is not finite. `unscaled`, as the machine rounds: what is too large becomes
    the largest number, or in E5M2 infinity."""
    if _unscaled:
        end = torch.finfo(kind).max
        return (x.clamp(-end, end) if kind is FORWARD else x).to(kind).to(x.dtype)
    most = x.detach().abs().amax() if x.numel() else x.new_zeros(())
    fraction, exponent = torch.frexp(most)
    shift = (_TOP[kind] - exponent - (fraction > _LARGEST).int()).clamp(-_MOST_SHIFT, _MOST_SHIFT)
    one = torch.where(most.isfinite(), 1.0, torch.nan)
    return (x * torch.ldexp(one, shift)).to(kind).to(x.dtype) * torch.ldexp(one, -shift)


class _Operand(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return rounded(x, FORWARD)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return g


def operand(x: Tensor) -> Tensor:
    """``x``, float32 of any shape, as a product of the forward pass multiplies it; its gradient is passed as it is."""
    return cast(Tensor, _Operand.apply(x))  # type: ignore[no-untyped-call]


def result(y: Tensor) -> Tensor:
    """``y`` of a product, whose gradient is rounded to E5M2 when it comes; float32 of any shape."""
    if y.requires_grad:
        y.register_hook(lambda g: rounded(g, GRADIENT))  # type: ignore[no-untyped-call]
    return y


def weight_dtype(x: Tensor) -> torch.dtype:
    """Of the weights that ``x``, of any shape and float dtype, meets: its own, or in FP8 that of the forward pass."""
    return FORWARD if _active else x.dtype


def active() -> bool:
    """Whether products are in FP8 now."""
    return _active > 0


@contextmanager
def paused() -> Iterator[None]:
    """Products of operands that are rounded already."""
    global _paused
    _paused += 1
    try:
        yield
    finally:
        _paused -= 1


@contextmanager
def unscaled() -> Iterator[None]:
    """Rounding to FP8 without a scale for each tensor."""
    global _unscaled
    _unscaled += 1
    try:
        yield
    finally:
        _unscaled -= 1


class Float8(TorchFunctionMode):
    """All products inside, of whatever module, have FP8 operands."""

    def __enter__(self) -> Any:
        global _active
        _active += 1
        return super().__enter__()  # type: ignore[no-untyped-call]

    def __exit__(self, *raised: Any) -> Any:
        global _active
        _active -= 1
        return super().__exit__(*raised)  # type: ignore[no-untyped-call]

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        if _paused:
            return func(*args, **kwargs)
        if func is functional.scaled_dot_product_attention:
            return written_out(_product, _product, *args, **kwargs)
        if func is torch.einsum:
            raise InputError("amp 'fp8' rounds no operands of torch.einsum: write its products with matmul")
        places = _FUNCTIONS.get(func)
        if places is None:
            return func(*args, **kwargs)
        given = list(args)
        for place, name in places:
            if place < len(given):
                given[place] = operand(given[place])
            else:
                kwargs = {**kwargs, name: operand(kwargs[name])}
        return result(func(*given, **kwargs))


def _product(a: Tensor, b: Tensor) -> Tensor:
    return result(operand(a) @ operand(b))


def require_roundable(model: nn.Module) -> None:
    """Refuse a model with products that cannot be reached."""
    for name, module in model.named_modules():
        if isinstance(module, _OWN):
            raise InputError(
                f"amp 'fp8' rounds the operands of every product, but those of {name or 'the model'!r}, an "
                f"nn.{type(module).__name__}, cannot be reached; write it with linear layers and matmul, or choose "
                "amp bf16"
            )
