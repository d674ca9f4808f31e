"""What a file stores in nodes - ``Constant``, ``ConstantOfShape`` - as the initializers they might as well be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from ..errors import InputError
from .file import fed_inputs, opset_of
from .folding import FOLDED
from .tensors import drop_large

__all__ = ["ASKED", "Stored", "asked_as_shapes", "constant", "fill", "filled_outputs", "store"]

ASKED = {
    "ConstantOfShape": (0,),
    "CumSum": (1,),
    "Expand": (1,),
    "OneHot": (1,),
    "Pad": (1, 3),
    "Range": (0, 1, 2),
    "ReduceL1": (1,),
    "ReduceL2": (1,),
    "ReduceMax": (1,),
    "ReduceMean": (1,),
    "ReduceMin": (1,),
    "ReduceProd": (1,),
    "ReduceSum": (1,),
    "ReduceSumSquare": (1,),
    "Reshape": (1,),
    "Resize": (1, 2, 3),
    "Slice": (1, 2, 3, 4),
    "Split": (1,),
    "Squeeze": (1,),
    "Tile": (1,),
    "TopK": (1,),
    "Unsqueeze": (1,),
    "Upsample": (1,),
}
"""Inputs whose values, not whose data, an operator asks for."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A model whose ``Constant`` nodes are initializers called as their outputs; large ones are without contents."""

    model: Any
    declared: frozenset[str]
    """Initializers of the file."""
    placed: frozenset[str]
    """Those that the file holds in nodes."""

    @property
    def opset(self) -> int:
        return opset_of(self.model)

    def copy(self) -> Any:
        """The model once more, to be changed."""
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        return model


def store(model: Any) -> Stored:
    """Take over ``model``, which is changed."""
    declared = frozenset(tensor.name for tensor in model.graph.initializer)
    _require_made_once(model.graph)
    _modernise(model)
    placed = _store_constants(model)
    for tensor in model.graph.initializer:
        drop_large(tensor)
    return Stored(model, declared, frozenset(placed))


def _require_made_once(graph: Any) -> None:
    made = Counter([tensor.name for tensor in graph.initializer] + [value.name for value in fed_inputs(graph)])
    made.update(name for node in graph.node for name in node.output if name)
    name, times = made.most_common(1)[0] if made else ("", 1)
    if times > 1:
        raise InputError(
            f"value {name!r} is made {times} times; every node, input and initializer has names of its own"
        )


def _store_constants(model: Any) -> set[str]:
    graph = model.graph
    nodes, stored = [], []
    for node in graph.node:
        tensor = constant(node) if node.op_type == "Constant" else None
        if tensor is None:
            nodes.append(node)
        else:
            stored.append(tensor)
    if stored:
        del graph.node[:]
        graph.node.extend(nodes)
        graph.initializer.extend(stored)
    return {tensor.name for tensor in stored}


def asked_as_shapes(graph: Any) -> set[str]:
    """Values that decide a shape, as target, axes, scales or what those are computed from."""
    made_by = {name: node for node in graph.node for name in node.output}
    asked: set[str] = set()
    open_names = [
        name for node in graph.node for index, name in enumerate(node.input) if index in ASKED.get(node.op_type, ())
    ]
    while open_names:
        name = open_names.pop()
        if name in asked:
            continue
        asked.add(name)
        node = made_by.get(name)
        if node is not None and node.op_type in FOLDED - {"Shape", "Size"}:
            open_names += node.input
    return asked


def filled_outputs(graph: Any) -> set[str]:
    """Results of ``ConstantOfShape`` that are floats of a size which is stored, not computed from that of data."""
    sized: set[str] = set()
    found: set[str] = set()
    for node in graph.node:
        if node.op_type in ("Shape", "Size") or not sized.isdisjoint(node.input):
            sized.update(node.output)
        elif node.op_type == "ConstantOfShape" and _fill_type(node) in _FLOATS:
            found.add(node.output[0])
    return found


def fill(graph: Any, names: Iterable[str], constants: dict[str, Any]) -> set[str]:
    """Turn the ``ConstantOfShape`` among ``names`` whose size is known into initializers; their names.

    Of a lone number the value is added to ``constants`` too.
    """
    wanted, stored, nodes = set(names), set(), []
    for node in graph.node:
        if node.op_type == "ConstantOfShape" and node.output[0] in wanted and node.input[0] in constants:
            dims = [int(size) for size in np.asarray(constants[node.input[0]]).ravel()]
            if any(size < 0 for size in dims):
                raise InputError(f"ConstantOfShape {node.output[0]!r} has a negative size: {dims}")
            tensor = onnx.TensorProto(name=node.output[0], data_type=_fill_type(node), dims=dims)
            if dims in ([], [1]):
                value = next((numpy_helper.to_array(a.t).ravel()[0] for a in node.attribute), np.float32(0))
                constants[node.output[0]] = np.full(dims, value)
                tensor = numpy_helper.from_array(constants[node.output[0]], node.output[0])
            graph.initializer.append(tensor)
            stored.add(node.output[0])
        else:
            nodes.append(node)
    if stored:
        del graph.node[:]
        graph.node.extend(nodes)
    return stored


_FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)


def _fill_type(node: Any) -> int:
    return next((int(a.t.data_type) for a in node.attribute if a.name == "value"), int(onnx.TensorProto.FLOAT))


def _modernise(model: Any) -> None:
    """Before IR version 4 initializers are inputs too; afterwards only those that may be overridden."""
    if model.ir_version < 4:
        fed = fed_inputs(model.graph)
        del model.graph.input[:]
        model.graph.input.extend(fed)
        model.ir_version = 4


def constant(node: Any) -> Any:
    """The tensor in a ``Constant``, None where it holds text."""
    if len(node.attribute) != 1:
        raise InputError(f"Constant {node.output[0]!r} has {len(node.attribute)} values; it has one")
    attribute = node.attribute[0]
    name = str(node.output[0])
    match attribute.name:
        case "value":
            drop_large(attribute.t)
            tensor = onnx.TensorProto()
            tensor.CopyFrom(attribute.t)
            tensor.name = name
            return tensor
        case "value_float" | "value_floats":
            values = attribute.floats if attribute.name.endswith("s") else attribute.f
            return numpy_helper.from_array(np.array(values, np.float32), name)
        case "value_int" | "value_ints":
            values = attribute.ints if attribute.name.endswith("s") else attribute.i
            return numpy_helper.from_array(np.array(values, np.int64), name)
        case "sparse_value":
            return _dense(attribute.sparse_tensor, name)
        case _:
            return None


def _dense(sparse: Any, name: str) -> Any:
    """Of a sparse tensor only the shape counts: what it holds is not read."""
    if any(size < 1 for size in sparse.dims):
        raise InputError(f"Constant {name!r} is of size {list(sparse.dims)}; the least of a dimension is 1")
    tensor = onnx.TensorProto(name=name, data_type=sparse.values.data_type, dims=sparse.dims)
    if prod(sparse.dims) == 1:
        tensor.CopyFrom(sparse.values)
        tensor.name = name
    return tensor
