"""``If``, ``Loop`` and ``Scan`` whose course the shapes decide, and operators that ONNX defines by others: written out
as the nodes that run."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from ..errors import InputError
from .bodies import body_of, has_body
from .constants import constant
from .file import node_name, opset_of
from .operators import STATISTICS
from .tensors import drop_large

__all__ = ["CONTROL", "MOST_TURNS", "Known", "Written", "write_out"]

CONTROL = frozenset({"If", "Loop", "Scan"})

MOST_TURNS = 1024
"""Of a loop: every turn is all the nodes of its body again."""


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a model before it is known which way control flow goes, by the names of its values."""

    constants: dict[str, Any]
    shapes: Mapping[str, tuple[int, ...]]
    types: Mapping[str, Any]
    """Format and shape, as ONNX writes them, where both are known."""


@dataclass(slots=True)
class Written:
    """Names of what is written out."""

    declared: set[str] = field(default_factory=set)
    """Initializers of bodies."""
    placed: set[str] = field(default_factory=set)
    """Constants in them."""
    collected: set[str] = field(default_factory=set)
    """What an operator that is written out takes for a statistic, never for a parameter."""


def write_out(model: Any, known: Callable[[Any], Known], ruled: Container[str]) -> Written:
    """Replace in ``model``, which is changed, control flow and what ONNX defines by operators, but for the ``ruled``.

    What depends on data is refused: there is no one step to trace.
    """
    written, opset = Written(), opset_of(model)

    def open_nodes() -> list[Any]:
        return [
            node
            for node in model.graph.node
            if node.op_type in CONTROL or (node.op_type not in ruled and has_body(node.op_type, opset))
        ]

    while found := open_nodes():
        names = {node.output[0] for node in found}
        at_hand = known(model)
        nodes: list[Any] = []
        reasons: list[InputError] = []
        for node in model.graph.node:
            if node.output[0] not in names:
                nodes.append(node)
                continue
            try:
                nodes += _Writer(node, model, at_hand, written).nodes
            except InputError as error:
                reasons.append(InputError(f"node {node_name(node)!r} ({node.op_type}): {error}"))
                nodes.append(node)
        if len(reasons) == len(found):
            raise reasons[0]
        nodes = [_copy(node) for node in nodes]
        del model.graph.node[:]
        model.graph.node.extend(nodes)
    return written


def _copy(node: Any) -> Any:
    copied = onnx.NodeProto()
    copied.CopyFrom(node)
    return copied


class _Writer:
    """The nodes that one node runs; what its bodies store goes into ``graph`` once, its name into ``written``."""

    def __init__(self, node: Any, model: Any, known: Known, written: Written) -> None:
        self._opset = opset_of(model)
        self._axes_are_fed = self._opset >= 13
        self._node, self._graph, self._known, self._written = node, model.graph, known, written
        self._constants, self._shapes = known.constants, known.shapes
        self._called = node_name(node)
        self._attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        self._stored = {tensor.name for tensor in model.graph.initializer}
        self.nodes: list[Any] = []
        {"If": self._if, "Loop": self._loop, "Scan": self._scan}.get(node.op_type, self._definition)()

    def _definition(self) -> None:
        body = body_of(self._node, self._opset, self._known.types)
        fed = dict.fromkeys((value.name for value in body.input), "")
        fed.update(zip(fed, self._node.input, strict=False))
        made = self._turn(body, fed, "")
        self._finish(made[: len(self._node.output)])
        self.nodes = _needed(self.nodes, self._node.output)
        collected = STATISTICS.get(self._node.op_type, ())
        self._written.collected.update(name for at, name in enumerate(self._node.input) if at in collected)

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
        self._run(
            body,
            turns,
            carried,
            lambda turn: {body.input[0].name: self._number(turn), body.input[1].name: self._number(1, np.bool_)},
            1,
            2,
        )

    def _scan(self) -> None:
        if self._opset < 9:
            raise InputError(
                "the Scan of opset 8 has a batch of its own and no rule; convert the file to opset 9 or later"
            )
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
        names, place = dict(fed), "/".join(filter(None, (self._called, turn)))
        for tensor in body.initializer:
            names[tensor.name] = self._store(tensor, self._written.declared)
        for node in body.node:
            held = constant(node) if node.op_type == "Constant" else None
            if held is not None:
                names[node.output[0]] = self._store(held, self._written.placed)
                continue
            names.update((name, f"{place}/{name}") for name in node.output if name)
            written = _copy(node)
            written.name = f"{place}/{node_name(node)}"
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
        return self._store(tensor, self._written.placed)

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


def _needed(nodes: Sequence[Any], outputs: Sequence[str]) -> list[Any]:
    """Of ``nodes``, in order, those that make ``outputs``: a definition serves results that nobody asked for, too."""
    asked = set(outputs)
    kept: list[Any] = []
    for node in reversed(nodes):
        if not asked.isdisjoint(node.output):
            # Bodies of inner control flow read what stands outside of them without listing it.
            asked.update(node.input, *(inner.input for a in node.attribute for inner in a.g.node))
            kept.append(node)
    return kept[::-1]


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
