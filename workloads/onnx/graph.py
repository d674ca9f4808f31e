"""The shaped graph: every node with its tensors, what they are made from, and where gradients flow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import onnx

from ..errors import InputError, nearest
from ..operand import DTYPE_BYTES, Operand, Role
from .file import fed_inputs, node_name
from .layers import Places
from .operators import FREE, NO_GRADIENT, PARTS, PRODUCTS, REARRANGES, ROUNDS, STATISTICS
from .shapes import Inferred
from .tensors import is_floating

__all__ = ["Graph", "Node", "Tensor", "where"]


@dataclass(frozen=True, slots=True)
class Tensor:
    """Shape and format of one value, and what it is made from."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    parameter: str | None = None
    """The parameter it is, or those it is made from if nothing else takes part."""
    direct: bool = True
    """Of a parameter: that it is the stored one, or a mere rearrangement or part of it."""
    grad: bool = False
    folded: bool = False
    """Known before the step starts, so nothing reads it."""

    @property
    def elements(self) -> int:
        return prod(self.shape)

    @property
    def bytes(self) -> int:
        return self.elements * DTYPE_BYTES[self.dtype]

    @property
    def operand(self) -> Operand:
        """As an operand of a product."""
        role = Role.ACTIVATION if self.parameter is None else Role.WEIGHT
        return Operand(role=role, dtype=self.dtype, bytes=self.bytes)

    @property
    def gradient(self) -> Operand:
        """Its gradient, as an operand of a product."""
        return Operand(role=Role.GRADIENT, dtype=self.dtype, bytes=self.bytes)


@dataclass(frozen=True, slots=True)
class Node:
    """One operator and its tensors."""

    proto: Any
    ins: tuple[Tensor | None, ...]
    """None where an optional one is left out."""
    outs: tuple[Tensor, ...]
    differentiated: tuple[Tensor, ...]
    """Inputs to which the gradient flows on, if it reaches the node."""
    entering: Tensor | None = None
    """Of a product of parameters: the one that is the input of a layer, whose result is an activation then."""

    @property
    def name(self) -> str:
        return node_name(self.proto)

    @property
    def op(self) -> str:
        return str(self.proto.op_type)

    @property
    def read(self) -> list[Tensor]:
        """Inputs that are read in the step."""
        return [tensor for tensor in self.ins if tensor is not None and not tensor.folded]

    def attribute(self, name: str, default: Any) -> Any:
        """Value of an attribute, ``default`` where it is left out."""
        found = next((attribute for attribute in self.proto.attribute if attribute.name == name), None)
        return default if found is None else onnx.helper.get_attribute_value(found)


def where(proto: Any) -> str:
    """A node, as messages name it."""
    return f"node {node_name(proto)!r} ({proto.op_type})"


class Graph:
    """Nodes in order of computation, and ``backward``, those that a gradient reaches, in the order it does."""

    def __init__(self, inferred: Inferred, parameters: Container[str], frozen: Container[str] = ()) -> None:
        """``parameters``: names of the stored tensors that are; no gradient is made of those that are ``frozen``."""
        graph = inferred.graph
        self.values = inferred.values
        """What is stored and known, by name: targets of a reshape, scales."""
        self.quantised = inferred.quantised
        """Formats that the file has for what is quantised in it, by name."""
        self._inferred, self._parameters, self._kept = inferred, parameters, frozen
        self._initializers = {tensor.name: None for tensor in graph.initializer}
        read = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
        self._known = inferred.shapes.keys() | read
        self._tensors: dict[str, Tensor] = {}
        self._places = Places(graph)
        self.nodes = [self._node(proto) for proto in graph.node]
        self.inputs = [self._tensor(value.name) for value in fed_inputs(graph)]
        self.outputs = [self._tensor(value.name) for value in graph.output]
        self.initializers = [self._tensors[name] for name in self._initializers if name in self._tensors]
        """Those that are used."""
        self.reached = {out for out in self.outputs if out.grad}
        """Tensors to which a gradient comes back."""
        self.backward: list[Node] = []
        for node in reversed(self.nodes):
            if not self.reached.isdisjoint(node.outs):
                self.reached.update(node.differentiated)
                self.backward.append(node)
        self.uses = Counter(tensor for node in self.backward for tensor in node.ins if tensor and tensor.grad)
        """In how many places the gradient of a tensor is made."""

    def _tensor(self, name: str, user: Any = None) -> Tensor:
        """The tensor called ``name``; refused where its shape or format is not known."""
        if name not in self._tensors:
            at = f" of {where(user)}" if user is not None else ""
            if name not in self._inferred.shapes:
                raise InputError(f"the shape of {name!r}{at} cannot be inferred")
            dtype = self._inferred.dtypes[name]
            if dtype not in DTYPE_BYTES:
                raise InputError(f"{name!r}{at} is of type {dtype}: {nearest(dtype, DTYPE_BYTES)}")
            is_parameter = name in self._parameters
            self._tensors[name] = Tensor(
                name,
                self._inferred.shapes[name],
                dtype,
                name if is_parameter else None,
                grad=is_parameter and name not in self._kept,
                folded=name in self._inferred.folded and not is_parameter,
            )
        return self._tensors[name]

    @property
    def modules_are_named(self) -> bool:
        """Whether names of nodes tell modules."""
        return self._places.told

    def _node(self, proto: Any) -> Node:
        """The node with its tensors; its outputs get their provenance here."""
        op = proto.op_type
        ins = tuple(self._tensor(name, proto) if name else None for name in proto.input)
        collected = STATISTICS.get(op, ())
        skipped = range(len(ins)) if op in NO_GRADIENT else collected
        differentiated = tuple(t for index, t in enumerate(ins) if t and t.grad and index not in skipped)
        made_from = [
            t
            for index, t in enumerate(ins)
            if t and not t.folded and (t.parameter or is_floating(t.dtype)) and index not in collected
        ]
        names = dict.fromkeys(tensor.parameter for tensor in made_from)
        chosen_by_data = any(t and not (t.folded or t.name in self._initializers) for t in ins if t not in made_from)
        parameter = None if None in names or chosen_by_data else "+".join(filter(None, names)) or None
        direct = op in FREE | REARRANGES | PARTS and all(tensor.direct for tensor in made_from)
        entering = self._entering(proto, ins) if op in PRODUCTS and parameter else None
        if entering is not None:
            parameter = None
        outs = []
        for name in self._made(proto):
            made = self._tensor(name, proto)
            measured = op in ROUNDS and name != proto.output[0]
            grad = bool(differentiated) and is_floating(made.dtype) and not measured
            outs.append(replace(made, parameter=parameter, direct=direct, grad=grad))
            self._tensors[name] = outs[-1]
        return Node(proto, ins, tuple(outs), differentiated, entering)

    def _entering(self, proto: Any, ins: tuple[Tensor | None, ...]) -> Tensor | None:
        """Of a product of parameters the one that is the input of a layer; none where two weights are multiplied."""
        pair = [tensor for tensor in ins[:2] if tensor is not None and tensor.parameter]
        if len(pair) < 2:
            return None
        made_of = [str(tensor.parameter).split("+") for tensor in pair]
        found = self._places.entering(proto, *made_of)
        if found is not None:
            return pair[found]
        # Only a batch is repeated.
        stored = [sum(self._tensors[name].elements for name in names) for names in made_of]
        like_data = [tensor for tensor, least in zip(pair, stored, strict=True) if tensor.elements > least]
        if not like_data and not self._places.told:
            # Beside a parameter itself, what is made of parameters is one: a scaled position.
            like_data = [tensor for tensor in pair if not tensor.direct]
        return like_data[0] if len(like_data) == 1 else None

    def _made(self, proto: Any) -> list[str]:
        """Outputs of a node, without further ones that nothing reads and no rule of inference sizes."""
        return [name for index, name in enumerate(proto.output) if name and (index == 0 or name in self._known)]
