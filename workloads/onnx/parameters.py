"""Which stored tensors of a graph are parameters: by what they meet, not by how the exporter stored them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from .file import fed_inputs
from .operators import FREE, NO_GRADIENT, PARTS, PRODUCTS, REARRANGES, RECURRENT, ROUNDS, STATISTICS
from .shapes import Inferred
from .tensors import is_floating

__all__ = ["parameters"]

_STATES = dict.fromkeys(RECURRENT, (4, 5, 6))
"""Lengths and first states of a recurrent operator."""

_MOVES = FREE | REARRANGES | {"DequantizeLinear"}
_EMBEDDINGS = frozenset({"Gather", "GatherElements", "GatherND"})
_ARITHMETIC = frozenset({"Add", "Div", "Mul", "Sub", "Sum"})


@dataclass(frozen=True, slots=True)
class _Value:
    """What is known of a value before gradients are: whether data takes part, else the stored tensors it is made of."""

    data: bool = False
    trained: bool = False
    """Of data: that some parameter took part, so a gradient flows here."""
    sources: frozenset[str] = frozenset()


def parameters(inferred: Inferred) -> set[str]:
    """Names of the stored tensors that are parameters.

    An initializer of the file is one unless it is a lone number of arithmetic. What the file stores in a node
    (``Constant``, ``ConstantOfShape``) is one where it meets data as the weight or bias of a product, in a
    normalisation, as slopes or as a table that is looked up, and as a vector along one axis that is added to or
    multiplies data behind some parameter, as a bias or scale does; not where that data was just put together or taken
    apart, as boxes are before the strides of their grid. Masks, grids and what prepares the input stay constants.
    """
    survey = _Survey(inferred)
    found = survey.declared
    while True:
        # A tensor may be used before the use that tells what it is.
        more = found | survey.run(found)
        if more == found:
            return found
        found = more


def _is_collected(node: Any, index: int) -> bool:
    """Whether an input of a node is never trained there."""
    return index in STATISTICS.get(node.op_type, ()) or index in _STATES.get(node.op_type, ())


def _read(inferred: Inferred) -> set[str]:
    """Names of what is read for more than to make a statistic of it."""
    nodes = inferred.graph.node
    stored = inferred.declared | inferred.placed
    # Scales that are measured on the way, and multiplied by stored ones behind a product.
    measured: set[str] = set()
    for node in nodes:
        ins = {name for name in node.input if name}
        others = ins - measured
        if node.op_type in ROUNDS:
            measured.update(node.output[1:])
        elif others != ins and (
            (node.op_type in _MOVES and node.input[0] in measured)
            or (node.op_type in ("Mul", "Div") and stored.issuperset(others))
        ):
            measured.update(node.output)
    read = {value.name for value in inferred.graph.output}
    for node in reversed(nodes):
        made = {name for name in node.output if name}
        if made <= inferred.collected | measured or read.isdisjoint(made):
            continue
        collected = STATISTICS.get(node.op_type, ())
        read.update(name for index, name in enumerate(node.input) if index not in collected)
    return read - inferred.collected


class _Survey:
    """Follows what values are made of, node by node."""

    def __init__(self, inferred: Inferred) -> None:
        self._inferred = inferred
        graph = inferred.graph
        self._stored = {
            name
            for name in _read(inferred) & (inferred.declared | inferred.placed)
            if is_floating(inferred.dtypes[name])
        }
        self._parts = {name for node in graph.node if node.op_type in PARTS for name in node.output}
        self._large = {name for name in self._stored if prod(inferred.shapes[name]) > 1}
        self.declared = self._large & inferred.declared

    def run(self, known: set[str]) -> set[str]:
        """The parameters that one pass over the nodes finds, if those ``known`` are."""
        values = {value.name: _Value(data=True) for value in fed_inputs(self._inferred.graph)}
        values.update((name, _Value(sources=frozenset({name}))) for name in self._stored)
        found: set[str] = set()
        for node in self._inferred.graph.node:
            ins = [values.get(name, _Value()) for name in node.input]
            met = frozenset().union(*self._weights(node, ins))
            found |= met
            made = self._made(node, ins, known | met)
            values.update((name, made) for name in node.output if name)
        return found | self.declared

    def _weights(self, node: Any, ins: Sequence[_Value]) -> Iterator[frozenset[str]]:
        """Of the inputs that are weights beside data here, what they are made of."""
        op = node.op_type
        if op in _EMBEDDINGS:
            if ins[0].sources and (ins[1].data or self._rows(node)):
                yield ins[0].sources
        elif not any(value.data for value in ins):
            return
        elif op in PRODUCTS or op in RECURRENT or op.endswith("Normalization") or op == "PRelu":
            yield from (value.sources for index, value in enumerate(ins) if not _is_collected(node, index))
        elif op in _ARITHMETIC and any(value.trained for value in ins):
            if any(value.data and name in self._parts for name, value in zip(node.input, ins, strict=True)):
                return
            for name, value in zip(node.input, ins, strict=True):
                if self._is_vector(name, node.output[0]):
                    yield value.sources & self._large

    def _made(self, node: Any, ins: Sequence[_Value], known: set[str]) -> _Value:
        """What the results of a node are made of."""
        taken = [value for index, value in enumerate(ins) if index not in STATISTICS.get(node.op_type, ())]
        sources = frozenset().union(*(value.sources for value in taken))
        if node.op_type not in _MOVES:
            # A lone number is a constant of arithmetic, wherever the result goes.
            sources &= self._large
        trained = node.op_type not in NO_GRADIENT and (
            any(value.trained for value in ins) or not known.isdisjoint(sources)
        )
        if any(value.data for value in ins):
            return _Value(data=True, trained=trained)
        weights = [not known.isdisjoint(value.sources) for value in ins]
        if node.op_type in PRODUCTS and any(weights) and not all(weights[:2]):
            # A weight and a constant that nothing else calls a weight: that one is data, such as a table of places.
            return _Value(data=True, trained=trained)
        return _Value(sources=sources)

    def _rows(self, node: Any) -> bool:
        """Whether a lookup with a stored index is one of several rows, not of a part."""
        shape: Mapping[str, tuple[int, ...]] = self._inferred.shapes
        return len(shape.get(node.input[0], ())) > 1 and prod(shape.get(node.input[1], ())) > 1

    def _is_vector(self, name: str, out: str) -> bool:
        """Whether the value has one axis, the others being 1, and that axis is one of the result."""
        shapes = self._inferred.shapes
        if name not in shapes or out not in shapes:
            return False
        shape = (1,) * (len(shapes[out]) - len(shapes[name])) + shapes[name]
        wide = [axis for axis, size in enumerate(shape) if size > 1]
        return len(wide) == 1 and shape[wide[0]] == shapes[out][wide[0]]
