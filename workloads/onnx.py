"""An ONNX inference graph as one training step: shapes by inference, a rule per operator, gradients by propagation.

Floating-point initializers are the parameters; the inputs of the graph need no gradient. No weight is read, and an
operator without a rule is refused rather than guessed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import inliner, numpy_helper, shape_inference
from onnx.reference import ReferenceEvaluator

from .errors import InputError, nearest, require_int
from .gemm import Gemm, Pass
from .step import DTYPE_BYTES, MatrixOp, Op, Operand, Role, UpdateOp, VectorOp, Workload

__all__ = ["onnx_workload"]

_FOLD_LIMIT = 4096
"""Elements of the largest constant that is read; shapes and scales are far smaller, weights far larger."""

_FLOATING = ("float", "bfloat")

_FREE = frozenset({"Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"})
"""Change of the shape alone: no bytes move."""

_NO_GRADIENT = frozenset({
    "And", "ArgMax", "ArgMin", "BitwiseAnd", "BitwiseNot", "BitwiseOr", "Ceil", "Constant", "ConstantOfShape",
    "Equal", "EyeLike", "Floor", "Greater", "GreaterOrEqual", "IsInf", "IsNaN", "Less", "LessOrEqual", "Mod",
    "Not", "OneHot", "Or", "Range", "Round", "Shape", "Sign", "Size", "Xor",
})  # fmt: skip

_SAVES_NOTHING = frozenset({
    "AveragePool", "Cast", "CastLike", "Concat", "CumSum", "DepthToSpace", "Expand", "Gather", "GatherElements",
    "GatherND", "GlobalAveragePool", "Mean", "Neg", "Pad", "ReduceMean", "ReduceSum", "Resize", "Slice",
    "SpaceToDepth", "Split", "Sum", "Tile", "Transpose", "Trilu", "Upsample", "Where",
})  # fmt: skip
"""The gradient is made from the gradient of the output alone."""

_SAVES_INPUT = frozenset({
    "Abs", "BatchNormalization", "Clip", "Cos", "Div", "Dropout", "Elu", "Erf", "Gelu", "GroupNormalization",
    "HardSigmoid", "HardSwish", "InstanceNormalization", "LRN", "LayerNormalization", "LeakyRelu", "Log",
    "LpNormalization", "Max", "Min", "Mish", "Mul", "PRelu", "Pow", "RMSNormalization", "ReduceL2",
    "ReduceSumSquare", "Selu", "Sin", "Softplus", "Softsign", "Swish",
})  # fmt: skip
"""The gradient also reads the inputs of the forward op."""

_SAVES_OUTPUT = frozenset({
    "Exp", "GlobalMaxPool", "LogSoftmax", "MaxPool", "Reciprocal", "ReduceMax", "ReduceMin", "Relu", "Sigmoid",
    "Softmax", "Sqrt", "Tanh",
})  # fmt: skip
"""The gradient also reads the output of the forward op."""

_PASSES_THROUGH = frozenset({"Add", "Sub"})
"""The gradient of an input of the output's shape is the gradient of the output itself: nothing moves."""

_ROWS_ONLY = frozenset({"Gather", "GatherElements", "GatherND", "Slice"})
"""Reads no more of its first input than it writes."""

_VECTOR = _FREE | _NO_GRADIENT | _SAVES_NOTHING | _SAVES_INPUT | _SAVES_OUTPUT | _PASSES_THROUGH

_FOLDED = frozenset({
    "Add", "And", "Cast", "Ceil", "Concat", "ConstantOfShape", "Div", "Equal", "Expand", "Floor", "Gather",
    "Greater", "Identity", "Less", "Max", "Min", "Mod", "Mul", "Neg", "Not", "Or", "Pow", "Range", "ReduceProd",
    "Reshape", "Shape", "Size", "Slice", "Sqrt", "Squeeze", "Sub", "Transpose", "Unsqueeze", "Where",
})  # fmt: skip
"""Operators that compute shapes; evaluated where all their inputs are small constants."""

_RECURRENT_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}

_STATISTICS = {"BatchNormalization": (3, 4)}
"""Inputs that are collected, not trained."""


@dataclass(frozen=True, slots=True)
class _Tensor:
    """Shape and format of one value, and what it is made from."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    parameter: str | None
    """The initializer it is, or is a mere rearrangement of."""
    grad: bool

    @property
    def elements(self) -> int:
        return prod(self.shape)

    @property
    def bytes(self) -> int:
        return self.elements * DTYPE_BYTES[self.dtype]

    def operand(self, role: Role) -> Operand:
        """As an operand of a product; a parameter is a weight whatever it was thought to be."""
        if role is Role.ACTIVATION and self.parameter is not None:
            role = Role.WEIGHT
        return Operand(role=role, dtype=self.dtype, bytes=self.bytes)


@dataclass(frozen=True, slots=True)
class _Product:
    """C = A B of a node with its two gradients, each as the GEMM that makes it; conv and linear differ only here.

    ``swap_b`` says that the gradient of B has the output's gradient as its left operand.
    """

    a: _Tensor
    b: _Tensor
    c: _Tensor
    forward: Gemm
    grad_a: Gemm
    grad_b: Gemm
    swap_b: bool = True


@dataclass(slots=True)
class _Step:
    """The step under construction."""

    forward: list[Op] = field(default_factory=list)
    backward: list[Op] = field(default_factory=list)
    updates: dict[str, int] = field(default_factory=dict)


def onnx_workload(path: str | Path, *, batch: int | None = None, optimizer: str = "sgd") -> Workload:
    """One training step of the model in the ONNX file ``path``.

    ``batch`` replaces the symbolic first dimension of the inputs; it is required where that dimension is symbolic and
    must agree with it where it is fixed. Anything that cannot be sized exactly is an :class:`InputError`.
    """
    file = Path(path)
    model = _load(file)
    _require_known_ops(file, model.graph)
    found = _set_batch(file, model.graph, batch)
    constants, model = _infer(file, model)
    graph = _Graph(file, model, constants)
    step = _Step()
    for node in graph.nodes:
        graph.emit_forward(node, step)
    graph.emit_loss(step)
    for node in reversed(graph.nodes):
        graph.emit_backward(node, step)
    graph.emit_accumulation(graph.initializers, Pass.WU, step)
    if not step.updates:
        raise InputError(f"{file}: no floating-point initializer is trained, so there is no training step")
    updates = [UpdateOp(name=name, elements=count) for name, count in step.updates.items()]
    return Workload(
        model=file.stem,
        batch=found,
        input=", ".join(" x ".join(map(str, graph.tensor(name).shape)) or "1" for name in graph.inputs),
        optimizer=optimizer,
        ops=(*step.forward, *step.backward, *updates),
    )


def _load(file: Path) -> Any:
    """The model without its external weights and without the contents of its large inline ones."""
    try:
        model = onnx.load_model(file, load_external_data=False)
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror}") from error
    except Exception as error:
        # protobuf's own error; it publishes no types to name it by
        raise InputError(f"{file}: not an ONNX model, or cut short") from error
    if not model.graph.node:
        raise InputError(f"{file}: not an ONNX model: it has no graph")
    if model.functions:
        model = inliner.inline_local_functions(model)
    for tensor in model.graph.initializer:
        if prod(tensor.dims) > _FOLD_LIMIT:
            for content in ("raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data"):
                tensor.ClearField(content)
    return model


def _require_known_ops(file: Path, graph: Any) -> None:
    known = _VECTOR | _FOLDED | set(_RULES) | set(_RECURRENT_GATES)
    for node in graph.node:
        if node.domain not in ("", "ai.onnx"):
            raise InputError(
                f"{file}: {_where(node)} is of domain {node.domain!r}; only standard ONNX operators have rules"
            )
        if node.op_type not in known:
            advice = nearest(node.op_type, known)
            tail = f" ({advice})" if advice.startswith("did you mean") else ""
            raise InputError(f"{file}: {_where(node)} has no rule for a training step{tail}")


def _where(node: Any) -> str:
    return f"node {_label(node)!r} ({node.op_type})"


def _label(node: Any) -> str:
    """Name of a node; exporters may leave it out, its outputs are always named."""
    return str(node.name or next((name for name in node.output if name), node.op_type))


def _real_inputs(graph: Any) -> list[Any]:
    """Inputs that are fed; before IR version 4 initializers are listed among them."""
    stored = {tensor.name for tensor in graph.initializer}
    return [value for value in graph.input if value.name not in stored]


def _set_batch(file: Path, graph: Any, batch: int | None) -> int:
    """Write the batch into the shapes of the inputs, refuse what stays symbolic, and return the batch."""
    if batch is not None:
        require_int("batch", batch, 1, 2**31)
    inputs = _real_inputs(graph)
    if not inputs:
        raise InputError(f"{file}: the graph has no input")
    leading = {v.name: v.type.tensor_type.shape.dim[0] for v in inputs if v.type.tensor_type.shape.dim}
    symbols = {dim.dim_param for dim in leading.values() if dim.dim_param}
    free = [name for name, dim in leading.items() if not _fixed(dim)]
    if free and batch is None:
        label = leading[free[0]].dim_param or "without a name"
        raise InputError(f"{file}: the batch dimension {label!r} of input {free[0]!r} is symbolic: give a batch size")
    for value in inputs:
        for position, dim in enumerate(value.type.tensor_type.shape.dim):
            if _fixed(dim):
                continue
            if position and dim.dim_param not in symbols:
                label = dim.dim_param or "without a name"
                raise InputError(
                    f"{file}: dimension {position} ({label!r}) of input {value.name!r} is symbolic; only the first, "
                    "the batch, may be: export the model with a fixed size"
                )
            dim.dim_value = batch
    sizes = [dim.dim_value for dim in leading.values()]
    found = sizes[0] if sizes else 1
    if batch is not None and batch not in sizes:
        raise InputError(f"{file}: batch {batch} given, but the file fixes it at {found}")
    return found if batch is None else batch


def _fixed(dim: Any) -> bool:
    return bool(dim.HasField("dim_value") and dim.dim_value > 0)


def _infer(file: Path, model: Any) -> tuple[dict[str, Any], Any]:
    """Constants that compute shapes, by name, and the model with the shape of everything that could be inferred."""
    constants = {tensor.name: _content(file, tensor) for tensor in model.graph.initializer if _is_shape_data(tensor)}
    stored = set(constants)
    # Shapes an exporter wrote may hold the symbolic batch, which contradicts the one just set.
    del model.graph.value_info[:]
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    while True:
        try:
            inferred = shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
        except Exception as error:
            lines = " ".join(str(error).split())
            raise InputError(f"{file}: shape inference failed: {lines[:300]}") from error
        if not _fold(inferred.graph, constants):
            return {name: value for name, value in constants.items() if name not in stored}, inferred
        _write_back(model.graph, constants)


def _content(file: Path, tensor: Any) -> Any:
    try:
        return numpy_helper.to_array(tensor)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{file}: initializer {tensor.name!r} does not hold what its type and shape say") from error


def _is_shape_data(tensor: Any) -> bool:
    """Small integers and lone numbers take part in shape arithmetic; a float of more elements may be a parameter."""
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        return False
    count = prod(tensor.dims)
    return bool(count <= (1 if _dtype(tensor.data_type).startswith(_FLOATING) else _FOLD_LIMIT))


def _fold(graph: Any, constants: dict[str, Any]) -> bool:
    """Evaluate the nodes that only compute with constants and shapes; whether any was new."""
    shapes = _static_shapes(graph)
    before = len(constants)
    for node in graph.node:
        if node.output[0] in constants or node.op_type not in _FOLDED | {"Constant"}:
            continue
        value = _evaluate(node, constants, shapes)
        if value is not None:
            constants[node.output[0]] = value
    return len(constants) > before


def _static_shapes(graph: Any) -> dict[str, tuple[int, ...]]:
    """Shape of every value whose dimensions are all known."""
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        kind = value.type.tensor_type
        if kind.HasField("shape") and all(dim.HasField("dim_value") for dim in kind.shape.dim):
            shapes.setdefault(value.name, tuple(dim.dim_value for dim in kind.shape.dim))
    return shapes


def _evaluate(node: Any, constants: dict[str, Any], shapes: dict[str, tuple[int, ...]]) -> Any:
    """Value of a node of small constants, or None."""
    if node.op_type in ("Shape", "Size") and node.input[0] in shapes:
        shape = np.array(shapes[node.input[0]], dtype=np.int64)
        chosen = {attribute.name: attribute.i for attribute in node.attribute}
        return shape[chosen.get("start", 0) : chosen.get("end")] if node.op_type == "Shape" else shape.prod()
    inputs = [name for name in node.input if name]
    if not all(name in constants for name in inputs):
        return None
    if _result_elements(node, constants) > _FOLD_LIMIT:
        return None
    run = ReferenceEvaluator(node)
    try:
        with np.errstate(all="ignore"):
            value = np.asarray(run.run(None, {name: constants[name] for name in inputs})[0])
    except Exception:
        # The rule of shape inference for this node then says what is wrong with it.
        return None
    return value if value.size <= _FOLD_LIMIT else None


def _result_elements(node: Any, constants: dict[str, Any]) -> int:
    """Elements the node would make, for the operators whose result can be far larger than their inputs."""
    values = [constants[name] for name in node.input if name]
    if node.op_type == "Constant":
        return max((prod(attribute.t.dims) for attribute in node.attribute if attribute.name == "value"), default=1)
    if node.op_type == "ConstantOfShape":
        return prod(map(int, values[0]))
    if node.op_type == "Expand":
        return int(values[0].size) * prod(map(int, values[1]))
    if node.op_type == "Range":
        return int(abs((values[1] - values[0]) / values[2])) + 1
    if node.op_type in ("Add", "Sub", "Mul", "Div", "Equal", "Where", "Gather"):
        return int(prod(value.size for value in values)) if len(values) < 4 else 1
    return 1


def _write_back(graph: Any, constants: dict[str, Any]) -> None:
    """Turn folded nodes into initializers, so that the next round of inference sees their values."""
    present = {tensor.name for tensor in graph.initializer}
    kept = [node for node in graph.node if node.output[0] not in constants]
    folded = [node.output[0] for node in graph.node if node.output[0] in constants]
    graph.initializer.extend(numpy_helper.from_array(np.asarray(constants[n]), n) for n in folded if n not in present)
    del graph.node[:]
    graph.node.extend(kept)


class _Graph:
    """The shaped graph: its tensors with their provenance, and how each node turns into ops."""

    def __init__(self, file: Path, model: Any, constants: dict[str, Any]) -> None:
        graph = model.graph
        self.file = file
        self.nodes: list[Any] = list(graph.node)
        self.inputs = [value.name for value in _real_inputs(graph)]
        self.outputs = [value.name for value in graph.output]
        self._types = _types(graph)
        self._shapes = _static_shapes(graph)
        self._tensors: dict[str, _Tensor] = {}
        self._constants = constants
        self.initializers = [tensor.name for tensor in graph.initializer if tensor.name not in constants]
        for name in self.initializers:
            floating = self._types[name].startswith(_FLOATING)
            self._tensors[name] = _Tensor(
                name, self._shapes[name], self._types[name], name if floating else None, floating
            )
        for node in self.nodes:
            self._propagate(node)
        self._reached = self._reach()
        self._uses = Counter(
            name for node in self.nodes if self._trains(node) for name in node.input if name and self.tensor(name).grad
        )

    def tensor(self, name: str, node: Any = None) -> _Tensor:
        """The tensor called ``name``; refused where its shape or format is not known."""
        found = self._tensors.get(name)
        if found is None:
            at = f" of {_where(node)}" if node is not None else ""
            if name not in self._shapes:
                raise InputError(f"{self.file}: the shape of {name!r}{at} cannot be inferred")
            dtype = self._types[name]
            if dtype not in DTYPE_BYTES:
                raise InputError(f"{self.file}: {name!r}{at} is of type {dtype}: {nearest(dtype, DTYPE_BYTES)}")
            found = self._tensors[name] = _Tensor(name, self._shapes[name], dtype, None, False)
        return found

    def refuse(self, node: Any, why: str) -> InputError:
        """The error that says why a node cannot be part of a training step."""
        return InputError(f"{self.file}: {_where(node)}: {why}")

    def ins(self, node: Any) -> list[_Tensor | None]:
        """Inputs of a node; None where an optional one is left out."""
        return [self.tensor(name, node) if name else None for name in node.input]

    def outs(self, node: Any) -> list[_Tensor]:
        """Outputs of a node that are named."""
        return [self.tensor(name, node) for name in node.output if name]

    def _propagate(self, node: Any) -> None:
        """Give the outputs of a node their provenance: parameter-derived, and whether a gradient reaches them."""
        sources = [tensor for tensor in self._differentiable(node) if tensor.grad]
        rearranged = node.op_type in _FREE | {"Transpose", "Cast"} and node.input[0] in self._tensors
        parameter = self._tensors[node.input[0]].parameter if rearranged else None
        for out in self.outs(node):
            grad = bool(sources) and out.dtype.startswith(_FLOATING)
            self._tensors[out.name] = _Tensor(out.name, out.shape, out.dtype, parameter, grad)

    def _differentiable(self, node: Any) -> list[_Tensor]:
        """Inputs through which a gradient can flow."""
        if node.op_type in _NO_GRADIENT:
            return []
        skipped = _STATISTICS.get(node.op_type, ())
        tensors = (tensor for index, tensor in enumerate(self.ins(node)) if index not in skipped)
        return [t for t in tensors if t is not None and t.name not in self._constants]

    def _reach(self) -> set[str]:
        """Tensors that a gradient reaches from an output of the graph."""
        reached = {name for name in self.outputs if self.tensor(name).grad}
        for node in reversed(self.nodes):
            if not reached.isdisjoint(node.output):
                reached.update(tensor.name for tensor in self._differentiable(node) if tensor.grad)
        return reached

    def _trains(self, node: Any) -> bool:
        return any(name in self._reached and self.tensor(name).grad for name in node.output if name)

    def emit_forward(self, node: Any, step: _Step) -> None:
        """The forward ops of a node."""
        try:
            self._forward(node, step)
        except InputError as error:
            raise error if str(self.file) in str(error) else self.refuse(node, str(error)) from None

    def _forward(self, node: Any, step: _Step) -> None:
        if node.op_type in _RECURRENT_GATES:
            step.forward += _Recurrent(self, node).forward()
        elif node.op_type in _RULES:
            step.forward.append(_matrix(node, self._product(node), Pass.FF))
        elif node.op_type not in _FREE | {"Constant"} and not self._is_layout(node):
            step.forward.append(self._vector_forward(node))

    def _product(self, node: Any) -> _Product:
        return _RULES[node.op_type](self, node)

    def _is_layout(self, node: Any) -> bool:
        """A weight that is only stored the other way round costs nothing."""
        return node.op_type in ("Transpose", "Cast") and self.outs(node)[0].parameter is not None

    def _vector_forward(self, node: Any) -> VectorOp:
        outs = self.outs(node)
        inputs = [tensor for tensor in self.ins(node) if tensor is not None and tensor.name not in self._constants]
        written = sum(out.bytes for out in outs)
        sizes = [tensor.bytes for tensor in inputs]
        if node.op_type in _ROWS_ONLY and sizes:
            sizes[0] = min(sizes[0], written)
        return _vector(node, Pass.FF, outs[0], sum(sizes), written)

    def emit_loss(self, step: _Step) -> None:
        """Softmax cross-entropy on every output that trains, forward and backward."""
        for name in self.outputs:
            out = self.tensor(name)
            if out.grad:
                for pass_, ops in ((Pass.FF, step.forward), (Pass.BP, step.backward)):
                    ops.append(
                        VectorOp(
                            name="loss", op="SoftmaxCrossEntropyLoss", pass_=pass_, dtype=out.dtype,
                            elements=out.elements, read_bytes=out.bytes, write_bytes=out.bytes,
                        )
                    )  # fmt: skip

    def emit_accumulation(self, names: list[str], pass_: Pass, step: _Step) -> None:
        """The additions that join the gradients of a tensor that is used more than once."""
        for name in names:
            tensor = self._tensors.get(name)
            for _ in range(self._uses[name] - 1 if tensor else 0):
                assert tensor is not None
                step.backward.append(
                    VectorOp(
                        name=name, op="Add", pass_=pass_, dtype=tensor.dtype, elements=tensor.elements,
                        read_bytes=2 * tensor.bytes, write_bytes=tensor.bytes,
                    )
                )  # fmt: skip

    def emit_backward(self, node: Any, step: _Step) -> None:
        """The backward ops of a node, in the order gradients flow: input, weight."""
        if not self._trains(node):
            return
        self.emit_accumulation([name for name in node.output if name], Pass.BP, step)
        if node.op_type in _RECURRENT_GATES:
            step.backward += _Recurrent(self, node).backward()
        elif node.op_type in _RULES:
            step.backward += self._product_backward(node)
        elif node.op_type not in _FREE and not self._is_layout(node):
            step.backward += self._vector_backward(node)
        self._note_parameters(node, step)

    def _product_backward(self, node: Any) -> Iterator[Op]:
        product = self._product(node)
        a, b = product.a, product.b
        both = a.parameter is not None and b.parameter is not None
        grads: list[MatrixOp] = []
        for tensor, gemm, left in ((a, product.grad_a, b), (b, product.grad_b, a)):
            if tensor.grad:
                pass_ = Pass.WU if both or tensor.parameter is not None else Pass.BP
                swapped = tensor is a or product.swap_b
                grads.append(_matrix_gradient(node, product, tensor, left, gemm, pass_, swapped))
        yield from sorted(grads, key=lambda op: op.pass_ is Pass.WU)
        for bias in self.ins(node)[2:]:
            if bias is not None and bias.grad:
                yield _vector(node, Pass.WU, product.c, product.c.bytes, bias.bytes)

    def _vector_backward(self, node: Any) -> Iterator[Op]:
        """One op for the gradients of data, one for those of parameters; a fused one for a normalisation."""
        out = self.outs(node)[0]
        wanted = [tensor for tensor in self._differentiable(node) if tensor.grad]
        if node.op_type in _PASSES_THROUGH:
            wanted = [tensor for tensor in wanted if tensor.shape != out.shape]
        data = [tensor for tensor in wanted if tensor.parameter is None]
        weights = [tensor for tensor in wanted if tensor.parameter is not None]
        if node.op_type.endswith("Normalization") and data:
            data, weights = data + weights, []
        for pass_, group in ((Pass.BP, data), (Pass.WU, weights)):
            if group:
                written = sum(tensor.bytes for tensor in group)
                largest = max((out, *group), key=lambda tensor: tensor.elements)
                yield _vector(node, pass_, largest, self._gradient_reads(node, group), written)

    def _gradient_reads(self, node: Any, group: list[_Tensor]) -> int:
        """Bytes read to make the gradients of ``group``: the output's gradient and what the forward op saved."""
        outs = self.outs(node)
        read = sum(out.bytes for out in outs if out.grad)
        if node.op_type in _SAVES_OUTPUT:
            return read + outs[0].bytes
        if node.op_type not in _SAVES_INPUT:
            return read
        inputs = [tensor for tensor in self.ins(node) if tensor is not None and tensor.name not in self._constants]
        if node.op_type in ("Mul", "Div") and len(group) == 1 and len(inputs) == 2:
            # The gradient of one factor reads the other.
            inputs = [tensor for tensor in inputs if tensor.name != group[0].name] or inputs
        return read + sum(tensor.bytes for tensor in inputs)

    def _note_parameters(self, node: Any, step: _Step) -> None:
        """Remember the parameters whose gradient the node makes; a lone scalar of arithmetic is a constant."""
        trained = node.op_type in _RULES or node.op_type in _RECURRENT_GATES or node.op_type.endswith("Normalization")
        for tensor in self._differentiable(node):
            if tensor.parameter is not None and tensor.grad and (trained or tensor.elements > 1):
                step.updates.setdefault(tensor.parameter, tensor.elements)


def _types(graph: Any) -> dict[str, str]:
    """Element type of every value, in the names of :data:`DTYPE_BYTES` where it has one."""
    found: dict[str, str] = {}
    for tensor in graph.initializer:
        found[tensor.name] = _dtype(tensor.data_type)
    for value in (*graph.input, *graph.value_info, *graph.output):
        found.setdefault(value.name, _dtype(value.type.tensor_type.elem_type))
    return found


def _dtype(number: int) -> str:
    if number not in onnx.TensorProto.DataType.values():
        return f"of unknown number {number}"
    name = str(onnx.TensorProto.DataType.Name(number)).lower()
    renamed = {"float": "float32", "double": "float64", "float8e4m3fn": "float8_e4m3fn", "float8e5m2": "float8_e5m2"}
    return renamed.get(name, name)


def _vector(node: Any, pass_: Pass, tensor: _Tensor, read: int, written: int) -> VectorOp:
    return VectorOp(
        name=_label(node), op=node.op_type, pass_=pass_, dtype=tensor.dtype, elements=tensor.elements,
        read_bytes=read, write_bytes=written,
    )  # fmt: skip


def _matrix(node: Any, product: _Product, pass_: Pass) -> MatrixOp:
    return MatrixOp(
        name=_label(node), op=node.op_type, pass_=pass_, gemm=product.forward,
        a=product.a.operand(Role.ACTIVATION), b=product.b.operand(Role.ACTIVATION),
        c=product.c.operand(Role.ACTIVATION), parameter=product.b.parameter or product.a.parameter,
        convolution=node.op_type.startswith("Conv"),
    )  # fmt: skip


def _matrix_gradient(
    node: Any, product: _Product, of: _Tensor, other: _Tensor, gemm: Gemm, pass_: Pass, gradient_left: bool
) -> MatrixOp:
    """The GEMM that makes the gradient of ``of`` from the output's gradient and the ``other`` operand."""
    from_output, saved = product.c.operand(Role.GRADIENT), other.operand(Role.ACTIVATION)
    return MatrixOp(
        name=_label(node), op=node.op_type, pass_=pass_, gemm=gemm,
        a=from_output if gradient_left else saved, b=saved if gradient_left else from_output,
        c=of.operand(Role.GRADIENT), parameter=of.parameter if pass_ is Pass.WU else other.parameter,
        convolution=node.op_type.startswith("Conv"),
    )  # fmt: skip


def _two(graph: _Graph, node: Any) -> tuple[_Tensor, _Tensor, _Tensor]:
    """Left operand, right operand and result of a node."""
    a, b = graph.ins(node)[:2]
    if a is None or b is None:
        raise graph.refuse(node, "an operand is missing")
    for tensor in (a, b):
        if not tensor.elements:
            raise graph.refuse(node, f"operand {tensor.name!r} is empty")
    return a, b, graph.outs(node)[0]


def _attribute(node: Any, name: str, default: Any) -> Any:
    found = next((attribute for attribute in node.attribute if attribute.name == name), None)
    return default if found is None else onnx.helper.get_attribute_value(found)


def _dense(a: _Tensor, b: _Tensor, c: _Tensor, m: int, k: int, n: int, groups: int = 1) -> _Product:
    """A plain product; the gradient of a weight on the right is made transposed, as it is stored by a linear layer."""
    weight = b.parameter is not None
    grad_b = Gemm(m=n, k=m, n=k, groups=groups) if weight else Gemm(m=k, k=m, n=n, groups=groups)
    return _Product(
        a, b, c, Gemm(m=m, k=k, n=n, groups=groups), Gemm(m=m, k=n, n=k, groups=groups), grad_b, swap_b=weight
    )


def _matmul(graph: _Graph, node: Any) -> _Product:
    a, b, c = _two(graph, node)
    k = a.shape[-1]
    m = a.shape[-2] if len(a.shape) > 1 else 1
    n = b.shape[-1] if len(b.shape) > 1 else 1
    if len(b.shape) <= 2:
        return _dense(a, b, c, a.elements // k, k, n)
    return _dense(a, b, c, m, k, n, c.elements // (m * n))


def _gemm(graph: _Graph, node: Any) -> _Product:
    a, b, c = _two(graph, node)
    m, n = c.shape
    return _dense(a, b, c, m, a.elements // m, n)


def _conv(graph: _Graph, node: Any) -> _Product:
    x, w, y = _two(graph, node)
    groups = _attribute(node, "group", 1)
    rows, taps = y.shape[0] * prod(y.shape[2:]), prod(w.shape[2:])
    c_in, c_out = w.shape[1], w.shape[0] // groups
    return _Product(
        x, w, y,
        forward=Gemm(m=rows, k=c_in * taps, n=c_out, groups=groups, run=c_in),
        grad_a=Gemm(m=rows, k=c_out, n=c_in * taps, groups=groups),
        grad_b=Gemm(m=c_out, k=rows, n=c_in * taps, groups=groups),
    )  # fmt: skip


def _conv_transpose(graph: _Graph, node: Any) -> _Product:
    x, w, y = _two(graph, node)
    groups = _attribute(node, "group", 1)
    rows, taps = x.shape[0] * prod(x.shape[2:]), prod(w.shape[2:])
    c_in, c_out = w.shape[0] // groups, w.shape[1]
    return _Product(
        x, w, y,
        forward=Gemm(m=rows, k=c_in, n=c_out * taps, groups=groups),
        grad_a=Gemm(m=rows, k=c_out * taps, n=c_in, groups=groups, run=c_out),
        grad_b=Gemm(m=c_in, k=rows, n=c_out * taps, groups=groups),
        swap_b=False,
    )  # fmt: skip


def _einsum(graph: _Graph, node: Any) -> _Product:
    """A product of two operands whose every index is kept or is contracted between both."""
    equation = bytes(_attribute(node, "equation", b"")).decode().replace(" ", "")
    left, _, out = equation.partition("->")
    terms = left.split(",")
    simple = len(terms) == len(node.input) == 2 and "->" in equation and (left.replace(",", "") + out).isalpha()
    if not simple or any(len(set(term)) != len(term) for term in (*terms, out)):
        raise graph.refuse(
            node, f"equation {equation!r} is not a product of two operands with distinct, written indices"
        )
    a, b, c = _two(graph, node)
    first, second, kept = (set(term) for term in (*terms, out))
    if (first ^ second) - kept:
        raise graph.refuse(node, f"equation {equation!r} sums an index of one operand alone")
    size = {**dict(zip(terms[0], a.shape, strict=True)), **dict(zip(terms[1], b.shape, strict=True))}
    m, n, k, groups = (
        prod(size[index] for index in indices)
        for indices in (first - second, second - first, (first & second) - kept, first & second & kept)
    )
    return _dense(a, b, c, m, k, n, groups)


_RULES: dict[str, Callable[[_Graph, Any], _Product]] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Einsum": _einsum,
    "Gemm": _gemm,
    "MatMul": _matmul,
}


class _Recurrent:
    """LSTM, GRU or RNN: one product for the inputs of all steps, then one small product per step and direction."""

    def __init__(self, graph: _Graph, node: Any) -> None:
        inputs = [*graph.ins(node), *[None] * 8]
        x, w, r = inputs[:3]
        if x is None or w is None or r is None:
            raise graph.refuse(node, "an operand is missing")
        if node.op_type == "LSTM" and inputs[7] is not None:
            raise graph.refuse(node, "peephole weights have no rule")
        if node.op_type == "GRU" and not _attribute(node, "linear_before_reset", 0):
            raise graph.refuse(node, "only linear_before_reset = 1, the GRU of PyTorch, has a rule")
        self.node, self.x, self.w, self.r, self.bias, self.start = node, x, w, r, inputs[3], inputs[5]
        self.y = graph.outs(node)[0]
        steps, batch = x.shape[:2]
        self.steps, self.batch = (batch, steps) if _attribute(node, "layout", 0) else (steps, batch)
        self.directions, self.width, self.inputs = w.shape
        self.hidden = r.shape[2]

    def _part(self, pass_: Pass, gemm: Gemm, sizes: tuple[int, int, int], parameter: _Tensor) -> MatrixOp:
        """One product; ``sizes`` are the elements of A, B and C, of the roles its pass gives them."""
        roles = {
            Pass.FF: (Role.ACTIVATION, Role.WEIGHT, Role.ACTIVATION),
            Pass.BP: (Role.GRADIENT, Role.WEIGHT, Role.GRADIENT),
            Pass.WU: (Role.GRADIENT, Role.ACTIVATION, Role.GRADIENT),
        }[pass_]
        width = DTYPE_BYTES[self.x.dtype]
        a, b, c = (
            Operand(role=role, dtype=self.x.dtype, bytes=size * width) for role, size in zip(roles, sizes, strict=True)
        )
        return MatrixOp(
            name=_label(self.node),
            op=self.node.op_type,
            pass_=pass_,
            gemm=gemm,
            a=a,
            b=b,
            c=c,
            parameter=parameter.parameter,
        )

    def _trio(self, rows: int, depth: int, parameter: _Tensor) -> dict[Pass, MatrixOp]:
        """The three products of ``rows`` x ``depth`` data and a weight of ``width`` x ``depth``."""
        data, weight, gates = rows * depth, self.width * depth, rows * self.width
        return {
            Pass.FF: self._part(Pass.FF, Gemm(m=rows, k=depth, n=self.width), (data, weight, gates), parameter),
            Pass.BP: self._part(Pass.BP, Gemm(m=rows, k=self.width, n=depth), (gates, weight, data), parameter),
            Pass.WU: self._part(Pass.WU, Gemm(m=self.width, k=rows, n=depth), (gates, data, weight), parameter),
        }

    def _all_steps(self) -> dict[Pass, MatrixOp]:
        return self._trio(self.steps * self.batch, self.inputs, self.w)

    def _one_step(self) -> dict[Pass, MatrixOp]:
        return self._trio(self.batch, self.hidden, self.r)

    def _gates(self, pass_: Pass) -> VectorOp:
        """Element-wise work of all steps: the gates, the state, and their gradients."""
        rows = self.steps * self.batch * self.directions
        gates, state = (rows * size * DTYPE_BYTES[self.x.dtype] for size in (self.width, self.hidden))
        read, written = (gates + state, 2 * state) if pass_ is Pass.FF else (gates + 3 * state, gates + state)
        return _vector(self.node, pass_, self.y, read, written)

    def forward(self) -> list[Op]:
        """Inputs of all steps at once, then step after step."""
        ops: list[Op] = []
        for _ in range(self.directions):
            ops += [self._all_steps()[Pass.FF], *[self._one_step()[Pass.FF]] * self.steps]
        return [*ops, self._gates(Pass.FF)]

    def backward(self) -> list[Op]:
        """Step before step; the first step passes a gradient on only where its state needs one."""
        ops: list[Op] = [self._gates(Pass.BP)]
        first = self.start is not None and self.start.grad
        for _ in range(self.directions):
            step, everything = self._one_step(), self._all_steps()
            for index in reversed(range(self.steps)):
                if index or first:
                    ops.append(step[Pass.BP])
                if self.r.grad:
                    ops.append(step[Pass.WU])
            ops += [everything[Pass.BP]] if self.x.grad else []
            ops += [everything[Pass.WU]] if self.w.grad else []
        if self.bias is not None and self.bias.grad:
            rows = self.steps * self.batch * self.directions
            ops.append(
                _vector(self.node, Pass.WU, self.bias, rows * self.width * DTYPE_BYTES[self.x.dtype], self.bias.bytes)
            )
        return ops
