"""LSTM, GRU and RNN: traced as the layer of PyTorch that they are, so that both doors count the same ops."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from ..errors import InputError
from ..gemm import Pass
from ..step import MatrixOp, Op, VectorOp
from .graph import Node, Tensor

__all__ = ["Recurrent"]

_MOST_STEPS = 2**14
"""Of a sequence: every step is some forty ops of its own."""


@dataclass(frozen=True, slots=True)
class _Source:
    """Of an input: whether it is given, made of parameters alone, and gets a gradient."""

    given: bool
    parameter: bool
    grad: bool

    @classmethod
    def of(cls, tensor: Tensor | None) -> _Source:
        return cls(tensor is not None, bool(tensor and tensor.parameter), bool(tensor and tensor.grad))


@dataclass(frozen=True, slots=True)
class _Layer:
    """All that the ops of a node depend on but its names."""

    kind: str
    dtype: str
    steps: int
    batch: int
    inputs: int
    hidden: int
    directions: int
    batch_first: bool
    sources: tuple[_Source, ...]
    """Of x, w, r, bias, initial state, initial cell state."""
    passed: tuple[bool, ...]
    """Whether a gradient comes back to the outputs, the last state, the last cell state."""


class Recurrent:
    """The ops of one recurrent node; ``reached`` are the tensors to which a gradient comes back."""

    def __init__(self, node: Node, reached: Collection[Tensor]) -> None:
        x, w, r, bias, _, start, memory, peephole = (*node.ins, *[None] * 8)[:8]
        if x is None or w is None or r is None:
            raise InputError("an operand is missing")
        if node.op == "LSTM" and peephole is not None:
            raise InputError("peephole weights have no rule")
        if node.op == "GRU" and not node.attribute("linear_before_reset", 0):
            raise InputError("only linear_before_reset = 1, the GRU of PyTorch, has a rule")
        self._node = node
        self._names = {"weight_ih": w.parameter, "weight_hh": r.parameter}
        batch_first = bool(node.attribute("layout", 0))
        batch, steps = x.shape[:2] if batch_first else (x.shape[1], x.shape[0])
        if steps > _MOST_STEPS:
            raise InputError(f"{steps:,} steps make that many products; at most {_MOST_STEPS:,} are listed")
        names = {tensor.name for tensor in reached}
        outputs = [*node.proto.output, *[""] * 3][: 3 if node.op == "LSTM" else 2]
        self._layer = _Layer(
            kind=node.op,
            dtype=x.dtype,
            steps=steps,
            batch=batch,
            inputs=w.shape[2],
            hidden=r.shape[2],
            directions=w.shape[0],
            batch_first=batch_first,
            passed=tuple(name in names for name in outputs),
            sources=tuple(map(_Source.of, (x, w, r, bias, start, memory))),
        )

    def forward(self) -> Iterator[Op]:
        """Inputs of all steps at once, then step after step."""
        return (self._named(op) for op in _traced(self._layer) if op.pass_ is Pass.FF)

    def backward(self) -> Iterator[Op]:
        """Step before step; the first step passes a gradient on only where its state needs one."""
        return (self._named(op) for op in _traced(self._layer) if op.pass_ is not Pass.FF)

    def _named(self, op: MatrixOp | VectorOp) -> Op:
        if isinstance(op, VectorOp) or op.parameter is None:
            return replace(op, name=self._node.name, op=self._node.op)
        return replace(op, name=self._node.name, op=self._node.op, parameter=self._names[op.parameter[:9]])


@lru_cache(maxsize=64)
def _traced(layer: _Layer) -> tuple[MatrixOp | VectorOp, ...]:
    """The ops of PyTorch's layer, which is imported where there is one."""
    import torch

    from ..trace import trace_recurrence

    dtype = getattr(torch, layer.dtype)
    x, w, r, bias, start, memory = layer.sources

    def tensor(source: _Source, *shape: int) -> Any:
        return torch.empty(*shape, dtype=dtype, device="meta", requires_grad=source.grad)

    module = {"LSTM": torch.nn.LSTM, "GRU": torch.nn.GRU, "RNN": torch.nn.RNN}[layer.kind](
        layer.inputs,
        layer.hidden,
        bias=bias.given,
        bidirectional=layer.directions == 2,
        batch_first=layer.batch_first,
        dtype=dtype,
        device="meta",
    )
    data = []
    for name, parameter in module.named_parameters():
        source = w if name.startswith("weight_ih") else r if name.startswith("weight_hh") else bias
        parameter.requires_grad_(source.grad)
        if not source.parameter:
            data.append(parameter)
    shape = (layer.batch, layer.steps) if layer.batch_first else (layer.steps, layer.batch)
    sequence = tensor(x, *shape, layer.inputs)
    data.append(sequence)
    args = [sequence]
    if start.given or (layer.kind == "LSTM" and memory.given):
        states = [tensor(source, layer.directions, layer.batch, layer.hidden) for source in (start, memory)]
        data += states
        args.append(tuple(states) if layer.kind == "LSTM" else states[0])
    return tuple(trace_recurrence(module, args, data, layer.passed))
