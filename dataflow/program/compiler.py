"""A training step as programs: every node of its graph in commands, every tensor at its address.

Two passes, since the loss is the host's: `forward` from the input to the scores, `backward` from their gradient to
the updated parameters. Each is a program, or several with work of the host between them, which has exp, erf and tanh
(docs/design/accelerator.md). Shapes of operators that are not compiled yet are refused by name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

from ...workloads.errors import InputError
from ...workloads.gemm import Pass
from ...workloads.graph import OPERATORS, Graph, Node, PortKind
from ..allocation import Allocation
from .elementwise import copied, elementwise, scale, summed
from .joins import joined, padded
from .layer_norms import layer_norm, layer_norm_backward
from .layout import Region
from .multiply import require_fit
from .norms import batch_norm, batch_norm_backward
from .placement import HOSTED, VIEWS, Parameter, Placement
from .pools import max_pool, max_pool_backward
from .products import convolution, convolution_backward, product
from .program import Program
from .spaces import Target
from .updates import carry, load_constants, update
from .vector_operations import VectorOpcode
from .work import Work

__all__ = ["CompiledStep", "HostWork", "Part", "PassName", "compile_step"]


PassName = Literal["forward", "backward"]


@dataclass(frozen=True, slots=True, kw_only=True)
class HostWork:
    """A node of the graph that the host computes, from memory to memory."""

    op: str
    module: str
    settings: Mapping[str, Any]
    reads: tuple[Region, ...]
    makes: tuple[Region, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A program of a pass, and what the host does, in this order, when it has ended."""

    of: PassName
    program: Program
    then: tuple[HostWork, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledStep:
    """Programs of a step and where its tensors lie in a window of ``window`` bytes, which the host clears once.

    ``parameters`` and ``buffers``, by name, stay from step to step; ``constants`` are those of the update rule.
    ``carried``, where the backward pass has several programs: a number in FP32 that is 0 when it begins, and Inf from
    the program on that has raised the flag `nonfinite`.
    """

    target: Target
    parts: tuple[Part, ...]
    window: int
    input: Region
    output: Region
    gradient: Region
    parameters: tuple[Parameter, ...]
    buffers: Mapping[str, Region]
    constants: Region
    carried: Region | None
    allocation: Allocation

    @property
    def forward(self) -> Program:
        """The one program of the forward pass; of several, with work of the host between them, an InputError."""
        return self._only("forward")

    @property
    def backward(self) -> Program:
        """The one program of the backward pass, likewise."""
        return self._only("backward")

    @property
    def programs(self) -> Mapping[str, Program]:
        """All of them by name, in order: that of the pass, and a number where there are several."""
        found: dict[str, Program] = {}
        for name in get_args(PassName):
            own = [part.program for part in self.parts if part.of == name]
            found |= {name if len(own) == 1 else f"{name}-{i}": program for i, program in enumerate(own, 1)}
        return found

    def _only(self, name: PassName) -> Program:
        own = [part for part in self.parts if part.of == name]
        if len(own) > 1:
            between = own[0].then[0]
            raise InputError(
                f"the {name} pass is {len(own)} programs: the host computes {between.op} of {between.module!r} between "
                f"them; run its parts in turn, or train by weft train --numerics machine, in the same arithmetic"
            )
        return own[0].program


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
    placement = Placement(graph, target)
    work = Work(placement)
    for node in graph.products:
        require_fit(work, node)
    parts = [*_parts(work, graph.nodes[:cut], "forward")]
    parts += _parts(work, graph.nodes[cut:], "backward")
    work.emitter.begin_stretch()
    load_constants(work)
    for parameter in placement.parameters:
        if parameter.name in trained:
            work.emitter.begin_stretch()
            update(work, parameter)
    parts.append(Part(of="backward", program=work.emitter.program(), then=()))
    (entering,) = graph.entering(PortKind.INPUT)
    return CompiledStep(
        target=target,
        parts=tuple(parts),
        window=placement.window,
        input=placement.region(entering.tensor),
        output=placement.region(output.tensor),
        gradient=placement.region(gradient.tensor),
        parameters=placement.parameters,
        buffers={port.name: placement.region(port.tensor) for port in graph.entering(PortKind.BUFFER)},
        constants=placement.constants,
        carried=placement.carried,
        allocation=placement.allocation,
    )


def _parts(work: Work, nodes: tuple[Node, ...], name: PassName) -> Iterator[Part]:
    """Programs up to what is the host's; the last one of the backward pass, which updates, is not among them."""
    hosted: list[HostWork] = []

    def part() -> Part:
        made = Part(of=name, program=work.emitter.program(), then=tuple(hosted))
        hosted.clear()
        work.begin()
        return made

    for node in nodes:
        if node.op in HOSTED:
            hosted.append(_host_work(work, node))
        elif not work.placement.is_view(node):
            if hosted:
                yield part()
                if name == "backward":
                    carry(work)
            work.emitter.begin_stretch()
            _NODES.get(node.op, copied)(work, node)
    if name == "forward":
        yield part()
    elif hosted:
        yield part()
        carry(work)


def _host_work(work: Work, node: Node) -> HostWork:
    reads, makes = (tuple(map(work.placement.region, tensors)) for tensors in (node.reads, node.makes))
    return HostWork(op=node.op, module=node.module, settings=node.settings, reads=reads, makes=makes)


_NODES: Mapping[str, Callable[[Work, Node], None]] = {
    "aten.addmm": product,
    "aten.mm": product,
    "aten.bmm": product,
    "aten.cat": joined,
    "aten.constant_pad_nd": padded,
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
    "aten.native_layer_norm": layer_norm,
    "aten.native_layer_norm_backward": layer_norm_backward,
    "aten.max_pool2d_with_indices": max_pool,
    "aten.max_pool2d_with_indices_backward": max_pool_backward,
}
"""Operators that a program computes."""
assert {*_NODES, *VIEWS, *HOSTED} == set(OPERATORS), "every operator of a graph is compiled, or the host's"
