"""What a step takes a file for where the file does not say it: quantised layers, products of parameters."""

from __future__ import annotations

from ..errors import printable, shorten
from .graph import Graph, Node, Tensor
from .operators import FREE, PARTS, PRODUCTS, REARRANGES, RECURRENT, UNCHANGED

__all__ = ["assumed"]

_NAMED = 3
"""Layers that are named, of each pair of formats."""
_LONGEST = 60
"""Characters of a name."""


def assumed(graph: Graph) -> tuple[str, ...]:
    """A sentence for every pair of formats that products of the file read, and for products that may be layers."""
    made = {out.name: node for node in graph.nodes for out in node.outs}
    layers: dict[str, list[str]] = {}
    for node in graph.nodes:
        if node.op in PRODUCTS | RECURRENT:
            formats = [_format(tensor, graph, made) for tensor in node.ins[:2] if tensor is not None]
            if any(formats):
                layers.setdefault(" x ".join(found or "float" for found in formats), []).append(node.name)
    of_two = [node.name for node in graph.nodes if node.op in PRODUCTS and _made_of_two(node)]
    unnamed = (
        f"{_listed(of_two)}: of parameters alone, and no name tells a layer: taken for a weight made of two, as in "
        "LoRA, not for what a layer makes of a learned input",
    )
    return (unnamed if of_two and not graph.modules_are_named else ()) + tuple(
        f"{_listed(names)} {'is' if len(names) == 1 else 'are'} quantised in the file ({formats}): counted as products "
        "of floats that every step rounds; weights are trained as floats, and gradients pass the rounding as they are"
        for formats, names in layers.items()
    )


def _made_of_two(node: Node) -> bool:
    return node.entering is None and all(tensor is not None and tensor.parameter for tensor in node.ins[:2])


def _format(tensor: Tensor, graph: Graph, made: dict[str, Node]) -> str:
    """The format that the file has for a tensor, empty where it quantises nothing."""
    while tensor.name not in graph.quantised:
        node = made.get(tensor.name)
        if node is None or node.ins[0] is None:
            return ""
        if node.op == "DequantizeLinear":
            return graph.quantised.get(node.ins[0].name, node.ins[0].dtype)
        if node.op not in FREE | REARRANGES | PARTS | UNCHANGED:
            return ""
        tensor = node.ins[0]
    return graph.quantised[tensor.name]


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(shorten(printable(name), _LONGEST) for name in names[:_NAMED]) + more
