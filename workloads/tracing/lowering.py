"""A `Graph` in the making: the values that the tracer knows, the nodes made so far, and what is settled in the end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from torch import Tensor
from torch._ops import OpOverload

from ..errors import InputError
from ..gemm import Gemm, Pass
from ..graph import Graph, GraphTensor, Node, Port, PortKind, Setting, Stored

__all__ = ["Call", "Lowering", "Place", "Rule", "Value", "one", "reduced"]

Made = tuple[tuple[int, ...], Stored]


class Place(NamedTuple):
    """Where in the step an operator is."""

    module: str
    backward: bool


@dataclass(slots=True, eq=False)
class Value:
    """A tensor while its graph is made.

    ``port``: of a parameter or buffer that enters, whose ids depend on who reads it. An operator that changes a buffer
    in place gives its value another id.
    """

    shape: tuple[int, ...]
    ids: dict[Stored, int] = field(default_factory=dict)
    port: tuple[PortKind, str] | None = None
    counts: bool = False
    """Whether it is a buffer of integers, and how often the step has added 1 to it."""
    counted: int = 0


class Lowering:
    """The nodes of a step in the making, and how they are added; `graph_rules.py` says which."""

    def __init__(self, model: str, labels: Mapping[str, str]) -> None:
        self.model, self._labels = model, labels
        self.tensors: list[GraphTensor] = []
        self.nodes: list[Node] = []
        self._makers: dict[int, Node] = {}
        self._inputs: list[Port] = []
        self._place = Place(model, backward=False)

    def entering(self, kind: PortKind, name: str, like: Tensor) -> Value:
        """A tensor that enters, of any shape and dtype; a parameter or buffer has a port once something reads it."""
        value = Value(tuple(like.shape))
        if kind in (PortKind.PARAMETER, PortKind.BUFFER):
            value.port, value.counts = (kind, name), not like.is_floating_point()
            return value
        value.ids[Stored.OPERAND] = self._enter(kind, name, value.shape, Stored.OPERAND)
        return value

    def _enter(self, kind: PortKind, name: str, shape: tuple[int, ...], stored: Stored) -> int:
        number = self._tensor(shape, stored)
        self._inputs.append(Port(kind=kind, tensor=number, name=name))
        return number

    def _tensor(self, shape: tuple[int, ...], stored: Stored) -> int:
        self.tensors.append(GraphTensor(shape=shape, stored=stored))
        return len(self.tensors) - 1

    def at(self, place: Place) -> None:
        """What is added from now on is of ``place``."""
        self._place = place

    def refusal(self, why: str) -> InputError:
        """What is wrong with the operator at hand."""
        return InputError(f"model {self.model!r} cannot be captured: {self._place.module} {why}")

    def id(self, value: Value, stored: Stored = Stored.OPERAND) -> int:
        """The tensor of ``value``; what enters as a parameter or buffer enters as it is ``stored`` for its reader."""
        if value.port is not None and stored not in value.ids:
            value.ids[stored] = self._enter(*value.port, value.shape, stored)
        if not value.ids:
            raise self.refusal("fills a tensor with numbers of its own, which the machine does not; set a dropout to 0")
        return value.ids.get(stored, next(iter(value.ids.values())))

    def emit(
        self,
        op: str,
        reads: Sequence[int],
        *makes: Made,
        settings: Mapping[str, Setting] | None = None,
        gemm: Gemm | None = None,
    ) -> tuple[Value, ...]:
        """Add a node and its results."""
        made = tuple(self._tensor(*each) for each in makes)
        node = Node(
            op=op,
            module=self._place.module,
            pass_=Pass.BP if self._place.backward else Pass.FF,
            reads=tuple(reads),
            makes=made,
            settings=dict(settings or {}),
            gemm=gemm,
        )
        self.nodes.append(node)
        self._makers.update(dict.fromkeys(made, node))
        return tuple(Value(shape, {stored: number}) for number, (shape, stored) in zip(made, makes, strict=True))

    def viewed(self, value: Value, shape: Sequence[int]) -> Value:
        """``value`` in another shape; views of views are one."""
        return self._moved("aten.view", value, tuple(shape), {})

    def permuted(self, value: Value, dims: Sequence[int]) -> Value:
        """``value`` with its sides in the order ``dims``; permutations of permutations are one."""
        source, dims = value, tuple(d % len(value.shape) for d in dims)
        before = self._made_by(value, "aten.permute")
        if before is not None:
            source = self._value(before.reads[0])
            inner = before.settings["dims"]
            assert isinstance(inner, tuple)
            dims = tuple(inner[d] for d in dims)
        if dims == tuple(range(len(dims))):
            return source
        shape = tuple(source.shape[d] for d in dims)
        return self._moved("aten.permute", source, shape, {"dims": dims}, again=True)

    def _moved(
        self, op: str, value: Value, shape: tuple[int, ...], settings: dict[str, Setting], *, again: bool = False
    ) -> Value:
        before = self._made_by(value, op)
        source = value if before is None or again else self._value(before.reads[0])
        if shape == source.shape and not again:
            return source
        number = self.id(source)
        return self.emit(op, (number,), (shape, self.tensors[number].stored), settings=settings)[0]

    def _made_by(self, value: Value, op: str) -> Node | None:
        if value.port is not None:
            return None
        node = self._makers.get(self.id(value))
        return node if node is not None and node.op == op else None

    def _value(self, number: int) -> Value:
        tensor = self.tensors[number]
        return Value(tensor.shape, {tensor.stored: number})

    def product(self, op: str, reads: Sequence[int], shape: tuple[int, ...], gemm: Gemm, **settings: Setting) -> Value:
        """Add a product, whose result is an operand."""
        return self.emit(op, reads, (shape, Stored.OPERAND), settings=settings, gemm=gemm)[0]

    def graph(self, batch: int, output: Value, buffers: Mapping[str, Value], gradients: Mapping[str, Value]) -> Graph:
        """What was captured, without what nothing reads."""
        outputs = [Port(kind=PortKind.OUTPUT, tensor=self.id(output))]
        outputs += [Port(kind=PortKind.GRADIENT, tensor=self.id(v), name=name) for name, v in gradients.items()]
        changed = {name: v for name, v in buffers.items() if v.port is None and not v.counts}
        outputs += [Port(kind=PortKind.BUFFER, tensor=self.id(v), name=name) for name, v in changed.items()]
        nodes = _settled(self._alive(outputs), outputs)
        nodes = _with_parameters(nodes, self._inputs, outputs, self._labels)
        used = [*(p.tensor for p in self._inputs), *(number for node in nodes for number in node.makes)]
        place = {number: index for index, number in enumerate(used)}
        return Graph(
            model=self.model,
            batch=batch,
            tensors=tuple(self.tensors[number] for number in used),
            nodes=tuple(
                replace(
                    node,
                    reads=tuple(place[number] for number in node.reads),
                    makes=tuple(place[number] for number in node.makes),
                )
                for node in nodes
            ),
            inputs=tuple(replace(port, tensor=place[port.tensor]) for port in self._inputs),
            outputs=tuple(replace(port, tensor=place[port.tensor]) for port in outputs),
            counters=tuple(name for name, value in buffers.items() for _ in range(value.counted)),
        )

    def _alive(self, outputs: Sequence[Port]) -> list[Node]:
        wanted = {port.tensor for port in outputs}
        found: list[Node] = []
        for node in reversed(self.nodes):
            if not wanted.isdisjoint(node.makes):
                wanted.update(node.reads)
                found.append(node)
        return found[::-1]


@dataclass(frozen=True, slots=True)
class Call:
    """One operator: its arguments by name, a `Value` for each tensor, and what it makes, tensors without data."""

    func: OpOverload
    given: dict[str, Any]
    out: Any

    @property
    def shape(self) -> tuple[int, ...]:
        """Of its one result."""
        return tuple(self.out.shape)


Rule = Callable[[Lowering, Call], Any]
"""Adds one operator, and returns what it makes: a `Value` for each tensor."""


def one(to: Lowering, op: str, reads: Sequence[Value], shape: Sequence[int], **settings: Setting) -> Value:
    """Add a node of one result, an operand."""
    return to.emit(op, [to.id(value) for value in reads], (tuple(shape), Stored.OPERAND), settings=settings)[0]


def reduced(to: Lowering, op: str, value: Value, dims: Sequence[int]) -> Value:
    """Add a node that reduces ``dims``, of which sides of 1 stay."""
    chosen = tuple(sorted(dim % len(value.shape) for dim in dims))
    shape = tuple(1 if dim in chosen else side for dim, side in enumerate(value.shape))
    return one(to, op, (value,), shape, dims=chosen)


_MOVES = ("aten.view", "aten.permute", "aten.expand", "aten.slice", "aten.cat", "aten.constant_pad_nd")
_CARRIES = (*_MOVES, "aten.add", "aten.mul")
"""Operators through which a gradient of a parameter is still one, at most scaled and added to others."""


def _settled(nodes: Sequence[Node], outputs: Sequence[Port]) -> list[Node]:
    """The nodes of backward whose results only reach the gradients of parameters are weight update."""
    update = {port.tensor for port in outputs if port.kind is PortKind.GRADIENT}
    needed: set[int] = set()
    found: list[Node] = []
    for node in reversed(nodes):
        own = node.pass_ is Pass.BP and needed.isdisjoint(node.makes) and not update.isdisjoint(node.makes)
        (update if own and node.op in _CARRIES else needed).update(node.reads)
        found.append(replace(node, pass_=Pass.WU) if own else node)
    return found[::-1]


def _with_parameters(
    nodes: Sequence[Node], inputs: Sequence[Port], outputs: Sequence[Port], labels: Mapping[str, str]
) -> list[Node]:
    """Products with the parameter that they read (FF, BP), or whose gradient they make (WU)."""
    weights = {port.tensor: labels[port.name] for port in inputs if port.kind is PortKind.PARAMETER}
    for node in nodes:
        if node.op in _MOVES and len(node.reads) == 1 and node.reads[0] in weights:
            weights[node.makes[0]] = weights[node.reads[0]]
    made = {port.tensor: labels[port.name] for port in outputs if port.kind is PortKind.GRADIENT}
    for node in reversed(nodes):
        if node.pass_ is Pass.WU and node.op in _CARRIES and node.makes[0] in made:
            made.update(dict.fromkeys(node.reads, made[node.makes[0]]))
    return [
        node
        if node.gemm is None
        else replace(
            node,
            parameter=made.get(node.makes[0])
            if node.pass_ is Pass.WU
            else next((weights[number] for number in reversed(node.operands) if number in weights), None),
        )
        for node in nodes
    ]
