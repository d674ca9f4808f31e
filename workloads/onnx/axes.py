"""Where the batch of a recurrent network is: behind the steps, or before them, as its values reach the layer."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import onnx
from onnx import shape_inference

from .operators import RECURRENT

__all__ = ["batch_axes"]

_SHAPE_ELEMENTS = 64
"""Of the largest constant that may be a shape or an index."""


def batch_axes(model: Any, fed: list[Any]) -> dict[str, int]:
    """Axis of the batch of the inputs ``fed`` that reach a recurrent node with it; the batch of others is not known.

    Shape inference follows every axis of every input under a name of its own.
    """
    nodes = [node for node in model.graph.node if node.op_type in RECURRENT]
    if not nodes:
        return {}
    sketch = onnx.GraphProto(
        name="axes", node=model.graph.node, initializer=map(_without_values, model.graph.initializer)
    )
    places: dict[str, tuple[str, int]] = {}
    for value in fed:
        sketch.input.add().CopyFrom(value)
        for axis, dim in enumerate(sketch.input[-1].type.tensor_type.shape.dim):
            dim.dim_param = f"axis {len(places)}"
            places[dim.dim_param] = value.name, axis
    for value in model.graph.output:
        kept = sketch.output.add(name=value.name)
        kept.type.tensor_type.elem_type = value.type.tensor_type.elem_type
    made = onnx.helper.make_model(sketch, opset_imports=model.opset_import)
    graph = shape_inference.infer_shapes(made, data_prop=True).graph
    shapes = {value.name: value.type.tensor_type.shape.dim for value in (*graph.input, *graph.value_info)}
    found = (_batch_symbol(node, index, shapes) for node in nodes for index in (0, 5, 6))
    axes: dict[str, int] = {}
    for symbol in filter(places.__contains__, found):
        name, axis = places[symbol]
        axes.setdefault(name, axis)
    return axes


def _without_values(tensor: Any) -> Any:
    small = prod(tensor.dims) <= _SHAPE_ELEMENTS and tensor.data_location != onnx.TensorProto.EXTERNAL
    return tensor if small else onnx.TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)


def _batch_symbol(node: Any, index: int, shapes: Mapping[str, Any]) -> str:
    """Name of the axis that is the batch in an operand of ``node``: sequence, initial state, initial cell state."""
    dims = shapes.get(node.input[index], ()) if index < len(node.input) else ()
    batch_first = any(attribute.name == "layout" and attribute.i for attribute in node.attribute)
    return str(dims[1 - batch_first].dim_param) if len(dims) == 3 else ""
