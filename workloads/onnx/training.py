"""The training step of an inference graph: forward, loss, gradients in reverse, update."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ..errors import InputError, reading, require_int
from ..gemm import Pass
from ..patterns import matching
from ..step import Frozen, Op, UpdateOp, VectorOp, Workload, require_products
from .assumed import assumed
from .axes import batch_axes
from .batch import at_batch
from .bodies import first_body, has_body
from .constants import store
from .control import CONTROL
from .file import fed_inputs, load, opset_of, require_attributes
from .graph import Graph, Node, Tensor, where
from .inputs import asked_sizes
from .operators import PRODUCTS, RECURRENT, RULED, nearest_operator
from .products import product_backward, product_forward
from .quantised import as_floats
from .recurrent import Recurrent
from .traffic import vector_backward, vector_forward, vector_op

__all__ = ["onnx_workload"]


def onnx_workload(
    path: str | Path,
    *,
    batch: int | None = None,
    optimizer: str = "sgd",
    freeze: Sequence[str] = (),
    dims: Mapping[str, int] | None = None,
    sample: tuple[int, ...] | None = None,
) -> Workload:
    """One training step of the model in the ONNX file ``path``.

    ``batch`` replaces the symbolic batch axis of the inputs: that of a recurrent layer, the one called batch, or the
    first; it is required where that axis is symbolic and must agree with it where it is fixed. ``dims`` are sizes of
    other symbolic axes, by their names or as ``INPUT:AXIS``; ``sample`` is the shape of one
    sample where there is one input. What is a parameter: :func:`.parameters.parameters`; ``freeze`` names those that
    are not trained, with shell wildcards. Anything that cannot be sized exactly is an :class:`InputError`.
    """
    file = Path(path)
    if batch is not None:
        require_int("batch", batch, 1, 2**31)
    try:
        with reading("the graph", "one that ONNX allows"):
            model = load(file)
            as_floats(model)
            _require_known_ops(model.graph.node, opset_of(model))
            require_attributes(model)
            axes = batch_axes(model, fed_inputs(model.graph))
            sizes = asked_sizes(model.graph, batch, dims or {}, sample, axes)
            graph, found = at_batch(
                store(model), sizes.batch, sizes.write, lambda names: matching(freeze, sorted(names), "parameter")
            )
            # Once more: what the bodies of control flow held.
            _require_known_ops(node.proto for node in graph.nodes)
            ops = tuple(_step(graph))
            require_products(file.stem, ops)
            return Workload(
                model=file.stem,
                batch=found,
                input=", ".join(" x ".join(map(str, tensor.shape)) or "1" for tensor in graph.inputs),
                optimizer=optimizer,
                ops=ops,
                frozen=tuple(_frozen(graph, ops)),
                assumed=assumed(graph),
            )
    except InputError as error:
        raise InputError(f"{file}: {error}") from error


def _require_known_ops(nodes: Iterable[Any], opset: int | None = None) -> None:
    """Refuse operators without a rule; ``opset``: of nodes that are yet to be written out, the version they are in."""
    for proto in nodes:
        if proto.domain not in ("", "ai.onnx"):
            raise InputError(f"{where(proto)} is of domain {proto.domain!r}; only standard ONNX operators have rules")
        open_ = opset is not None and (proto.op_type in CONTROL or has_body(proto.op_type, opset))
        if proto.op_type not in RULED and not open_:
            first = first_body(proto.op_type)
            advice = f"from opset {first} on ONNX defines it by operators that do; convert the file" if first else ""
            said = advice or nearest_operator(proto.op_type)
            raise InputError(f"{where(proto)} has no rule for a training step: {said}")


def _step(graph: Graph) -> Iterator[Op]:
    """All ops, in order."""
    for node in graph.nodes:
        yield from _named(node, partial(_forward, graph))
    yield from _loss(graph, Pass.FF)
    yield from _loss(graph, Pass.BP)
    for node in graph.backward:
        yield from _sums(graph, node.outs)
        yield from _named(node, partial(_backward, graph))
    yield from _sums(graph, graph.initializers)
    trained = dict.fromkeys(
        tensor for node in graph.backward for tensor in node.differentiated if tensor.parameter == tensor.name
    )
    if not trained:
        raise InputError("no parameter is trained, so there is no training step")
    yield from (UpdateOp(name=tensor.name, elements=tensor.elements) for tensor in trained)


def _frozen(graph: Graph, ops: Iterable[Op]) -> Iterator[Frozen]:
    """Initializers that some node reads and none trains."""
    trained = {op.name for op in ops if isinstance(op, UpdateOp)}
    read = {tensor.name for node in graph.nodes for tensor in node.read}
    for tensor in graph.initializers:
        if tensor.name in read - trained and tensor.elements:
            yield Frozen(name=tensor.name, dtype=tensor.dtype, elements=tensor.elements)


def _named(node: Node, rule: Callable[[Node], Iterable[Op]]) -> Sequence[Op]:
    """What ``rule`` makes of ``node``, which is named in what it refuses and in what it stumbles over."""
    try:
        with reading("the node", "one that ONNX allows"):
            return tuple(rule(node))
    except InputError as error:
        raise InputError(f"{where(node.proto)}: {error}") from error


def _forward(graph: Graph, node: Node) -> Iterable[Op]:
    if node.op in RECURRENT:
        return Recurrent(node, graph.reached).forward()
    return [product_forward(node)] if node.op in PRODUCTS else vector_forward(node)


def _backward(graph: Graph, node: Node) -> Iterable[Op]:
    if node.op in RECURRENT:
        return Recurrent(node, graph.reached).backward()
    return product_backward(node) if node.op in PRODUCTS else vector_backward(node)


def _loss(graph: Graph, pass_: Pass) -> Iterator[VectorOp]:
    """Softmax cross-entropy on every output that trains."""
    for out in graph.outputs:
        if out.grad:
            yield vector_op("loss", "SoftmaxCrossEntropyLoss", pass_, out, out.bytes, out.bytes)


def _sums(graph: Graph, tensors: Iterable[Tensor]) -> Iterator[VectorOp]:
    """The additions that join the gradients of a tensor that is used more than once."""
    for tensor in tensors:
        pass_ = Pass.BP if tensor.parameter is None else Pass.WU
        for _ in range(graph.uses[tensor] - 1):
            yield vector_op(tensor.name, "Add", pass_, tensor, 2 * tensor.bytes, tensor.bytes)
