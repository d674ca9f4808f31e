"""The graph at the batch that is asked for, and whether every sample still has its own place in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..errors import InputError
from .agreement import ShapeError, require_agreement, sizes
from .constants import Stored
from .graph import Graph, Node, where
from .operators import PRODUCTS, RECURRENT
from .parameters import parameters
from .products import product_macs
from .shapes import infer

__all__ = ["at_batch"]

_TOLD = frozenset({"Expand", "Gather", "Reshape", "Resize", "Slice", "Tile", "Upsample"})
"""Operators that are told what their result is, which an exporter may have written down for its own example."""

_ADVICE = "give --batch {0}, or export the model again with a dynamic batch axis"

SetSizes = Callable[[Any, int | None], int]
"""Writes sizes into the inputs of a graph and returns the batch."""

Freeze = Callable[[set[str]], Sequence[str]]
"""Of the names of all parameters those that are frozen."""


def at_batch(stored: Stored, batch: int | None, set_sizes: SetSizes, freeze: Freeze) -> tuple[Graph, int]:
    """The graph of ``stored`` and its batch.

    Exporters write sizes of their example into a graph whose first axis they call free. What then contradicts itself,
    loses samples or runs them together is refused: the file is one for the batch it was exported with.
    """

    def sized(size: int | None) -> tuple[Any, int]:
        model = stored.copy()
        return model, set_sizes(model.graph, size)

    def agreed(model: Any) -> Graph:
        inferred = infer(stored, model)
        trained = parameters(inferred)
        graph = Graph(inferred, trained, freeze(trained))
        require_agreement(graph, stored.opset)
        return graph

    def at_other(size: int) -> Graph | None:
        try:
            return agreed(sized(size)[0])
        except InputError:
            return None

    model, found = sized(batch)
    try:
        graph = agreed(model)
    except InputError as error:
        if batch is not None:
            _explain(error, batch, at_other)
        raise
    if batch is not None:
        for compared in (2,) if batch == 1 else (1, 2 if batch > 2 else 3):
            other = at_other(compared)
            # A batch of one may vanish in a Squeeze without axes; then two tell.
            if other is not None and (compared > 1 or _of_same_ranks(graph, other)):
                _require_apart(graph, other, batch, compared)
                break
    return graph, found


def _of_same_ranks(graph: Graph, other: Graph) -> bool:
    ranks = {node.proto.output[0]: len(node.outs[0].shape) for node in other.nodes}
    return all(ranks.get(node.proto.output[0]) in (None, len(node.outs[0].shape)) for node in graph.nodes)


def _explain(error: InputError, batch: int, at_other: Callable[[int], Graph | None]) -> None:
    """Where the graph fits together at another batch, refuse it as exported for that one."""
    tried = [1]
    if isinstance(error, ShapeError) and error.factor is not None:
        read, made = error.factor
        tried.append(made * batch // read if read and not made * batch % read else 1)
    for other in dict.fromkeys(tried):
        if 0 < other != batch and at_other(other) is not None:
            raise InputError(f"exported for batch {other}, not {batch}: {error}; {_ADVICE.format(other)}") from error


def _require_apart(graph: Graph, other: Graph, batch: int, compared: int) -> None:
    """Refuse a graph whose ``batch`` samples are not that many times one, as the graph at batch ``compared`` tells."""
    there = {node.proto.output[0]: node for node in other.nodes}
    for node in graph.nodes:
        twin = there.get(node.proto.output[0])
        if twin is None or node.ins[:1] in ((), (None,)) or twin.ins[:1] in ((), (None,)):
            continue
        told, again = ([of.values.get(name, ()) for name in node.proto.input[1:] if name] for of in (graph, other))
        baked, said = _lost(node, twin, batch, all(map(np.array_equal, told, again)))
        if not said and batch > compared:
            try:
                said = _merged(node, twin, batch, compared)
            except InputError as error:
                raise InputError(f"{where(node.proto)}: {error}") from error
        if said:
            raise InputError(
                f"exported for batch {baked}, not {batch}: {where(node.proto)} {said}; {_ADVICE.format(baked)}"
            )


def _lost(node: Node, twin: Node, batch: int, written: bool) -> tuple[int, str]:
    """The batch for which a node was told the size of its result, and how that shows.

    ``written``: that it is told the same at every batch, so that a -1 takes in the batch.
    """
    x, y, other, alike = node.ins[0], node.outs[0], twin.ins[0], twin.outs[0]
    assert x is not None and other is not None
    if node.op not in _TOLD or not written or x.shape == other.shape:
        return 1, ""
    first = bool(x.shape) and x.shape[0] == batch != other.shape[0]
    # A lookup makes as many samples as its index asks for; others have them first.
    index = node.ins[1] if node.op == "Gather" else None
    made = index.elements if index is not None else next(iter(y.shape), 1)
    if first and made == batch:
        return batch, ""
    if y.shape == alike.shape:
        return (made if first else 1), f"makes {sizes(y.shape)} of every batch"
    if first and node.op == "Reshape" and y.shape[:1] == alike.shape[:1]:
        return made, f"makes {sizes(y.shape)} of {sizes(x.shape)}, a longer sample of a larger batch"
    return 1, ""


def _merged(node: Node, twin: Node, batch: int, compared: int) -> str:
    """How a product or a recurrence treats the samples of a batch as one that is so many times longer.

    A product of all samples with all samples (a contrastive loss) has the batch itself for rows and columns; where
    these are a multiple of it, the samples were run together on the way.
    """
    x, one = node.ins[0], twin.ins[0]
    assert x is not None and one is not None
    if node.op in RECURRENT:
        axis = 1 if node.attribute("layout", 0) else 0
        return "" if x.shape[axis] == one.shape[axis] else f"takes the {batch} samples for steps of one"
    if node.op not in PRODUCTS:
        return ""
    if len(node.outs[0].shape) != len(twin.outs[0].shape):
        return ""
    work, alone = (product_macs(of) for of in (node, twin))
    grown = [size for size, before in zip(node.outs[0].shape, twin.outs[0].shape, strict=True) if size != before]
    if work == alone or compared * work == batch * alone or all(size == batch for size in grown):
        return ""
    return f"does {work / alone:.6g} times the work of {_samples(compared)}: it takes the batch for one long sample"


def _samples(count: int) -> str:
    return "one sample" if count == 1 else f"{count} samples"
