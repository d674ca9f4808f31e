"""Evaluating the nodes that compute shapes: small constants in, small constants out."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

from ..errors import InputError
from .file import node_name

__all__ = ["FOLDED", "FOLD_LIMIT", "Folding", "fold", "write_back"]

FOLD_LIMIT = 4096
"""Elements of the largest constant that is read; shapes and scales are far smaller, weights far larger."""

FOLDED = frozenset(
    {
        "Abs",
        "Add",
        "And",
        "Cast",
        "CastLike",
        "Ceil",
        "Concat",
        "Constant",
        "ConstantOfShape",
        "Div",
        "Equal",
        "Expand",
        "Flatten",
        "Floor",
        "Gather",
        "Greater",
        "GreaterOrEqual",
        "Identity",
        "Less",
        "LessOrEqual",
        "Max",
        "Min",
        "Mod",
        "Mul",
        "Neg",
        "Not",
        "Or",
        "Pow",
        "Range",
        "ReduceMax",
        "ReduceMin",
        "ReduceProd",
        "ReduceSum",
        "Reshape",
        "Round",
        "Shape",
        "Size",
        "Slice",
        "Split",
        "Sqrt",
        "Squeeze",
        "Sub",
        "Tile",
        "Transpose",
        "Unsqueeze",
        "Where",
    }
)
"""Operators that compute shapes; evaluated where all their inputs are small constants."""

_BROADCAST = frozenset(
    {
        "Add",
        "And",
        "Div",
        "Equal",
        "Greater",
        "GreaterOrEqual",
        "Less",
        "LessOrEqual",
        "Max",
        "Min",
        "Mod",
        "Mul",
        "Or",
        "Pow",
        "Sub",
        "Where",
    }
)
"""Those whose result stretches over all axes of their inputs."""


@dataclass(frozen=True, slots=True)
class Folding:
    """What may be evaluated, and how."""

    opset: int
    """Of the file: what an operator is told by attributes and what by inputs is the opset's to say."""
    asked: Container[str]
    """Values that decide a shape, so that what keeps one from being evaluated has to be told."""
    kept: Container[str] = ()
    """Values that are left alone."""


def fold(graph: Any, constants: dict[str, Any], shapes: Mapping[str, tuple[int, ...]], how: Folding) -> bool:
    """Add to ``constants`` what the nodes make of constants and shapes alone; whether any was new."""
    before = len(constants)
    for node in graph.node:
        if node.op_type in FOLDED and node.output[0] not in constants and node.output[0] not in how.kept:
            try:
                constants.update(_evaluate(node, constants, shapes, how.opset))
            except InputError as error:
                if not any(name in how.asked for name in node.output):
                    # Then it is work of the step like any other.
                    continue
                at = f"node {node_name(node)!r} ({node.op_type})"
                raise InputError(f"{at} decides a shape, but its value cannot be computed: {error}") from error
    return len(constants) > before


def write_back(graph: Any, constants: Mapping[str, Any]) -> None:
    """Turn folded nodes into initializers, so that the next round of inference sees their values."""
    folded = [name for node in graph.node if node.output[0] in constants for name in node.output if name]
    kept = [node for node in graph.node if node.output[0] not in constants]
    graph.initializer.extend(numpy_helper.from_array(np.asarray(constants[name]), name) for name in folded)
    del graph.node[:]
    graph.node.extend(kept)


def _evaluate(
    node: Any, constants: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], opset: int
) -> dict[str, Any]:
    """The results of a node of small constants by name, none where it is none; refused where it has no value."""
    if node.op_type in ("Shape", "Size") and node.input[0] in shapes:
        shape = np.array(shapes[node.input[0]], dtype=np.int64)
        chosen = {attribute.name: attribute.i for attribute in node.attribute}
        part = shape[chosen.get("start", 0) : chosen.get("end")]
        return {node.output[0]: part if node.op_type == "Shape" else shape.prod()}
    inputs = {name: constants.get(name) for name in node.input if name}
    if any(value is None for value in inputs.values()):
        return {}
    _require_small(_result_elements(node, constants))
    names = [name for name in node.output if name]
    found = _run(node, inputs, names, opset)
    _require_small(sum(value.size for value in found))
    return dict(zip(names, found, strict=True))


def _run(node: Any, inputs: Mapping[str, Any], names: Sequence[str], opset: int) -> list[Any]:
    """What ONNX's own reference makes of a node as the operator stands in ``opset``."""
    fed = [onnx.helper.make_tensor_value_info(name, 0, None) for name in inputs]
    made = [onnx.helper.make_tensor_value_info(name, 0, None) for name in names]
    graph = onnx.helper.make_graph([node], "node", fed, made)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])
    try:
        with np.errstate(all="ignore"):
            return [np.asarray(value) for value in ReferenceEvaluator(model).run(None, dict(inputs))]
    except Exception as error:
        # The reference raises whatever NumPy does, and errors of its own that share no class.
        fed_with = ", ".join(f"{name!r} ({_short(value)})" for name, value in inputs.items())
        said = " ".join(str(error).split())[:300] or type(error).__name__
        raise InputError(f"{said}; it is fed {fed_with or 'nothing'}") from error


def _short(value: Any) -> str:
    return str(value.tolist()) if value.size <= 8 else f"{value.size} elements"


def _require_small(elements: int) -> None:
    if elements > FOLD_LIMIT:
        raise InputError(f"{elements:,} elements; at most {FOLD_LIMIT:,} are computed")


def _result_elements(node: Any, constants: Mapping[str, Any]) -> int:
    """Bound of the elements the node would make, for operators whose result can be far larger than their inputs."""
    values = [constants[name] for name in node.input if name]
    if node.op_type == "Constant":
        return max((prod(attribute.t.dims) for attribute in node.attribute if attribute.name == "value"), default=1)
    if node.op_type == "ConstantOfShape":
        return prod(int(size) for size in np.ravel(values[0]))
    if node.op_type in ("Expand", "Tile"):
        return int(values[0].size) * prod(int(size) for size in np.ravel(values[1]))
    if node.op_type == "Range":
        start, end, step = (np.ravel(value)[0] for value in values)
        return int(abs((end - start) / step)) + 1 if step else 1
    if node.op_type == "Gather":
        return prod(int(value.size) for value in values)
    if node.op_type in _BROADCAST:
        ranks = max(value.ndim for value in values)
        shapes = [(1,) * (ranks - value.ndim) + value.shape for value in values]
        return prod(map(max, zip(*shapes, strict=True)))
    return 1
