"""Shape and format of every value, by rounds of ONNX shape inference and constant folding."""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any

import onnx
from onnx import shape_inference

from ..errors import InputError
from .constants import Stored, asked_as_shapes, fill, filled_outputs
from .control import Known, write_out
from .file import fed_inputs, node_name
from .folding import FOLD_LIMIT, Folding, fold, write_back
from .operators import RULED
from .quantised import trained_formats
from .tensors import content, dtype_name, format_name

__all__ = ["Inferred", "infer"]

_AS_FIRST_INPUT = frozenset({"GroupNormalization"})
"""Operators whose result has the shape of the first input, though inference has no rule for them."""


_OF_SHAPES = frozenset({"int64", "int32", "bool"})
"""Formats of what sizes, places and conditions are computed from; others may be quantised weights."""


_MOST_LISTED = 2**22
"""Numbers that inference may list one by one; it takes a second for each million, and memory without end."""


@dataclass(frozen=True, slots=True)
class Inferred:
    """A graph with the shapes that could be inferred and the formats of its values, by name."""

    graph: Any
    shapes: dict[str, tuple[int, ...]]
    dtypes: dict[str, str]
    """In training; in the names of ``DTYPE_BYTES`` where it has one."""
    quantised: dict[str, str]
    """Formats that the file has for what is quantised in it."""
    folded: frozenset[str]
    """What nothing reads in the step: computed of shapes, asked for as one, or a lone number."""
    declared: frozenset[str]
    """Initializers of the file that no shape is computed from."""
    placed: frozenset[str]
    """Those that the file holds in nodes: ``Constant``, and ``ConstantOfShape`` of a stored size."""
    collected: frozenset[str]
    """What was collected, not trained, of operators that are written out."""
    values: dict[str, Any]
    """Contents of the small ones that take part in the arithmetic of shapes."""


def infer(stored: Stored, model: Any) -> Inferred:
    """Infer the shapes of ``model``, a copy of ``stored`` that is changed: what only computes shapes is folded away."""
    # Shapes an exporter wrote may hold the symbolic batch, which contradicts the one just set.
    del model.graph.value_info[:]
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    written = write_out(model, partial(_known, opset=stored.opset), RULED)
    placed = written.placed | stored.placed
    asked = asked_as_shapes(model.graph)
    filled = filled_outputs(model.graph) - asked
    how = Folding(stored.opset, asked, filled)
    constants = {tensor.name: content(tensor) for tensor in model.graph.initializer if _is_shape_data(tensor, asked)}
    while True:
        graph = _inferred(model)
        shapes = _shapes(graph)
        more = fill(model.graph, filled, constants)
        told = _tell(model.graph, graph)
        if not fold(graph, constants, shapes, how) and not more and not told:
            declared, held = (stored.declared | written.declared) - asked, frozenset(placed - asked)
            lone = {name for name, value in constants.items() if value.size == 1}
            folded = frozenset((constants.keys() - declared - held) | lone)
            collected = frozenset(written.collected)
            dtypes = _dtypes(graph)
            trained = trained_formats(graph, dtypes)
            quantised = {name: dtype for name, dtype in _dtypes(graph, format_name).items() if name in trained}
            return Inferred(graph, shapes, dtypes | trained, quantised, folded, declared, held, collected, constants)
        placed |= more
        write_back(model.graph, constants)


def _require_listable(graph: Any) -> None:
    """Refuse long axes beside a ``Range``: ONNX's inference lists all the numbers of one, and of what is made of it."""
    ranges = next((node for node in graph.node if node.op_type == "Range"), None)
    for value in fed_inputs(graph) if ranges is not None else ():
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            if dim.dim_value > _MOST_LISTED:
                raise InputError(
                    f"axis {axis} of input {value.name!r} is {dim.dim_value:,}; beside node {node_name(ranges)!r} "
                    f"(Range), which counts, at most {_MOST_LISTED:,} are read"
                )


def _known(model: Any, opset: int) -> Known:
    """What is known before it is known which way control flow goes."""
    _require_listable(model.graph)
    constants = {tensor.name: content(tensor) for tensor in model.graph.initializer if _is_shape_data(tensor, ())}
    sketch = onnx.ModelProto()
    sketch.CopyFrom(model)
    while True:
        # Not strict: the branch that is not taken may be one that cannot be.
        graph = shape_inference.infer_shapes(sketch, data_prop=True).graph
        shapes = _shapes(graph)
        if not fold(graph, constants, shapes, Folding(opset, ())):
            return Known(constants, shapes, _types(graph, shapes))
        write_back(sketch.graph, constants)


def _inferred(model: Any) -> Any:
    """The graph with what inference adds to it."""
    _require_listable(model.graph)
    for node in model.graph.node:
        # Messages name no node that has no name.
        node.name = node_name(node)
    try:
        return shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True).graph
    except Exception as error:
        # One line of many, each with brackets of its own: "(op_type:MatMul, node name: mm): [..Error] Incompatible ..."
        text = " ".join(str(error).split())
        found = re.search(r"\(op_type: ?(\w+), node name: (.*?)\): (?:\[\w+\] )?(.*?)(?= \(op_type|$)", text)
        if found is None:
            raise InputError(f"shape inference failed: {text[:300]}") from error
        op, name, said = found.groups()
        raise InputError(f"shape inference failed at node {name!r} ({op}): {said[:300]}{_fed(model, name)}") from error


def _fed(model: Any, name: str) -> str:
    """What a node that cannot be is fed, as far as that is known."""
    try:
        shapes = _shapes(shape_inference.infer_shapes(model, data_prop=True).graph)
    except Exception:
        return ""
    node = next((node for node in model.graph.node if node.name == name), None)
    read = [] if node is None else [f"{of!r} ({' x '.join(map(str, shapes[of]))})" for of in node.input if of in shapes]
    return f"; it is fed {', '.join(read)}" if read else ""


def _tell(graph: Any, inferred: Any) -> bool:
    """Add to ``graph`` shapes that inference has no rule for, as far as it ``inferred`` others; whether any were."""
    known = {value.name: value for value in (*inferred.input, *inferred.value_info, *inferred.output)}
    told = False
    for node in graph.node:
        if node.op_type not in _AS_FIRST_INPUT or node.input[0] not in known:
            continue
        alike, made = known[node.input[0]], known.get(node.output[0])
        if made is None or not made.type.tensor_type.HasField("shape"):
            value = next((out for out in graph.output if out.name == node.output[0]), None) or graph.value_info.add()
            value.CopyFrom(alike)
            value.name = node.output[0]
            told = True
    return told


def _is_shape_data(tensor: Any, asked: Container[str]) -> bool:
    """Small integers, lone numbers and what a shape asks for; a float, or byte, of more may be a parameter."""
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        return False
    free = tensor.name in asked or dtype_name(tensor.data_type) in _OF_SHAPES
    return bool(prod(tensor.dims) <= FOLD_LIMIT if free else prod(tensor.dims) <= 1 and len(tensor.dims) <= 1)


def _shapes(graph: Any) -> dict[str, tuple[int, ...]]:
    """Shape of every value whose dimensions are all known."""
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        kind = value.type.tensor_type
        if kind.HasField("shape") and all(dim.HasField("dim_value") for dim in kind.shape.dim):
            shapes.setdefault(value.name, tuple(dim.dim_value for dim in kind.shape.dim))
    return shapes


def _types(graph: Any, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """Format and shape, as ONNX writes them, of every value of which both are known."""
    kinds = {tensor.name: tensor.data_type for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        kinds.setdefault(value.name, value.type.tensor_type.elem_type)
    make = onnx.helper.make_tensor_type_proto
    return {name: make(kind, shapes[name]) for name, kind in kinds.items() if kind and name in shapes}


def _dtypes(graph: Any, called: Callable[[int], str] = dtype_name) -> dict[str, str]:
    found = {tensor.name: called(tensor.data_type) for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        found.setdefault(value.name, called(value.type.tensor_type.elem_type))
    return found
