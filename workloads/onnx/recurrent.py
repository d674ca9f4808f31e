"""LSTM, GRU and RNN: one product for the inputs of all steps, then one small product per step and direction."""

from __future__ import annotations

from collections.abc import Iterator

from ..convolution import linear_gemms
from ..errors import InputError
from ..gemm import Pass
from ..step import DTYPE_BYTES, MatrixOp, Op, Operand, Role, VectorOp
from .graph import Node, Tensor
from .traffic import vector_op

__all__ = ["Recurrent"]

_MOST_STEPS = 2**20
"""Of a sequence: every step is ops of its own."""


class Recurrent:
    """The ops of one recurrent node; ``width`` is that of all its gates."""

    def __init__(self, node: Node) -> None:
        x, w, r, bias, _, start, _, peephole = (*node.ins, *[None] * 8)[:8]
        if x is None or w is None or r is None:
            raise InputError("an operand is missing")
        if node.op == "LSTM" and peephole is not None:
            raise InputError("peephole weights have no rule")
        if node.op == "GRU" and not node.attribute("linear_before_reset", 0):
            raise InputError("only linear_before_reset = 1, the GRU of PyTorch, has a rule")
        self.node, self.x, self.w, self.r, self.bias, self.start = node, x, w, r, bias, start
        steps, batch = x.shape[:2]
        self.steps, batch = (batch, steps) if node.attribute("layout", 0) else (steps, batch)
        self.directions, self.width, inputs = w.shape
        if self.directions not in (1, 2):
            raise InputError(f"weights are of one direction or of two, not of {self.directions}")
        if self.steps > _MOST_STEPS:
            raise InputError(f"{self.steps:,} steps make that many products; at most {_MOST_STEPS:,} are listed")
        self.hidden = r.shape[2]
        self.rows = self.steps * batch * self.directions
        """Of the results of all steps and directions."""
        self.all_inputs = self._products(self.steps * batch, inputs, w)
        self.one_step = self._products(batch, self.hidden, r)

    def forward(self) -> Iterator[Op]:
        """Inputs of all steps at once, then step after step."""
        for _ in range(self.directions):
            yield self.all_inputs[Pass.FF]
            yield from [self.one_step[Pass.FF]] * self.steps
        yield self._gates(Pass.FF)

    def backward(self) -> Iterator[Op]:
        """Step before step; the first step passes a gradient on only where its state needs one."""
        yield self._gates(Pass.BP)
        first = self.start is not None and self.start.grad
        for _ in range(self.directions):
            for index in reversed(range(self.steps)):
                if index or first:
                    yield self.one_step[Pass.BP]
                if self.r.grad:
                    yield self.one_step[Pass.WU]
            if self.x.grad:
                yield self.all_inputs[Pass.BP]
            if self.w.grad:
                yield self.all_inputs[Pass.WU]
        if self.bias is not None and self.bias.grad:
            yield self._vector(Pass.WU, self.bias, self._bytes(self.rows * self.width), self.bias.bytes)

    def _products(self, rows: int, depth: int, weight: Tensor) -> dict[Pass, MatrixOp]:
        """The products of ``rows`` x ``depth`` data and one direction of ``weight``, ``width`` x ``depth``."""
        gemms = linear_gemms(rows, depth, self.width)
        data, gates, size = rows * depth, rows * self.width, self.width * depth
        x, w, y = (Role.ACTIVATION, data), (Role.WEIGHT, size), (Role.ACTIVATION, gates)
        dx, dw, dy = (Role.GRADIENT, data), (Role.GRADIENT, size), (Role.GRADIENT, gates)
        operands = {Pass.FF: (x, w, y), Pass.BP: (dy, w, dx), Pass.WU: (dy, x, dw)}
        products = {}
        for pass_, gemm in gemms.items():
            a, b, c = (Operand(role=role, dtype=self.x.dtype, bytes=self._bytes(n)) for role, n in operands[pass_])
            products[pass_] = MatrixOp(
                name=self.node.name, op=self.node.op, pass_=pass_, gemm=gemm, a=a, b=b, c=c,
                parameter=weight.parameter,
            )  # fmt: skip
        return products

    def _gates(self, pass_: Pass) -> VectorOp:
        """Element-wise work of all steps: the gates, the state, and their gradients."""
        gates, state = self._bytes(self.rows * self.width), self._bytes(self.rows * self.hidden)
        read, written = (gates + state, 2 * state) if pass_ is Pass.FF else (gates + 3 * state, gates + state)
        return self._vector(pass_, self.node.outs[0], read, written)

    def _vector(self, pass_: Pass, tensor: Tensor, read: int, written: int) -> VectorOp:
        return vector_op(self.node.name, self.node.op, pass_, tensor, read, written)

    def _bytes(self, elements: int) -> int:
        return elements * DTYPE_BYTES[self.x.dtype]
