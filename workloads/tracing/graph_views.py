"""Operators that move elements, brought to those of a `Graph`: views, parts, joins, and what fills a gradient up."""

from __future__ import annotations

from typing import Any

from .lowering import Call, Lowering, Rule, Value, one

__all__ = ["VIEWS"]


def _same(to: Lowering, call: Call) -> Value:
    value: Value = call.given["self"]
    return Value(value.shape, dict(value.ids), value.port)


def _view(to: Lowering, call: Call) -> Value:
    return to.viewed(call.given["self"], call.shape)


def _t(to: Lowering, call: Call) -> Value:
    value: Value = call.given["self"]
    return to.permuted(value, tuple(range(len(value.shape)))[::-1])


def _transpose(to: Lowering, call: Call) -> Value:
    value: Value = call.given["self"]
    dims = list(range(len(value.shape)))
    first, second = dims[call.given["dim0"]], dims[call.given["dim1"]]
    dims[first], dims[second] = second, first
    return to.permuted(value, dims)


def _permute(to: Lowering, call: Call) -> Value:
    return to.permuted(call.given["self"], call.given["dims"])


def _expand(to: Lowering, call: Call) -> Value:
    value: Value = call.given["self"]
    return value if value.shape == call.shape else one(to, "aten.expand", (value,), call.shape)


def _part(to: Lowering, value: Value, dim: int, start: int, end: int) -> Value:
    dim %= len(value.shape)
    if (start, end) == (0, value.shape[dim]):
        return value
    shape = (*value.shape[:dim], end - start, *value.shape[dim + 1 :])
    return one(to, "aten.slice", (value,), shape, dim=dim, start=start, end=end)


def _bounds(to: Lowering, given: dict[str, Any], side: int) -> tuple[int, int]:
    if given.get("step", 1) != 1:
        raise to.refusal(f"takes every {given['step']}th element of a tensor, which the machine does not")
    start, end = given.get("start"), given.get("end")
    start, end, _ = slice(start, end).indices(side)
    return start, end


def _slice(to: Lowering, call: Call) -> Value:
    value, dim = call.given["self"], call.given.get("dim", 0)
    return _part(to, value, dim, *_bounds(to, call.given, value.shape[dim]))


def _select(to: Lowering, call: Call) -> Value:
    value, dim = call.given["self"], call.given["dim"]
    index = call.given["index"] % value.shape[dim]
    return to.viewed(_part(to, value, dim, index, index + 1), call.shape)


def _unbind(to: Lowering, call: Call) -> list[Value]:
    value, dim = call.given["self"], call.given.get("dim", 0)
    return [to.viewed(_part(to, value, dim, i, i + 1), tuple(out.shape)) for i, out in enumerate(call.out)]


def _split(to: Lowering, call: Call) -> list[Value]:
    value, dim = call.given["self"], call.given.get("dim", 0)
    found: list[Value] = []
    start = 0
    for out in call.out:
        found.append(_part(to, value, dim, start, start + out.shape[dim]))
        start += out.shape[dim]
    return found


def _cat(to: Lowering, call: Call) -> Value:
    return one(to, "aten.cat", call.given["tensors"], call.shape, dim=call.given.get("dim", 0) % len(call.shape))


def _stack(to: Lowering, call: Call) -> Value:
    dim = call.given.get("dim", 0) % len(call.shape)
    single = (*call.shape[:dim], 1, *call.shape[dim + 1 :])
    return one(to, "aten.cat", [to.viewed(value, single) for value in call.given["tensors"]], call.shape, dim=dim)


def _padded(to: Lowering, value: Value, shape: tuple[int, ...], dim: int, start: int) -> Value:
    dim %= len(shape)
    after = shape[dim] - start - value.shape[dim]
    return one(to, "aten.constant_pad_nd", (value,), shape, dim=dim, before=start, after=after)


def _select_backward(to: Lowering, call: Call) -> Value:
    dim = call.given["dim"] % len(call.shape)
    single = (*call.shape[:dim], 1, *call.shape[dim + 1 :])
    start = call.given["index"] % call.shape[dim]
    return _padded(to, to.viewed(call.given["grad_output"], single), call.shape, dim, start)


def _slice_backward(to: Lowering, call: Call) -> Value:
    dim = call.given["dim"]
    start, _ = _bounds(to, call.given, call.shape[dim])
    value: Value = call.given["grad_output"]
    return value if value.shape == call.shape else _padded(to, value, call.shape, dim, start)


VIEWS: dict[str, Rule] = {
    **dict.fromkeys(("aten.clone", "aten.detach", "aten.alias", "aten.lift_fresh_copy"), _same),
    **dict.fromkeys(("aten.view", "aten._unsafe_view", "aten.unsqueeze", "aten.squeeze"), _view),
    "aten.t": _t,
    "aten.transpose": _transpose,
    "aten.permute": _permute,
    "aten.expand": _expand,
    "aten.slice": _slice,
    "aten.select": _select,
    "aten.unbind": _unbind,
    "aten.split": _split,
    "aten.split_with_sizes": _split,
    "aten.cat": _cat,
    "aten.stack": _stack,
    "aten.select_backward": _select_backward,
    "aten.slice_backward": _slice_backward,
}
"""By the name of the operator that PyTorch traces."""
