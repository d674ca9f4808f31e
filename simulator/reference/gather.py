"""The gather engine cycle by cycle, to be read beside docs/gather.md: every product and every sum by itself.

Nothing is shared with the kernel or the closed forms.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ...dataflow.accelerator import AcceleratorSpec
from ...dataflow.gather.mapping import require_gather
from ..operand import Half

__all__ = ["GatherReference", "gather_reference"]

_ADDRESS, _MEMORY = 1, 1
"""Cycles in which the address of a line of the dense operand is made, and in which it is read."""


class GatherReference(NamedTuple):
    """Sums, float32 [m, n]; the cycle in which the sums of each line are there; all cycles; slots waited for a bank."""

    result: npt.NDArray[Any]
    left: list[int]
    cycles: int
    waited: int


class Line:
    """A column of B with the places that it keeps."""

    def __init__(self, number: int, places: list[int]) -> None:
        self.number, self.places, self.taken = number, places, 0

    @property
    def over(self) -> bool:
        return self.taken >= max(len(self.places), 1)


class Lane:
    """Lines that it holds, and which of them has its turn; ``queues``: where the lines of each come from."""

    def __init__(self, queues: list[list[Line]]) -> None:
        self.queues, self.turn = queues, 0
        self.lines = list[Line | None]([None] * len(queues))

    @property
    def line(self) -> Line | None:
        return self.lines[self.turn]

    def begin(self) -> None:
        if self.line is None and self.queues[self.turn]:
            self.lines[self.turn] = self.queues[self.turn].pop(0)

    def take(self) -> Line | None:
        """An element of the line that has its turn, if there is one; it, if that was the last."""
        line, ended = self.line, None
        if line is not None:
            line.taken += 1
            if line.over:
                ended, self.lines[self.turn] = line, None
        self.turn = (self.turn + 1) % len(self.lines)
        return ended


def gather_reference(
    spec: AcceleratorSpec, a: Half, b: Half, kept: npt.NDArray[np.bool_], interleave: int = 1
) -> GatherReference:
    """C[m, n] = A[m, k] B[k, n] with what ``kept``, bool [k, n], says of B; operands are FP16."""
    own, (m, k), n = require_gather(spec), a.shape, b.shape[1]
    lines = [Line(j, [i for i in range(k) if kept[i, j]]) for j in range(n)]
    waiting = list(lines)
    if own.balance == "sorted":
        waiting.sort(key=lambda line: -len(line.places))
    at_once = own.lanes * interleave
    queues = [waiting] * at_once
    if own.balance != "stealing":
        queues = [waiting[i::at_once] for i in range(at_once)]
    lanes = [Lane(queues[i :: own.lanes]) for i in range(own.lanes)]
    parts = [range(lo, min(lo + own.width, m)) for lo in range(0, m, own.width)]
    pace = max(len(parts), -(-spec.pe.add_latency // interleave))
    sums = [[np.float32(-0.0)] * n for _ in range(m)]
    there = [[0] * n for _ in range(m)]
    left, served = [0] * n, list[Lane]()
    cycle = waited = 0
    while any(queues) or any(any(lane.lines) for lane in lanes):
        slot, part = divmod(cycle, pace)
        if part == 0:
            for lane in lanes:
                lane.begin()
            served, answered = [], dict[int, int]()
            for i in range(own.lanes):
                lane = lanes[(slot + i) % own.lanes]
                line = lane.line
                if own.banks and line is not None and line.places:
                    wanted = line.places[line.taken]
                    if answered.setdefault(wanted % own.banks, wanted) != wanted:
                        waited += 1
                        continue
                served.append(lane)
        if part < len(parts):
            for line in (lane.line for lane in served):
                if line is not None and line.places:
                    _multiply_add(spec, a, b, line, parts[part], cycle, sums, there)
        cycle += 1
        if cycle % pace == 0:
            for ended in (lane.take() for lane in served):
                if ended is not None:
                    left[ended.number] = cycle + _ADDRESS + _MEMORY + spec.pe.multiply_latency + spec.pe.add_latency
    result = np.array(sums, np.float32)
    for i, row in enumerate(there):
        assert all(at <= out for at, out in zip(row, left, strict=True)), f"a sum of row {i} leaves before it is there"
    result.view(np.uint32)[np.isnan(result)] = 0x7FC00000
    return GatherReference(result, left, max(left), waited)


def _multiply_add(
    spec: AcceleratorSpec,
    a: Half,
    b: Half,
    line: Line,
    columns: range,
    cycle: int,
    sums: list[list[np.float32]],
    there: list[list[int]],
) -> None:
    """A kept element meets some columns of the dense operand; the adder must have their sums back."""
    place, j = line.places[line.taken], line.number
    adds = cycle + _ADDRESS + _MEMORY + spec.pe.multiply_latency
    for i in columns:
        assert there[i][j] <= adds, "the sum is still in the adder"
        with np.errstate(all="ignore"):
            sums[i][j] = np.float32(sums[i][j] + np.float32(a[i, place]) * np.float32(b[place, j]))
        there[i][j] = adds + spec.pe.add_latency
