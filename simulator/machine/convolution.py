"""Convolutions of the machine: FF, BP and WU as products of NHWC operands (docs/design/accelerator.md, Arithmetic).

Tensors are operands, float16 or bfloat16: images [n, *image, channels], weights [outputs, *kernel, channels of a
group], gradients [n, *positions, outputs]; any number of spatial dimensions. What leaves is float32, to be narrowed by
the caller. Windows are made for as many images at a time as `_WINDOW_ELEMENTS` holds, which changes no bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from ...workloads.errors import InputError
from ...workloads.im2col import Window
from ..array import canonical
from ..operand import Half
from .product import product

__all__ = ["convolve", "convolve_back", "weight_gradient"]

Single = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]

_WINDOW_ELEMENTS = 1 << 24
"""Of im2col at a time: 32 MiB of operands, 64 MiB of FP32."""


def convolve(x: Half, weight: Half, window: Window, *, groups: int = 1, kept: Bool | None = None) -> Single:
    """FF: float32 [n, *positions, outputs] of ``x`` [n, *image, channels], any operand type.

    ``weight`` [outputs, *kernel, channels / groups], of which ``kept``, bool, is multiplied, all by default. A sum runs
    tap by tap, channels inside a tap, from -0.0; a position outside of the image is +0.0 and is multiplied.
    """
    _check(x, weight, window, groups, "kept", kept, weight)
    outputs = len(weight)
    out = np.empty((len(x), *window.positions, outputs), np.float32)
    right = _grouped(weight.reshape(1, outputs, -1), groups, 1).swapaxes(-1, -2)
    right_kept = None if kept is None else _grouped(kept.reshape(1, outputs, -1), groups, 1).swapaxes(-1, -2)
    for some in _cut(len(x), window, x.shape[-1]):
        left = _windows(_padded(x[some], window), list(window.reads()), groups)
        found = product(left, right, kept_b=right_kept)
        out[some] = np.moveaxis(found, 0, -2).reshape(-1, *window.positions, outputs)
    return out


def convolve_back(
    gradient: Half,
    weight: Half,
    window: Window,
    *,
    groups: int = 1,
    kept: Bool | None = None,
    kept_gradient: Bool | None = None,
) -> Single:
    """BP: float32 [n, *image, channels], the gradient of the input.

    Of ``gradient`` [n, *positions, outputs] and ``weight`` [outputs, *kernel, channels / groups], of either operand
    type; ``kept`` of the weight or ``kept_gradient`` of the gradient, bool, says what is multiplied. Every position and
    tap sums over the outputs of its group, in order from -0.0; the taps that meet at a position of the image are added
    in FP32, in order of the taps from -0.0. A position that none meets is -0.0.
    """
    channels = weight.shape[-1] * groups
    image = np.empty((len(gradient), *window.image, channels), gradient.dtype)
    _check(image, weight, window, groups, "kept", kept, weight)
    _check_gradient(gradient, len(image), weight, window, kept_gradient)
    outputs = len(weight)
    right = weight.reshape(groups, outputs // groups, -1)
    right_kept = None if kept is None else kept.reshape(right.shape)
    out = np.empty(image.shape, np.float32)
    for some in _cut(len(gradient), window, channels):
        left = _grouped(gradient[some].reshape(1, -1, outputs), groups, -1)
        left_kept = None if kept_gradient is None else _grouped(kept_gradient[some].reshape(1, -1, outputs), groups, -1)
        columns = product(left, right, kept_a=left_kept, kept_b=right_kept)
        out[some] = _add_taps(columns, len(gradient[some]), window)
    return canonical(out)


def weight_gradient(
    x: Half, gradient: Half, window: Window, *, groups: int = 1, kept_gradient: Bool | None = None
) -> Single:
    """WU: float32 [outputs, *kernel, channels / groups], the gradient of the weight.

    Of ``x`` [n, *image, channels] and ``gradient`` [n, *positions, outputs], of either operand type, of which
    ``kept_gradient``, bool, is multiplied. Sums run in order of the positions, image by image, from -0.0; a position
    outside of the image is +0.0 and is multiplied.
    """
    outputs, channels = gradient.shape[-1], x.shape[-1] // groups
    weight = np.empty((outputs, *window.kernel, channels), x.dtype)
    _check(x, weight, window, groups, "kept_gradient", None, weight)
    _check_gradient(gradient, len(x), weight, window, kept_gradient)
    # Transposed once for all; as many taps at a time as windows may hold, so that no sum is cut.
    left = _grouped(gradient.reshape(1, -1, outputs), groups, -1).swapaxes(-1, -2).copy()
    left_kept = None
    if kept_gradient is not None:
        left_kept = _grouped(kept_gradient.reshape(1, -1, outputs), groups, -1).swapaxes(-1, -2).copy()
    padded, reads = _padded(x, window), list(window.reads())
    out = np.empty((groups, outputs // groups, window.taps, channels), np.float32)
    step = max(1, _WINDOW_ELEMENTS // (len(x) * prod(window.positions) * x.shape[-1]))
    for first in range(0, window.taps, step):
        right = _windows(padded, reads[first : first + step], groups)
        found = product(left, right, kept_a=left_kept)
        out[:, :, first : first + step] = found.reshape(groups, outputs // groups, -1, channels)
    return out.reshape(outputs, *window.kernel, channels)


def _cut(images: int, window: Window, channels: int) -> Iterator[slice]:
    """Images, as many at a time as the windows' elements allow, at least one."""
    step = max(1, _WINDOW_ELEMENTS // (prod(window.positions) * window.taps * channels))
    return (slice(first, first + step) for first in range(0, images, step))


def _grouped(matrix: npt.NDArray[Any], groups: int, axis: int) -> npt.NDArray[Any]:
    """A matrix [1, rows, columns] whose ``axis`` is cut into groups: [groups, rows, columns], one of them fewer."""
    return np.concatenate(np.split(matrix, groups, axis), axis=0) if groups > 1 else matrix


def _padded(x: Half, window: Window) -> Half:
    if not any(window.padding):
        return x
    padded = np.zeros((len(x), *window.padded, x.shape[-1]), x.dtype)
    padded[:, *window.inside()] = x
    return padded


def _windows(padded: Half, reads: list[tuple[slice, ...]], groups: int) -> Half:
    """What the taps ``reads`` meet of a padded image: [groups, n x positions, taps x channels of a group]."""
    parts = [padded[:, *read] for read in reads]
    by_group = (*parts[0].shape[:-1], groups, -1)
    made = np.stack([np.moveaxis(part.reshape(by_group), -2, 0) for part in parts], axis=-2)
    return made.reshape(groups, -1, len(reads) * made.shape[-1])


def _add_taps(columns: Single, images: int, window: Window) -> Single:
    """col2im of ``columns`` [groups, n x positions, taps x channels of a group]: no position twice inside a tap."""
    groups = len(columns)
    by_tap = columns.reshape(groups, images, *window.positions, window.taps, -1)
    channels = by_tap.shape[-1]
    total = np.full((images, *window.padded, groups, channels), np.float32(-0.0))
    with np.errstate(over="ignore", invalid="ignore"):
        for tap, read in enumerate(window.reads()):
            total[:, *read] += np.moveaxis(by_tap[..., tap, :], 0, -2)
    return total[:, *window.inside()].reshape(images, *window.image, groups * channels)


def _check(x: Half, weight: Half, window: Window, groups: int, name: str, kept: Bool | None, masked: Half) -> None:
    """Refuse tensors that do not belong together; ``kept`` masks ``masked``."""
    if x.shape[1:-1] != window.image:
        raise InputError(
            f"x is {list(x.shape)}, but the window is of an image {list(window.image)}; x is [n, *image, c]"
        )
    if weight.shape[1:-1] != window.kernel:
        raise InputError(
            f"weight is {list(weight.shape)}, but the window's kernel {list(window.kernel)}; "
            "it is [outputs, *kernel, channels of a group]"
        )
    if groups < 1 or weight.shape[-1] * groups != x.shape[-1] or len(weight) % groups:
        raise InputError(
            f"groups is {groups}, but x has {x.shape[-1]} channels and weight is {list(weight.shape)}; "
            "channels are groups x its last dimension, outputs a multiple of groups"
        )
    if min(window.positions) < 1:
        raise InputError(f"window {window} has no position; its kernel must fit into the padded image")
    if kept is not None and (kept.dtype != np.bool_ or kept.shape != masked.shape):
        raise InputError(f"{name} must be bool {list(masked.shape)}, not {kept.dtype} {list(kept.shape)}")


def _check_gradient(gradient: Half, images: int, weight: Half, window: Window, kept: Bool | None) -> None:
    shape = (images, *window.positions, len(weight))
    if gradient.shape != shape:
        raise InputError(f"gradient must be {list(shape)}, [n, *positions, outputs], not {list(gradient.shape)}")
    if kept is not None and (kept.dtype != np.bool_ or kept.shape != shape):
        raise InputError(f"kept_gradient must be bool {list(shape)}, not {kept.dtype} {list(kept.shape)}")
