"""Every request of a step to DRAM, with its cycle and its address: the transfers of the step level, line by line.

Ops run one after the other, phase by phase, as `step.py` has them. A phase loads, then stores, from its begin on at the
machine's one rate; within a transfer requests are spread evenly. Vector work and updates move in pieces of `PIECE`.
Bytes are those of the step; a line that a piece touches is asked for as a whole, so short pieces ask for more.

Where a transfer lies is what `transfers.shapes_of` says of its shape, in the regions of `regions.py`. What im2col reads
more than once is read round the stored tensor again, halos are left out, and the matrices of a group lie by themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import gcd
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..dataflow.accelerator import AcceleratorSpec
from ..dataflow.engines import tiled
from ..dataflow.integers import whole_bytes
from ..dataflow.mapping import Mapping
from ..dataflow.problem import RATE, memory_machine
from ..dataflow.schedule import Schedule
from ..workloads.errors import InputError
from ..workloads.step import MatrixOp
from .dram import memory_of
from .dram_requests import Requests
from .dram_spec import MemorySpec
from .kernels.phases import MacroTiles
from .reading_order import read_in_order
from .regions import OpRegions, Region, lay_out
from .result import SimResult
from .step import macro_tiles
from .transfers import ONE_PIECE, Layout, Shapes, Stored, layout_of, shapes_of

__all__ = ["PIECE", "StepRequests", "step_requests"]

Int64 = npt.NDArray[np.int64]

PIECE = 65536
"""Bytes of a piece of vector work or of an update, as at the system level."""
_CHUNK = 2**22
"""Bytes of a transfer that are made into requests at a time."""


class _Move(NamedTuple):
    """A transfer: ``size`` bytes of a part of a region, from ``start`` of the part on, round and round in it.

    ``lines``: of so many lines, each a pitch long, the first pieces, then the second ones; 0: pieces a pitch apart.
    """

    part: tuple[int, int]
    start: int
    size: int
    stored: Stored
    lines: int
    write: bool


class _Phase(NamedTuple):
    """Transfers one after the other, in time of `RATE`: when they begin and how long they take together."""

    begin: int
    length: int
    moves: list[_Move]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRequests:
    """The requests of a step in parts, in order of time, cycles of the memory's clock, and where its tensors lie."""

    memory: MemorySpec
    regions: tuple[Region, ...]
    parts: Iterator[Requests]
    at_least: int
    """A lower bound of how many there are."""


def step_requests(
    schedule: Schedule, result: SimResult, progress: Callable[[int, int], None] | None = None
) -> StepRequests:
    """Requests of ``result``, which is ``schedule`` run at the step level; refused where its tensors have no room."""
    spec, memory = schedule.spec, memory_of(schedule.spec.dram)
    if schedule.residency is not None:
        raise InputError(
            f"{spec.name!r} keeps tensors on chip (buffers.resident_bytes {spec.buffers.resident_bytes:,}), for which "
            "a DRAM trace knows no addresses yet: ask for it with 0 bytes"
        )
    skips = next((op for op in schedule.as_run.ops if isinstance(op, MatrixOp) and op.rows is not None), None)
    if skips is not None:
        raise InputError(
            f"{skips.name!r} reads those rows of its weight that tokens keep, which are known when it runs: a DRAM "
            "trace has no addresses for them"
        )
    places, regions = lay_out(schedule)
    room = memory.organization.lines * memory.organization.line_bytes
    top = max(region.address + region.size for region in regions)
    if top > room:
        raise InputError(
            f"the tensors of {schedule.workload.model!r} at batch {schedule.workload.batch} take {top:,} bytes, but "
            f"{memory.name} of {spec.name!r} has {room:,}: use a smaller batch or a larger memory"
        )
    moved = result.counts.dram_bytes
    return StepRequests(
        memory=memory,
        regions=tuple(regions),
        parts=_parts(schedule, result, places, memory, progress),
        at_least=moved // memory.organization.line_bytes,
    )


def _parts(
    schedule: Schedule,
    result: SimResult,
    places: list[OpRegions],
    memory: MemorySpec,
    progress: Callable[[int, int], None] | None,
) -> Iterator[Requests]:
    spec, begin, laid = schedule.spec, 0, read_in_order(schedule.as_run, schedule.placements)
    unit = spec.clock_hz * memory_machine(spec).rate
    common = gcd(memory.organization.clock_hz, unit)
    clock = memory.organization.clock_hz // common, unit // common
    for done, (op, placement, place, ran) in enumerate(
        zip(schedule.as_run.ops, schedule.placements, places, result.ops, strict=True), start=1
    ):
        if isinstance(op, MatrixOp):
            assert placement is not None, "a schedule places every matrix op"
            phases = _matrix_phases(op, placement.mapping, place, spec, in_order=done - 1 in laid)
        else:
            phases = _streamed_phases(place, ran.cycles.total * memory_machine(spec).rate)
        for phase in phases:
            yield from _requests(phase, begin * memory_machine(spec).rate, clock, memory.organization.line_bytes)
        begin += ran.cycles.total
        if progress is not None:
            progress(done, len(places))


def _requests(phase: _Phase, before: int, clock: tuple[int, int], line_bytes: int) -> Iterator[Requests]:
    """The requests of a phase; ``clock``: cycles of the memory in a unit of time, as a fraction."""
    every = sum(move.size for move in phase.moves)
    moved = 0
    for move in phase.moves:
        for size, line in _lines(move, line_bytes):
            at, length = before + phase.begin + phase.length * moved // every, phase.length * size // every
            moved += size
            # What stands before stays in Python's integers, whose products have no bound.
            whole, rest = divmod(at * clock[0], clock[1])
            within = np.arange(len(line), dtype=np.int64) * length // len(line)
            time = whole + (rest + within * clock[0]) // clock[1]
            yield Requests(line=line, write=np.full(len(line), move.write), time=time)


def _lines(move: _Move, line_bytes: int) -> Iterator[tuple[int, Int64]]:
    """Lines of a transfer, with the bytes of it that they carry, a part at a time."""
    base, extent = move.part
    size = move.size
    piece, pitch = move.stored
    if move.stored == ONE_PIECE:
        piece = pitch = min(size, extent, _CHUNK)
    count = move.lines * -(-pitch // piece) if move.lines else -(-size // piece)
    step = max(_CHUNK // piece, 1)
    for first in range(0, count, step):
        j = np.arange(first, min(first + step, count), dtype=np.int64)
        if move.lines:
            offset, length = j % move.lines * pitch + j // move.lines * piece, pitch - j // move.lines * piece
        else:
            offset, length = j * pitch, size - j * piece
        begin, length = (move.start + offset) % extent, np.minimum(length, piece)
        over = np.maximum(begin + length - extent, 0)
        # What passes the end of the part goes on at its begin.
        begins = np.stack([begin, np.zeros_like(begin)], axis=1).ravel()
        lengths = np.stack([length - over, over], axis=1).ravel()
        used = lengths > 0
        yield int(length.sum()), _touched(base + begins[used], lengths[used], line_bytes)


def _touched(begin: Int64, length: Int64, line_bytes: int) -> Int64:
    """Lines of runs of bytes in order; one that ends a run and begins the next is asked for once."""
    first, last = begin // line_bytes, (begin + length - 1) // line_bytes
    count = last - first + 1
    ends = np.cumsum(count)
    line = np.arange(ends[-1]) - np.repeat(ends - count, count) + np.repeat(first, count)
    found: Int64 = line[np.r_[True, line[1:] != line[:-1]]]
    return found


def _streamed_phases(place: OpRegions, length: int) -> Iterator[_Phase]:
    """Vector work or an update: reads and writes side by side, in pieces, over all of its time."""
    sides = [(place.reads, False), (place.writes, True)]
    most = max((sum(size for _, size in side) for side, _ in sides), default=0)
    count = -(-most // PIECE)
    for k in range(count):
        moves = []
        for side, write in sides:
            every = sum(size for _, size in side)
            moves += _stretch(side, every * k // count, every * (k + 1) // count, write)
        yield _Phase(length * k // count, length * (k + 1) // count - length * k // count, moves)


def _stretch(side: tuple[tuple[Region, int], ...], begin: int, end: int, write: bool) -> list[_Move]:
    """Bytes ``begin`` to ``end`` of regions that are gone through one after the other."""
    found, before = [], 0
    for region, size in side:
        lo, hi = max(begin - before, 0), min(end - before, size)
        if lo < hi:
            found.append(_Move((region.address, region.size), lo, hi - lo, ONE_PIECE, 0, write))
        before += size
    return found


@dataclass(frozen=True, slots=True)
class _Walk:
    """One product on the machine, as its macro-tiles move."""

    tiles: MacroTiles
    shapes: Shapes
    mapping: Mapping
    layout: Layout
    west: Region
    north: Region
    out: Region
    copy: Region | None
    out_bits: int
    """Of a result in memory."""
    out_pitch: int
    """Bytes from a line of results to the next."""

    def part(self, region: Region, group: int) -> tuple[int, int]:
        extent = max(region.size // self.tiles.groups, 1)
        return region.address + min(group * extent, region.size - extent), extent

    def load_west(self, group: int, i: int) -> list[_Move]:
        t, last = self.tiles, int(i == self.tiles.row_tiles - 1)
        return self._load(
            self.west,
            group,
            i,
            int(t.west[last]),
            int(t.west[0]),
            self.shapes.west,
            last,
            self.mapping.tile_rows,
            self.layout.west_along_k,
        )

    def load_north(self, group: int, i: int, j: int) -> list[_Move]:
        t, last, again = self.tiles, int(j == self.tiles.col_tiles - 1), int(i > 0)
        region = self.copy if again and self.copy is not None else self.north
        return self._load(
            region,
            group,
            j,
            int(t.north[again, last]),
            int(t.north[again, 0]),
            self.shapes.north[again],
            last,
            self.mapping.tile_cols,
            self.layout.north_along_k,
        )

    def _load(
        self,
        region: Region,
        group: int,
        index: int,
        size: int,
        full: int,
        shapes: tuple[Stored, ...],
        last: int,
        tile: int,
        along_k: bool,
    ) -> list[_Move]:
        if not size:
            return []
        stored, lines, start = shapes[last], 0, index * full
        if stored != ONE_PIECE and along_k:
            line = full // tile
            stored, lines = Stored(min(stored.piece_bytes, line), line), size // line
        elif stored != ONE_PIECE:
            start = index * shapes[0].piece_bytes
        return [_Move(self.part(region, group), start, size, stored, lines, False)]

    def store(self, group: int, i: int, j: int) -> list[_Move]:
        t = self.tiles
        last = int(i == t.row_tiles - 1), int(j == t.col_tiles - 1)
        size, stored = int(t.store[last]), self.shapes.store[last[0]][last[1]]
        if not size:
            return []
        inner, outer = (i, j) if self.layout.out_down else (j, i)
        tile = self.mapping.tile_rows, self.mapping.tile_cols
        along, beside = tile if self.layout.out_down else tile[::-1]
        if stored == ONE_PIECE:
            start = (i if t.row_tiles > 1 else j) * int(t.store[0, 0])
        else:
            start = inner * whole_bytes(along * self.out_bits) + outer * beside * self.out_pitch
        move = _Move(self.part(self.out, group), start, size, stored, 0, True)
        return [*([move._replace(write=False)] if t.added else []), move]

    def write_copy(self, group: int, j: int) -> list[_Move]:
        t = self.tiles
        size = int(t.copy[int(j == t.col_tiles - 1)])
        if not size or self.copy is None:
            return []
        return [_Move(self.part(self.copy, group), j * int(t.copy[0]), size, ONE_PIECE, 0, True)]


def _matrix_phases(
    op: MatrixOp, mapping: Mapping, place: OpRegions, spec: AcceleratorSpec, *, in_order: bool = False
) -> Iterator[_Phase]:
    """The phases of a product, as `kernels/phases.py:step_phases` has them."""
    product = tiled(op, spec, mapping)
    p = product.problem
    t, lead, ramp = macro_tiles(product, spec)
    layout, half = layout_of(op, mapping, in_order=in_order), memory_machine(spec).west_half
    assert place.a is not None and place.b is not None and place.c is not None
    west, north = (place.b, place.a) if mapping.n2s == "a" else (place.a, place.b)
    walk = _Walk(
        t,
        shapes_of(t, p, mapping, layout, half),
        mapping,
        layout,
        west,
        north,
        place.c,
        place.compact,
        p.out_bits,
        whole_bytes((p.rows if layout.out_down else p.cols) * p.out_bits),
    )
    time, rate = lead * RATE, memory_machine(spec).rate
    held: tuple[int, int, int] = (-1, -1, -1)
    phases = t.groups * t.row_tiles * t.col_tiles
    ahead = 1 if t.resident else 0
    storing: list[_Move] = []
    for phase in range(-1, phases + 1):
        busy = squeeze = 0
        moves, following = list[_Move](), list[_Move]()
        if 0 <= phase + ahead < phases:
            loads, squeeze, held = _loads(walk, phase + ahead, held)
            moves += loads
        moves += storing
        if 0 <= phase < phases:
            group, i, j = _place(t, phase)
            busy = int(t.issue[int(i == t.row_tiles - 1), int(j == t.col_tiles - 1)])
            moves += walk.write_copy(group, j) if i == 0 else []
            following = walk.store(group, i, j)
        if phase == phases:
            time += ramp * rate
        transfer = sum(move.size for move in moves) * RATE
        if moves:
            yield _Phase(time, transfer, moves)
        time += max(busy, transfer, squeeze)
        storing = following


def _loads(walk: _Walk, index: int, held: tuple[int, int, int]) -> tuple[list[_Move], int, tuple[int, int, int]]:
    """What the ``index``-th macro-tile loads, the time of SORE for it, and what is held then."""
    t = walk.tiles
    group, i, j = _place(t, index)
    moves, squeeze = list[_Move](), 0
    if not t.resident or (group, i) != held[:2]:
        moves += walk.load_west(group, i)
    if not (t.resident or t.north_held) or (group, j) != (held[0], held[2]):
        moves += walk.load_north(group, i, j)
        squeeze = int(t.sore[int(i > 0), int(j == t.col_tiles - 1)])
    return moves, squeeze, (group, i, j)


def _place(t: MacroTiles, index: int) -> tuple[int, int, int]:
    """Group, row and column tile of the ``index``-th macro-tile."""
    group, index = divmod(index, t.row_tiles * t.col_tiles)
    if t.rows_slow:
        return group, *divmod(index, t.col_tiles)
    return group, index % t.row_tiles, index // t.row_tiles
