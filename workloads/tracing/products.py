"""Which GEMMs a dispatched operator is: the operators that multiply matrices, and their shapes."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from math import prod
from typing import Any, NamedTuple

from torch import Tensor
from torch._ops import OpOverload
from torch.utils.flop_counter import flop_registry

from ..convolution import convolution_gemms
from ..errors import InputError
from ..gemm import Gemm, Pass
from .factorizations import REFUSED
from .known import is_declared, is_vector_work

__all__ = ["Product", "bind", "is_product", "operator_name", "products_of", "refuse_unknown"]


class Product(NamedTuple):
    """One GEMM of a dispatched operator and its tensors.

    ``gradient_of`` is set where the operator itself says which forward operand the product is the gradient of, and
    ``other`` is then the other forward operand. ``partial`` products cover a part of their tensors (unequal experts).
    """

    gemm: Gemm
    a: Tensor
    b: Tensor
    c: Tensor
    gradient_of: Tensor | None = None
    other: Tensor | None = None
    convolution: bool = False
    partial: bool = False


Arguments = dict[str, Any]
Rule = Callable[[Arguments, Any], list[Product]]


@cache
def operator_name(func: OpOverload) -> str:
    """``aten.mm`` for every overload of it."""
    return func._schema.name.replace("::", ".")


def bind(func: OpOverload, args: Sequence[Any], kwargs: dict[str, Any]) -> Arguments:
    """The arguments of a call by name; those left to their default are absent."""
    return {**dict(zip(_argument_names(func), args, strict=False)), **kwargs}


@cache
def _argument_names(func: OpOverload) -> tuple[str, ...]:
    return tuple(argument.name for argument in func._schema.arguments)


def products_of(func: OpOverload, given: Arguments, out: Any) -> list[Product] | None:
    """The GEMMs of one call, none for an empty one, or ``None`` when ``func`` multiplies no matrices."""
    rule = _rule(func)
    return None if rule is None else rule(given, out)


def is_product(func: OpOverload) -> bool:
    """Whether ``func`` multiplies matrices."""
    return _rule(func) is not None


@cache
def _rule(func: OpOverload) -> Rule | None:
    return _RULES.get(operator_name(func).removesuffix("_"))


def refuse_unknown(func: OpOverload, where: str) -> bool:
    """Refuse an operator that is neither a product with a rule here nor vector work; whether that was declared."""
    if _rule(func) is not None or is_vector_work(func):
        return False
    name = operator_name(func)
    known = REFUSED.get(name)
    multiplies = name in _COUNTED or bool(_MATRIX_WORDS.intersection(re.split(r"[_.]", name)))
    multiplies = multiplies or (known is not None and known.multiplies)
    ours = name.startswith("aten.")
    if is_declared(name) and not (ours and multiplies):
        return True
    if known is not None:
        reason, instead = f"operator {name} {known.reason}", known.instead
    elif ours:
        reason = f"operator {name} is not known: it may multiply matrices, and how many Weft cannot tell"
        instead = "write it with matmul, einsum or element-wise operators"
    else:
        reason = f"custom operator {name} hides what it computes"
        instead = "write that part of the model in PyTorch operators"
    declare = f", or let it count as its bytes: weft.count_as_vector_work({name!r})"
    raise InputError(f"{where}: {reason}; {instead}{'' if ours and multiplies else declare}")


_COUNTED = frozenset(str(packet) for packet in flop_registry)
_MATRIX_WORDS = frozenset(
    {"mm", "bmm", "matmul", "gemm", "conv", "convolution", "attention", "rnn", "lstm", "gru", "linear", "trilinear"}
)
"""Words in names of ATen's products, which nobody can declare to be none."""


@lru_cache(4096)
def _gemm(m: int, k: int, n: int, groups: int = 1, run: int = 0) -> Gemm | None:
    return Gemm(m=m, k=k, n=n, groups=groups, run=run) if m and k and n and groups else None


def _real(gemm: Gemm | None, a: Tensor) -> Gemm | None:
    """The one product of real numbers that a product of complex ones is, four of theirs for each.

    [re; im] of the result is [[re, -im], [im, re]] of ``a``, stored once, times [re; im] of ``b``.
    """
    if gemm is None or not a.is_complex():
        return gemm
    return Gemm(m=2 * gemm.m, k=2 * gemm.k, n=gemm.n, groups=gemm.groups, run=gemm.run)


def _one(gemm: Gemm | None, a: Tensor, b: Tensor, c: Tensor, **more: Any) -> list[Product]:
    return [] if gemm is None else [Product(gemm=gemm, a=a, b=b, c=c, **more)]


def _operands(first: str, second: str) -> Rule:
    """Rule of the plain products, whatever is added to them: ``a`` [(g,) m, k], [k]; ``b`` [(g,) k, n], [k]."""

    def rule(given: Arguments, out: Any) -> list[Product]:
        a, b = given[first], given[second]
        m = a.shape[-2] if a.dim() > 1 else 1
        n = b.shape[-1] if b.dim() > 1 else 1
        return _one(_real(_gemm(m, a.shape[-1], n, a.shape[0] if a.dim() == 3 else 1), a), a, b, out)

    return rule


def _euclidean_dist(given: Arguments, out: Any) -> list[Product]:
    """Distances by |x|^2 - 2 x y + |y|^2, as ATen takes them; their gradient is written with products anyway."""
    a, b = given["x1"], given["x2"]
    return _one(_gemm(a.shape[-2], a.shape[-1], b.shape[-2], prod(a.shape[:-2])), a, b, out)


def _addbmm(given: Arguments, out: Any) -> list[Product]:
    a, b = given["batch1"], given["batch2"]
    groups, m, k = a.shape
    return _one(_real(_gemm(m, groups * k, b.shape[-1], run=k), a), a, b, out)


def _convolution(given: Arguments, out: Any) -> list[Product]:
    x, w = given["input"], given["weight"]
    gemms = _convolution_gemms(given, out)
    return [Product(gemm=gemms[Pass.FF], a=x, b=w, c=out, convolution=True)] if gemms else []


def _convolution_backward(given: Arguments, out: Any) -> list[Product]:
    dy, x, w = given["grad_output"], given["input"], given["weight"]
    gemms = _convolution_gemms(given, dy)
    products = []
    if gemms and given["output_mask"][0]:
        gemm = gemms[Pass.BP]
        products.append(Product(gemm=gemm, a=dy, b=w, c=out[0], gradient_of=x, other=w, convolution=True))
    if gemms and given["output_mask"][1]:
        a, b = (x, dy) if given["transposed"] else (dy, x)
        gemm = gemms[Pass.WU]
        products.append(Product(gemm=gemm, a=a, b=b, c=out[1], gradient_of=w, other=x, convolution=True))
    return products


def _deformable(given: Arguments, out: Any) -> list[Product]:
    """torchvision's convolution over sampled inputs multiplies as one over the inputs themselves."""
    return _convolution({**given, "transposed": False}, out)


def _deformable_backward(given: Arguments, out: Any) -> list[Product]:
    both = {"grad_output": given["grad"], "transposed": False, "output_mask": (True, True)}
    return _convolution_backward({**given, **both}, out)


def _convolution_gemms(given: Arguments, y: Tensor) -> dict[Pass, Gemm]:
    """The GEMMs of a convolution to ``y`` and of its gradients; none where a tensor is empty."""
    x, w = given["input"], given["weight"]
    if not (x.numel() and w.numel() and y.numel()):
        return {}
    return convolution_gemms(x.shape, w.shape, y.shape, given["groups"], transposed=given["transposed"])


def _ragged(rows: int, experts: int, gemm: Callable[[int, int], Gemm | None], **tensors: Any) -> list[Product]:
    """Products of ``experts`` that share ``rows`` as evenly as integers allow: ``gemm(rows of one, experts)`` each."""
    low, rest = divmod(rows, experts)
    shares = [(low + 1, rest), (low, experts - rest)]
    gemms = [gemm(size, count) for size, count in shares]
    kept = [g for g in gemms if g is not None]
    return [Product(gemm=g, partial=len(kept) > 1 or low == 0, **tensors) for g in kept]


def _grouped_mm(given: Arguments, out: Any) -> list[Product]:
    """MoE product; which rows an expert gets is data, so every expert is given the same number."""
    a, b = (given["self"], given["mat2"]) if "self" in given else (given["input"], given["weight"])
    k, n = a.shape[-1], b.shape[-1]
    if a.dim() == b.dim() == 3:
        return _one(_gemm(a.shape[1], k, n, len(a)), a, b, out)
    experts, tensors = len(given["offs"]), {"a": a, "b": b, "c": out}
    if a.dim() == 3:
        return _ragged(n, experts, lambda size, count: _gemm(a.shape[1], k, size, count), **tensors)
    if b.dim() == 3:
        return _ragged(len(a), experts, lambda size, count: _gemm(size, k, n, count), **tensors)
    return _ragged(k, experts, lambda size, count: _gemm(len(a), size, n, count), **tensors)


def _grouped_mm_backward(given: Arguments, out: Any) -> list[Product]:
    """Both gradients of transformers' own grouped product: x [rows, k], w [experts, k, n], dy [rows, n]."""
    x, w, dy = given["input"], given["weight"], given["grad_output"]
    experts, k, n = w.shape
    return [
        *_ragged(
            len(x), experts, lambda size, count: _gemm(size, n, k, count), a=dy, b=w, c=out[0], gradient_of=x, other=w
        ),
        *_ragged(
            len(x), experts, lambda size, count: _gemm(k, size, n, count), a=x, b=dy, c=out[1], gradient_of=w, other=x
        ),
    ]


_RULES: dict[str, Rule] = {
    "aten.mm": _operands("self", "mat2"),
    "aten.addmm": _operands("mat1", "mat2"),
    "aten.bmm": _operands("self", "mat2"),
    "aten.baddbmm": _operands("batch1", "batch2"),
    "aten.addbmm": _addbmm,
    "aten._euclidean_dist": _euclidean_dist,
    "aten.mv": _operands("self", "vec"),
    "aten.addmv": _operands("mat", "vec"),
    "aten.dot": _operands("self", "tensor"),
    "aten.vdot": _operands("self", "other"),
    "aten.convolution": _convolution,
    "aten.convolution_backward": _convolution_backward,
    "torchvision.deform_conv2d": _deformable,
    "torchvision._deform_conv2d_backward": _deformable_backward,
    "aten._grouped_mm": _grouped_mm,
    "transformers.grouped_mm_fallback": _grouped_mm,
    "transformers.grouped_mm_fallback_backward": _grouped_mm_backward,
}
