"""Vector ops: the bytes that an operator without a product reads and writes, forward and for its gradients."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from ..gemm import Pass
from ..step import VectorOp
from .graph import Node, Tensor
from .operators import FREE, PASSES_THROUGH, REARRANGES, ROWS_ONLY, SAVES_INPUT, SAVES_OUTPUT, UNCHANGED

__all__ = ["is_normalization", "vector_backward", "vector_forward", "vector_op"]


def vector_op(name: str, op: str, pass_: Pass, tensor: Tensor, read: int, written: int) -> VectorOp:
    """A vector op that works on ``tensor``, element by element."""
    return VectorOp(
        name=name,
        op=op,
        pass_=pass_,
        dtype=tensor.dtype,
        elements=tensor.elements,
        read_bytes=read,
        write_bytes=written,
    )


def is_normalization(node: Node) -> bool:
    """Whether the node is a normalisation, which makes all its gradients at once."""
    return node.op.endswith("Normalization")


def vector_forward(node: Node) -> Iterator[VectorOp]:
    """One op, or none where nothing moves."""
    if not _is_free(node):
        written = _bytes(node.outs)
        sizes = [tensor.bytes for tensor in node.read]
        if node.op in ROWS_ONLY and sizes:
            sizes[0] = min(sizes[0], written)
        yield vector_op(node.name, node.op, Pass.FF, node.outs[0], sum(sizes), written)


def vector_backward(node: Node) -> Iterator[VectorOp]:
    """One op for the gradients of data, one for those of parameters; a fused one for a normalisation."""
    if _is_free(node):
        return
    out = node.outs[0]
    wanted: Sequence[Tensor] = node.differentiated
    if node.op in PASSES_THROUGH:
        wanted = [tensor for tensor in wanted if tensor.shape != out.shape]
    data = [tensor for tensor in wanted if tensor.parameter is None]
    weights = [tensor for tensor in wanted if tensor.parameter is not None]
    if is_normalization(node) and data:
        data, weights = data + weights, []
    for pass_, group in ((Pass.BP, data), (Pass.WU, weights)):
        if group:
            largest = max((out, *group), key=lambda tensor: tensor.elements)
            yield vector_op(node.name, node.op, pass_, largest, _gradient_reads(node, group), _bytes(group))


def _is_free(node: Node) -> bool:
    if node.op in UNCHANGED and node.ins[0] is not None:
        before, after = node.ins[0], node.outs[0]
        if (before.shape, before.dtype) == (after.shape, after.dtype):
            return True
    if node.op == "DequantizeLinear":
        # What was rounded in this step is a float already; a stored weight is rounded here.
        read = node.ins[0]
        return read is not None and read.dtype == node.outs[0].dtype and not (read.parameter and read.direct)
    rearranged_parameter = node.op in REARRANGES and node.outs[0].parameter is not None
    return rearranged_parameter or node.op in FREE or node.op == "Constant"


def _gradient_reads(node: Node, group: Sequence[Tensor]) -> int:
    """Bytes read to make the gradients of ``group``: the output's gradient and what the forward op saved."""
    read = _bytes(out for out in node.outs if out.grad)
    if node.op in SAVES_OUTPUT:
        return read + node.outs[0].bytes
    if node.op not in SAVES_INPUT:
        return read
    saved = node.read
    if node.op in ("Mul", "Div") and len(group) == 1 and len(saved) == 2:
        # The gradient of one factor reads the other.
        saved = [tensor for tensor in saved if tensor.name != group[0].name] or saved
    return read + _bytes(saved)


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.bytes for tensor in tensors)
