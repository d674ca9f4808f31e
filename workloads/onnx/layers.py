"""Which layer of a graph a product of two parameters is: as in PyTorch, told by where names say that both live."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import takewhile
from typing import Any

from .file import node_name

__all__ = ["Places"]

Place = tuple[str, ...]

_NAMELESS = re.compile(r"onnx::|\d+$|val_\d+$")
"""Names that exporters number, of weights that they stored the other way round."""
_AGAIN = re.compile(r"_\d+$")
"""What exporters put behind a module that is called once more."""


class Places:
    """Paths of modules, from names such as ``encoder.q.weight`` and ``/encoder/q/MatMul``."""

    def __init__(self, graph: Any) -> None:
        self._readers: dict[str, Place] = {}
        for node in graph.node:
            for name in node.input:
                called = _called(node)
                shared = takewhile(
                    lambda pair: pair[0] == pair[1], zip(self._readers.get(name, called), called, strict=False)
                )
                self._readers[name] = tuple(part for part, _ in shared)
        self.told = any(map(_called, graph.node))
        """Whether names of nodes say in which module they are."""

    def entering(self, node: Any, one: Iterable[str], two: Iterable[str]) -> int | None:
        """Which of two operands, made of these parameters alone, is the input of a layer that owns the other's.

        None where two weights are multiplied (`tracing/provenance.py:Ledger.layer_input`, the same rule of modules).
        """
        homes = [{self._home(name) for name in names} for names in (one, two)]
        if not self.told:
            return _outer(homes)
        called = _called(node)
        for end in range(len(called), 0, -1):
            inside = [all(_within(home, called[:end]) for home in each) for each in homes]
            if inside[0] != inside[1]:
                return inside.index(False)
            if inside[0]:
                break
        return None

    def _home(self, name: str) -> Place:
        if _NAMELESS.match(name):
            return self._readers.get(name, ())
        return tuple(re.split(r"[./]", name.strip("/")))[:-1]


def _called(node: Any) -> Place:
    """The modules in whose calls a node was exported; what a parametrization makes is the weight of its layer."""
    path = re.split(r"[./]", node_name(node).strip("/"))[:-1] if "/" in node_name(node) else []
    return tuple(path[: path.index("parametrizations")] if "parametrizations" in path else path)


def _within(home: Place, path: Place) -> bool:
    return len(home) >= len(path) and all(
        part == called or part == _AGAIN.sub("", called) for part, called in zip(home, path, strict=False)
    )


def _outer(homes: list[set[Place]]) -> int | None:
    """Where nodes have no names: what lives outside of the module of the other one's parameters enters it."""
    for one in (0, 1):
        if all(outer != inner and inner[: len(outer)] == outer for outer in homes[one] for inner in homes[1 - one]):
            return one
    return None
