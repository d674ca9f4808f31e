"""What drives the unit for spanning trees: its tables filled, a run, and every count read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ...dataflow.accelerator import AcceleratorSpec
from ...dataflow.tree_spec import require_tree
from ...workloads.errors import InputError
from ...workloads.spanning_tree import SpanningTree
from ..blocks.tree import TreeUnit
from ..blocks.tree_lane import TreeFormat
from ..blocks.tree_tables import TreeTables, input_words, tree_tables
from ..flow.cosim import Cosim
from .grid import Machine

__all__ = ["TreeDriver", "TreeRtlRun"]


@dataclass(frozen=True, slots=True, eq=False)
class TreeRtlRun:
    """``result`` int64 [positions, channels], sums of products of -1 and +1; ``made`` int64, the cycle from the first
    issue in which each count was, -1 where a channel has none of its own; ``cycles`` of the run while it issued."""

    result: npt.NDArray[np.int64]
    made: npt.NDArray[np.int64]
    cycles: int


class TreeDriver:
    """Runs layers on the unit of ``spec`` in ``machine``, by default a co-simulation, built once for all."""

    def __init__(self, spec: AcceleratorSpec, machine: Machine | None = None) -> None:
        self.spec = spec
        self.own = require_tree(spec.tree, spec.name)
        if machine is None:
            unit = TreeUnit(self.own, blackbox=True)
            machine = Cosim(unit, parts=unit.parts)
        self._machine = machine

    def run(
        self, tree: SpanningTree, weights: npt.NDArray[np.bool_], inputs: npt.NDArray[np.bool_], *, cycles: int
    ) -> TreeRtlRun:
        """``inputs``, bool [positions, k], through ``weights``, bool [channels, k], whose tree it is.

        ``cycles`` bounds the length of the run.
        """
        if inputs.shape != (self.own.positions, tree.k) or weights.shape != (len(tree.parent), tree.k):
            raise InputError(
                f"the tree is of {len(tree.parent)} x {tree.k} weights and the unit holds {self.own.positions} "
                f"positions, not {list(weights.shape)} weights and {list(inputs.shape)} inputs"
            )
        tables = tree_tables(self.own, tree, weights)
        self._fill(tables, inputs)
        seen = self._issue(tables, cycles)
        return TreeRtlRun(self._read(tables), self._made(tables, seen), int(seen["issuing"].sum()))

    def _fill(self, tables: TreeTables, inputs: npt.NDArray[np.bool_]) -> None:
        for name, of in (("fill_tasks", tables.tasks), ("fill_words", tables.words)):
            rows = [(lane, i, word) for lane, words in enumerate(of) for i, word in enumerate(words)]
            lanes, addresses, contents = (list(x) for x in zip(*rows, strict=True))
            self._write(name, addresses, contents, {f"{name}__lane": np.array(lanes, np.uint32)})
        self._write("fill_inputs", *input_words(self.own, inputs), {})

    def _write(self, name: str, addresses: list[int], contents: list[int], more: dict[str, Any]) -> None:
        size = 4 * -(-TreeFormat(self.own).tables[name][1] // 32)
        raw = b"".join(word.to_bytes(size, "little") for word in contents)
        data = np.frombuffer(raw, "<u8" if size == 8 else "<u4")
        shaped = data if size <= 8 else data.reshape(len(contents), -1)
        fed: dict[str, Any] = {
            f"{name}__en": 1,
            f"{name}__address": np.array(addresses, np.uint32),
            f"{name}__data": shaped,
        }
        self._machine.run(fed | more)

    def _issue(self, tables: TreeTables, cycles: int) -> dict[str, Any]:
        """Outputs of the run from its first cycle of issue on."""
        start = np.zeros(cycles + self.own.latency + 2, np.uint32)
        start[0] = 1
        seen = self._machine.run({"start": start, "levels": tables.levels})
        if seen["busy"][-1]:
            raise RuntimeError(f"{tables.levels} levels keep the unit busy for more than the given {cycles} cycles")
        return {name: values[1:] for name, values in seen.items()}

    def _made(self, tables: TreeTables, seen: dict[str, Any]) -> npt.NDArray[np.int64]:
        made = np.full(tables.lane.shape, -1, np.int64)
        for lane in range(self.own.lanes):
            times = np.flatnonzero(seen[f"made__{lane}__valid"])
            if len(times) != len(tables.tasks[lane]) - 1:
                raise RuntimeError(f"lane {lane} made {len(times)} counts instead of {len(tables.tasks[lane]) - 1}")
            here = (tables.lane == lane) & tables.own
            made[here] = times[tables.slot[here]]
        return made

    def _read(self, tables: TreeTables) -> npt.NDArray[np.int64]:
        lane, slot = tables.lane.ravel(), tables.slot.ravel()
        inverted = np.broadcast_to(tables.inverted, tables.lane.shape).ravel()
        asked: dict[str, Any] = {
            "ask__lane": np.append(lane, 0).astype(np.uint32),
            "ask__slot": np.append(slot, 0).astype(np.uint32),
            "ask__inverted": np.append(inverted, False).astype(np.uint32),
            "length": tables.length,
        }
        raw = self._machine.run(asked)["result"][1:].astype(np.int64)
        bits = self.own.inputs.bit_length() + 1
        return np.where(raw >> (bits - 1), raw - (1 << bits), raw).reshape(tables.lane.shape)
