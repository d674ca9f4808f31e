"""Whether the shapes of a node agree with each other: what ONNX's inference takes on trust is checked here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..errors import InputError
from .constants import ASKED
from .einsum import indices
from .graph import Graph, Node, Tensor, where
from .operators import RECURRENT

__all__ = ["ShapeError", "require_agreement", "sizes"]


class ShapeError(InputError):
    """Shapes that no data can have; ``factor``: by how much too many elements come in, where that is what is wrong."""

    def __init__(self, message: str, factor: tuple[int, int] | None = None) -> None:
        super().__init__(message)
        self.factor = factor


def require_agreement(graph: Graph, opset: int) -> None:
    """Refuse a node whose inputs, attributes and results cannot belong together.

    ONNX's own inference sees to broadcasting, ``MatMul``, ``Concat`` and ``Split``; it derives other results from one
    input and never looks whether the others fit.
    """
    for node in graph.nodes:
        rule = _RULES.get(node.op)
        try:
            for index in ASKED.get(node.op, ()):
                asked = _optional(node, index)
                if asked is not None and len(asked.shape) > 1:
                    raise ShapeError(f"input {_named(asked)} has to be a plain list")
            if rule is not None:
                rule(node, opset)
            if node.op == "Gather":
                _require_rows(node, graph.values)
            for tensor in node.outs:
                if any(size < 0 for size in tensor.shape):
                    raise ShapeError(f"result {_named(tensor)} has a negative size: the input is too small")
        except ShapeError as error:
            raise ShapeError(f"{where(node.proto)}: {error}", error.factor) from error


def sizes(shape: Sequence[int]) -> str:
    """A shape, as messages write it."""
    return " x ".join(map(str, shape)) or "a lone number"


def _named(tensor: Tensor) -> str:
    return f"{tensor.name!r} ({sizes(tensor.shape)})"


def _data(node: Node) -> Tensor:
    if not node.ins or node.ins[0] is None:
        raise ShapeError("its first input is missing")
    return node.ins[0]


def _require_shape(tensor: Tensor | None, shape: Sequence[int], why: str) -> None:
    if tensor is not None and tensor.shape != tuple(shape):
        raise ShapeError(f"{_named(tensor)} does not fit: {why}, so it has to be {sizes(shape)}")


def _keeps_elements(node: Node, _: int) -> None:
    x, y = _data(node), node.outs[0]
    if x.elements == y.elements:
        return
    advice = ""
    if node.op == "Reshape" and y.shape:
        free = next((i for i, size in enumerate(y.shape) if size and not x.elements * size % max(y.elements, 1)), None)
        if free is not None:
            target = [str(size) for size in y.shape]
            target[free] = str(x.elements * y.shape[free] // y.elements)
            advice = f"; {' x '.join(target)} would"
    raise ShapeError(
        f"makes {x.elements} elements, {_named(x)}, into {y.elements}, {_named(y)}; it has to keep them all{advice}",
        (x.elements, y.elements),
    )


def _drops_axes(node: Node, _: int) -> None:
    """Of a node that takes away the axes it names: no axis is named twice."""
    x, axes = _data(node), _optional(node, 1)
    if axes is None or node.attribute("keepdims", 0 if node.op == "Squeeze" else 1) or not axes.elements:
        return
    if len(node.outs[0].shape) != len(x.shape) - axes.elements:
        raise ShapeError(f"axes {_named(axes)} name an axis of {_named(x)} twice")


def _squeezed(node: Node, opset: int) -> None:
    _drops_axes(node, opset)
    _keeps_elements(node, opset)


def _transposed(node: Node, _: int) -> None:
    x = _data(node)
    order = node.attribute("perm", list(reversed(range(len(x.shape)))))
    if sorted(order) != list(range(len(x.shape))):
        raise ShapeError(f"perm {list(order)} does not name every axis of {_named(x)} once")


def _space_to_depth(node: Node, opset: int) -> None:
    x, block = _data(node), node.attribute("blocksize", 1)
    if any(size % block for size in x.shape[2:]):
        raise ShapeError(f"height and width of {_named(x)} are no multiples of blocksize {block}")
    _keeps_elements(node, opset)


def _depth_to_space(node: Node, opset: int) -> None:
    x, block = _data(node), node.attribute("blocksize", 1)
    if len(x.shape) > 1 and x.shape[1] % block**2:
        near = max(round(x.shape[1] / block**2), 1) * block**2
        raise ShapeError(
            f"the {x.shape[1]} channels of {_named(x)} are no multiple of {block**2}, the square of blocksize {block}; "
            f"the nearest valid count is {near}"
        )
    _keeps_elements(node, opset)


def _convolution(node: Node, _: int) -> None:
    x, w = _data(node), node.ins[1]
    if w is None:
        raise ShapeError("it has no weight")
    if len(w.shape) != len(x.shape) or len(x.shape) < 3:
        raise ShapeError(f"weight {_named(w)} and input {_named(x)} have to have the same number of axes, 3 or more")
    groups, transposed = node.attribute("group", 1), node.op == "ConvTranspose"
    channels, split = (w.shape[0], w.shape[0]) if transposed else (w.shape[1] * groups, w.shape[0])
    if channels != x.shape[1]:
        axis, size = (0, x.shape[1]) if transposed else (1, x.shape[1] // groups)
        fits = (*w.shape[:axis], size, *w.shape[axis + 1 :])
        advice = f"; a weight of {sizes(fits)} would" if transposed or not x.shape[1] % groups else ""
        raise ShapeError(
            f"weight {_named(w)} takes {channels} channels in {groups} group{'s'[: groups > 1]}, but input {_named(x)} "
            f"has {x.shape[1]}{advice}"
        )
    if split % groups:
        raise ShapeError(f"the {split} filters of weight {_named(w)} cannot be shared out to {groups} groups")
    kernel = tuple(node.attribute("kernel_shape", w.shape[2:]))
    if kernel != w.shape[2:]:
        raise ShapeError(f"kernel_shape {sizes(kernel)} is not that of weight {_named(w)}")
    filters = w.shape[1] * groups if transposed else w.shape[0]
    _require_shape(_optional(node, 2), (filters,), f"the layer has {filters} filters")
    if not transposed:
        _require_room(node, kernel)
    _require_result(node)


def _window(node: Node, _: int) -> None:
    """Of a window that slides: the data has room for it."""
    _require_room(node, node.attribute("kernel_shape", ()))
    _require_result(node)


def _require_room(node: Node, kernel: Sequence[int]) -> None:
    """Refuse a window that does not fit once: ONNX rounds a step less than none to none, and makes one result of it."""
    x, axes, padding = _data(node), len(kernel), bytes(node.attribute("auto_pad", b"NOTSET"))
    if padding.startswith(b"SAME") or node.attribute("ceil_mode", 0):
        return
    pads = node.attribute("pads", [0] * 2 * axes) if padding == b"NOTSET" else [0] * 2 * axes
    dilations = node.attribute("dilations", [1] * axes)
    if not len(x.shape) - 2 == axes == len(dilations) == len(pads) // 2:
        raise ShapeError(f"kernel_shape, dilations and pads have to be of the {len(x.shape) - 2} axes of {_named(x)}")
    for size, taps, step, before, behind in zip(x.shape[2:], kernel, dilations, pads[:axes], pads[axes:], strict=True):
        if x.elements and size + before + behind < (taps - 1) * step + 1:
            raise ShapeError(f"input {_named(x)} is smaller than the window: {sizes(kernel)}, pads {list(pads)}")


def _require_result(node: Node) -> None:
    x, y = _data(node), node.outs[0]
    if x.elements and any(size < 1 for size in y.shape):
        raise ShapeError(f"input {_named(x)} is smaller than the window: the result would be {sizes(y.shape)}")


def _optional(node: Node, index: int) -> Tensor | None:
    return node.ins[index] if index < len(node.ins) else None


def _require_broadcast(tensor: Tensor | None, shape: Sequence[int], what: str) -> None:
    """Refuse a tensor that does not stretch to ``shape`` as it is."""
    if tensor is None:
        return
    padded = (1,) * (len(shape) - len(tensor.shape)) + tensor.shape
    if len(padded) != len(shape) or any(size not in (1, full) for size, full in zip(padded, shape, strict=True)):
        raise ShapeError(f"{_named(tensor)} does not stretch to {sizes(shape)}, the shape of {what}")


def _gemm(node: Node, _: int) -> None:
    _require_broadcast(_optional(node, 2), node.outs[0].shape, "the product")


def _prelu(node: Node, opset: int) -> None:
    slope, x = _optional(node, 1), _data(node)
    if opset < 7 and slope is not None and slope.shape in ((1,), x.shape[1:2]):
        # Then one slope a channel was listed without the axes behind it.
        return
    _require_broadcast(_optional(node, 1), _data(node).shape, "the data")


def _einsum(node: Node, _: int) -> None:
    equation, terms, _out = indices(node)
    size: dict[str, tuple[int, Tensor]] = {}
    for term, tensor in zip(terms, node.ins, strict=True):
        if tensor is None:
            continue
        for index, found in zip(term, tensor.shape, strict=True):
            before, other = size.setdefault(index, (found, tensor))
            dots = index not in equation
            if before != found and not (dots and 1 in (before, found)):
                shown = "..." if dots else index
                raise ShapeError(
                    f"index {shown!r} of equation {equation!r} is {before} in {_named(other)} and {found} in "
                    f"{_named(tensor)}"
                )
            if found > before:
                size[index] = (found, tensor)


def _by_channel(node: Node, _: int) -> None:
    x = _data(node)
    if len(x.shape) < 2:
        raise ShapeError(f"{_named(x)} has no axis of channels")
    for tensor in node.ins[1:]:
        _require_shape(tensor, (x.shape[1],), f"{_named(x)} has {x.shape[1]} channels")


def _by_group(node: Node, opset: int) -> None:
    x, groups = _data(node), node.attribute("num_groups", 1)
    if len(x.shape) < 2 or groups < 1 or x.shape[1] % groups:
        raise ShapeError(f"the channels of {_named(x)} cannot be shared out to {groups} groups")
    # Until opset 20 there is a scale a group.
    count, per = (groups, "groups") if opset < 21 else (x.shape[1], "channels")
    for tensor in node.ins[1:]:
        _require_shape(tensor, (count,), f"there are {count} {per}")


def _by_last_axes(node: Node, _: int) -> None:
    x, axis = _data(node), node.attribute("axis", -1)
    for tensor in node.ins[1:]:
        _require_broadcast(tensor, x.shape[axis:] if -len(x.shape) <= axis < len(x.shape) else (), "what is normalised")


def _gather_elements(node: Node, _: int) -> None:
    x, index = _data(node), _optional(node, 1)
    axis = node.attribute("axis", 0) % max(len(x.shape), 1)
    if index is None or len(index.shape) != len(x.shape):
        raise ShapeError(f"data {_named(x)} and its index have to have the same number of axes")
    if any(i > d for at, (i, d) in enumerate(zip(index.shape, x.shape, strict=True)) if at != axis):
        raise ShapeError(f"index {_named(index)} is larger than data {_named(x)} along another axis than {axis}")


def _require_rows(node: Node, values: Mapping[str, Any]) -> None:
    """Of a lookup whose index is stored: the rows are there."""
    x, index = _data(node), _optional(node, 1)
    axis = node.attribute("axis", 0)
    if index is None or index.name not in values or not -len(x.shape) <= axis < len(x.shape) or not index.elements:
        return
    found, rows = values[index.name], x.shape[axis]
    wrong = next((int(value) for value in (found.min(), found.max()) if not -rows <= value < rows), None)
    if wrong is not None:
        raise ShapeError(f"index {_named(index)} asks for row {wrong}; {_named(x)} has rows {-rows} to {rows - 1}")


_GATES = {"GRU": 3, "LSTM": 4, "RNN": 1}


def _recurrent(node: Node, _: int) -> None:
    x, w, r = _data(node), _optional(node, 1), _optional(node, 2)
    if w is None or r is None:
        raise ShapeError("a weight is missing")
    if len(x.shape) != 3 or len(w.shape) != 3 or len(r.shape) != 3:
        raise ShapeError(f"{_named(x)}, {_named(w)} and {_named(r)} have to have 3 axes each")
    gates, hidden = _GATES[node.op], node.attribute("hidden_size", r.shape[2])
    directions = 2 if bytes(node.attribute("direction", b"forward")) == b"bidirectional" else 1
    layout = node.attribute("layout", 0)
    batch = x.shape[0 if layout else 1]
    of = f"{directions} direction{'s'[: directions > 1]} of {hidden} units with {gates} gate{'s'[: gates > 1]}"
    _require_shape(w, (directions, gates * hidden, x.shape[2]), f"{of} read {x.shape[2]} features of {_named(x)}")
    _require_shape(r, (directions, gates * hidden, hidden), of)
    _require_shape(_optional(node, 3), (directions, 2 * gates * hidden), of)
    _require_shape(_optional(node, 4), (batch,), f"the batch is {batch}")
    state = (batch, directions, hidden) if layout else (directions, batch, hidden)
    for index in (5, 6):
        _require_shape(_optional(node, index), state, f"the batch is {batch}, of {of}")
    _require_shape(_optional(node, 7), (directions, 3 * hidden), of)


_Rule = Callable[[Node, int], None]

_RULES: dict[str, _Rule] = {
    **dict.fromkeys(("Cast", "Flatten", "Identity", "Reshape", "Unsqueeze"), _keeps_elements),
    **dict.fromkeys(("AveragePool", "LpPool", "MaxPool"), _window),
    **dict.fromkeys(("BatchNormalization", "InstanceNormalization"), _by_channel),
    **dict.fromkeys(("LayerNormalization", "RMSNormalization"), _by_last_axes),
    **dict.fromkeys(("Conv", "ConvTranspose"), _convolution),
    **dict.fromkeys(RECURRENT, _recurrent),
    **dict.fromkeys((op for op in ASKED if op.startswith("Reduce")), _drops_axes),
    "DepthToSpace": _depth_to_space,
    "Einsum": _einsum,
    "GatherElements": _gather_elements,
    "Gemm": _gemm,
    "GroupNormalization": _by_group,
    "PRelu": _prelu,
    "SpaceToDepth": _space_to_depth,
    "Squeeze": _squeezed,
    "Transpose": _transposed,
}
