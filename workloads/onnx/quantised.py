"""A quantised graph as quantisation-aware training has it: products of floats, and a rounding of what they read.

Integer operators are written as their float ones between ``DequantizeLinear`` and ``QuantizeLinear``. What is
quantised is a float that was rounded: ``QuantizeLinear`` is the work of rounding, and what follows it costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from ..errors import InputError
from ..operand import DTYPE_BYTES
from .file import node_name, opset_of
from .operators import FREE, PARTS, REARRANGES, ROUNDS

__all__ = ["as_floats", "trained_formats"]

_MICROSOFT = "com.microsoft"


@dataclass(frozen=True, slots=True)
class _Form:
    """Where an integer operator has its tensors, each before its scale and zero point, and those of its result."""

    op: str
    operands: tuple[int, ...]
    """Empty: all from the third on, as the list that is put together."""
    result: int | None
    """Of the result its scale; None: it is not rounded."""
    bias: int | None = None
    scaled: bool = True
    """Whether scales and zero points follow the operands."""


_FORMS = {
    ("", "ConvInteger"): _Form("Conv", (0, 1), None, scaled=False),
    ("", "MatMulInteger"): _Form("MatMul", (0, 1), None, scaled=False),
    ("", "QLinearConv"): _Form("Conv", (0, 3), 6, bias=8),
    ("", "QLinearMatMul"): _Form("MatMul", (0, 3), 6),
    # What the quantiser of onnxruntime writes besides, in its operator-oriented format.
    (_MICROSOFT, "QGemm"): _Form("Gemm", (0, 3), 7, bias=6),
    (_MICROSOFT, "QLinearAdd"): _Form("Add", (0, 3), 6),
    (_MICROSOFT, "QLinearMul"): _Form("Mul", (0, 3), 6),
    (_MICROSOFT, "QLinearAveragePool"): _Form("AveragePool", (0,), 3),
    (_MICROSOFT, "QLinearConcat"): _Form("Concat", (), 0),
    (_MICROSOFT, "QLinearGlobalAveragePool"): _Form("GlobalAveragePool", (0,), 3),
    (_MICROSOFT, "QLinearLeakyRelu"): _Form("LeakyRelu", (0,), 3),
    (_MICROSOFT, "QLinearSigmoid"): _Form("Sigmoid", (0,), 3),
}

_STANDARD_TOO = frozenset({"DequantizeLinear", "QuantizeLinear"})
"""Operators of onnxruntime that are those of ONNX, for formats that ONNX did not have then."""


def as_floats(model: Any) -> None:
    """Write the integer operators of ``model``, which is changed, as float ones."""
    writer = _Writer(model)
    nodes: list[Any] = []
    for node in model.graph.node:
        domain = "" if node.domain == "ai.onnx" else node.domain
        if domain == _MICROSOFT and node.op_type in _STANDARD_TOO:
            node.domain = ""
        form = _FORMS.get((domain, node.op_type))
        try:
            nodes += [node] if form is None else writer.written(node, form)
        except InputError as error:
            raise InputError(f"node {node_name(node)!r} ({node.op_type}): {error}") from error
    if len(nodes) == len(model.graph.node):
        return
    kept = [node.SerializeToString() for node in nodes]
    del model.graph.node[:]
    for node in kept:
        model.graph.node.add().ParseFromString(node)
    for value in model.graph.output:
        if value.name in writer.floats:
            value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT


class _Writer:
    """Writes integer operators as float ones; ``floats`` are results that were integers and are none now."""

    def __init__(self, model: Any) -> None:
        self._graph, self._per_channel = model.graph, opset_of(model) >= 13
        self.floats: set[str] = set()

    def written(self, node: Any, form: _Form) -> Iterator[Any]:
        """``node`` in float operators."""
        ins, called = [*node.input, *[""] * 9], node_name(node)
        operands = form.operands or tuple(range(2, len(node.input), 3))
        fed = []
        for at in operands:
            scale = ins[at + 1 : at + 3] if form.scaled else [self._one(), ""]
            # Filters lie along the first axis of a weight, columns along the last.
            yield self._dequantised(ins[at], scale, f"{called}/{at}", form.op == "Conv" and at != operands[0])
            fed.append(f"{called}/{at}")
        if form.bias is not None and ins[form.bias]:
            yield helper.make_node("Mul", [ins[1], ins[4]], [f"{called}/scale"], f"{called}/scale")
            yield self._dequantised(ins[form.bias], [f"{called}/scale", ""], f"{called}/bias", True)
            fed.append(f"{called}/bias")
        result = ins[form.result : form.result + 2] if form.result is not None else [""]
        made = f"{called}/float" if result[0] else node.output[0]
        yield self._float(node, form.op, fed, made)
        if result[0]:
            yield helper.make_node("QuantizeLinear", [made, *filter(None, result)], node.output[:1], f"{called}/round")
        else:
            self.floats.add(made)

    def _dequantised(self, name: str, scale: list[str], out: str, first_axis: bool) -> Any:
        if not name or not scale[0]:
            raise InputError("an operand or its scale is missing")
        axis = {"axis": 0} if first_axis and self._per_channel else {}
        return helper.make_node("DequantizeLinear", [name, *filter(None, scale)], [out], out, **axis)

    @staticmethod
    def _float(node: Any, op: str, fed: list[str], out: str) -> Any:
        made = helper.make_node(op, fed, [out], node_name(node))
        for attribute in node.attribute:
            if attribute.name == "channels_last" and attribute.i:
                raise InputError("channels_last = 1 has no rule; export with the channels first")
            if attribute.name != "channels_last":
                made.attribute.add().CopyFrom(attribute)
        return made

    def _one(self) -> str:
        """Name of the scale of a product without one: its values are not read, so any would do."""
        name = "quantised/one"
        if not any(tensor.name == name for tensor in self._graph.initializer):
            self._graph.initializer.append(numpy_helper.from_array(np.float32(1), name))
        return name


def trained_formats(graph: Any, dtypes: Mapping[str, str]) -> dict[str, str]:
    """Of the values that the file quantises the formats that they have in training, by name: those of the floats.

    A stored tensor that is dequantised is the rounded one of a float that is trained.
    """
    found = dict(_stored(graph, dtypes))
    for node in graph.node:
        data = node.input[0] if node.input else ""
        if node.op_type in ROUNDS and data:
            found[node.output[0]] = found.get(data, dtypes[data])
        elif node.op_type not in ROUNDS | {"DequantizeLinear"}:
            rounded = [name for name in node.input if name in found]
            for name in node.output:
                # Pooling, reshaping or joining integers, which are as long as they were.
                alike = next((of for of in rounded if dtypes.get(of) == dtypes.get(name)), None)
                if alike is not None:
                    found.setdefault(name, found[alike])
    return found


def _stored(graph: Any, dtypes: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    stored = {tensor.name for tensor in graph.initializer}
    wanted: dict[str, str] = {}
    for node in reversed(graph.node):
        if node.op_type == "DequantizeLinear":
            wanted[node.input[0]] = dtypes[node.output[0]]
        elif node.op_type in (FREE | REARRANGES | PARTS) - {"Cast"} and node.output[0] in wanted:
            wanted.update(dict.fromkeys(_alike(node, dtypes), wanted[node.output[0]]))
        if node.op_type in ROUNDS | {"DequantizeLinear"} and len(node.input) > 2:
            zero = node.input[2]
            if zero in stored and dtypes[zero] not in DTYPE_BYTES:
                # Zero points of less than a byte lie in bytes.
                yield zero, "int8"
    yield from ((name, dtype) for name, dtype in wanted.items() if name in stored)


def _alike(node: Any, dtypes: Mapping[str, str]) -> Iterable[str]:
    return (name for name in node.input if dtypes.get(name) == dtypes[node.output[0]])
