"""The engines that a traced model asks for: one for each product of its forward pass."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import isqrt

from ...workloads.errors import InputError, require_int
from ...workloads.gemm import Pass
from ...workloads.im2col import Window
from ...workloads.operand import Operand, Role
from ...workloads.step import MatrixOp, Workload
from .engine import MAX_BITS, StreamingLayer

__all__ = ["Bits", "streaming_layers"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bits:
    """Of weights, of activations, and of what the first layer reads, where the workload names no levels itself."""

    weight: int = 1
    activation: int = 1
    first: int = 8

    def __post_init__(self) -> None:
        for name in ("weight", "activation", "first"):
            require_int(f"{name} bits of streaming layers", getattr(self, name), 1, MAX_BITS)


def streaming_layers(workload: Workload, bits: Bits | None = None) -> tuple[StreamingLayer, ...]:
    """A layer for each product of the forward pass, in its order, of one sample.

    A product that has no weights of its own, or shares them with another, has no place in a pipeline that a frame
    passes once, and is refused.
    """
    bits = bits or Bits()
    ops = [op for op in workload.matrix_ops if op.pass_ is Pass.FF and not op.recompute]
    if not ops:
        raise InputError(f"model {workload.model!r} multiplies no matrices in its forward pass: it has no engines")
    seen: set[str] = set()
    for op in ops:
        if op.parameter is None or (op.a.role is not Role.WEIGHT and op.b.role is not Role.WEIGHT):
            raise InputError(
                f"layer {op.name!r} of {workload.model!r} multiplies two activations ({op.gemm}); a streaming engine "
                "holds one operand as its weights: models of convolutions and linear layers have such engines"
            )
        if op.plane:
            raise InputError(
                f"weight {op.parameter!r} of {workload.model!r} is a sum of planes under scheme {workload.scheme!r}, "
                "with a scale each; a streaming engine holds one plane of weights: take a scheme whose weights are one"
            )
        if op.parameter in seen:
            raise InputError(
                f"weight {op.parameter!r} of {workload.model!r} is multiplied more than once a frame; a frame passes "
                "each engine of a pipeline once: recurrent layers and shared weights have no such engines"
            )
        seen.add(op.parameter)
    return tuple(_layer(op, workload, bits, first=not i) for i, op in enumerate(ops))


def _layer(op: MatrixOp, workload: Workload, bits: Bits, *, first: bool) -> StreamingLayer:
    g, name = op.gemm, (op.parameter or op.name).removesuffix(".weight")
    weight, other, rows, outputs = (op.b, op.a, g.m, g.n) if op.b.role is Role.WEIGHT else (op.a, op.b, g.n, g.m)
    vectors, rest = divmod(rows, workload.batch)
    if rest:
        raise InputError(
            f"layer {name!r} of {workload.model!r} multiplies {rows} rows at batch {workload.batch}: a frame has no "
            "whole number of them"
        )
    window = _window(op, other, vectors, workload.batch)
    one_tap = op.gemm.k == op.gemm.run
    return StreamingLayer(
        name=name,
        mw=g.k,
        mh=outputs * g.groups,
        vectors=vectors,
        weight_bits=weight.levels.bits if weight.levels else bits.weight,
        input_bits=other.levels.bits if other.levels else bits.first if first else bits.activation,
        window=window,
        channels=g.run if window is not None else 0,
        unknown_window=op.convolution and window is None and not one_tap,
    )


def _window(op: MatrixOp, image: Operand, vectors: int, batch: int) -> Window | None:
    """The sliding window of a convolution, as far as its sizes tell; None where they do not, or one tap reads each
    element once.

    A workload keeps the elements of the image and the positions and taps of the kernel: squares are taken for two
    dimensions, a kernel that is none for one; stride and padding are the least that give as many positions; no
    dilation.
    """
    g = op.gemm
    taps = g.k // g.run
    pixels, rest = divmod(image.elements, batch * g.run * g.groups)
    if not op.convolution or g.groups > 1 or rest or taps == 1:
        return None
    sides = [isqrt(value) for value in (pixels, taps, vectors)]
    if [side * side for side in sides] == [pixels, taps, vectors]:
        dimensions, (size, kernel, positions) = 2, sides
    elif sides[1] ** 2 == taps:
        return None
    else:
        dimensions, (size, kernel, positions) = 1, [pixels, taps, vectors]
    found = _least(size, kernel, positions)
    if found is None:
        return None
    stride, padding = found
    each = (size, kernel, stride, padding, 1)
    image_, kernel_, stride_, padding_, dilation_ = ((value,) * dimensions for value in each)
    return Window(image=image_, kernel=kernel_, stride=stride_, padding=padding_, dilation=dilation_)


def _least(size: int, kernel: int, positions: int) -> tuple[int, int] | None:
    """Stride and padding, less than the kernel on each side."""
    strides: Iterable[int] = range(1, size + 2 * kernel)
    return next(
        (
            (stride, padding)
            for stride in strides
            for padding in range(kernel)
            if size + 2 * padding >= kernel and (size + 2 * padding - kernel) // stride + 1 == positions
        ),
        None,
    )
