"""Brings the operators that PyTorch traces to the few that a `Graph` has."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from operator import getitem
from typing import Any

from ..graph import OPERATORS, Setting, Stored
from .graph_vectors import VECTORS
from .graph_views import VIEWS
from .lowering import Call, Lowering, Rule, Value, reduced
from .products import bind, operator_name, products_of

__all__ = ["lower"]


def lower(to: Lowering, func: Any, args: Sequence[Any], kwargs: dict[str, Any], out: Any) -> Any:
    """Add an operator to the graph; arguments and results hold a `Value` for each tensor, ``out`` is what it made."""
    if func is getitem:
        return args[0][args[1]]
    name, given = operator_name(func), bind(func, args, kwargs)
    counted = next((value for value in _values(given) if value.counts), None)
    if counted is not None:
        return _counted(to, name, given)
    rule = _RULES.get(name)
    if rule is None:
        known = ", ".join(sorted(op.removeprefix("aten.") for op in OPERATORS))
        raise to.refusal(f"uses {name}, which the machine has not; it has {known}")
    return rule(to, Call(func, given, out))


def _values(given: Any) -> Iterator[Value]:
    if isinstance(given, Value):
        yield given
    elif isinstance(given, list | tuple | dict):
        for inner in given.values() if isinstance(given, dict) else given:
            yield from _values(inner)


def _counted(to: Lowering, name: str, given: dict[str, Any]) -> Value:
    """A buffer of integers may count steps, which is left to the host."""
    value: Value = given["self"] if "self" in given else next(_values(given))
    copied = Value(value.shape, port=value.port, counts=True, counted=value.counted)
    if name == "aten.clone":
        return copied
    if name == "aten.add" and given["other"] == 1 and given.get("alpha", 1) == 1:
        copied.counted += 1
        return copied
    raise to.refusal(f"uses {name} on buffer {value.port and value.port[1]!r} of integers, which may only count steps")


# Products.


def _product(to: Lowering, call: Call, op: str, reads: Sequence[Value], *, bias: Value | None = None) -> Value:
    ids = [to.id(value) for value in reads]
    first = [] if bias is None else [to.id(bias, Stored.FLOAT32)]
    (made,) = _gemms(call)
    return to.product(op, [*first, *ids], call.shape, made)


def _gemms(call: Call) -> list[Any]:
    """The GEMMs of a call, by the rules of the tracer, which look at shapes only."""
    shaped = {key: _Shaped(v.shape) if isinstance(v, Value) else v for key, v in call.given.items()}
    return [product.gemm for product in products_of(call.func, shaped, call.out) or []]


class _Shaped:
    """As much of a tensor as the rules for products look at."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape

    def dim(self) -> int:
        return len(self.shape)

    def numel(self) -> int:
        count = 1
        for side in self.shape:
            count *= side
        return count

    def is_complex(self) -> bool:
        return False


def _mm(to: Lowering, call: Call) -> Value:
    return _product(to, call, "aten.mm", (call.given["self"], call.given["mat2"]))


def _bmm(to: Lowering, call: Call) -> Value:
    return _product(to, call, "aten.bmm", (call.given["self"], call.given["mat2"]))


def _addmm(to: Lowering, call: Call) -> Value:
    given = call.given
    bias: Value = given["self"]
    if given.get("beta", 1) != 1 or given.get("alpha", 1) != 1 or bias.shape != call.shape[1:]:
        raise to.refusal("adds something else than a bias to a product")
    return _product(to, call, "aten.addmm", (given["mat1"], given["mat2"]), bias=bias)


def _window(to: Lowering, given: dict[str, Any]) -> dict[str, Setting]:
    if given["transposed"] or len(given["stride"]) != 2:
        raise to.refusal("is a transposed convolution, or none over two dimensions, which the machine has not")
    sides = {name: tuple(int(side) for side in given[name]) for name in ("stride", "padding", "dilation")}
    return {**sides, "groups": int(given["groups"])}


def _convolution(to: Lowering, call: Call) -> Value:
    given = call.given
    reads = [to.id(given["input"]), to.id(given["weight"])]
    if given.get("bias") is not None:
        reads.append(to.id(given["bias"], Stored.FLOAT32))
    return to.product("aten.convolution", reads, call.shape, _gemms(call)[0], **_window(to, given))


def _convolution_backward(to: Lowering, call: Call) -> list[Value | None]:
    given, gemms = call.given, _gemms(call)
    dy, mask, window = given["grad_output"], given["output_mask"], _window(to, given)
    found: list[Value | None] = [None, None, None]
    for place, (of, beside) in enumerate((("input", given["weight"]), ("weight", given["input"]))):
        if mask[place]:
            reads = (to.id(dy), to.id(beside))
            shape = tuple(call.out[place].shape)
            found[place] = to.product("aten.convolution_backward", reads, shape, gemms.pop(0), of=of, **window)
    if mask[2]:
        found[2] = to.viewed(reduced(to, "aten.sum", dy, (0, 2, 3)), tuple(call.out[2].shape))
    return found


_RULES: dict[str, Rule] = {
    # What is filled in later, as by the random numbers of a dropout.
    **dict.fromkeys(("aten.empty", "aten.empty_like"), lambda _, call: Value(call.shape)),
    "aten.mm": _mm,
    "aten.bmm": _bmm,
    "aten.addmm": _addmm,
    "aten.convolution": _convolution,
    "aten.convolution_backward": _convolution_backward,
    **VIEWS,
    **VECTORS,
}
