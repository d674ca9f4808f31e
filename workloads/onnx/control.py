"""``If``, ``Loop`` and ``Scan`` whose course the shapes decide, written out as the nodes that run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from ..errors import InputError
from .constants import constant
from .file import node_name
from .tensors import drop_large

__all__ = ["CONTROL", "MOST_TURNS", "write_out"]

CONTROL = frozenset({"If", "Loop", "Scan"})

MOST_TURNS = 1024
"""Of a loop: every turn is all the nodes of its body again."""

Known = Callable[[Any], tuple[dict[str, Any], Mapping[str, tuple[int, ...]]]]
"""What values and shapes of a model are known as it stands."""


def write_out(model: Any, known: Known) -> tuple[set[str], set[str]]:
    """Replace the control flow of ``model``, which is changed; the names of initializers it brings, and of constants.

    What depends on data is refused: there is no one step to trace.
    """
    declared: set[str] = set()
    placed: set[str] = set()
    while any(node.op_type in CONTROL for node in model.graph.node):
        constants, shapes = known(model)
        nodes: list[Any] = []
        reasons: list[InputError] = []
        for node in model.graph.node:
            try:
                written = _Writer(node, model, constants, shapes) if node.op_type in CONTROL else None
            except InputError as error:
                reasons.append(InputError(f"node {node_name(node)!r} ({node.op_type}): {error}"))
                written = None
            nodes += [node] if written is None else written.nodes
            if written is not None:
                declared |= written.declared
                placed |= written.placed
        if len(reasons) == sum(node.op_type in CONTROL for node in model.graph.node):
            raise reasons[0]
        nodes = [_copy(node) for node in nodes]
        del model.graph.node[:]
        model.graph.node.extend(nodes)
    return declared, placed


def _copy(node: Any) -> Any:
    copied = onnx.NodeProto()
    copied.CopyFrom(node)
    return copied


class _Writer:
    """The nodes that one ``If``, ``Loop`` or ``Scan`` runs; what its bodies store goes into ``graph`` once."""

    def __init__(self, node: Any, model: Any, constants: Mapping[str, Any], shapes: Mapping[str, Any]) -> None:
        graph = model.graph
        opset = next((each.version for each in model.opset_import if each.domain in ("", "ai.onnx")), 1)
        self._axes_are_fed = opset >= 13
        self._node, self._graph, self._constants, self._shapes = node, graph, constants, shapes
        self._called = node_name(node)
        self._attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        self._stored = {tensor.name for tensor in graph.initializer}
        self.nodes: list[Any] = []
        self.declared: set[str] = set()
        self.placed: set[str] = set()
        {"If": self._if, "Loop": self._loop, "Scan": self._scan}[node.op_type]()

    def _if(self) -> None:
        name = self._node.input[0]
        if name not in self._constants:
            raise InputError(
                f"its condition {name!r} depends on data; only one that sizes or constants decide is known"
            )
        branch = "then_branch" if np.ravel(self._constants[name])[0] else "else_branch"
        self._finish(self._turn(self._attributes[branch], {}, branch))

    def _loop(self) -> None:
        body = self._attributes["body"]
        count, go = (*self._node.input, "", "")[:2]
        if not count or count not in self._constants:
            raise InputError(f"its count {count!r} depends on data; only one that sizes or constants decide is known")
        turns = int(np.ravel(self._constants[count])[0])
        if (go and not (go in self._constants and np.ravel(self._constants[go])[0])) or not self._goes_on(body):
            raise InputError("it may end before its count: its condition depends on data")
        carried = list(self._node.input[2:])
        self._run(body, turns, carried, lambda turn: {
            body.input[0].name: self._number(turn), body.input[1].name: self._number(1, np.bool_)
        }, 1, 2)  # fmt: skip

    def _scan(self) -> None:
        body, scanned = self._attributes["body"], int(self._attributes["num_scan_inputs"])
        odd = [
            name for name in self._attributes if name.endswith(("directions", "axes")) and any(self._attributes[name])
        ]
        if odd:
            raise InputError(f"attribute {odd[0]} = {list(self._attributes[odd[0]])} has no rule; leave it out")
        states = len(self._node.input) - scanned
        over = list(self._node.input[states:])
        if over[0] not in self._shapes or not self._shapes[over[0]]:
            raise InputError(f"the length of {over[0]!r} is not known")

        def slices(turn: int) -> dict[str, str]:
            taken = {}
            for value, name in zip(body.input[states:], over, strict=True):
                taken[value.name] = f"{self._called}/{turn}/{value.name}"
                self._add("Gather", [name, self._number(turn)], taken[value.name], axis=0)
            return taken

        self._run(body, self._shapes[over[0]][0], list(self._node.input[:states]), slices, 0, 0)

    def _run(
        self, body: Any, turns: int, carried: list[str], fed: Callable[[int], dict[str, str]], outs: int, ins: int
    ) -> None:
        """``turns`` of ``body``; its inputs from ``ins`` on are ``carried``, as are its outputs from ``outs`` on."""
        if turns > MOST_TURNS:
            raise InputError(f"{turns:,} turns; at most {MOST_TURNS:,} are written out")
        stacked: list[list[str]] = [[] for _ in body.output[outs + len(carried) :]]
        if turns < 1 and stacked:
            raise InputError("it makes no turn, so what it collects has no shape")
        for turn in range(turns):
            states = {value.name: name for value, name in zip(body.input[ins:], carried, strict=False)}
            made = self._turn(body, {**fed(turn), **states}, str(turn))[outs:]
            for each, name in zip(stacked, made[len(carried) :], strict=True):
                each.append(f"{name}/row")
                if self._axes_are_fed:
                    self._add("Unsqueeze", [name, self._number([0])], each[-1])
                else:
                    self._add("Unsqueeze", [name], each[-1], axes=[0])
            carried = made[: len(carried)]
        collected = []
        for index, rows in enumerate(stacked):
            collected.append(f"{self._called}/all/{index}")
            self._add("Concat", rows, collected[-1], axis=0)
        self._finish([*carried, *collected])

    def _turn(self, body: Any, fed: Mapping[str, str], turn: str) -> list[str]:
        """Write ``body`` out once, its inputs called as in ``fed``; what its outputs are called."""
        names = dict(fed)
        for tensor in body.initializer:
            names[tensor.name] = self._store(tensor, self.declared)
        for node in body.node:
            held = constant(node) if node.op_type == "Constant" else None
            if held is not None:
                names[node.output[0]] = self._store(held, self.placed)
                continue
            names.update((name, f"{self._called}/{turn}/{name}") for name in node.output if name)
            written = _copy(node)
            written.name = f"{self._called}/{turn}/{node_name(node)}"
            written.output[:] = [names[name] if name else "" for name in node.output]
            _rename(written, names)
            self.nodes.append(written)
        return [names.get(value.name, value.name) for value in body.output]

    def _store(self, tensor: Any, among: set[str]) -> str:
        """Add a tensor that a body holds to the graph, once for all turns; its name there."""
        name = f"{self._called}/{tensor.name}"
        if name not in self._stored:
            kept = self._graph.initializer.add()
            kept.CopyFrom(tensor)
            kept.name = name
            drop_large(kept)
            self._stored.add(name)
        among.add(name)
        return name

    def _number(self, value: Any, dtype: Any = np.int64) -> str:
        tensor = numpy_helper.from_array(np.array(value, dtype), f"number/{np.dtype(dtype).name}/{value}")
        return self._store(tensor, self.placed)

    def _add(self, op: str, ins: list[str], out: str, **attributes: Any) -> None:
        self.nodes.append(helper.make_node(op, ins, [out], name=out, **attributes))

    def _finish(self, made: list[str]) -> None:
        for name, out in zip(made, self._node.output, strict=True):
            if out:
                self._add("Identity", [name], out)

    def _goes_on(self, body: Any) -> bool:
        """Whether the condition that a body makes is the one it was fed, or true."""
        made = {name: node for node in body.node for name in node.output}
        held = {tensor.name: numpy_helper.to_array(tensor) for tensor in body.initializer if len(tensor.dims) <= 1}
        name = body.output[0].name
        while name in made and made[name].op_type in ("Identity", "Cast"):
            name = made[name].input[0]
        if name in made and made[name].op_type == "Constant":
            held[name] = numpy_helper.to_array(constant(made[name]))
        held.update((key, value) for key, value in self._constants.items() if key not in held)
        return bool(name == body.input[1].name or (name in held and np.ravel(held[name]).all()))


def _rename(node: Any, names: Mapping[str, str]) -> None:
    """Call what ``node``, and the bodies it has, read as in ``names``."""
    node.input[:] = [names.get(name, name) for name in node.input]
    for attribute in node.attribute:
        for body in [attribute.g] if attribute.type == onnx.AttributeProto.GRAPH else attribute.graphs:
            own = {tensor.name for tensor in body.initializer} | {value.name for value in body.input}
            own.update(name for inner in body.node for name in inner.output)
            outer = {name: called for name, called in names.items() if name not in own}
            for inner in body.node:
                _rename(inner, outer)
            for value in body.output:
                value.name = outer.get(value.name, value.name)
