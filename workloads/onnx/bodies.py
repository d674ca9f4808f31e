"""Operators that ONNX defines by other operators: their definition, as a graph that control flow might hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import onnx
import onnx.shape_inference

from ..errors import InputError

__all__ = ["body_of", "first_body", "has_body"]


def has_body(op: str, opset: int) -> bool:
    """Whether ONNX says what ``op`` is by other operators of ``opset``."""
    return any(version <= opset for version in _versions(_schema(op, opset)))


def first_body(op: str) -> int | None:
    """The opset from which on ONNX says what ``op`` is by others, None where it never does."""
    return min(_versions(_schema(op, onnx.defs.onnx_opset_version())), default=None)


def body_of(node: Any, opset: int, types: Mapping[str, Any]) -> Any:
    """The nodes that ``node`` stands for, as a graph whose inputs and outputs are those of the operator, in order.

    ``types``: of what is known of the values of the model; some definitions depend on how many axes an input has.
    """
    schema = _schema(node.op_type, opset)
    assert schema is not None
    _require_fit(schema, node, opset, types)
    version = max(each for each in _versions(schema) if each <= opset)
    if schema.has_context_dependent_function:
        unknown = next((name for name in node.input if name and name not in types), None)
        if unknown is not None:
            raise InputError(f"the shape of its input {unknown!r} is not known")
        fed = [types[name].SerializeToString() if name else b"" for name in node.input]
        stored = schema.get_context_dependent_function_with_opset_version(version, node.SerializeToString(), fed)
    else:
        stored = schema.get_function_with_opset_version(version)
    function = onnx.FunctionProto()
    try:
        function.ParseFromString(stored)
    except Exception as error:
        # protobuf's own error; it publishes no types to name it by
        raise InputError("its definition cannot be read") from error
    if not function.node:
        raise InputError("ONNX has no definition of it with these inputs and attributes")
    return _as_graph(function, node, schema)


def _require_fit(schema: Any, node: Any, opset: int, types: Mapping[str, Any]) -> None:
    """Refuse what ONNX's own inference refuses: of parts that do not fit a definition makes what nobody wrote."""
    if any(name not in types for name in node.input if name):
        return
    fed, opsets = {name: types[name] for name in node.input if name}, [onnx.helper.make_opsetid("", opset)]
    try:
        onnx.shape_inference.infer_node_outputs(schema, node, fed, opset_imports=opsets)
    except Exception as error:
        # An error of its own that shares no class with others.
        raise InputError(f"shape inference failed: {' '.join(str(error).split())[:300]}") from error


def _schema(op: str, opset: int) -> Any:
    try:
        return onnx.defs.get_schema(op, opset, "")
    except onnx.defs.SchemaError:
        return None


def _versions(schema: Any) -> list[int]:
    """Opsets in whose operators the definition is written; a newer one uses what an older opset does not have."""
    if schema is None:
        return []
    if schema.has_context_dependent_function:
        return list(schema.context_dependent_function_opset_versions)
    return list(schema.function_opset_versions) if schema.has_function else []


def _as_graph(function: Any, node: Any, schema: Any) -> Any:
    graph = onnx.GraphProto(name=function.name, node=function.node)
    for value, names in ((graph.input, function.input), (graph.output, function.output)):
        for name in names:
            value.add(name=name)
    given = {name: known.default_value for name, known in schema.attributes.items() if known.default_value.name}
    given.update((attribute.name, attribute) for attribute in node.attribute)
    for inner in graph.node:
        _fill_in(inner, given)
    return graph


def _fill_in(node: Any, given: Mapping[str, Any]) -> None:
    """Put the attributes of the operator where its definition refers to them; one without a value is left out."""
    written = []
    for attribute in node.attribute:
        kept = onnx.AttributeProto()
        kept.CopyFrom(attribute)
        if attribute.ref_attr_name:
            if attribute.ref_attr_name not in given:
                continue
            kept.CopyFrom(given[attribute.ref_attr_name])
            kept.name = attribute.name
        for inner in kept.g.node if kept.type == onnx.AttributeProto.GRAPH else ():
            _fill_in(inner, given)
        written.append(kept)
    del node.attribute[:]
    node.attribute.extend(written)
