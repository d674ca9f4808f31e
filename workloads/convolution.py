"""The three GEMMs of a layer with a weight: linear, convolution, transposed convolution."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from .gemm import Gemm, Pass

__all__ = ["convolution_gemms", "linear_gemms"]


def linear_gemms(rows: int, inputs: int, outputs: int, groups: int = 1) -> dict[Pass, Gemm]:
    """Of ``rows`` x ``inputs`` data and a weight stored as ``outputs`` x ``inputs``: a convolution of one tap."""
    return _gemms(rows, outputs, inputs, taps=1, groups=groups)


def convolution_gemms(
    x: Sequence[int], w: Sequence[int], y: Sequence[int], groups: int, *, transposed: bool
) -> dict[Pass, Gemm]:
    """Of tensors of the shapes ``x``, ``w`` and ``y``, channels behind the batch, none of them empty.

    A transposed convolution is the gradient of a plain one: the two exchange FF and BP.
    """
    positions = x if transposed else y
    gemms = _gemms(positions[0] * prod(positions[2:]), w[0] // groups, w[1], taps=prod(w[2:]), groups=groups)
    return {**gemms, Pass.FF: gemms[Pass.BP], Pass.BP: gemms[Pass.FF]} if transposed else gemms


def _gemms(rows: int, outer: int, inner: int, *, taps: int, groups: int) -> dict[Pass, Gemm]:
    """Of a plain layer; ``outer`` and ``inner`` are the channels that one group of the weight stores first and second.

    The operands are X and W in FF, dY and W in BP, dY and X in WU, which makes dW as it is stored.
    """
    return {
        Pass.FF: Gemm(m=rows, k=inner * taps, n=outer, groups=groups, run=inner),
        Pass.BP: Gemm(m=rows, k=outer, n=inner * taps, groups=groups),
        Pass.WU: Gemm(m=outer, k=rows, n=inner * taps, groups=groups),
    }
