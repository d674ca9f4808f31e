"""LSTM, GRU and RNN in the operators that PyTorch runs on a CPU: one product for the inputs of all steps.

PyTorch's own code (aten/src/ATen/native/RNN.cpp) does so only where tensors are on a CPU; those without data are on
none, and there it multiplies the inputs step by step. oneDNN's and cuDNN's one operator a layer hides its vector work.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import linear

__all__ = ["RECURRENCES", "as_on_cpu"]

_State = tuple[Tensor, ...]
"""Of one layer and direction: hidden, and cell state of an LSTM, [batch, width] each; hidden is its output."""


class _Weights(NamedTuple):
    """Of one layer and direction, all gates in one: [gates x width, depth]."""

    input: Tensor
    hidden: Tensor
    input_bias: Tensor | None = None
    hidden_bias: Tensor | None = None
    projection: Tensor | None = None


_Cell = Callable[[Tensor, _State, _Weights], _State]
"""The next state, from the product of the inputs, the state and the weights."""


def _lstm(x: Tensor, state: _State, w: _Weights) -> _State:
    hidden, memory = state
    gates = linear(hidden, w.hidden, w.hidden_bias).add_(x).unsafe_chunk(4, 1)
    i, f, g, o = gates[0].sigmoid_(), gates[1].sigmoid_(), gates[2].tanh_(), gates[3].sigmoid_()
    memory = (f * memory).add_(i * g)
    hidden = o * memory.tanh()
    return hidden if w.projection is None else hidden @ w.projection.t(), memory


def _gru(x: Tensor, state: _State, w: _Weights) -> _State:
    given, made = x.unsafe_chunk(3, 1), linear(state[0], w.hidden, w.hidden_bias).unsafe_chunk(3, 1)
    reset, update = made[0].add_(given[0]).sigmoid_(), made[1].add_(given[1]).sigmoid_()
    new = given[2].add(made[2].mul_(reset)).tanh_()
    return ((state[0] - new).mul_(update).add_(new),)


def _rnn(x: Tensor, state: _State, w: _Weights, *, activation: Callable[[Tensor], Tensor]) -> _State:
    return (activation(linear(state[0], w.hidden, w.hidden_bias).add_(x)),)


_CELLS: dict[Any, _Cell] = {
    torch.lstm: _lstm,
    torch.gru: _gru,
    torch.rnn_tanh: partial(_rnn, activation=torch.tanh),
    torch.rnn_relu: partial(_rnn, activation=torch.relu),
}
_OPTIONS = ("has_biases", "num_layers", "dropout", "train", "bidirectional")
_ARGUMENTS = ("input", "hx", "params", *_OPTIONS, "batch_first")
_PACKED_ARGUMENTS = ("data", "batch_sizes", "hx", "params", *_OPTIONS)


RECURRENCES = tuple(_CELLS)
"""What `as_on_cpu` runs."""


def as_on_cpu(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> tuple[Tensor, ...]:
    """A call of ``torch.lstm``, ``gru``, ``rnn_tanh`` or ``rnn_relu``, of full or of packed sequences.

    Returns what the call does: outputs [steps, batch, width] or [batch, steps, width], or packed [tokens, width], and
    the last states [layers x directions, batch, width], of the dtype of the data.
    """
    packed = "batch_sizes" in kwargs or (len(args) > 3 and isinstance(args[3], list | tuple))
    given = {**dict(zip(_PACKED_ARGUMENTS if packed else _ARGUMENTS, args, strict=False)), **kwargs}
    hx, params = given["hx"], given["params"]
    states = (hx,) if isinstance(hx, Tensor) else tuple(hx)
    size = 2 + 2 * given["has_biases"] + (len(states) == 2 and states[0].shape[2] != states[1].shape[2])
    weights = [_weights(params[i : i + size], given["has_biases"]) for i in range(0, len(params), size)]
    data, flipped = (given["data"], False) if packed else (given["input"], given["batch_first"])
    out, *ends = _recurrence(
        _CELLS[func],
        data.transpose(0, 1) if flipped else data,
        states,
        weights,
        directions=1 + given["bidirectional"],
        dropout=given["dropout"] if given["train"] else 0.0,
        sizes=given["batch_sizes"].tolist() if packed else None,
    )
    return out.transpose(0, 1) if flipped else out, *ends


def _weights(group: Sequence[Tensor], has_biases: bool) -> _Weights:
    """From PyTorch's order: weights, biases if there are any, projection if there is one."""
    input_bias, hidden_bias = (group[2], group[3]) if has_biases else (None, None)
    return _Weights(group[0], group[1], input_bias, hidden_bias, group[-1] if len(group) % 2 else None)


def _recurrence(
    cell: _Cell,
    data: Tensor,
    states: _State,
    weights: Sequence[_Weights],
    *,
    directions: int = 1,
    dropout: float = 0.0,
    sizes: Sequence[int] | None = None,
) -> tuple[Tensor, ...]:
    """Outputs of the last layer, [steps, batch, directions x width], and final states as ``states`` are stacked.

    ``data`` is [steps, batch, features], or packed: [rows, features], of which step i has ``sizes[i]``. ``weights`` and
    the first axis of each of ``states`` list layers and in them directions. ``dropout`` works between layers.
    """
    starts = list(zip(*(state.unbind(0) for state in states), strict=True))
    ends: list[_State] = []
    for first in range(0, len(weights), directions):
        if first and dropout:
            data = torch.dropout(data, dropout, True)
        outs = []
        for index in range(first, first + directions):
            step, x = _step(cell, weights[index]), linear(data, weights[index].input, weights[index].input_bias)
            one = _full if sizes is None else partial(_packed, sizes=sizes)
            out, end = one(step, x, starts[index], backwards=index > first)
            outs.append(out)
            ends.append(end)
        data = torch.cat(outs, -1) if directions > 1 else outs[0]
    return data, *map(torch.stack, zip(*ends, strict=True))


_Step = Callable[[Tensor, _State], _State]


def _step(cell: _Cell, weights: _Weights) -> _Step:
    return lambda x, state: cell(x, state, weights)


def _full(step: _Step, x: Tensor, state: _State, *, backwards: bool) -> tuple[Tensor, _State]:
    outs = []
    for part in reversed(x.unbind(0)) if backwards else x.unbind(0):
        state = step(part, state)
        outs.append(state[0])
    return torch.stack(outs[::-1] if backwards else outs), state


def _packed(step: _Step, x: Tensor, start: _State, *, sizes: Sequence[int], backwards: bool) -> tuple[Tensor, _State]:
    """Longest sequences first: going on, those that ended fall behind; going back, more and more begin."""
    state = _rows(start, 0, sizes[-1] if backwards else sizes[0])
    spans = list(zip(sizes, accumulate(sizes), strict=True))
    outs, ended = [], []
    for now, end in reversed(spans) if backwards else spans:
        before = len(state[0])
        if now < before:
            ended.append(_rows(state, now, before))
            state = _rows(state, 0, now)
        elif now > before:
            state = _joined([state, _rows(start, before, now)])
        # Not split: PyTorch fills the gradient of the whole with zeros for the part of every step.
        state = step(x[end - now : end], state)
        outs.append(state[0])
    if backwards:
        return torch.cat(outs[::-1]), state
    return torch.cat(outs), _joined([state, *ended[::-1]])


def _rows(state: _State, start: int, end: int) -> _State:
    return tuple(part[start:end] for part in state)


def _joined(states: Sequence[_State]) -> _State:
    return tuple(map(torch.cat, zip(*states, strict=True)))
