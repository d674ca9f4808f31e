"""Evaluating the nodes that compute shapes: small constants in, small constants out."""

from __future__ import annotations

from collections.abc import Container, Mapping
from math import prod
from typing import Any

import numpy as np
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

__all__ = ["FOLDED", "FOLD_LIMIT", "fold", "write_back"]

FOLD_LIMIT = 4096
"""Elements of the largest constant that is read; shapes and scales are far smaller, weights far larger."""

FOLDED = frozenset({
    "Add", "And", "Cast", "Ceil", "Concat", "Constant", "ConstantOfShape", "Div", "Equal", "Expand", "Floor",
    "Gather", "Greater", "Identity", "Less", "Max", "Min", "Mod", "Mul", "Neg", "Not", "Or", "Pow", "Range",
    "ReduceProd", "Reshape", "Shape", "Size", "Slice", "Sqrt", "Squeeze", "Sub", "Transpose", "Unsqueeze", "Where",
})  # fmt: skip
"""Operators that compute shapes; evaluated where all their inputs are small constants."""

_BROADCAST = frozenset({"Add", "Div", "Equal", "Gather", "Mul", "Sub", "Where"})


def fold(
    graph: Any, constants: dict[str, Any], shapes: Mapping[str, tuple[int, ...]], kept: Container[str] = ()
) -> bool:
    """Add to ``constants`` what the nodes make of constants and shapes alone, but for ``kept``; whether any was new."""
    before = len(constants)
    for node in graph.node:
        if node.op_type in FOLDED and node.output[0] not in constants and node.output[0] not in kept:
            value = _evaluate(node, constants, shapes)
            if value is not None:
                constants[node.output[0]] = value
    return len(constants) > before


def write_back(graph: Any, constants: Mapping[str, Any]) -> None:
    """Turn folded nodes into initializers, so that the next round of inference sees their values."""
    folded = [node.output[0] for node in graph.node if node.output[0] in constants]
    kept = [node for node in graph.node if node.output[0] not in constants]
    graph.initializer.extend(numpy_helper.from_array(np.asarray(constants[name]), name) for name in folded)
    del graph.node[:]
    graph.node.extend(kept)


def _evaluate(node: Any, constants: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> Any:
    """Value of a node of small constants, or None."""
    if node.op_type in ("Shape", "Size") and node.input[0] in shapes:
        shape = np.array(shapes[node.input[0]], dtype=np.int64)
        chosen = {attribute.name: attribute.i for attribute in node.attribute}
        return shape[chosen.get("start", 0) : chosen.get("end")] if node.op_type == "Shape" else shape.prod()
    inputs = {name: constants.get(name) for name in node.input if name}
    if any(value is None for value in inputs.values()) or _result_elements(node, constants) > FOLD_LIMIT:
        return None
    run = ReferenceEvaluator(node)
    try:
        with np.errstate(all="ignore"):
            value = np.asarray(run.run(None, inputs)[0])
    except Exception:
        # The rule of shape inference for this node then says what is wrong with it.
        return None
    return value if value.size <= FOLD_LIMIT else None


def _result_elements(node: Any, constants: Mapping[str, Any]) -> int:
    """Bound of the elements the node would make, for operators whose result can be far larger than their inputs."""
    values = [constants[name] for name in node.input if name]
    if node.op_type == "Constant":
        return max((prod(attribute.t.dims) for attribute in node.attribute if attribute.name == "value"), default=1)
    if node.op_type == "ConstantOfShape":
        return prod(map(int, values[0]))
    if node.op_type == "Expand":
        return int(values[0].size) * prod(map(int, values[1]))
    if node.op_type == "Range":
        return int(abs((values[1] - values[0]) / values[2])) + 1
    return prod(int(value.size) for value in values) if node.op_type in _BROADCAST else 1
