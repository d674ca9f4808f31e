"""A training step as programs: every node of its graph in commands, every tensor at its address.

Two programs, since the loss is the host's: `forward` from the input to the scores, `backward` from their gradient to
the updated parameters. Operators, and shapes of them, that are not compiled yet are refused by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from ...workloads.errors import InputError
from ...workloads.gemm import Pass
from ...workloads.graph import Graph, Node, PortKind
from ..allocation import Allocation
from .elementwise import copied, elementwise, scale, summed
from .layout import Region
from .multiply import require_fit
from .norms import batch_norm, batch_norm_backward
from .placement import VIEWS, Parameter, Placement
from .pools import max_pool, max_pool_backward
from .products import convolution, convolution_backward, product
from .program import Program
from .spaces import Target
from .updates import load_constants, update
from .vector_operations import VectorOpcode
from .work import Work

__all__ = ["CompiledStep", "compile_step"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledStep:
    """Programs of a step and where its tensors lie in a window of ``window`` bytes, which the host clears once.

    ``parameters`` and ``buffers``, by name, stay from step to step; ``constants`` are those of the update rule.
    """

    target: Target
    forward: Program
    backward: Program
    window: int
    input: Region
    output: Region
    gradient: Region
    parameters: tuple[Parameter, ...]
    buffers: Mapping[str, Region]
    constants: Region
    allocation: Allocation


def compile_step(graph: Graph, target: Target) -> CompiledStep:
    """Compile a training step of ``graph``, cut at the model's output, for ``target``.

    What does not fit, or is not compiled yet, is an InputError that names the node.
    """
    trained = {port.name for port in graph.leaving(PortKind.GRADIENT)}
    if not trained:
        raise InputError(f"the graph of {graph.model!r} has no backward pass; compile that of a training step")
    (output,), (gradient,) = graph.leaving(PortKind.OUTPUT), graph.entering(PortKind.GRADIENT)
    cut = next(i for i, node in enumerate(graph.nodes) if output.tensor in node.makes) + 1
    if any(node.pass_ is not Pass.FF for node in graph.nodes[:cut]):
        raise InputError(f"the graph of {graph.model!r} has backward work before its output")
    for node in graph.nodes:
        if node.op not in VIEWS and node.op not in _NODES:
            raise InputError(f"{node.op} of {node.module!r} is not compiled yet; those that are: {', '.join(_NODES)}")
    placement = Placement(graph, target)
    work = Work(placement)
    for node in graph.products:
        require_fit(work, node)
    _run(work, graph.nodes[:cut])
    forward = work.emitter.program()
    work.begin()
    _run(work, graph.nodes[cut:])
    load_constants(work)
    for parameter in placement.parameters:
        if parameter.name in trained:
            work.emitter.begin_stretch()
            update(work, parameter)
    (entering,) = graph.entering(PortKind.INPUT)
    return CompiledStep(
        target=target,
        forward=forward,
        backward=work.emitter.program(),
        window=placement.window,
        input=placement.region(entering.tensor),
        output=placement.region(output.tensor),
        gradient=placement.region(gradient.tensor),
        parameters=placement.parameters,
        buffers={port.name: placement.region(port.tensor) for port in graph.entering(PortKind.BUFFER)},
        constants=placement.constants,
        allocation=placement.allocation,
    )


def _run(work: Work, nodes: tuple[Node, ...]) -> None:
    for node in nodes:
        if not work.placement.is_view(node):
            work.emitter.begin_stretch()
            _NODES.get(node.op, copied)(work, node)


_NODES: Mapping[str, Callable[[Work, Node], None]] = {
    "aten.addmm": product,
    "aten.mm": product,
    "aten.convolution": convolution,
    "aten.convolution_backward": convolution_backward,
    "aten.relu": partial(elementwise, operation=VectorOpcode.RELU),
    "aten.threshold_backward": partial(elementwise, operation=VectorOpcode.MASK),
    "aten.add": partial(elementwise, operation=VectorOpcode.ADD),
    "aten.mul": scale,
    "aten.sum": partial(summed, mean=False),
    "aten.mean": partial(summed, mean=True),
    "aten.native_batch_norm": batch_norm,
    "aten.native_batch_norm_backward": batch_norm_backward,
    "aten.max_pool2d_with_indices": max_pool,
    "aten.max_pool2d_with_indices_backward": max_pool_backward,
}
"""Operators that are compiled."""
