"""Attention through a sliding window, counted by what it sees: for models of transformers whose layers say so.

Eager attention multiplies every query by every key and masks what is too far away, so a trace has the full square
[queries, keys]. Counted by window each of the S queries has its W keys and no more: Q K^T becomes S x d x W, P V
S x W x d, their gradients alike, and what works on the scores has S x W of them. As nowhere here, causality halves
nothing: the keys before the first one count, as the padding of a convolution does (`padded_pairs` says how many).
K and V of a head count as W rows. An array takes blocks of queries, and a block of B sees W + B - 1 keys, which is left
out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal, get_args

from .errors import InputError
from .gemm import Gemm
from .operand import Operand
from .resized import thinned
from .step import MatrixOp, Op, UpdateOp, VectorOp, Workload

__all__ = ["ATTENTION", "Attention", "padded_pairs", "windowed", "windows_of"]

Attention = Literal["full", "window"]
ATTENTION: tuple[Attention, ...] = get_args(Attention)


def windows_of(named_modules: Any) -> dict[str, int]:
    """Keys that a query sees, by path of the attention modules (``layer_idx``, ``config``) that have a window.

    A module's own ``sliding_window`` comes before that of its configuration. It counts keys up to a query, itself
    included; where attention is not causal as many follow.
    """
    found = {}
    for path, module in named_modules:
        config = getattr(module, "config", None)
        if config is None or not isinstance(getattr(module, "layer_idx", None), int):
            continue
        window = module.sliding_window if hasattr(module, "sliding_window") else _configured(config, module.layer_idx)
        if isinstance(window, int) and window > 0:
            found[path] = window if getattr(module, "is_causal", True) else 2 * window - 1
    return found


def _configured(config: Any, layer: int) -> Any:
    types = getattr(config, "layer_types", None)
    if types is not None and (layer >= len(types) or types[layer] != "sliding_attention"):
        return None
    return getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) is not False else None


def padded_pairs(window: int, queries: int, *, causal: bool = True) -> int:
    """Pairs of a query and a key that are counted though there is no such key: before the first or behind the last."""
    side = min(window, queries) if causal else min(window // 2 + 1, queries)
    return side * (side - 1) // 2 * (1 if causal else 2)


def windowed(workload: Workload, windows: Mapping[str, int]) -> Workload:
    """``workload`` with the attention of these modules counted by their windows; refused where none of it has one."""
    if not windows:
        raise InputError(
            f"no attention layer of {workload.model!r} names a sliding window, so nothing can be counted by it: leave "
            "out --attention window"
        )
    squares = {
        op.name: (op.gemm.groups, length)
        for op in workload.matrix_ops
        if op.name in windows and (length := _length(op)) is not None
    }
    ops = tuple(_narrowed(op, windows[op.name], *squares[op.name]) if op.name in squares else op for op in workload.ops)
    return replace(
        workload, ops=ops, tensors=(), input=", ".join(filter(None, (workload.input, "attention by window")))
    )


def _length(op: MatrixOp) -> int | None:
    """Queries, and as many keys, of a product of attention: the size that it has twice; None of any other product."""
    g = op.gemm
    if op.parameter is not None or op.convolution:
        return None
    return next((size for size in (g.k, g.m) if (g.m, g.k, g.n).count(size) > 1), None)


def _narrowed(op: Op, window: int, groups: int, length: int) -> Op:
    """An op of a layer with scores [groups, length, length]."""
    if window >= length:
        return op
    match op:
        case MatrixOp():
            return _product(op, window, length) if _length(op) == length else op
        case VectorOp():
            if op.elements != groups * length * length:
                return op
            return thinned(op, window, length)
        case UpdateOp():
            return op


def _product(op: MatrixOp, window: int, length: int) -> MatrixOp:
    """One of the two sizes that are ``length`` becomes ``window``: that of the keys, or of what sees one of them."""
    g = op.gemm
    if g.k == length:
        gemm, sides = Gemm(m=g.m, k=window, n=g.n, groups=g.groups), ("a", "b")
    else:
        gemm, sides = Gemm(m=g.m, k=g.k, n=window, groups=g.groups), ("b", "c")
    return replace(op, gemm=gemm, **{side: _cut(getattr(op, side), window, length) for side in sides})  # type: ignore[arg-type]


def _cut(operand: Operand, window: int, length: int) -> Operand:
    return operand.sized(operand.elements * window // length)
