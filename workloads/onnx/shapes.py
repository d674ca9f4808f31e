"""Shape and format of every value, by rounds of ONNX shape inference and constant folding."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from math import prod
from typing import Any

import onnx
from onnx import numpy_helper, shape_inference

from ..errors import InputError
from ..step import DTYPE_BYTES
from .constants import asked_as_shapes, fill, filled_outputs, store_constants
from .folding import FOLD_LIMIT, fold, write_back

__all__ = ["Inferred", "infer", "is_floating"]


@dataclass(frozen=True, slots=True)
class Inferred:
    """A graph with the shapes that could be inferred and the formats of its values, by name."""

    graph: Any
    shapes: dict[str, tuple[int, ...]]
    dtypes: dict[str, str]
    """In the names of ``DTYPE_BYTES`` where it has one."""
    folded: frozenset[str]
    """Initializers that were nodes in the file and whose values are known."""
    declared: frozenset[str]
    """Initializers of the file that no shape is computed from."""
    placed: frozenset[str]
    """Those that the file holds in nodes: ``Constant``, and ``ConstantOfShape`` of a stored size."""


def infer(model: Any) -> Inferred:
    """Infer the shapes of ``model``, which is changed: what only computes shapes is folded away."""
    declared = frozenset(tensor.name for tensor in model.graph.initializer)
    placed = store_constants(model)
    _drop_large(model.graph)
    asked = asked_as_shapes(model.graph)
    filled = filled_outputs(model.graph) - asked
    constants = {tensor.name: _content(tensor) for tensor in model.graph.initializer if _is_shape_data(tensor, asked)}
    # Shapes an exporter wrote may hold the symbolic batch, which contradicts the one just set.
    del model.graph.value_info[:]
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    while True:
        try:
            graph = shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True).graph
        except Exception as error:
            lines = " ".join(str(error).split())
            raise InputError(f"shape inference failed: {lines[:300]}") from error
        shapes = _shapes(graph)
        more = fill(model.graph, filled, constants)
        if not fold(graph, constants, shapes, filled) and not more:
            folded = frozenset(constants.keys() - declared)
            return Inferred(graph, shapes, _dtypes(graph), folded, declared - asked, frozenset(placed - asked))
        placed |= more
        write_back(model.graph, constants)


def is_floating(dtype: str) -> bool:
    """Whether values of this format can have a gradient."""
    return dtype.startswith(("float", "bfloat"))


def _drop_large(graph: Any) -> None:
    """Free the contents of large initializers; their shapes are all that is needed."""
    for tensor in graph.initializer:
        size, held = prod(tensor.dims) * DTYPE_BYTES.get(_dtype(tensor.data_type), 0), len(tensor.raw_data)
        if size and held and held != size:
            raise InputError(
                f"initializer {tensor.name!r} has {held} bytes, but {' x '.join(map(str, tensor.dims))} of "
                f"{_dtype(tensor.data_type)} are {size}"
            )
        if prod(tensor.dims) > FOLD_LIMIT:
            for content in ("raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data"):
                tensor.ClearField(content)


def _is_shape_data(tensor: Any, asked: Container[str]) -> bool:
    """Small integers, lone numbers and what a shape asks for; a float of more elements or axes may be a parameter."""
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        return False
    free = tensor.name in asked or not is_floating(_dtype(tensor.data_type))
    return bool(prod(tensor.dims) <= FOLD_LIMIT if free else prod(tensor.dims) <= 1 and len(tensor.dims) <= 1)


def _content(tensor: Any) -> Any:
    try:
        return numpy_helper.to_array(tensor)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"initializer {tensor.name!r} does not hold what its type and shape say") from error


def _shapes(graph: Any) -> dict[str, tuple[int, ...]]:
    """Shape of every value whose dimensions are all known."""
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        kind = value.type.tensor_type
        if kind.HasField("shape") and all(dim.HasField("dim_value") for dim in kind.shape.dim):
            shapes.setdefault(value.name, tuple(dim.dim_value for dim in kind.shape.dim))
    return shapes


def _dtypes(graph: Any) -> dict[str, str]:
    found = {tensor.name: _dtype(tensor.data_type) for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        found.setdefault(value.name, _dtype(value.type.tensor_type.elem_type))
    return found


def _dtype(number: int) -> str:
    if number not in onnx.TensorProto.DataType.values():
        return f"of unknown number {number}"
    name = str(onnx.TensorProto.DataType.Name(number)).lower()
    renamed = {"float": "float32", "double": "float64", "float8e4m3fn": "float8_e4m3fn", "float8e5m2": "float8_e5m2"}
    return renamed.get(name, name)
