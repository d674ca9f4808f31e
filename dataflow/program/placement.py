"""Where the tensors of a graph lie: the view of each, the address of what it is a view of, scratch of nodes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import prod

from ...workloads.errors import InputError
from ...workloads.graph import Graph, Node, Port, PortKind, Stored
from ..allocation import Lifetime, allocate
from ..integers import ceil_div
from ..operand import FP32
from .layout import Atom, Halo, Region, View
from .spaces import COLUMN_BEATS, VECTOR_DEPTH, WIDE, Element, Form, Target
from .windows import image_window, is_plain, stands_apart

__all__ = ["HOSTED", "Parameter", "Placement"]

HOSTED = ("aten._softmax", "aten._softmax_backward_data", "aten.gelu", "aten.gelu_backward")
"""Operators that the host computes, since they take exp, erf or tanh."""
_LAYER_NORMS = {"aten.native_layer_norm": 1, "aten.native_layer_norm_backward": 2}
"""And how many tensors in FP32 they keep beside what they make."""
_ALIGNED = 64
_PAGE = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """Where a parameter lies: FP32 ``master`` and ``state``, and the operand copy ``weight``, where one is read.

    One that is not trained has no state, and no master unless it is read in FP32.
    """

    name: str
    master: Region | None
    state: tuple[Region, ...]
    weight: Region | None


class Placement:
    """Of the tensors of ``graph`` in the memory of ``target``, and of its parameters' FP32 copies."""

    def __init__(self, graph: Graph, target: Target) -> None:
        self.graph, self.target, self._gradients = graph, target, graph.gradients
        self.views: dict[int, View] = {}
        self.halos = _halos(graph)
        self._place()

    def element(self, tensor: int) -> Element:
        """What an element of a tensor is in memory."""
        match self.graph.tensors[tensor].stored:
            case Stored.FLOAT32:
                return WIDE
            case Stored.OPERAND:
                return self.target.operand(gradient=tensor in self._gradients)
            case Stored.TAP:
                return self.target.operand()

    def bytes(self, tensor: int) -> int:
        """Of an element."""
        return self.element(tensor).bytes

    def address(self, tensor: int, element: int = 0) -> int:
        """Byte of an element, by how far it is from the first one."""
        view = self.views[tensor]
        return self.allocation.offsets[f"t{view.root}"] + (view.offset + element) * self.bytes(tensor)

    def scratch(self, node: Node) -> int:
        """Byte where the memory begins that is this node's while it runs."""
        return self.allocation.offsets[f"scratch of {self.graph.nodes.index(node)}"]

    def scratch_bytes(self, node: Node) -> int:
        """How much that is; 0: none."""
        return _scratch(self.graph, node, self.target)

    def region(self, tensor: int) -> Region:
        """Where a tensor lies."""
        return Region(self.address(tensor), self.views[tensor].axes, self.element(tensor))

    def is_gradient(self, tensor: int) -> bool:
        """Whether what is stored is a gradient of a parameter, of which an Inf or NaN skips the step."""
        root = self.views[tensor].root
        return any(self.views[p.tensor].root == root for p in self.graph.leaving(PortKind.GRADIENT))

    def is_view(self, node: Node) -> bool:
        """Whether a node moves nothing."""
        return node.op in VIEWS and self.views[node.makes[0]].root not in node.makes

    def _place(self) -> None:
        """Each tensor that is no view by its lifetime in nodes; what stays from step to step, and what has a halo,
        whose zeros nobody must write over, lives throughout."""
        graph, always = self.graph, {"first": 0, "last": len(self.graph.nodes)}
        first = {port.tensor: 0 for port in graph.inputs}
        last = dict(first)
        for port in graph.inputs:
            self.views[port.tensor] = self._whole(port.tensor)
        for i, node in enumerate(graph.nodes):
            for tensor in node.reads:
                last[self.views[tensor].root] = i
            for number, tensor in enumerate(node.makes):
                self.views[tensor] = self._made(i, number, tensor)
                if self.views[tensor].root == tensor:
                    first[tensor] = last[tensor] = i
        stays = {self.views[port.tensor].root for port in (*graph.inputs, *graph.outputs)}
        lifetimes = []
        for tensor, begin in first.items():
            spans = always if tensor in stays or tensor in self.halos else {"first": begin, "last": last[tensor]}
            lifetimes.append(Lifetime(name=f"t{tensor}", size=self._size(tensor), **spans))
        for i, node in enumerate(graph.nodes):
            if size := _scratch(graph, node, self.target):
                lifetimes.append(Lifetime(name=f"scratch of {i}", size=size, first=i, last=i))
        for name, shape in self._shapes().items():
            for what in self._kept(name):
                lifetimes.append(Lifetime(name=f"{what} of {name}", size=FP32.bytes * prod(shape), **always))
        constants = len(self.target.rule.constants)
        lifetimes.append(Lifetime(name="constants", size=FP32.bytes * constants, **always))
        if any(node.op in HOSTED for node in graph.nodes):
            lifetimes.append(Lifetime(name="carried", size=FP32.bytes, **always))
        if any(_needs_ones(node) for node in graph.nodes):
            words = COLUMN_BEATS * self.target.spec.vector.lanes
            lifetimes.append(Lifetime(name="ones", size=FP32.bytes * words, **always))
        capacity = self.target.spec.dram.capacity_bytes
        self.allocation = allocate(lifetimes, alignment=_ALIGNED, capacity=capacity)
        self.window = ceil_div(self.allocation.peak, _PAGE) * _PAGE
        self.ones = self.allocation.offsets.get("ones", 0)
        single = ((Atom(1, 1),),)
        at = self.allocation.offsets.get("carried")
        self.carried = None if at is None else Region(at, single, WIDE)
        self.constants = Region(self.allocation.offsets["constants"], ((Atom(constants, 1),),), WIDE)
        self.parameters = tuple(self._parameter(name, shape) for name, shape in self._shapes().items())

    def _whole(self, tensor: int) -> View:
        return View.whole(tensor, self.graph.tensors[tensor].shape, self.halos.get(tensor, (0, 0)))

    def _made(self, index: int, number: int, tensor: int) -> View:
        """The view of what node ``index`` makes as its ``number``-th."""
        node, graph = self.graph.nodes[index], self.graph
        view = VIEWS.get(node.op)
        if view is not None:
            seen = view(self.views[node.reads[0]], node, graph.tensors[tensor].shape)
            return seen if _lies_well(seen) else self._whole(tensor)
        if node.op == "aten.native_batch_norm" and number >= _RUNNING:
            held = node.reads[number]
            if any(held in later.reads for later in graph.nodes[index + 1 :]):
                raise InputError(f"{node.op} of {node.module!r} changes a buffer that is read later, as it was before")
            return self.views[held]
        return self._whole(tensor)

    def _size(self, tensor: int) -> int:
        shape = list(self.graph.tensors[tensor].shape)
        for axis, more in enumerate(self.halos.get(tensor, ()), 2):
            shape[axis] += 2 * more
        return prod(shape) * self.bytes(tensor)

    def _shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Of the parameters, by name."""
        return {port.name: self.graph.tensors[port.tensor].shape for port in self.graph.entering(PortKind.PARAMETER)}

    def _ports(self, name: str) -> Iterator[Port]:
        return (port for port in self.graph.entering(PortKind.PARAMETER) if port.name == name)

    def _kept(self, name: str) -> list[str]:
        """FP32 arrays of a parameter beside the tensors of the graph."""
        if all(port.name != name for port in self.graph.leaving(PortKind.GRADIENT)):
            return []
        wide = any(self.element(port.tensor) == WIDE for port in self._ports(name))
        return [*([] if wide else ["master"]), *(held.name for held in self.target.rule.state)]

    def _parameter(self, name: str, shape: tuple[int, ...]) -> Parameter:
        at = {self.element(port.tensor).form: self.region(port.tensor) for port in self._ports(name)}
        axes, kept = View.whole(0, shape).axes, self._kept(name)
        own = {what: Region(self.allocation.offsets[f"{what} of {name}"], axes, WIDE) for what in kept}
        master = own.pop("master", at.get(Form.FP32))
        return Parameter(name=name, master=master, state=tuple(own.values()), weight=at.get(Form.OPERAND))


_RUNNING = 3
"""From this one on a batch norm makes what running statistics become, and reads what they were."""


def _halos(graph: Graph) -> dict[int, Halo]:
    """Of the images that padded convolutions read, as much as any asks for."""
    roots: dict[int, int] = {}
    halos: dict[int, Halo] = {}
    for node in graph.nodes:
        if node.op in VIEWS:
            roots[node.makes[0]] = roots.get(node.reads[0], node.reads[0])
        if node.op not in ("aten.convolution", "aten.convolution_backward"):
            continue
        image = node.reads[0] if node.op == "aten.convolution" else node.reads[1]
        padding = node.settings["padding"]
        assert isinstance(padding, tuple)
        if node.settings.get("of") == "input" or not any(padding):
            continue
        root = roots.get(image, image)
        if len(padding) != 2 or graph.tensors[root].shape != graph.tensors[image].shape:
            raise InputError(f"{node.op} of {node.module!r} pads a view of another tensor, which is not compiled yet")
        down, across = halos.get(root, (0, 0))
        halos[root] = max(down, padding[0]), max(across, padding[1])
    return halos


def _scratch(graph: Graph, node: Node, target: Target) -> int:
    """Bytes that a node needs while it runs."""
    if node.op == "aten.convolution_backward" and node.settings["of"] == "input":
        assert node.gemm is not None
        window = image_window(node, graph.tensors[node.makes[0]].shape, graph.tensors[node.reads[1]].shape)
        return 0 if is_plain(window) else FP32.bytes * node.gemm.m * node.gemm.n
    if node.op == "aten.max_pool2d_with_indices_backward":
        window = image_window(node, graph.tensors[node.makes[0]].shape)
        return 0 if stands_apart(window) else FP32.bytes * VECTOR_DEPTH * target.spec.vector.lanes
    if node.op in _LAYER_NORMS:
        return _LAYER_NORMS[node.op] * FP32.bytes * prod(graph.tensors[node.makes[0]].shape)
    return 0


def _needs_ones(node: Node) -> bool:
    """Whether what computes a node reads a vector of ones."""
    if node.op in _LAYER_NORMS:
        return True
    return node.op == "aten.max_pool2d_with_indices" and node.settings["padding"] not in (0, (0, 0))


def _lies_well(view: View) -> bool:
    """Whether channels of images are side by side, or the same; those of a vector made an image are not."""
    return len(view.axes) != 4 or (all(len(axis) == 1 for axis in view.axes) and view.axes[1][0].stride in (0, 1))


def _permute(view: View, node: Node, _: tuple[int, ...]) -> View:
    dims = node.settings["dims"]
    assert isinstance(dims, tuple)
    return view.permuted(dims)


def _slice(view: View, node: Node, _: tuple[int, ...]) -> View:
    dim, start, end = (node.settings[name] for name in ("dim", "start", "end"))
    assert isinstance(dim, int) and isinstance(start, int) and isinstance(end, int)
    return view.sliced(dim, start, end, node)


VIEWS: Mapping[str, Callable[[View, Node, tuple[int, ...]], View]] = {
    "aten.view": lambda view, node, shape: view.reshaped(shape, f"{node.op} of {node.module!r}"),
    "aten.permute": _permute,
    "aten.slice": _slice,
    "aten.expand": lambda view, node, shape: view.expanded(shape),
}
"""Operators that move nothing, unless what they would make is an image whose channels lie apart."""
