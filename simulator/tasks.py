"""A schedule as tasks of the system: the macro-tile phases of every op, what stands around them, who waits for whom.

All times are integers in 1/rate cycles (`dataflow/problem.py`); docs/design/machine.md states the rules.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import assert_never

import numpy as np
import numpy.typing as npt

from ..dataflow.accelerator import AcceleratorSpec
from ..dataflow.beside import Work, joined_lanes, update_work, vector_work
from ..dataflow.engines import placed_on
from ..dataflow.integers import ceil_div
from ..dataflow.macro_tiles import Tiled
from ..dataflow.mapping import Mapping
from ..dataflow.placement import Placement
from ..dataflow.problem import LONGEST, RATE, MemoryMachine, memory_machine
from ..dataflow.schedule import Schedule
from ..workloads.errors import InputError
from ..workloads.operand import Role
from ..workloads.step import MatrixOp, Op, UpdateOp, VectorOp, Workload
from ..workloads.update_rule import UpdateRule
from .channels import engine_names
from .kernels.phases import EndLoads, MacroTiles, Streaks
from .kernels.tasks import Tasks
from .order import Order, in_turn, order_of
from .phases import phase_count, streaks_of
from .reading_order import read_in_order
from .step import macro_tiles
from .transfers import ONE_PIECE, Layout, Transfers, by_shape, layout_of, timed

__all__ = ["product_transfers", "tasks_of"]

Int64 = npt.NDArray[np.int64]

_MOST_STREAKS = 2**24
"""A gigabyte of streaks of phases."""

_MOST_PHASES = 2**32
"""Minutes of them."""

_PIECE, _PIECES = 2**16, 1024
"""Bytes that DRAM serves at a time of work beside the array, and beyond how many pieces these grow: assumed.

In pieces of 2 MiB the array waits so long behind an update that a BDWP step of ResNet-18 at batch 8 takes 22 % longer
than in 64 KiB. Smaller ones change batches 1 and 8 by -4 to 6 %: less waiting, more turns of the bus.
"""


_NO_ENDS = EndLoads(0, 0, 0, 0, 0, 0, 0, -1, -1)


@dataclass(frozen=True, slots=True, eq=False)
class _Phases:
    """The part of one op in `Tasks`."""

    streaks: Streaks
    ends: EndLoads = _NO_ENDS
    resident: int = 1
    lead: int = 0
    ramp: int = 0

    @property
    def transfer(self) -> int:
        """Time of all its transfers."""
        own = int(np.dot(self.streaks.transfer, self.streaks.times))
        return own + self.ends.west_time + self.ends.north_time + self.ends.store_time

    @property
    def longest(self) -> float:
        """Time that it cannot exceed, whoever shares DRAM and SORE."""
        ends = (
            self.ends.west_time + self.ends.north_time + self.ends.store_time + self.ends.sore + self.lead + self.ramp
        )
        streaks = self.streaks
        spent = (streaks.busy, streaks.transfer, streaks.sore)
        return float(sum(np.dot(part.astype(float), streaks.times) for part in spent) + ends)


def tasks_of(schedule: Schedule, order: Order | None = None, transfers: Transfers | None = None) -> Tasks:
    """The tasks of a schedule, by `order_of` and `by_shape` unless others are given."""
    spec, workload = schedule.spec, schedule.as_run
    order = in_turn(order or order_of(workload), schedule.residency)
    transfers = transfers or by_shape(spec)
    rate = memory_machine(spec).rate
    placed = tuple(zip(workload.ops, schedule.placements, strict=True))
    lanes = joined_lanes(workload.ops, schedule.placements, spec)
    laid = read_in_order(workload, schedule.placements)
    ready = [_ready_sides(*each, free) for each, free in zip(placed, order.weight_ready, strict=True)]
    parts = [
        _phases(*each, spec, workload.rule, transfers, lanes.get(i), i in laid, ready[i])
        for i, each in enumerate(placed)
    ]
    stored = {id(part): part for part in parts}  # equal ops have one
    sizes = [len(part.streaks.times) for part in stored.values()]
    places = dict(zip(stored, np.cumsum([0, *sizes]).tolist(), strict=False))
    _require_few(sum(sizes), workload, spec)
    _require_timed(sum(part.longest for part in parts), f"{workload.model!r} at batch {workload.batch}", spec)
    products = engine_names(spec).products

    def by_op(*values: int) -> Int64:
        return np.array(values, np.int64)

    def joined(name: str) -> Int64:
        return np.concatenate([getattr(part.streaks, name) for part in stored.values()])

    return Tasks(
        rate=rate,
        products=len(products),
        engine=by_op(*(_engine(*each, products) for each in placed)),
        first=by_op(*(places[id(part)] for part in parts)),
        behind=by_op(*(places[id(part)] + len(part.streaks.times) for part in parts)),
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


def product_transfers(schedule: Schedule, transfers: Transfers) -> list[int]:
    """Time of the transfers of every product, by op; 0 of other work."""
    spec, run = schedule.spec, schedule.as_run
    laid, found = read_in_order(run, schedule.placements), list[int]()
    for i, (op, placement) in enumerate(zip(run.ops, schedule.placements, strict=True)):
        matrix = isinstance(op, MatrixOp)
        found.append(
            _phases(op, placement, spec, run.rule, transfers, None, i in laid, (0, 0)).transfer if matrix else 0
        )
    return found


def _require_few(streaks: int, workload: Workload, spec: AcceleratorSpec) -> None:
    if streaks > _MOST_STREAKS:
        raise InputError(
            f"{workload.model!r} at batch {workload.batch} has {streaks:,} streaks of equal phases on {spec.name!r}, "
            f"more than the system level takes ({_MOST_STREAKS:,}); use a smaller batch, larger buffers, or the step "
            "level"
        )


def _require_timed(units: float, what: str, spec: AcceleratorSpec) -> None:
    rate = memory_machine(spec).rate
    if units >= LONGEST:
        raise InputError(
            f"{what} may take {units / rate:.2g} cycles on {spec.name!r}, more than the system level can time exactly "
            f"({LONGEST / rate:.2g}); use a smaller batch, or the step level"
        )


def _engine(op: Op, placement: Placement | None, products: tuple[str, ...]) -> int:
    """Number of the engine that an op runs on: which of the products' only its placement knows."""
    if placement is not None:
        return products.index(placement.engine)
    match op:
        case MatrixOp():
            raise AssertionError("a schedule places every matrix op")
        case VectorOp():
            return len(products)
        case UpdateOp():
            return len(products) + 1
        case _:
            assert_never(op)


def _ready_sides(op: Op, placement: Placement | None, weight_ready: bool) -> tuple[int, int]:
    """Whether the first loads from the west and from the north are of a weight that waits for nothing."""
    if not isinstance(op, MatrixOp) or placement is None or not weight_ready:
        return 0, 0
    a, b = (int(operand.role is Role.WEIGHT) for operand in (op.a, op.b))
    return (b, a) if placement.mapping.n2s == "a" else (a, b)


def _phases(
    op: Op,
    placement: Placement | None,
    spec: AcceleratorSpec,
    rule: UpdateRule,
    transfers: Transfers,
    lanes: int | None,
    in_order: bool,
    ready: tuple[int, int],
) -> _Phases:
    match op:
        case MatrixOp():
            assert placement is not None, "a schedule places every matrix op"
            mapping = placement.mapping
            product = placed_on(placement, spec).tiled(op, mapping)
            return _matrix_phases(product, mapping, spec, layout_of(op, mapping, in_order=in_order), transfers, ready)
        case VectorOp():
            return _chunks(vector_work(op, spec, lanes), spec, transfers)
        case UpdateOp():
            return _chunks(update_work(op, spec, rule), spec, transfers)


@lru_cache(maxsize=1024)
def _matrix_phases(
    product: Tiled,
    mapping: Mapping,
    spec: AcceleratorSpec,
    layout: Layout,
    transfers: Transfers,
    ready: tuple[int, int],
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
    streaks, ends = streaks_of(tiles)
    if not mapping.resident and not streaks.sore[0]:
        streaks, ends = _ahead(streaks, ends, tiles, memory, ready)
    # What a streamed op waits for its first k-chunk is counted in bytes at the machine's one rate.
    return _Phases(streaks, ends, int(mapping.resident), lead * RATE, ramp * memory.rate)


def _ahead(
    streaks: Streaks, ends: EndLoads, tiles: MacroTiles, memory: MemoryMachine, ready: tuple[int, int]
) -> tuple[Streaks, EndLoads]:
    """A streamed op whose weight is ``ready`` loads of its first macro-tile as much as half a buffer holds while the op
    before it ends: of what the array would wait for, as the rest comes while it works, and nobody shall wait for that.
    """
    row, col = int(tiles.row_tiles == 1), int(tiles.col_tiles == 1)
    sides = (
        (int(tiles.west[row]), int(tiles.west_time[row]), memory.west_half),
        (int(tiles.north[0, col]), int(tiles.north_time[0, col]), memory.north_half),
    )
    sizes, times = [0, 0], [0, 0]
    waits = int(streaks.transfer[0] - streaks.busy[0])
    for side, (size, time, half) in enumerate(sides):
        if ready[side] and size and waits > 0:
            sizes[side] = min(half, size * waits // max(time, waits))
            times[side] = time * sizes[side] // size
            waits -= times[side]
    if not any(sizes):
        return streaks, ends
    # The first phase by itself.
    own = int(streaks.times[0] > 1)
    parts = {name: np.concatenate([part[:own], part]) for name, part in zip(Streaks._fields, streaks, strict=True)}
    parts["transfer"][0] -= sum(times)
    parts["read"][0] -= sum(sizes)
    parts["times"][own] -= own
    parts["times"][0] = 1
    return Streaks(**parts), ends._replace(
        west=sizes[0],
        north=sizes[1],
        west_time=times[0],
        north_time=times[1],
        free_west=ends.free_west + own,
        free_north=ends.free_north + own,
    )


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
    return _Phases(Streaks(split(lanes), split(moving), read, split(size) - read, split(sore), none, one))
