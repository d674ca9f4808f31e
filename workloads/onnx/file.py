"""The stored model: reading it, and what its nodes and inputs are called."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import onnx
from onnx import inliner

from ..errors import InputError
from ..strict import read_file

__all__ = ["fed_inputs", "load", "node_name", "opset_of", "require_attributes"]

_MAX_BYTES = 2**31
"""Protobuf's own limit; weights lie in the file where the exporter kept them together."""


def load(file: Path) -> Any:
    """The model without its external weights, its local functions written out."""
    raw = read_file(file, _MAX_BYTES)
    try:
        model = onnx.load_model_from_string(raw)
    except Exception as error:
        # protobuf's own error; it publishes no types to name it by
        raise InputError("not an ONNX model, or cut short") from error
    if not model.graph.node:
        raise InputError("not an ONNX model: it has no graph")
    for node in model.graph.node:
        broken = next(
            (text for text in (node.name, node.op_type, *node.input, *node.output) if type(text) is bytes), None
        )
        if broken is not None:
            raise InputError(f"a name of a node is not UTF-8 text: {broken!r}")
    return inliner.inline_local_functions(model) if model.functions else model


_COUNTS = frozenset({"group", "strides", "dilations", "kernel_shape", "blocksize", "hidden_size"})
"""Attributes that count something, so that 0 and less have no meaning; shape inference divides by some of them."""


_TERM = r"[A-Za-z]*(\.\.\.)?[A-Za-z]*"
_EQUATION = re.compile(rf"{_TERM}(,{_TERM})*(->{_TERM})?")


def require_attributes(model: Any) -> None:
    """Refuse attributes of another type than the operator has them in the model's opset, and counts below one."""
    version = opset_of(model)
    for node in model.graph.node:
        try:
            known = onnx.defs.get_schema(node.op_type, version, "").attributes
        except onnx.defs.SchemaError:
            continue
        for attribute in node.attribute:
            at = f"attribute {attribute.name!r} of node {node.name or node.output[0]!r} ({node.op_type})"
            rule = known.get(attribute.name)
            if rule is not None and int(rule.type.value) != attribute.type:
                types = onnx.AttributeProto.AttributeType
                found = types.Name(attribute.type) if attribute.type in types.values() else attribute.type
                raise InputError(f"{at} is of type {found}; the operator takes {types.Name(int(rule.type.value))}")
            equation = attribute.s.decode(errors="replace").replace(" ", "")
            if node.op_type == "Einsum" and not _EQUATION.fullmatch(equation):
                # Shape inference would look for the rest of the dots for ever.
                raise InputError(f"{at} is {equation!r}: letters and at most one '...' a term, as in 'bij,jk->bik'")
            numbers = [attribute.i] if attribute.type == onnx.AttributeProto.INT else attribute.ints
            if attribute.name in _COUNTS and any(number < 1 for number in numbers):
                shown = numbers[0] if len(numbers) == 1 else list(numbers)
                raise InputError(f"{at} is {shown}; the least it can be is 1")


def opset_of(model: Any) -> int:
    """The version of ONNX's operators that ``model`` is written in."""
    return next((opset.version for opset in model.opset_import if opset.domain in ("", "ai.onnx")), 1)


def node_name(proto: Any) -> str:
    """Name of a node; exporters may leave it out, its outputs are always named."""
    return str(proto.name or next((name for name in proto.output if name), proto.op_type))


def fed_inputs(graph: Any) -> list[Any]:
    """Inputs that are fed; before IR version 4 initializers are listed among them."""
    stored = {tensor.name for tensor in graph.initializer}
    return [value for value in graph.input if value.name not in stored]
