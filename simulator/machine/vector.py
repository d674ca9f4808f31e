"""The machine's vector unit on whole tensors, each operation with its roundings (docs/design/accelerator.md).

All is FP32: what is an operand in memory is widened before and narrowed after. Every operation that is written here is
rounded to nearest even, in the order written, and none is fused with another; every sum starts at -0.0 and runs in
order. A NaN leaves as `CANONICAL_NAN`.
"""

from __future__ import annotations

from math import pi, prod, sqrt

import numpy as np
import numpy.typing as npt

from ..array import canonical
from ..kernels import vector as kernels
from ..kernels.vector import Function, column_sums, erf, exp, row_products, row_sums, tanh

__all__ = [
    "add",
    "gelu",
    "gelu_backward",
    "mean",
    "multiply",
    "relu",
    "relu_backward",
    "scale",
    "softmax",
    "softmax_backward",
    "total",
]

Single = npt.NDArray[np.float32]

_quiet = np.errstate(all="ignore")
"""Infinities and NaNs are data here."""

HALF, ONE = np.float32(0.5), np.float32(1)
ROOT_HALF = np.float32(sqrt(0.5))
DENSITY = np.float32(1 / sqrt(2 * pi))
"""Of the normal distribution at 0."""
TANH_SCALE, TANH_CUBE = np.float32(sqrt(2 / pi)), np.float32(0.044715)
"""Of GELU by tanh, as PyTorch has it."""


@_quiet
def add(a: Single, b: Single) -> Single:
    """a + b, float32 of any shape; shapes broadcast."""
    return canonical(np.asarray(a + b))


@_quiet
def multiply(a: Single, b: Single) -> Single:
    """a b, float32 of any shape; shapes broadcast."""
    return canonical(np.asarray(a * b))


def scale(a: Single, constant: float) -> Single:
    """``a``, float32 of any shape, times the constant rounded to FP32."""
    return multiply(a, np.float32(constant))  # type: ignore[arg-type]  # a scalar broadcasts


def total(x: Single, axes: tuple[int, ...]) -> Single:
    """Sum of ``x``, float32 of any shape, along ``axes``, in order of what they index, the first axis slowest.

    With all axes but the last it is the gradient of a bias.
    """
    summed = sorted(axis % x.ndim for axis in axes)
    left = [axis for axis in range(x.ndim) if axis not in summed]
    shape, terms = [x.shape[axis] for axis in left], prod(x.shape[axis] for axis in summed)
    out = np.empty(prod(shape), np.float32)
    if left == list(range(len(left))):
        row_sums(np.ascontiguousarray(x).reshape(len(out), terms), out)
    else:
        column_sums(np.ascontiguousarray(x.transpose(summed + left)).reshape(terms, len(out)), out)
    return canonical(out).reshape(shape)


@_quiet
def mean(x: Single, axes: tuple[int, ...]) -> Single:
    """`total` of ``x``, float32 of any shape, along ``axes``, times float32(1 / n) of the n terms."""
    return scale(total(x, axes), 1 / prod(x.shape[axis] for axis in axes))


def relu(x: Single) -> Single:
    """``x``, float32 of any shape, where it is > 0 or NaN, else +0.0."""
    flat = np.ascontiguousarray(x).reshape(-1)
    out = np.empty_like(flat)
    kernels.relu(flat, out)
    return canonical(out).reshape(x.shape)


def relu_backward(gradient: Single, y: Single) -> Single:
    """``gradient`` where ``y`` > 0, both float32 of any shape, else +0.0."""
    some, of = (np.ascontiguousarray(each).reshape(-1) for each in (gradient, y))
    out = np.empty_like(some)
    kernels.relu_backward(some, of, out)
    return canonical(out).reshape(y.shape)


@_quiet
def softmax(x: Single) -> Single:
    """Along the last axis of ``x``, float32 [..., n]: e = exp(x - largest); y = e (1 / sum of e, in order)."""
    largest = x.max(axis=-1, keepdims=True)  # NaN if one is
    e = _by_host(exp, x - largest)
    return canonical(e * (ONE / total(e, (-1,))[..., None]))


@_quiet
def softmax_backward(gradient: Single, y: Single) -> Single:
    """y (gradient - sum of gradient y, in order), along the last axis; both float32 [..., n]."""
    met = np.empty(prod(y.shape[:-1]), np.float32)
    left, right = (np.ascontiguousarray(some).reshape(-1, y.shape[-1]) for some in (gradient, y))
    row_products(left, right, met)
    return canonical(y * (gradient - met.reshape(*y.shape[:-1], 1)))


@_quiet
def gelu(x: Single, *, by_tanh: bool = False) -> Single:
    """(0.5 x) (1 + erf(x sqrt(1/2))) of ``x``, float32 of any shape; ``by_tanh``: (0.5 x) (1 + t).

    t = tanh(sqrt(2/pi) (x + 0.044715 ((x x) x))). Constants are rounded to FP32.
    """
    if by_tanh:
        return canonical((HALF * x) * (ONE + _tanh_inside(x)))
    return canonical((HALF * x) * (ONE + _by_host(erf, x * ROOT_HALF)))


@_quiet
def gelu_backward(gradient: Single, x: Single, *, by_tanh: bool = False) -> Single:
    """gradient (0.5 (1 + erf(x sqrt(1/2))) + x (d exp(-0.5 (x x)))), d = 1/sqrt(2 pi); float32 of any shape.

    ``by_tanh``: gradient (0.5 (1 + t) + ((0.5 x) (1 - t t)) (sqrt(2/pi) (1 + (3 0.044715) (x x)))). Constants, also
    3 0.044715, are rounded to FP32.
    """
    square = x * x
    if by_tanh:
        t = _tanh_inside(x)
        slope = TANH_SCALE * (ONE + np.float32(3 * 0.044715) * square)
        return canonical(gradient * (HALF * (ONE + t) + ((HALF * x) * (ONE - t * t)) * slope))
    below = HALF * (ONE + _by_host(erf, x * ROOT_HALF))
    return canonical(gradient * (below + x * (DENSITY * _by_host(exp, -HALF * square))))


def _tanh_inside(x: Single) -> Single:
    return _by_host(tanh, TANH_SCALE * (x + TANH_CUBE * ((x * x) * x)))


def _by_host(function: Function, x: Single) -> Single:
    """In double precision, rounded to FP32."""
    flat = np.ascontiguousarray(x).reshape(-1)
    out = np.empty_like(flat)
    function(flat, out)
    return canonical(out).reshape(x.shape)
