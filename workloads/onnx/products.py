"""Operators that are one product of two tensors: the GEMM of each, and those of its two gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from math import prod

from ..convolution import convolution_gemms, linear_gemms
from ..errors import InputError
from ..gemm import Gemm, Pass
from ..operand import Operand
from ..step import MatrixOp, Op
from .einsum import indices
from .graph import Node, Tensor
from .traffic import vector_op

__all__ = ["product_backward", "product_forward", "product_macs"]


@dataclass(frozen=True, slots=True)
class _Product:
    """C = A B of a node with its two gradients, each as the GEMM that makes it.

    ``output_first`` says that the gradient of B has the output's gradient as its left operand, as that of A has.
    """

    a: Tensor
    b: Tensor
    c: Tensor
    forward: Gemm
    grad_a: Gemm
    grad_b: Gemm
    output_first: bool


def product_forward(node: Node) -> MatrixOp:
    """The product of a node."""
    product = _RULES[node.op](node)
    a, b, c = product.a, product.b, product.c
    return MatrixOp(
        name=node.name,
        op=node.op,
        pass_=Pass.FF,
        gemm=product.forward,
        a=a.operand,
        b=b.operand,
        c=c.operand,
        parameter=b.parameter or a.parameter,
        convolution=_is_convolution(node),
    )


def product_macs(node: Node) -> int:
    """Multiply-accumulates of the product of a node."""
    return _RULES[node.op](node).forward.macs


def product_backward(node: Node) -> Iterator[Op]:
    """The gradients of a node: of data, of weights, of its bias."""
    product = _RULES[node.op](node)
    a, b, c = product.a, product.b, product.c
    gradients: list[tuple[MatrixOp, Tensor]] = []
    for of, other, gemm, output_first in ((a, b, product.grad_a, True), (b, a, product.grad_b, product.output_first)):
        if of.grad:
            left, right = (c.gradient, other.operand) if output_first else (other.operand, c.gradient)
            pass_ = Pass.BP if of.parameter is None else Pass.WU
            parameter = other.parameter if of.parameter is None else of.parameter
            op = MatrixOp(
                name=node.name,
                op=node.op,
                pass_=pass_,
                gemm=gemm,
                a=left,
                b=right,
                c=_made(node, of, gemm),
                parameter=parameter,
                convolution=_is_convolution(node),
            )
            gradients.append((op, of))
    for op, of in sorted(gradients, key=lambda pair: pair[0].pass_ is Pass.WU):
        yield op
        if op.c.bytes > of.bytes:
            yield vector_op(node.name, "ReduceSum", op.pass_, of, op.c.bytes, of.bytes)
    for bias in node.ins[2:]:
        if bias is not None and bias.grad:
            yield vector_op(node.name, node.op, Pass.WU, c, c.bytes, bias.bytes)


def _made(node: Node, of: Tensor, gemm: Gemm) -> Operand:
    """The gradient as a product makes it: of an operand that was repeated, one for each time, to be added up."""
    if _is_convolution(node):
        return of.gradient
    return of.gradient.sized(gemm.groups * gemm.m * gemm.n)


def _is_convolution(node: Node) -> bool:
    return node.op.startswith("Conv")


def _operands(node: Node) -> tuple[Tensor, Tensor, Tensor]:
    """Left operand, right operand and result of a node."""
    a, b = node.ins[:2]
    if a is None or b is None:
        raise InputError("an operand is missing")
    for tensor in (a, b):
        if not tensor.elements:
            raise InputError(f"operand {tensor.name!r} is empty")
    if node.entering is not None:
        a, b = (replace(tensor, parameter=None) if tensor == node.entering else tensor for tensor in (a, b))
    return a, b, node.outs[0]


def _layer(a: Tensor, b: Tensor, c: Tensor, gemms: dict[Pass, Gemm], *, output_first: bool = True) -> _Product:
    return _Product(a, b, c, gemms[Pass.FF], gemms[Pass.BP], gemms[Pass.WU], output_first)


def _dense(a: Tensor, b: Tensor, c: Tensor, m: int, k: int, n: int, groups: int = 1) -> _Product:
    """A plain product; the gradient of a weight on the right is made transposed, as it is stored by a linear layer."""
    if b.parameter is not None:
        return _layer(a, b, c, linear_gemms(m, k, n, groups))
    forward, grad_a, grad_b = (
        Gemm(m=rows, k=depth, n=columns, groups=groups) for rows, depth, columns in ((m, k, n), (m, n, k), (k, m, n))
    )
    return _Product(a, b, c, forward, grad_a, grad_b, output_first=False)


def _matmul(node: Node) -> _Product:
    a, b, c = _operands(node)
    k = a.shape[-1]
    m = a.shape[-2] if len(a.shape) > 1 else 1
    n = b.shape[-1] if len(b.shape) > 1 else 1
    if len(b.shape) <= 2:
        return _dense(a, b, c, a.elements // k, k, n)
    return _dense(a, b, c, m, k, n, c.elements // (m * n))


def _gemm(node: Node) -> _Product:
    a, b, c = _operands(node)
    m, n = c.shape
    return _dense(a, b, c, m, a.elements // m, n)


def _convolution(node: Node) -> _Product:
    x, w, y = _operands(node)
    transposed = node.op == "ConvTranspose"
    gemms = convolution_gemms(x.shape, w.shape, y.shape, node.attribute("group", 1), transposed=transposed)
    return _layer(x, w, y, gemms, output_first=not transposed)


def _einsum(node: Node) -> _Product:
    """A product of two operands whose every index is kept or is contracted between both."""
    equation, terms, out = indices(node)
    if len(terms) != 2 or len(node.ins) != 2 or any(len(set(term)) != len(term) for term in (*terms, out)):
        raise InputError(f"equation {equation!r} is not a product of two operands with distinct indices")
    a, b, c = _operands(node)
    first, second, kept = (set(term) for term in (*terms, out))
    if (first ^ second) - kept:
        raise InputError(f"equation {equation!r} sums an index of one operand alone")
    size: dict[str, int] = {}
    for index, found in (*zip(terms[0], a.shape, strict=True), *zip(terms[1], b.shape, strict=True)):
        # An axis of the dots may be 1 in one of them.
        size[index] = max(size.get(index, 1), found)
    m, n, k, groups = (
        prod(size[index] for index in indices)
        for indices in (first - second, second - first, (first & second) - kept, first & second & kept)
    )
    return _dense(a, b, c, m, k, n, groups)


_RULES: dict[str, Callable[[Node], _Product]] = {
    "Conv": _convolution,
    "ConvTranspose": _convolution,
    "Einsum": _einsum,
    "Gemm": _gemm,
    "MatMul": _matmul,
}
