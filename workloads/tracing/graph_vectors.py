"""Element-wise operators, sums, norms and pools, brought to those of a `Graph`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..graph import Setting, Stored
from .lowering import Call, Lowering, Rule, Value, one, reduced

__all__ = ["VECTORS"]

_FLOAT, _TAP, _OPERAND = Stored.FLOAT32, Stored.TAP, Stored.OPERAND


def _relu(to: Lowering, call: Call) -> Value:
    return one(to, "aten.relu", (call.given["self"],), call.shape)


def _threshold_backward(to: Lowering, call: Call) -> Value:
    if call.given["threshold"] != 0:
        raise to.refusal(f"has a threshold of {call.given['threshold']}, but the machine's ReLU has 0")
    return one(to, "aten.threshold_backward", (call.given["grad_output"], call.given["self"]), call.shape)


def _gelu(to: Lowering, call: Call) -> Value:
    return one(to, "aten.gelu", (call.given["self"],), call.shape, approximate=call.given.get("approximate", "none"))


def _gelu_backward(to: Lowering, call: Call) -> Value:
    reads, kind = (call.given["grad_output"], call.given["self"]), call.given.get("approximate", "none")
    return one(to, "aten.gelu_backward", reads, call.shape, approximate=kind)


def _add(to: Lowering, call: Call) -> Value:
    given = call.given
    if not isinstance(given["other"], Value) or given.get("alpha", 1) != 1:
        raise to.refusal("adds a number, or a multiple of a tensor; the machine adds two tensors")
    return one(to, "aten.add", (given["self"], given["other"]), call.shape)


def _mul(to: Lowering, call: Call) -> Value:
    if isinstance(call.given["other"], Value):
        raise to.refusal("multiplies tensors element by element; the machine multiplies them by a number")
    return one(to, "aten.mul", (call.given["self"],), call.shape, other=float(call.given["other"]))


def _div(to: Lowering, call: Call) -> Value:
    """A division by a number is a product with its inverse."""
    other = call.given["other"]
    if isinstance(other, Value) or call.given.get("rounding_mode") or not other:
        raise to.refusal("divides otherwise than by a number, which the machine does not")
    return one(to, "aten.mul", (call.given["self"],), call.shape, other=1.0 / float(other))


def _reduction(op: str) -> Rule:
    def rule(to: Lowering, call: Call) -> Value:
        value: Value = call.given["self"]
        dims = call.given.get("dim") or tuple(range(len(value.shape)))
        return to.viewed(reduced(to, op, value, dims), call.shape)

    return rule


def _softmax(to: Lowering, call: Call) -> Value:
    if call.given["dim"] % len(call.shape) != len(call.shape) - 1:
        raise to.refusal(f"has a soft-max along side {call.given['dim']}, but the machine takes the last one")
    return one(to, "aten._softmax", (call.given["self"],), call.shape)


def _softmax_backward(to: Lowering, call: Call) -> Value:
    return one(to, "aten._softmax_backward_data", (call.given["grad_output"], call.given["output"]), call.shape)


# Norms and pools.


def _affine(to: Lowering, given: dict[str, Any]) -> list[int]:
    if given.get("weight") is None or ("bias" in given and given["bias"] is None):
        raise to.refusal("is a norm without scale and bias, which the machine has not")
    return [to.id(given[name], _FLOAT) for name in ("weight", "bias") if name in given]


def _batch_norm(*, always: bool | None = None) -> Rule:
    """Of a norm whose operator says whether it trains, or does ``always``."""

    def rule(to: Lowering, call: Call) -> tuple[Value | None, ...]:
        given = call.given
        training = bool(given["training"]) if always is None else always
        running: list[Any] = [given.get(name) for name in ("running_mean", "running_var")]
        if None in running:
            raise to.refusal("is a batch norm without running statistics, which the machine has not")
        settings = {"training": training, "momentum": float(given["momentum"]), "eps": float(given["eps"])}
        reads = [to.id(given["input"]), *_affine(to, given), *(to.id(value, _FLOAT) for value in running)]
        shape = tuple(call.out[0].shape)
        channels = (shape[1:2], _FLOAT)
        makes = [(shape, _OPERAND), *[channels] * (4 if training else 0)]
        y, *rest = to.emit("aten.native_batch_norm", reads, *makes, settings=settings)
        # PyTorch changes the running statistics in place.
        for value, new in zip(running, rest[2:], strict=False):
            value.ids, value.port = dict(new.ids), None
        return (y, *rest[:2]) if training else (y, None, None)

    return rule


def _norm_backward(op: str, settings: Callable[[dict[str, Any]], dict[str, Setting]]) -> Rule:
    def rule(to: Lowering, call: Call) -> tuple[Value, ...]:
        given = call.given
        if given.get("train") is False:
            raise to.refusal("trains through a batch norm in evaluation mode, which the machine does not")
        dy, x = given["grad_out"], given["input"]
        mean, inverse = (
            given[name] if name in given else given[f"save_{short}"]
            for name, short in (("mean", "mean"), ("rstd", "invstd"))
        )
        weight = to.id(given["weight"], _FLOAT)
        reads = [to.id(dy), to.id(x), weight, to.id(mean, _FLOAT), to.id(inverse, _FLOAT)]
        scale = (given["weight"].shape, _OPERAND)
        return to.emit(op, reads, (x.shape, _OPERAND), scale, scale, settings=settings(given))

    return rule


def _sides(given: dict[str, Any]) -> dict[str, Setting]:
    return {"sides": len(given["normalized_shape"])}


def _layer_norm(to: Lowering, call: Call) -> tuple[Value, ...]:
    given = call.given
    reads = [to.id(given["input"]), *_affine(to, {"bias": None, **given})]
    settings = {**_sides(given), "eps": float(given["eps"])}
    makes = [(tuple(out.shape), stored) for out, stored in zip(call.out, (_OPERAND, _FLOAT, _FLOAT), strict=True)]
    return to.emit("aten.native_layer_norm", reads, *makes, settings=settings)


def _pool(to: Lowering, value: Value, outs: Any, window: dict[str, Setting]) -> tuple[Value, ...]:
    shape = tuple(outs[0].shape)
    return to.emit("aten.max_pool2d_with_indices", [to.id(value)], (shape, _OPERAND), (shape, _TAP), settings=window)


def _pool_window(to: Lowering, given: dict[str, Any]) -> dict[str, Setting]:
    if given.get("ceil_mode"):
        raise to.refusal("pools with ceil_mode, which the machine does not")
    kernel = given["kernel_size"]
    stride, padding, dilation = given.get("stride") or kernel, given.get("padding", 0), given.get("dilation", 1)
    named = {"kernel_size": kernel, "stride": stride, "padding": padding, "dilation": dilation}
    return {name: _pair(value) for name, value in named.items()}


def _pair(value: Any) -> tuple[int, int]:
    sides = list(value) if isinstance(value, list | tuple) else [value]
    return int(sides[0]), int(sides[-1])


def _max_pool(to: Lowering, call: Call) -> tuple[Value, ...]:
    return _pool(to, call.given["self"], call.out, _pool_window(to, call.given))


def _adaptive_window(to: Lowering, inner: Sequence[int], outer: Sequence[int]) -> dict[str, Setting]:
    """The windows of an adaptive pool, which are those of a plain one where they divide the image."""
    if any(a % b for a, b in zip(inner, outer, strict=True)):
        raise to.refusal(f"pools {list(inner)} to {list(outer)} adaptively; the machine pools by whole windows")
    kernel = (inner[0] // outer[0], inner[1] // outer[1])
    return {"kernel_size": kernel, "stride": kernel, "padding": (0, 0), "dilation": (1, 1)}


def _adaptive_pool(to: Lowering, call: Call) -> tuple[Value, ...]:
    value: Value = call.given["self"]
    return _pool(to, value, call.out, _adaptive_window(to, value.shape[-2:], call.out[0].shape[-2:]))


def _pool_backward(*, adaptive: bool) -> Rule:
    def rule(to: Lowering, call: Call) -> Value:
        given = call.given
        dy: Value = given["grad_output"]
        window = _adaptive_window(to, call.shape[-2:], dy.shape[-2:]) if adaptive else _pool_window(to, given)
        ids = [to.id(dy), to.id(given["indices"], _TAP)]
        op = "aten.max_pool2d_with_indices_backward"
        return to.emit(op, ids, (call.shape, _OPERAND), settings=window)[0]

    return rule


def _average_pool(to: Lowering, call: Call) -> Value:
    if call.shape[-2:] != (1, 1):
        raise to.refusal("averages over windows of an image; the machine averages over whole images")
    return reduced(to, "aten.mean", call.given["self"], (2, 3))


VECTORS: dict[str, Rule] = {
    "aten.relu": _relu,
    "aten.threshold_backward": _threshold_backward,
    "aten.gelu": _gelu,
    "aten.gelu_backward": _gelu_backward,
    "aten.add": _add,
    "aten.mul": _mul,
    "aten.div": _div,
    "aten.sum": _reduction("aten.sum"),
    "aten.mean": _reduction("aten.mean"),
    "aten._softmax": _softmax,
    "aten._softmax_backward_data": _softmax_backward,
    "aten.native_batch_norm": _batch_norm(),
    "aten._native_batch_norm_legit_no_training": _batch_norm(always=False),
    "aten.native_batch_norm_backward": _norm_backward("aten.native_batch_norm_backward", lambda _: {}),
    "aten.native_layer_norm": _layer_norm,
    "aten.native_layer_norm_backward": _norm_backward("aten.native_layer_norm_backward", _sides),
    "aten.max_pool2d_with_indices": _max_pool,
    "aten.max_pool2d_with_indices_backward": _pool_backward(adaptive=False),
    "aten.adaptive_max_pool2d": _adaptive_pool,
    "aten.adaptive_max_pool2d_backward": _pool_backward(adaptive=True),
    "aten._adaptive_avg_pool2d": _average_pool,
}
"""By the name of the operator that PyTorch traces."""
