"""A schedule as tasks of the system: the macro-tile phases of every op, what stands around them, who waits for whom.

All times are integers in 1/rate cycles (`dataflow/problem.py`); docs/design/machine.md states the rules.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from ..dataflow.accelerator import AcceleratorSpec
from ..dataflow.beside import Work, update_work, vector_work
from ..dataflow.engines import tiled
from ..dataflow.integers import ceil_div
from ..dataflow.macro_tiles import Tiled
from ..dataflow.mapping import Mapping
from ..dataflow.placement import Placement
from ..dataflow.problem import LONGEST, RATE, memory_machine
from ..dataflow.schedule import Schedule
from ..workloads.errors import InputError
from ..workloads.operand import Role
from ..workloads.step import MatrixOp, Op, UpdateOp, VectorOp
from ..workloads.update_rule import UpdateRule
from .kernels.phases import EndLoads, Runs
from .kernels.recurrence import Tasks
from .order import Order, order_of
from .phases import phase_count, runs_of
from .step import macro_tiles
from .transfers import ONE_PIECE, Layout, Transfers, by_shape, layout_of, timed

__all__ = ["ENGINES", "OWN", "SHARED", "Channel", "Engine", "tasks_of"]

Int64 = npt.NDArray[np.int64]

_MOST_RUNS = 2**24
"""A gigabyte of runs of phases."""

_MOST_PHASES = 2**32
"""Minutes of them."""

_PIECE, _PIECES = 2**16, 1024
"""Bytes that DRAM serves at a time of work beside the array, and beyond how many pieces these grow: assumed.

In pieces of 2 MiB the array waits so long behind an update that a BDWP step of ResNet-18 at batch 8 takes 22 % longer
than in 64 KiB. Smaller ones change batches 1 and 8 by -4 to 6 %: less waiting, more turns of the bus.
"""


class Engine(IntEnum):
    """What works on ops; each on one at a time."""

    STCE = 0
    VECTOR = 1
    WUVE = 2


ENGINES = tuple(Engine)


OWN = {Engine.STCE: "STCE", Engine.VECTOR: "vector", Engine.WUVE: "WUVE"}
SHARED = ("DRAM", "SORE")
"""Names of the engines, in this order."""


class Channel(IntEnum):
    """Who asks for DRAM and SORE; of requests made at the same time the lowest channel is served first."""

    STORE = 0
    PHASE = 1
    NORTH = 2
    WEST = 3
    VECTOR = 4
    WUVE = 5


_NO_ENDS = EndLoads(0, 0, 0, 0, 0, 0, 0, -1, -1)


@dataclass(frozen=True, slots=True, eq=False)
class _Phases:
    """The part of one op in `Tasks`."""

    runs: Runs
    ends: EndLoads = _NO_ENDS
    resident: int = 1
    lead: int = 0
    ramp: int = 0

    @property
    def longest(self) -> float:
        """Time that it cannot exceed, whoever shares DRAM and SORE."""
        ends = (
            self.ends.west_time + self.ends.north_time + self.ends.store_time + self.ends.sore + self.lead + self.ramp
        )
        runs = self.runs
        spent = (runs.busy, runs.transfer, runs.sore)
        return float(sum(np.dot(part.astype(float), runs.times) for part in spent) + ends)


def _machine_of_one_engine(schedule: Schedule) -> AcceleratorSpec:
    used = sorted({placed.engine for placed in schedule.placements if placed is not None})
    if len(used) > 1:
        raise InputError(
            "the system level overlaps the products of one engine, but this schedule has some on "
            f"{' and '.join(used)}; run it at the step level, or on a machine with one of them"
        )
    return schedule.spec


def tasks_of(schedule: Schedule, order: Order | None = None, transfers: Transfers | None = None) -> Tasks:
    """The tasks of a schedule, by `order_of` and `by_shape` unless others are given."""
    spec, workload = _machine_of_one_engine(schedule), schedule.as_run
    order = order or order_of(workload)
    transfers = transfers or by_shape(spec)
    rate = memory_machine(spec).rate
    parts = [
        _phases(op, placement, spec, workload.rule, transfers)
        for op, placement in zip(workload.ops, schedule.placements, strict=True)
    ]
    stored = {id(part): part for part in parts}  # equal ops have one
    sizes = [len(part.runs.times) for part in stored.values()]
    places = dict(zip(stored, np.cumsum([0, *sizes]).tolist(), strict=False))
    if sum(sizes) > _MOST_RUNS:
        raise InputError(
            f"{workload.model!r} at batch {workload.batch} has {sum(sizes):,} runs of macro-tile phases on "
            f"{spec.name!r}, more than the system level takes ({_MOST_RUNS:,}); use a smaller batch, larger buffers, "
            "or the step level"
        )
    _require_timed(sum(part.longest for part in parts), f"{workload.model!r} at batch {workload.batch}", spec)
    ready = [
        _ready_sides(op, placement, free)
        for op, placement, free in zip(workload.ops, schedule.placements, order.weight_ready, strict=True)
    ]

    def by_op(*values: int) -> Int64:
        return np.array(values, np.int64)

    def joined(name: str) -> Int64:
        return np.concatenate([getattr(part.runs, name) for part in stored.values()])

    return Tasks(
        rate=rate,
        engine=by_op(*(_engine(op) for op in workload.ops)),
        first=by_op(*(places[id(part)] for part in parts)),
        behind=by_op(*(places[id(part)] + len(part.runs.times) for part in parts)),
        busy=joined("busy"),
        transfer=joined("transfer"),
        read=joined("read"),
        written=joined("written"),
        sore=joined("sore"),
        loads=joined("loads"),
        times=joined("times"),
        resident=by_op(*(part.resident for part in parts)),
        west=by_op(*(part.ends.west for part in parts)),
        north=by_op(*(part.ends.north for part in parts)),
        west_time=by_op(*(part.ends.west_time for part in parts)),
        north_time=by_op(*(part.ends.north_time for part in parts)),
        north_sore=by_op(*(part.ends.sore for part in parts)),
        west_ready=by_op(*(west for west, _ in ready)),
        north_ready=by_op(*(north for _, north in ready)),
        free_west=by_op(*(part.ends.free_west for part in parts)),
        free_north=by_op(*(part.ends.free_north for part in parts)),
        lead=by_op(*(part.lead for part in parts)),
        ramp=by_op(*(part.ramp for part in parts)),
        store=by_op(*(part.ends.store for part in parts)),
        store_time=by_op(*(part.ends.store_time for part in parts)),
        after_first=np.concatenate([by_op(0), np.cumsum(by_op(*map(len, order.after)))]),
        after=by_op(*(op for ops in order.after for op in ops)),
    )


def _require_timed(units: float, what: str, spec: AcceleratorSpec) -> None:
    rate = memory_machine(spec).rate
    if units >= LONGEST:
        raise InputError(
            f"{what} may take {units / rate:.2g} cycles on {spec.name!r}, more than the system level can time exactly "
            f"({LONGEST / rate:.2g}); use a smaller batch, or the step level"
        )


def _engine(op: Op) -> Engine:
    match op:
        case MatrixOp():
            return Engine.STCE
        case VectorOp():
            return Engine.VECTOR
        case UpdateOp():
            return Engine.WUVE


def _ready_sides(op: Op, placement: Placement | None, weight_ready: bool) -> tuple[int, int]:
    """Whether the first loads from the west and from the north are of a weight that waits for nothing."""
    if not isinstance(op, MatrixOp) or placement is None or not weight_ready:
        return 0, 0
    a, b = (int(operand.role is Role.WEIGHT) for operand in (op.a, op.b))
    return (b, a) if placement.mapping.n2s == "a" else (a, b)


def _phases(
    op: Op, placement: Placement | None, spec: AcceleratorSpec, rule: UpdateRule, transfers: Transfers
) -> _Phases:
    match op:
        case MatrixOp():
            assert placement is not None, "a schedule places every matrix op"
            mapping = placement.mapping
            product = tiled(op, spec, mapping)
            return _matrix_phases(product, mapping, spec, layout_of(op, mapping), transfers)
        case VectorOp():
            return _chunks(vector_work(op, spec), spec, transfers)
        case UpdateOp():
            return _chunks(update_work(op, spec, rule), spec, transfers)


@lru_cache(maxsize=1024)
def _matrix_phases(
    product: Tiled, mapping: Mapping, spec: AcceleratorSpec, layout: Layout, transfers: Transfers
) -> _Phases:
    p = product.problem
    tiles, lead, ramp = macro_tiles(product, spec)
    memory = memory_machine(spec)
    tiles = timed(tiles, p, mapping, layout, memory.west_half, transfers)
    if phase_count(tiles) > _MOST_PHASES:
        raise InputError(
            f"a product of {p.groups} x {p.rows} x {p.k} x {p.cols} takes {phase_count(tiles):,} macro-tiles on "
            f"{spec.name!r}, more than the system level takes ({_MOST_PHASES:,}); use larger buffers, or the step level"
        )
    runs, ends = runs_of(tiles)
    # What a streamed op waits for its first k-chunk is counted in bytes at the machine's one rate.
    return _Phases(runs, ends, int(mapping.resident), lead * RATE, ramp * memory.rate)


@lru_cache(maxsize=4096)
def _chunks(work: Work, spec: AcceleratorSpec, transfers: Transfers) -> _Phases:
    """Work beside the array in pieces of `_PIECE`, larger ones beyond `_PIECES` of them, half a W2E buffer at most.

    The slowest of lanes, memory and SORE is cut evenly, at multiples of `RATE` units, and the others in proportion,
    rounded down: so the same one is the slowest of every piece, and the pieces last as long as the whole.
    """
    memory = memory_machine(spec)
    size = work.read + work.write
    pieces = max(ceil_div(size, memory.west_half), min(ceil_div(size, _PIECE), _PIECES), 1)
    moving = transfers.time(work.read, ONE_PIECE, write=False) + transfers.time(work.write, ONE_PIECE, write=True)
    if work.read and work.write:
        moving += pieces * transfers.turn
    lanes, sore = work.lanes * memory.rate, work.sore * memory.rate
    most = max(lanes, moving, sore)
    _require_timed(most, f"work of {size:,} bytes beside the array", spec)
    whole, rest = divmod(most, RATE)
    pieces = pieces if most else 0
    cuts = [0, *(whole * i // pieces * RATE + rest for i in range(1, pieces + 1))]

    def split(total: int) -> Int64:
        ends: Int64 = np.array([total * cut // most if most else 0 for cut in cuts], np.int64)
        return ends[1:] - ends[:-1]

    read = split(work.read)
    none, one = np.zeros(pieces, np.int64), np.ones(pieces, np.int64)
    return _Phases(Runs(split(lanes), split(moving), read, split(size) - read, split(sore), none, one))
