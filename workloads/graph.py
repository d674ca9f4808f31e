"""One training step as data that can be executed: operators, the tensors they read and make, and who they work for.

A `Workload` counts a step, a `Graph` says what it computes. It is cut at the model's output: the loss is the host's,
which takes the output and gives its gradient. Operators are PyTorch's, brought to a few (`OPERATORS`); shapes are
PyTorch's too, how a tensor lies in memory is for whoever places it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Literal

from .errors import InputError, nearest
from .gemm import Gemm, Pass
from .one_line import OneLine
from .operand import Gathered, SparseOperand
from .sparsity import NMPattern
from .step import MatrixOp, Workload
from .words import named

__all__ = [
    "BY_MAGNITUDE",
    "OPERATORS",
    "PRODUCTS",
    "Graph",
    "GraphTensor",
    "Kept",
    "Node",
    "Port",
    "PortKind",
    "Stored",
    "annotated",
]

BY_MAGNITUDE = ("dense", "srste", "sdgp", "sdwp", "bdwp")
"""Schemes of which a graph can be executed: they keep the largest of every N:M group of weights or gradients."""

Setting = bool | int | float | str | tuple[int, ...]

PRODUCTS = {
    "aten.mm": (0, 1),
    "aten.addmm": (1, 2),
    "aten.bmm": (0, 1),
    "aten.convolution": (0, 1),
    "aten.convolution_backward": (0, 1),
}
"""The operators that multiply matrices, and which of the tensors that they read are the operands A and B."""

OPERATORS = {
    "aten.mm": "(a [m, k], b [k, n]) -> [m, n]",
    "aten.addmm": "(bias [n], a [m, k], b [k, n]) -> [m, n]",
    "aten.bmm": "(a [g, m, k], b [g, k, n]) -> [g, m, n]",
    "aten.convolution": (
        "(x [n, in, h, w], w [out, in / groups, kh, kw], bias [out] or none; stride, padding, dilation, groups)"
    ),
    "aten.convolution_backward": (
        "(dy, w; of = 'input') -> dx or (dy, x; of = 'weight') -> dw; settings as of aten.convolution"
    ),
    "aten.view": "(x) in another shape, elements in order",
    "aten.permute": "(x; dims)",
    "aten.expand": "(x) with sides of 1 repeated, or sides put in front",
    "aten.slice": "(x; dim, start, end)",
    "aten.cat": "(x, ...; dim)",
    "aten.constant_pad_nd": "(x; dim, before, after) with +0.0 along one side",
    "aten.relu": "(x)",
    "aten.threshold_backward": "(dy, y) the gradient of relu from its result",
    "aten.gelu": "(x; approximate = 'none' or 'tanh')",
    "aten.gelu_backward": "(dy, x; approximate)",
    "aten.add": "(x, y) with sides of 1 repeated",
    "aten.mul": "(x; other) by a number",
    "aten.sum": "(x; dims) of which sides of 1 stay",
    "aten.mean": "(x; dims) of which sides of 1 stay",
    "aten.native_batch_norm": (
        "(x, weight, bias, running mean, running variance; training, momentum, eps) -> y, and in training mean, "
        "1 / deviation, new running mean, new running variance"
    ),
    "aten.native_batch_norm_backward": "(dy, x, weight, mean, 1 / deviation) -> dx, dweight, dbias",
    "aten.native_layer_norm": "(x, weight, bias; sides, eps) -> y, mean, 1 / deviation, over the last sides",
    "aten.native_layer_norm_backward": "(dy, x, weight, mean, 1 / deviation; sides) -> dx, dweight, dbias",
    "aten.max_pool2d_with_indices": "(x; kernel_size, stride, padding, dilation) -> y, tap",
    "aten.max_pool2d_with_indices_backward": "(dy, tap; settings as of the pool) -> dx",
    "aten._softmax": "(x) along the last side",
    "aten._softmax_backward_data": "(dy, y)",
}
"""Every operator that a graph can have, with what it reads and makes; settings behind the semicolon."""


class Stored(StrEnum):
    """How a tensor is kept in memory."""

    OPERAND = "operand"
    """The format of the machine's operands; where that has an encoding for gradients, they have it."""
    FLOAT32 = "float32"
    """Biases, scales of norms, statistics."""
    TAP = "uint8"
    """Which tap of its window a maximum came from; where a graph is run by PyTorch, a place in the image instead."""


class PortKind(StrEnum):
    """What goes in or out."""

    PARAMETER = "parameter"
    BUFFER = "buffer"
    """In: as it is; out: as it becomes."""
    INPUT = "input"
    """Of the model."""
    OUTPUT = "output"
    """Of the model, for the loss."""
    GRADIENT = "gradient"
    """In: of the output; out: of the parameter that is named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphTensor:
    """A tensor of the step; its id is its place in `Graph.tensors`. Once made it never changes."""

    shape: tuple[int, ...]
    stored: Stored


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """A tensor that enters or leaves; ``name``: of the parameter or buffer, empty elsewhere."""

    kind: PortKind
    tensor: int
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """Of ``operand`` only the largest of every N:M group are kept, in groups along the contraction of ``along``.

    ``compact``: the product runs on pairs and skips the others; else it multiplies their zeros.
    """

    operand: Literal["a", "b"]
    pattern: NMPattern
    along: Pass
    compact: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One operator of the step.

    ``reads`` and ``makes`` are ids of tensors, in the operator's order. ``parameter`` and ``gemm``: of a product, as
    `MatrixOp` has them. ``kept``: what a scheme keeps of its operand.
    """

    op: str
    module: str
    pass_: Pass
    reads: tuple[int, ...]
    makes: tuple[int, ...]
    settings: dict[str, Setting] = field(default_factory=dict, hash=False)
    parameter: str | None = None
    gemm: Gemm | None = None
    kept: Kept | None = None

    @property
    def operands(self) -> tuple[int, int]:
        """Ids of A and B of a product."""
        a, b = PRODUCTS[self.op]
        return self.reads[a], self.reads[b]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Graph(OneLine):
    """The step of ``model`` at ``batch`` samples: ``nodes`` in an order in which they can be run.

    ``inputs`` and ``outputs`` name the tensors at its edges; a parameter that is read both as an operand and in FP32
    enters twice. ``counters``: buffers to which a step adds 1, as often as they are listed, which is left to the host.
    Without a backward pass there are neither gradients nor new buffers.
    """

    model: str
    batch: int
    tensors: tuple[GraphTensor, ...]
    nodes: tuple[Node, ...]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    counters: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        there = {port.tensor for port in self.inputs}
        for node in self.nodes:
            where = f"{node.op} of {node.module!r} in the graph of {self.model!r}"
            if node.op not in OPERATORS:
                raise InputError(f"{where} is none of the operators of a graph: {', '.join(OPERATORS)}")
            if (node.gemm is None) is (node.op in PRODUCTS):
                raise InputError(f"{where} must have a gemm if it multiplies matrices, and only then")
            if not there.issuperset(node.reads):
                raise InputError(f"{where} reads a tensor that nothing before it makes: {node.reads}")
            if not there.isdisjoint(node.makes) or len(set(node.makes)) < len(node.makes):
                raise InputError(f"{where} makes a tensor that is there already: {node.makes}")
            there.update(node.makes)
        if there != set(range(len(self.tensors))):
            raise InputError(f"the graph of {self.model!r} lists tensors that nothing makes, or makes unlisted ones")
        if not there.issuperset(port.tensor for port in self.outputs):
            raise InputError(f"an output of the graph of {self.model!r} is none of its tensors")

    @property
    def products(self) -> Iterator[Node]:
        """The nodes that multiply matrices, in order."""
        return (node for node in self.nodes if node.gemm is not None)

    @property
    def gradients(self) -> frozenset[int]:
        """Ids of the tensors that are gradients: of the output, and all that is made of one."""
        found = {port.tensor for port in self.entering(PortKind.GRADIENT)}
        for node in self.nodes:
            if not found.isdisjoint(node.reads):
                found.update(node.makes)
        return frozenset(found)

    def entering(self, kind: PortKind) -> Iterator[Port]:
        """The inputs of a kind."""
        return (port for port in self.inputs if port.kind is kind)

    def leaving(self, kind: PortKind) -> Iterator[Port]:
        """The outputs of a kind."""
        return (port for port in self.outputs if port.kind is kind)

    def _said(self) -> str:
        products = sum(1 for _ in self.products)
        return f"{named(self.model)}, batch {self.batch}: {len(self.nodes):,} nodes, {products} products"


def annotated(graph: Graph, asked: Workload, run: Workload | None = None) -> Graph:
    """``graph`` with what the scheme of ``asked``, the same step, keeps of the operands of its products.

    A graph without a backward pass has the products of FF alone. ``run`` is the step as a schedule runs it
    (`Schedule.as_run`): what it does not run compact multiplies zeros. A weight of which FF keeps a part is the same in
    BP, unless BP keeps one of its own. A step that is not that of the graph, or a scheme that keeps operands otherwise
    than by magnitude, is refused.
    """
    if asked.scheme not in BY_MAGNITUDE:
        raise InputError(
            f"no graph keeps operands as scheme {asked.scheme!r} does: {nearest(asked.scheme, BY_MAGNITUDE)}"
        )
    ops, as_run = _same_products(graph, asked), _same_products(graph, run or asked)
    forward = {op.parameter: op for op in ops if op.pass_ is Pass.FF and op.sparse is not None}
    matched = iter(zip(ops, as_run, strict=True))
    return replace(
        graph,
        nodes=tuple(
            node if node.gemm is None else replace(node, kept=_kept(*next(matched), forward)) for node in graph.nodes
        ),
    )


def _same_products(graph: Graph, workload: Workload) -> Sequence[MatrixOp]:
    trains = any(True for _ in graph.leaving(PortKind.GRADIENT))
    ops = [op for op in workload.matrix_ops if trains or op.pass_ is Pass.FF]
    found = [(node.module, node.pass_, node.parameter, node.gemm) for node in graph.products]
    wanted = [(op.name, op.pass_, op.parameter, op.gemm) for op in ops]
    if len(found) != len(wanted):
        raise InputError(f"graph of {graph.model!r} has {len(found)} products, its workload {len(wanted)}")
    for ours, theirs in zip(found, wanted, strict=True):
        # The model itself goes by any name.
        if ours[1:] != theirs[1:] or ours[0] not in (theirs[0], graph.model):
            raise InputError(
                f"graph of {graph.model!r} multiplies {_in_words(ours)} where its workload has {_in_words(theirs)}"
            )
    return ops


def _in_words(product: tuple[str, Pass, str | None, Gemm | None]) -> str:
    module, pass_, parameter, gemm = product
    return f"{module} {pass_} {gemm} of {parameter}"


def _kept(asked: MatrixOp, run: MatrixOp, forward: Mapping[str | None, MatrixOp]) -> Kept | None:
    if asked.sparse is not None:
        return _of(asked.sparse, asked.pass_, compact=run.sparse is not None)
    source = forward.get(asked.parameter) if asked.pass_ is Pass.BP and asked.parameter is not None else None
    if source is None or source.sparse is None:
        return None
    # FF and BP both take the weight as B.
    return _of(source.sparse, Pass.FF, compact=False)


def _of(sparse: SparseOperand, along: Pass, *, compact: bool) -> Kept:
    if isinstance(sparse, Gathered):
        raise InputError(f"a step is run on values with N:M operands alone, but one is {sparse}")
    return Kept(operand=sparse.operand, pattern=sparse.pattern, along=along, compact=compact)
