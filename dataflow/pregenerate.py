"""SORE right behind WUVE: the order of the parameters and the pace of the tiles (docs/design/machine.md)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from ..workloads.copies import CompactCopy
from ..workloads.errors import InputError, require_int
from ..workloads.sparsity import NMPattern
from ..workloads.update_rule import UpdateRule
from .accelerator import AcceleratorSpec
from .engine_time import sore_issue, sore_latency, wuve_latency

__all__ = [
    "COPIES",
    "Copy",
    "Line",
    "TilePlan",
    "WeightShape",
    "blocks_of",
    "copies_cycles",
    "line_order",
    "tile_plan",
    "walk",
]

Copy = Literal["ff", "bp"]
COPIES: tuple[Copy, ...] = get_args(Copy)
"""A compact copy by the pass that reads it: groups along input channels, and along output channels."""

Index = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightShape:
    """A weight as [taps, inputs, outputs]: channels under each kernel tap; a linear layer has one tap."""

    taps: int = 1
    inputs: int
    outputs: int

    def __post_init__(self) -> None:
        for name in ("taps", "inputs", "outputs"):
            require_int(f"{name} of a weight", getattr(self, name), 1, 2**31)

    @property
    def elements(self) -> int:
        return self.taps * self.inputs * self.outputs

    def contraction(self, copy: Copy) -> tuple[int, int]:
        """(run, columns) of a copy as the operand [taps x run, columns] of its pass."""
        return (self.inputs, self.outputs) if copy == "ff" else (self.outputs, self.inputs)


@dataclass(frozen=True, slots=True, kw_only=True)
class TilePlan:
    """A tile is ``blocks`` blocks of M x M parameters: the fewest that fill whole rounds of SORE.

    It enters WUVE in ``fill`` cycles and SORE in ``reduce``: ``copies`` times ``rounds`` rounds of groups.
    """

    blocks: int
    copies: int
    rounds: int
    fill: int
    reduce: int
    depth: int
    tail: int

    @property
    def distance(self) -> int:
        """Cycles from tile to tile."""
        return max(self.fill, self.reduce)

    def first_step(self, tile: int) -> int:
        """Cycle in which SORE takes in the first of a tile."""
        return self.depth + self.fill + tile * self.distance

    def tiles(self, blocks: int) -> int:
        """Tiles of so many blocks; a ragged last one runs as a full one."""
        return -(-blocks // self.blocks)

    def cycles(self, blocks: int) -> int:
        """Length of a run."""
        return self.first_step(self.tiles(blocks) - 1) + self.reduce + self.tail


def tile_plan(spec: AcceleratorSpec, rule: UpdateRule, pattern: NMPattern, copies: int) -> TilePlan:
    """The pace of ``rule`` with ``copies`` compact copies of ``pattern``."""
    spec.check_pattern(pattern)
    group, lanes = pattern.group, spec.sore.lanes
    blocks = lanes // math.gcd(lanes, group)
    return TilePlan(
        blocks=blocks,
        copies=copies,
        rounds=blocks * group // lanes,
        fill=-(-blocks * group * group // spec.wuve.lanes),
        reduce=copies * sore_issue(blocks * group, pattern, spec),
        depth=wuve_latency(rule, spec.pe),
        tail=sore_latency(pattern, spec),
    )


def walk(plan: TilePlan, pattern: NMPattern, shape: WeightShape, copies: Sequence[Copy]) -> Index:
    """Which parameter stands where in which tile: int64 [tiles, blocks, M, M], -1 for none.

    The lines of a block along its first axis are the groups of the first copy, those along its second axis the groups
    of the other one. With one copy a block is M groups in SORE's own order: no block is cut by an edge then.
    """
    _require_copies(plan, copies)
    group = pattern.group
    numbers = np.arange(shape.elements, dtype=np.int64).reshape(shape.taps, shape.inputs, shape.outputs)
    if len(copies) == 2:
        padded = _pad(_pad(numbers, 1, group), 2, group)
        taps, rows, cols = padded.shape
        blocks = padded.reshape(taps, rows // group, group, cols // group, group).transpose(0, 1, 3, 2, 4)
    else:
        along = _pad(numbers if copies[0] == "ff" else numbers.transpose(0, 2, 1), 1, group)
        groups = along.transpose(2, 0, 1).reshape(-1, group)
        blocks = _pad(groups, 0, group).reshape(-1, group, group).transpose(0, 2, 1)
    blocks = _pad(np.ascontiguousarray(blocks.reshape(-1, group, group)), 0, plan.blocks)
    return blocks.reshape(-1, plan.blocks, group, group)


@dataclass(frozen=True, slots=True, eq=False)
class Line:
    """The groups of one copy in the order of SORE's rounds; int64 [tiles, rounds, lanes], -1 for no group.

    ``group`` counts those of a column, ``column`` the columns, as `run_sore` numbers the copy's own.
    """

    group: Index
    column: Index


def line_order(
    plan: TilePlan, pattern: NMPattern, shape: WeightShape, order: Index, copies: Sequence[Copy]
) -> list[Line]:
    """Where the groups of each of ``copies`` stand in the rounds, from the `walk` in ``order``, int64 [tiles, blocks,
    M, M]."""
    lines = []
    for place, copy in enumerate(copies):
        first = (order[:, :, 0, :] if place == 0 else order[:, :, :, 0]).reshape(len(order), plan.rounds, -1)
        tap, row, col = np.unravel_index(np.maximum(first, 0), (shape.taps, shape.inputs, shape.outputs))
        start, column = (row, col) if copy == "ff" else (col, row)
        per_run = -(-shape.contraction(copy)[0] // pattern.group)
        there = first >= 0
        lines.append(Line(np.where(there, tap * per_run + start // pattern.group, -1), np.where(there, column, -1)))
    return lines


def blocks_of(elements: int, groups: Sequence[int], pattern: NMPattern) -> int:
    """Blocks of a weight by the counts of its copies' groups.

    Two copies have ``outputs ceil(inputs / M)`` and ``inputs ceil(outputs / M)`` groups under every tap, whose product
    is the number of elements times that of blocks.
    """
    fewest = max(-(-count // pattern.group) for count in groups)
    return max(fewest, -(-math.prod(groups) // elements)) if len(groups) == 2 else fewest


def copies_cycles(spec: AcceleratorSpec, rule: UpdateRule, elements: int, copies: Sequence[CompactCopy]) -> int:
    """Cycles of an update with ``copies`` behind it, memory unlimited; each pattern takes a pass of its own."""
    total = 0
    for pattern in dict.fromkeys(copy.pattern for copy in copies):
        groups = [copy.groups for copy in copies if copy.pattern == pattern]
        total += tile_plan(spec, rule, pattern, len(groups)).cycles(blocks_of(elements, groups, pattern))
    return total


def _pad(array: Index, axis: int, multiple: int) -> Index:
    missing = -array.shape[axis] % multiple
    widths = [(0, missing if i == axis else 0) for i in range(array.ndim)]
    return np.pad(array, widths, constant_values=-1)


def _require_copies(plan: TilePlan, copies: Sequence[Copy]) -> None:
    if tuple(copies) not in (("ff",), ("bp",), COPIES) or len(copies) != plan.copies:
        raise InputError(
            f"the compact copies behind an update are ff, bp, or ff and bp in that order, {plan.copies} here, "
            f"not {', '.join(map(str, copies)) or 'none'}"
        )
