"""A product of two activations of few values, and its two gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .estimator import Estimator

__all__ = ["few_product"]

Shown = Callable[[Tensor, Tensor], None]


def few_product(a: Tensor, b: Tensor, left: Estimator, right: Estimator, shown: Shown | None = None) -> Tensor:
    """s_a A_q (s_b B_q)^T [..., m, n] of ``a`` [..., m, k] and ``b`` [..., n, k], brought to few values by estimators.

    All are of one float dtype. Both estimators get [..., rows, k], so that a scale is [..., rows, 1] or, for all rows,
    [..., 1, 1]. Backward: dA' = (s_b dC) B_q, dB' = (s_a dC)^T A_q, the gradients of s_a A_q and s_b B_q, of which the
    estimators make those of ``a`` and ``b``. ``shown`` is called with A_q and B_q.
    """
    return cast(Tensor, _FewProduct.apply(a, b, left, right, shown))  # type: ignore[no-untyped-call]


class _FewProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, left: Estimator, right: Estimator, shown: Shown | None) -> Tensor:
        with torch.autocast(a.device.type, enabled=False):
            one, other = left.few(a), right.few(b)
            if shown is not None:
                shown(one.values, other.values)
            ctx.left, ctx.right = left, right
            ctx.save_for_backward(a, b, one.values, other.values, one.scale, other.scale)
            # Sums of few values are exact in FP32, as on the machine, and rounded once, with their scales.
            wide = torch.promote_types(a.dtype, torch.float32)
            made = one.values.to(wide) @ other.values.to(wide).transpose(-2, -1)
            made = made if one.scale is None else made * one.scale
            made = made if other.scale is None else made * other.scale.transpose(-2, -1)
            return made.to(a.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dc: Tensor) -> tuple[Tensor | None, ...]:
        a, b, a_q, b_q, s_a, s_b = ctx.saved_tensors
        da = db = None
        with torch.autocast(dc.device.type, enabled=False):
            if ctx.needs_input_grad[0]:
                g = dc if s_b is None else (dc * s_b.transpose(-2, -1)).to(dc.dtype)
                da = ctx.left.gradient((g @ b_q).sum_to_size(a.shape), a)
            if ctx.needs_input_grad[1]:
                g = dc if s_a is None else (dc * s_a).to(dc.dtype)
                db = ctx.right.gradient((g.transpose(-2, -1) @ a_q).sum_to_size(b.shape), b)
        return da, db, None, None, None
