"""A training step on real values, node by node of its `Graph`, as the machine computes (docs/design/accelerator.md).

Tiling, lanes and latencies change no bit of it, so this is what every program of the step computes too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ...dataflow.operand import FormatName
from ...workloads.errors import InputError
from ...workloads.gemm import Pass
from ...workloads.graph import Graph, Kept, Node, Port, PortKind, Stored
from ...workloads.sparsity import NMPattern
from ..operand import RANK, Half, narrow, ranked
from .convolution import convolve, convolve_back, weight_gradient
from .operators import OTHERS, channels_first, channels_last, window_of
from .product import product

__all__ = ["Execution", "kept_by_magnitude"]

Single = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]
Array = npt.NDArray[Any]


class Execution:
    """A step in progress: `forward` runs to the scores, `backward` the rest.

    ``held``: parameters and buffers by name; ``pixels``: a batch; float32 in the shapes that the graph has, narrowed
    where it stores operands. Images are [n, channels, h, w], as in the graph.
    """

    def __init__(self, graph: Graph, held: Mapping[str, Single], pixels: Single, format: FormatName) -> None:
        self._graph, self._format, self._gradients = graph, format, graph.gradients
        self.values: dict[int, Array] = {}
        """What has been made and is still to be read, by id: operands, float32 or int64, in the shapes of the graph."""
        self._next = 0
        last = {number: index for index, node in enumerate(graph.nodes) for number in node.reads}
        kept = {port.tensor for port in graph.outputs}
        self._dying: dict[int, list[int]] = {}
        for number, index in last.items():
            if number not in kept:
                self._dying.setdefault(index, []).append(number)
        for port in graph.inputs:
            if port.kind is not PortKind.GRADIENT:
                self._enter(port, pixels if port.kind is PortKind.INPUT else held[port.name])

    def forward(self) -> Half:
        """The scores [batch, classes], operands."""
        (output,) = self._graph.leaving(PortKind.OUTPUT)
        self._run_until_missing()
        return self.values[output.tensor]

    def backward(self, gradient: Single) -> tuple[dict[str, Half], dict[str, Single]]:
        """Of the gradient of the scores, float32 of their shape: the gradients of the parameters, operands, and what
        buffers become, float32 of any shape; contiguous."""
        for port in self._graph.entering(PortKind.GRADIENT):
            self._enter(port, gradient)
        self._run_until_missing()
        made = {
            kind: {port.name: np.ascontiguousarray(self.values[port.tensor]) for port in self._graph.leaving(kind)}
            for kind in (PortKind.GRADIENT, PortKind.BUFFER)
        }
        return made[PortKind.GRADIENT], made[PortKind.BUFFER]

    def _enter(self, port: Port, value: Single) -> None:
        tensor = self._graph.tensors[port.tensor]
        if value.shape != tensor.shape or value.dtype != np.float32:
            raise InputError(
                f"{port.kind} {port.name} of the graph of {self._graph.model!r} must be float32 {list(tensor.shape)}, "
                f"not {value.dtype} {list(value.shape)}"
            )
        operand = tensor.stored is Stored.OPERAND
        self.values[port.tensor] = self._narrowed(value, port.tensor) if operand else value

    def _narrowed(self, value: Single, tensor: int) -> Half:
        return narrow(value, self._format, gradient=tensor in self._gradients)

    def _run_until_missing(self) -> None:
        nodes = self._graph.nodes
        while self._next < len(nodes) and all(number in self.values for number in nodes[self._next].reads):
            self._run(nodes[self._next])
            for number in self._dying.get(self._next, ()):
                del self.values[number]
            self._next += 1

    def _run(self, node: Node) -> None:
        reads = [self.values[number] for number in node.reads]
        shapes = [self._graph.tensors[number].shape for number in node.makes]
        with np.errstate(all="ignore"):  # what is not finite is data here
            if node.gemm is not None:
                made: Sequence[Array] = (self._product(node, reads, shapes[0]),)
            else:
                made = OTHERS[node.op](reads, node.settings, shapes)
        for number, value in zip(node.makes, made, strict=True):
            tensor = self._graph.tensors[number]
            assert value.shape == tensor.shape, f"{node.op} of {node.module} made {value.shape}"
            narrow = tensor.stored is Stored.OPERAND and value.dtype == np.float32
            self.values[number] = self._narrowed(value, number) if narrow else value

    def _product(self, node: Node, reads: Sequence[Array], shape: tuple[int, ...]) -> Array:
        a, b, kept_a, kept_b = self._operands(node)
        (to,) = node.makes
        match node.op:
            case "aten.convolution":
                window = window_of(node.settings, a.shape, b.shape[2:])
                made = convolve(
                    channels_last(a), channels_last(b), window, groups=_groups(node), kept=channels_last(kept_b)
                )
                return channels_first(self._narrowed(made + reads[2] if reads[2:] else made, to))
            case "aten.convolution_backward" if node.settings["of"] == "input":
                window, groups = window_of(node.settings, shape, b.shape[2:]), _groups(node)
                kept, kept_gradient = channels_last(kept_b), channels_last(kept_a)
                made = convolve_back(
                    channels_last(a), channels_last(b), window, groups=groups, kept=kept, kept_gradient=kept_gradient
                )
                return channels_first(self._narrowed(made, to))
            case "aten.convolution_backward":
                window = window_of(node.settings, b.shape, shape[2:])
                made = weight_gradient(channels_last(b), channels_last(a), window, groups=_groups(node))
                return channels_first(self._narrowed(made, to))
            case "aten.addmm":
                return product(a, b, kept_a=kept_a, kept_b=kept_b) + reads[0]
            case _:
                return product(a, b, kept_a=kept_a, kept_b=kept_b)

    def _operands(self, node: Node) -> tuple[Half, Half, Bool | None, Bool | None]:
        """A and B as the product reads them, and what of them it runs as pairs."""
        pair: list[Half] = [self.values[number] for number in node.operands]
        masks: list[Bool | None] = [None, None]
        kept = node.kept
        if kept is not None:
            side = "ab".index(kept.operand)
            mask = _kept_of(node, kept, pair[side])
            if kept.compact:
                masks[side] = mask
            else:
                pair[side] = np.where(mask, pair[side], pair[side].dtype.type(0))
        return pair[0], pair[1], masks[0], masks[1]


def _groups(node: Node) -> int:
    groups = node.settings["groups"]
    assert isinstance(groups, int)
    return groups


def _kept_of(node: Node, kept: Kept, operand: Half) -> Bool:
    """Where the groups of ``kept`` lie in ``operand``, and what of it they keep."""
    groups = node.gemm.groups if node.gemm is not None else 1
    own = kept.along is node.pass_
    if node.op not in ("aten.convolution", "aten.convolution_backward"):
        # A [m, k] and B [k, n]; FF contracts over the inputs of a weight, BP over its outputs.
        axis = operand.ndim - (1 if (kept.operand == "a") is own else 2)
        return kept_by_magnitude(operand, kept.pattern, axis)
    # A weight [out, in / groups, kh, kw]; an image or a gradient [n, channels, h, w].
    if kept.operand == "b" and kept.along is Pass.FF:
        return kept_by_magnitude(operand, kept.pattern, 1)
    channels = 0 if kept.operand == "b" else 1
    split = (*operand.shape[:channels], groups, operand.shape[channels] // groups, *operand.shape[channels + 1 :])
    mask = kept_by_magnitude(operand.reshape(split), kept.pattern, channels + 1)
    return mask.reshape(operand.shape)


def kept_by_magnitude(values: Half, pattern: NMPattern, axis: int) -> Bool:
    """What SORE keeps of operands of any shape in groups along ``axis``; bool of that shape.

    The largest magnitudes of every group, the lower index of equal ones; a NaN counts as the largest. The last group
    may be shorter.
    """
    along = np.moveaxis(ranked(values) & RANK, axis, -1).astype(np.int32)
    length = along.shape[-1]
    short = -length % pattern.group
    groups = np.pad(along, [(0, 0)] * (along.ndim - 1) + [(0, short)], constant_values=-1)
    groups = groups.reshape(*along.shape[:-1], -1, pattern.group)
    order = np.argsort(-groups, axis=-1, kind="stable")
    mask = np.zeros(groups.shape, np.bool_)
    np.put_along_axis(mask, order[..., : pattern.keep], True, axis=-1)
    return np.moveaxis(mask.reshape(*along.shape[:-1], -1)[..., :length], -1, axis)
