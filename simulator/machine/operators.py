"""The operators of a `Graph` that multiply no matrices, on arrays: what moves elements, and the vector unit's work."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ...workloads.im2col import Window
from ..operand import Half, widen
from . import norm, pool, vector

__all__ = ["OTHERS", "channels_first", "channels_last", "window_of"]

Array = npt.NDArray[Any]
Single = npt.NDArray[np.float32]
Shapes = Sequence[tuple[int, ...]]
Settings = Mapping[str, Any]
Operator = Callable[[Sequence[Array], Settings, Shapes], Sequence[Array]]
"""Of the tensors that a node reads, its settings, and the shapes of what it makes; FP32 results are still to be
narrowed where operands are stored."""


def channels_last(images: Any) -> Any:
    """[n, channels, h, w] as [n, h, w, channels], as the machine keeps images and weights; None stays."""
    return None if images is None else images.transpose(0, 2, 3, 1)


def channels_first(images: Array) -> Array:
    """The inverse of `channels_last`, of any dtype [n, h, w, channels]."""
    return images.transpose(0, 3, 1, 2)


def window_of(settings: Settings, image: tuple[int, ...], kernel: tuple[int, ...]) -> Window:
    """The window of a convolution or a pool over images [n, channels, h, w]; ``kernel``: its sides."""
    sides = {name: settings[name] for name in ("stride", "padding", "dilation")}
    return Window(image=image[2:], kernel=kernel, **sides)


def _view(x: Sequence[Array], _: Settings, shapes: Shapes) -> Sequence[Array]:
    return (x[0].reshape(shapes[0]),)


def _permute(x: Sequence[Array], settings: Settings, _: Shapes) -> Sequence[Array]:
    return (x[0].transpose(settings["dims"]),)


def _expand(x: Sequence[Array], _: Settings, shapes: Shapes) -> Sequence[Array]:
    return (np.broadcast_to(x[0], shapes[0]),)


def _slice(x: Sequence[Array], settings: Settings, _: Shapes) -> Sequence[Array]:
    before = (slice(None),) * settings["dim"]
    return (x[0][(*before, slice(settings["start"], settings["end"]))],)


def _cat(x: Sequence[Array], settings: Settings, _: Shapes) -> Sequence[Array]:
    return (np.concatenate(x, axis=settings["dim"]),)


def _pad(x: Sequence[Array], settings: Settings, shapes: Shapes) -> Sequence[Array]:
    made = np.zeros(shapes[0], x[0].dtype)
    dim, before = settings["dim"], settings["before"]
    made[(*(slice(None),) * dim, slice(before, before + x[0].shape[dim]))] = x[0]
    return (made,)


def _relu(x: Sequence[Array], _: Settings, __: Shapes) -> Sequence[Array]:
    return (vector.relu(widen(x[0])),)


def _relu_backward(x: Sequence[Array], _: Settings, __: Shapes) -> Sequence[Array]:
    return (vector.relu_backward(widen(x[0]), widen(x[1])),)


def _gelu(x: Sequence[Array], settings: Settings, _: Shapes) -> Sequence[Array]:
    return (vector.gelu(widen(x[0]), by_tanh=settings["approximate"] == "tanh"),)


def _gelu_backward(x: Sequence[Array], settings: Settings, _: Shapes) -> Sequence[Array]:
    return (vector.gelu_backward(widen(x[0]), widen(x[1]), by_tanh=settings["approximate"] == "tanh"),)


def _add(x: Sequence[Array], _: Settings, __: Shapes) -> Sequence[Array]:
    return (vector.add(_wide(x[0]), _wide(x[1])),)


def _mul(x: Sequence[Array], settings: Settings, _: Shapes) -> Sequence[Array]:
    return (vector.scale(_wide(x[0]), settings["other"]),)


def _wide(x: Array) -> Single:
    return x if x.dtype == np.float32 else widen(x)


def _sum(x: Sequence[Array], settings: Settings, shapes: Shapes) -> Sequence[Array]:
    return (vector.total(_wide(x[0]), settings["dims"]).reshape(shapes[0]),)


def _mean(x: Sequence[Array], settings: Settings, shapes: Shapes) -> Sequence[Array]:
    return (vector.mean(_wide(x[0]), settings["dims"]).reshape(shapes[0]),)


def _batch_norm(x: Sequence[Array], settings: Settings, shapes: Shapes) -> Sequence[Array]:
    rows, (weight, bias, mean, variance) = _positions(x[0]), x[1:]
    if not settings["training"]:
        s = norm.inverse_deviation(variance, settings["eps"])
        return (_images(norm.normalise(rows, mean, s, weight, bias), shapes[0]),)
    made, momentum = norm.batch_norm(rows, weight, bias, settings["eps"]), settings["momentum"]
    new = (norm.running(mean, made.mean, momentum), norm.running_variance(variance, made.variance, momentum, len(rows)))
    return (_images(made.y, shapes[0]), made.mean, made.s, *new)


def _batch_norm_backward(x: Sequence[Array], _: Settings, shapes: Shapes) -> Sequence[Array]:
    dy, images, weight, mean, s = x
    made = norm.batch_norm_backward(_positions(dy), _positions(images), mean, s, weight)
    return _images(made.x, shapes[0]), made.weight, made.bias


def _positions(x: Half) -> Single:
    """[n, channels, ...] as float32 [positions, channels]."""
    return widen(np.moveaxis(x, 1, -1)).reshape(-1, x.shape[1])


def _images(rows: Single, shape: tuple[int, ...]) -> Single:
    """The inverse of `_positions`, to ``shape``."""
    return np.moveaxis(rows.reshape(shape[0], *shape[2:], shape[1]), -1, 1)


def _layer_norm(x: Sequence[Array], settings: Settings, shapes: Shapes) -> Sequence[Array]:
    rows, weight, bias = widen(x[0]).reshape(-1, x[1].size), x[1].reshape(-1), x[2].reshape(-1)
    made = norm.layer_norm(rows, weight, bias, settings["eps"])
    return [found.reshape(shape) for found, shape in zip((made.y, made.mean, made.s), shapes, strict=True)]


def _layer_norm_backward(x: Sequence[Array], _: Settings, shapes: Shapes) -> Sequence[Array]:
    weight, mean, s = (each.reshape(-1) for each in x[2:])
    dy, rows = (widen(each).reshape(-1, weight.size) for each in x[:2])
    made = norm.layer_norm_backward(dy, rows, mean, s, weight)
    return [found.reshape(shape) for found, shape in zip(made, shapes, strict=True)]


def _max_pool(x: Sequence[Array], settings: Settings, _: Shapes) -> Sequence[Array]:
    window = window_of(settings, x[0].shape, settings["kernel_size"])
    y, taps = pool.max_pool(widen(channels_last(x[0])), window)
    return channels_first(y), channels_first(taps)


def _max_pool_backward(x: Sequence[Array], settings: Settings, shapes: Shapes) -> Sequence[Array]:
    window = window_of(settings, shapes[0], settings["kernel_size"])
    return (channels_first(pool.max_pool_backward(widen(channels_last(x[0])), channels_last(x[1]), window)),)


def _softmax(x: Sequence[Array], _: Settings, __: Shapes) -> Sequence[Array]:
    return (vector.softmax(widen(x[0])),)


def _softmax_backward(x: Sequence[Array], _: Settings, __: Shapes) -> Sequence[Array]:
    return (vector.softmax_backward(widen(x[0]), widen(x[1])),)


OTHERS: dict[str, Operator] = {
    "aten.view": _view,
    "aten.permute": _permute,
    "aten.expand": _expand,
    "aten.slice": _slice,
    "aten.cat": _cat,
    "aten.constant_pad_nd": _pad,
    "aten.relu": _relu,
    "aten.threshold_backward": _relu_backward,
    "aten.gelu": _gelu,
    "aten.gelu_backward": _gelu_backward,
    "aten.add": _add,
    "aten.mul": _mul,
    "aten.sum": _sum,
    "aten.mean": _mean,
    "aten.native_batch_norm": _batch_norm,
    "aten.native_batch_norm_backward": _batch_norm_backward,
    "aten.native_layer_norm": _layer_norm,
    "aten.native_layer_norm_backward": _layer_norm_backward,
    "aten.max_pool2d_with_indices": _max_pool,
    "aten.max_pool2d_with_indices_backward": _max_pool_backward,
    "aten._softmax": _softmax,
    "aten._softmax_backward_data": _softmax_backward,
}
"""By their names in a graph."""
