"""WUVE and SORE in line in plain Python: beats through the update, tiles in a double buffer, lanes of SORE behind."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np

from ...dataflow.accelerator import AcceleratorSpec
from ...dataflow.pregenerate import WeightShape
from ...workloads.sparsity import NMPattern

__all__ = ["pregenerate_reference"]

Place = tuple[int, int, int]
"""Tap, input, output of a parameter."""


def pregenerate_reference(
    spec: AcceleratorSpec, depth: int, pattern: NMPattern, shape: WeightShape, weights16: Any, copies: tuple[str, ...]
) -> tuple[dict[Place, int], dict[str, dict[tuple[Place, ...], list[tuple[int, int, int]]]], int]:
    """When each parameter leaves WUVE, what leaves SORE for each group of each copy as (bits, index, cycle), cycles.

    ``weights16`` [taps, inputs, outputs] are the updated weights; an update takes ``depth`` cycles. A beat enters while
    fewer than two tiles wait for SORE or are on their way there, and a tile may not fill up before SORE is free.
    """
    group, lanes = pattern.group, spec.sore.lanes
    size = _blocks_a_tile(lanes, group)
    tiles = _whole_tiles(_blocks(shape, group, copies), size, group)
    serial = spec.sore.kind == "serial"

    left: dict[Place, int] = {}
    made: dict[str, dict[tuple[Place, ...], list[tuple[int, int, int]]]] = {copy: {} for copy in copies}
    beats: deque[tuple[int, list[Place | None], bool]] = deque()
    for j, tile in enumerate(tiles):
        flat = [place for block in tile for row in block for place in row]
        cut = [flat[i : i + spec.wuve.lanes] for i in range(0, len(flat), spec.wuve.lanes)]
        beats.extend((j, beat, i == len(cut) - 1) for i, beat in enumerate(cut))
    a_tile = len(beats) // len(tiles)
    pipeline: deque[Any] = deque([None] * depth)
    ready: deque[int] = deque()  # tiles that are full
    rounds: deque[tuple[str, list[tuple[Place, ...]]]] = deque()  # of the tile that SORE is at
    phase, busy_until, t, end = 0, 0, 0, 0
    idle = 0  # cycles that the next tile still has to wait before it may enter
    while beats or rounds or ready or any(pipeline):
        if not rounds and ready:
            rounds.extend(_rounds(tiles[ready.popleft()], lanes, copies))
        if rounds:
            copy, groups = rounds[0]
            phase += 1
            if not serial or phase == group:
                rounds.popleft()
                phase = 0
                first = t + 1 if serial else t + _stages(group) + _stages(pattern.keep)
                busy_until = first + (pattern.keep if serial else 1)
                for one in groups:
                    if one:
                        made[copy][one] = _kept(one, weights16, pattern.keep, first, serial)
        entering = None
        if beats and idle == 0:
            entering = beats.popleft()
            if entering[2]:
                work = len(copies) * size * group // lanes * (group if serial else 1)
                idle = max(work - a_tile, 0)
        elif idle:
            idle -= 1
        pipeline.append(entering)
        leaving = pipeline.popleft()
        if leaving is not None:
            j, beat, last = leaving
            left.update({place: t for place in beat if place is not None})
            if last:
                if len(ready) + (len(rounds) > 0) > 1:
                    raise AssertionError("a third tile is full")
                ready.append(j)
        end = max(end, busy_until)
        t += 1
    return left, made, end


def _blocks_a_tile(lanes: int, group: int) -> int:
    """The fewest blocks whose lines fill whole rounds."""
    blocks = 1
    while blocks * group % lanes:
        blocks += 1
    return blocks


def _whole_tiles(blocks: list[list[list[Place | None]]], size: int, group: int) -> list[list[list[list[Place | None]]]]:
    """Tiles of ``size`` blocks, the last one filled up with blocks of nothing."""
    while len(blocks) % size:
        blocks.append([[None] * group for _ in range(group)])
    return [blocks[i : i + size] for i in range(0, len(blocks), size)]


def _blocks(shape: WeightShape, group: int, copies: tuple[str, ...]) -> list[list[list[Place | None]]]:
    """M x M parameters each, the lines of the first copy along the first axis."""

    def line(tap: int, first: int, other: int, copy: str) -> list[Place | None]:
        """A group: up to M channels of the contraction from ``first`` on, of one column."""
        result: list[Place | None] = []
        for channel in range(first, first + group):
            i, o = (channel, other) if copy == "ff" else (other, channel)
            result.append((tap, i, o) if i < shape.inputs and o < shape.outputs else None)
        return result

    blocks = []
    if len(copies) == 2:
        for tap in range(shape.taps):
            for i in range(0, shape.inputs, group):
                for o in range(0, shape.outputs, group):
                    columns = [line(tap, i, o + y, "ff") for y in range(group)]
                    blocks.append([[columns[y][x] for y in range(group)] for x in range(group)])
        return blocks
    run, columns_all = (shape.inputs, shape.outputs) if copies[0] == "ff" else (shape.outputs, shape.inputs)
    groups = [
        line(tap, first, column, copies[0])
        for column in range(columns_all)
        for tap in range(shape.taps)
        for first in range(0, run, group)
    ]
    while len(groups) % group:
        groups.append([None] * group)
    for g in range(0, len(groups), group):
        blocks.append([[groups[g + y][x] for y in range(group)] for x in range(group)])
    return blocks


def _rounds(tile: Any, lanes: int, copies: tuple[str, ...]) -> list[tuple[str, list[tuple[Place, ...]]]]:
    result = []
    for number, copy in enumerate(copies):
        lines = []
        for block in tile:
            for y in range(len(block)):
                line = [row[y] for row in block] if number == 0 else block[y]
                lines.append(tuple(place for place in line if place is not None))
        result += [(copy, lines[i : i + lanes]) for i in range(0, len(lines), lanes)]
    return result


def _kept(group: tuple[Place, ...], weights16: Any, keep: int, first: int, serial: bool) -> list[tuple[int, int, int]]:
    bits = [int(weights16[place].view(np.uint16)) for place in group]
    ranked = sorted(range(len(bits)), key=lambda j: (-(bits[j] & 0x7FFF), j))[:keep]
    return [(bits[j], j, first + p if serial else first) for p, j in enumerate(sorted(ranked))]


def _stages(inputs: int) -> int:
    p = 0
    while 1 << p < inputs:
        p += 1
    return p * (p + 1) // 2
