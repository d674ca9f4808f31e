"""Captures a training step of a module as a `Graph`: PyTorch runs forward and backward once on tensors without data.

`make_fx` writes down the operators below autograd; `graph_rules.py` brings them to those of a graph. How backward finds
its way home is told in `recorder.py`: an autograd node has the number that the forward operator left behind.
"""

from __future__ import annotations

import logging
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._subclasses import FakeTensorMode
from torch.func import functional_call, functionalize, vjp
from torch.fx.experimental.proxy_tensor import get_proxy_mode, make_fx
from torch.nn.modules import module as nn_module
from torch.utils._pytree import tree_map

from ..errors import InputError
from ..graph import Graph, PortKind
from ..models.classifier import scores
from .graph_rules import lower
from .lowering import Lowering, Place, Value

__all__ = ["forward_graph", "step_graph"]

_PLACE = "weft_place"
"""Key of a node's `Place` in its ``meta``."""


def step_graph(model: nn.Module, pixels: Tensor, *, name: str) -> Graph:
    """One training step of ``model``, which stays as it is, on a batch like ``pixels`` [batch, ...] of any dtype.

    In train mode, from the input to the scores, and from their gradient to those of the parameters. A model that
    PyTorch cannot trace, or with an operator that no graph has, is an :class:`InputError` that says where.
    """
    return _captured(model, pixels, name, training=True)


def forward_graph(model: nn.Module, pixels: Tensor, *, name: str) -> Graph:
    """The scores of ``model`` in evaluation mode, on a batch like ``pixels`` [batch, ...] of any dtype; else as
    `step_graph`."""
    return _captured(model, pixels, name, training=False)


def _captured(model: nn.Module, pixels: Tensor, name: str, *, training: bool) -> Graph:
    parameters, buffers = dict(model.named_parameters()), dict(model.named_buffers())
    trained = {key: p.detach() for key, p in parameters.items() if training and p.requires_grad}
    others = {key: p.detach() for key, p in parameters.items() if key not in trained}
    if training and not trained:
        raise InputError(f"model {name!r} has no parameter to train")
    dtype = next(iter((trained or others).values())).dtype
    shown = torch.zeros(pixels.shape, dtype=dtype)
    places = _Places(model, name)

    def step(trained: Any, others: Any, buffers: Any, pixels: Tensor, gradient: Tensor) -> Any:
        def forward(trained: Any) -> tuple[Tensor, dict[str, Tensor]]:
            own = {key: buffer.clone() for key, buffer in buffers.items()}
            return scores(functional_call(model, (trained, others, own), (pixels,))), own

        with places.written_down():
            if not training:
                return (*forward({}), {})
            made: Any = vjp(forward, trained, has_aux=True)
            found, pull, own = made
            return found, own, pull(gradient)[0]

    with _mode(model, training=training), _explained(name, places):
        given = (
            trained,
            others,
            buffers,
            shown,
            torch.zeros(_size(model, trained | others, buffers, shown), dtype=dtype),
        )
        traced = make_fx(functionalize(step), tracing_mode="fake")(*given)
    return _lowered(traced.graph, model, name, len(pixels), [trained, others, buffers])


def _size(model: nn.Module, parameters: Any, buffers: Any, pixels: Tensor) -> torch.Size:
    """Of the scores."""
    fake = FakeTensorMode()
    held, own, shown = tree_map(fake.from_tensor, (parameters, buffers, pixels))
    with fake, torch.no_grad():
        return scores(functional_call(model, (held, own), (shown,))).shape


class _Places:
    """Where in the model an operator is, while it is traced: its module, forward or backward."""

    def __init__(self, model: nn.Module, name: str) -> None:
        self._paths = {id(module): path or name for path, module in model.named_modules()}
        self._open = [name]
        # Autograd nodes from such a number on belong to such a module.
        self._numbers, self._modules = [0], [name]
        self.last = Place(name, backward=False)

    @contextmanager
    def written_down(self) -> Iterator[None]:
        """Write the place of every node that is traced meanwhile into its ``meta``."""
        mode = get_proxy_mode()
        assert mode is not None, "only called while make_fx traces"
        graph = mode.tracer.graph
        create = graph.create_node

        def placed(*args: Any, **kwargs: Any) -> fx.Node:
            node: fx.Node = create(*args, **kwargs)
            self.last = node.meta[_PLACE] = self._here()
            return node

        graph.create_node = placed  # type: ignore[method-assign]
        hooks = [
            nn_module.register_module_forward_pre_hook(self._enter),
            nn_module.register_module_forward_hook(self._leave, always_call=True),
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
            graph.create_node = create  # type: ignore[method-assign]

    def _enter(self, module: nn.Module, _args: object) -> None:
        self._open.append(self._paths.get(id(module), self._open[-1]))
        self._mark()

    def _leave(self, _module: nn.Module, _args: object, _output: object) -> None:
        self._open.pop()
        self._mark()

    def _mark(self) -> None:
        self._numbers.append(torch._C._autograd._get_sequence_nr())
        self._modules.append(self._open[-1])

    def _here(self) -> Place:
        current: Any = torch._C._current_autograd_node()
        if current is None:
            return Place(self._open[-1], backward=False)
        made_in = bisect_right(self._numbers, current._sequence_nr()) - 1
        return Place(self._modules[made_in], backward=True)


@contextmanager
def _mode(model: nn.Module, *, training: bool) -> Iterator[None]:
    """The model in train or evaluation mode, each of its modules as it was before in the end."""
    before = [(module, module.training) for module in model.modules()]
    model.train(training)
    try:
        yield
    finally:
        for module, was in before:
            module.training = was


@contextmanager
def _explained(name: str, places: _Places) -> Iterator[None]:
    """Turn whatever the model raises into an :class:`InputError` of one screen that says where."""
    # PyTorch logs what goes wrong with its stack besides raising it.
    told = logging.getLogger("torch._subclasses.fake_tensor")
    before = told.disabled
    told.disabled = True
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        text = "\n".join(str(error).strip().splitlines()[:6])[:600]
        raise InputError(
            f"model {name!r} cannot be captured, behind {places.last.module}: {type(error).__name__}: {text}"
        ) from error
    finally:
        told.disabled = before


def _lowered(graph: fx.Graph, model: nn.Module, name: str, batch: int, held: list[dict[str, Tensor]]) -> Graph:
    trained, others, buffers = held
    graph.eliminate_dead_code()
    lowering = Lowering(name, _labels(model))
    kinds = (
        *((PortKind.PARAMETER, key) for key in (*trained, *others)),
        *((PortKind.BUFFER, key) for key in buffers),
        (PortKind.INPUT, ""),
        (PortKind.GRADIENT, ""),
    )
    known: dict[fx.Node, Any] = {}
    entering = iter(kinds)
    for node in graph.nodes:
        match node.op:
            case "placeholder":
                known[node] = lowering.entering(*next(entering), node.meta["val"])
            case "get_attr":
                raise InputError(f"model {name!r} uses a tensor that is neither a parameter nor a buffer of it")
            case "call_function":
                args, kwargs = fx.map_arg((node.args, node.kwargs), known.__getitem__)
                lowering.at(node.meta[_PLACE])
                known[node] = lower(lowering, node.target, args, kwargs, node.meta["val"])
            case "output":
                found: list[Value] = [known[value] for value in node.args[0]]
    places = len(buffers)
    return lowering.graph(
        batch,
        output=found[0],
        buffers=dict(zip(buffers, found[1 : 1 + places], strict=True)),
        gradients=dict(zip(trained, found[1 + places :], strict=True)),
    )


def _labels(model: nn.Module) -> dict[str, str]:
    """Of every parameter, all its names, as products have them: ``a=b`` of one that is tied."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return {found[0]: "=".join(found) for found in names.values()}
