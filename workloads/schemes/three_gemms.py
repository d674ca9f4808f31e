"""The three GEMMs of a layer as one autograd function, on the operands that its technique chooses."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from ..gemm import Pass
from .estimator import Few
from .float8 import weight_dtype
from .layer import Observed, SparseLayer

__all__ = ["ThreeGemms", "by_channel", "made_again"]


class ThreeGemms(torch.autograd.Function):
    """Y = X W_ff; dX = g_bp(dY) W_bp^T; dW = x_wu(X)^T g_wu(dY): the gradient goes straight to the dense master.

    Operands of few values are multiplied as such, their scales beside the products; what dX and dW are is then the
    technique's to say (``schemes/estimated.py``).

    X is [batch, *positions, in], of a convolution [batch, in, *positions], Y and dY the same with out; the bias is
    [out]; all have one float dtype.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, layer: SparseLayer, conv: Any) -> Tensor:
        ctx.layer, ctx.conv, ctx.shape = layer, conv, x.shape
        needs_x, needs_w = ctx.needs_input_grad[:2]
        with torch.autocast(x.device.type, enabled=False):
            few = layer.technique.activation(layer, x)
            dtype = weight_dtype(x)
            w_bp = layer.operand(Pass.BP, dtype) if needs_x else None
            w_ff = layer.operand(Pass.FF, dtype)
            ctx.scale = layer.scale
            ctx.save_for_backward(
                few.values if needs_w else None,
                w_bp,
                few.scale,
                x if needs_x and few.values is not x else None,
                weight if needs_w and layer.technique.scheme.levels else None,
            )
            planes = layer.planes or (Few(values=w_ff, scale=layer.scale),)
            for number, plane in enumerate(planes):
                _show(ctx, Pass.FF, few.values, plane.values, None, number)
            if few.scale is None and all(plane.scale is None for plane in planes):
                return _multiply(few.values, w_ff, bias, layer, conv)
            return _scaled(few, planes, bias, layer, conv)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x_q, w_bp, scale, x, weight = ctx.saved_tensors
        layer, conv, technique = ctx.layer, ctx.conv, ctx.layer.technique
        needs_x, needs_w, needs_b = ctx.needs_input_grad[:3]
        dx = dw = db = None
        with torch.autocast(dy.device.type, enabled=False):
            if needs_b:
                # An empty list of dimensions would sum over all of them.
                others = [d for d in range(dy.dim()) if d != (1 if conv else dy.dim() - 1)]
                db = dy.sum(others) if others else dy
            if needs_x:
                g = technique.backward_gradient(layer, dy) if Pass.BP in layer.passes else dy
                g = g if ctx.scale is None else g * ctx.scale
                _show(ctx, Pass.BP, g, w_bp, dy)
                dx = _input_gradient(g, w_bp, ctx.shape, layer, conv)
                dx = dx if x is None else technique.activation_gradient(layer, dx, x)
            if needs_w:
                g = technique.update_gradient(layer, dy) if Pass.WU in layer.passes else dy
                g = g if scale is None else (g * scale).to(dy.dtype)
                _show(ctx, Pass.WU, g, x_q, dy)
                dw = _weight_gradient(g, x_q, layer, conv)
                dw = dw if weight is None else technique.weight_gradient(layer, dw, weight)
        return dx, dw, db, None, None


def _show(ctx: Any, pass_: Pass, left: Tensor, right: Tensor, dy: Tensor | None, plane: int = 0) -> None:
    layer: SparseLayer = ctx.layer
    if layer.observer is not None:
        layer.observer(
            Observed(
                layer=layer, pass_=pass_, left=left, right=right, dy=dy, conv=ctx.conv, shape=ctx.shape, plane=plane
            )
        )


def _multiply(x: Tensor, w: Tensor, bias: Tensor | None, layer: SparseLayer, conv: Any) -> Tensor:
    if conv:
        return torch.ops.aten.convolution(x, w, bias, *conv)  # type: ignore[no-any-return]
    rows = functional.linear(x.reshape(-1, x.shape[-1]), w.t() if layer.kind.inputs_first else w, bias)
    # Autograd lets no view that a function returns be changed in place, as nn.ReLU(inplace=True) does.
    return torch.ops.aten._unsafe_view(rows, (*x.shape[:-1], rows.shape[-1]))  # type: ignore[no-any-return]


def _scaled(few: Few, planes: tuple[Few, ...], bias: Tensor | None, layer: SparseLayer, conv: Any) -> Tensor:
    """Sums of few values are exact in FP32, as on the machine, and rounded once, with their scales."""
    dtype = torch.promote_types(few.values.dtype, torch.float32)
    x, made = few.values.to(dtype), None
    for plane in planes:
        product = _multiply(x, plane.values.to(dtype), None, layer, conv)
        for scale in (few.scale, plane.scale):
            product = product if scale is None else product * scale
        made = product if made is None else made + product
    assert made is not None, "a weight is one plane at least"
    return (made if bias is None else made + by_channel(bias, conv)).to(few.values.dtype)


def by_channel(bias: Tensor, conv: Any) -> Tensor:
    """A bias [out] of any float dtype as what is added to the output of a layer, [out] or [out, 1, ...]."""
    return bias.reshape(-1, *[1] * len(conv[0])) if conv else bias


def _input_gradient(dy: Tensor, w: Tensor, shape: torch.Size, layer: SparseLayer, conv: Any) -> Tensor:
    if conv:
        # Only the shape of the input is read for its gradient.
        x = dy.new_empty(1).expand(shape)
        return torch.ops.aten.convolution_backward(dy, x, w, None, *conv, [True, False, False])[0]  # type: ignore[no-any-return]
    rows = dy.reshape(-1, dy.shape[-1]) @ (w.t() if layer.kind.inputs_first else w)
    return rows.reshape(shape)


def _weight_gradient(dy: Tensor, x: Tensor, layer: SparseLayer, conv: Any) -> Tensor:
    if conv:
        w = dy.new_empty(1).expand(layer.weight.shape)
        return torch.ops.aten.convolution_backward(dy, x, w, None, *conv, [False, True, False])[1]  # type: ignore[no-any-return]
    x, dy = x.reshape(-1, x.shape[-1]), dy.reshape(-1, dy.shape[-1])
    return x.t() @ dy if layer.kind.inputs_first else dy.t() @ x


def made_again(gemm: Observed, left: Tensor, right: Tensor) -> Tensor:
    """What PyTorch makes of other operands of the same shapes in ``gemm``, without the bias: Y, dX or dW, of their
    float dtype, shaped [batch, *positions, channels], [batch, channels, *positions], or like the weight."""
    if gemm.pass_ == Pass.FF:
        return _multiply(left, right, None, gemm.layer, gemm.conv)
    if gemm.pass_ == Pass.BP:
        return _input_gradient(left, right, gemm.shape, gemm.layer, gemm.conv)
    return _weight_gradient(left, right, gemm.layer, gemm.conv)
