"""A schedule as tasks of the system: the macro-tile phases of every op, what stands around them, who waits for whom.

All times are integers in 1/rate cycles (`dataflow/cost.py`); docs/design/machine.md states the rules.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from ..dataflow.accelerator import AcceleratorSpec
from ..dataflow.array_time import ceil_div
from ..dataflow.cost import LONGEST, RATE, Problem, memory_machine, problem_of
from ..dataflow.mapping import Mapping
from ..dataflow.placement import Placement
from ..dataflow.schedule import Schedule
from ..workloads.errors import InputError
from ..workloads.gemm import Pass
from ..workloads.step import MatrixOp, Op, Role, UpdateOp, VectorOp, Workload
from .kernels.phases import EndLoads, list_phases
from .step import Work, macro_tiles, update_work, vector_work
from .transfers import ONE_PIECE, Layout, Transfers, by_shape, layout_of, timed

__all__ = ["ENGINES", "Channel", "Engine", "Order", "Tasks", "order_of", "role_order", "serial_order", "tasks_of"]

Int64 = npt.NDArray[np.int64]

_MOST_PHASES = 2**25
"""A gigabyte of phases."""

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


class Channel(IntEnum):
    """Who asks for DRAM and SORE; of requests made at the same time the lowest channel is served first."""

    STORE = 0
    PHASE = 1
    NORTH = 2
    WEST = 3
    VECTOR = 4
    WUVE = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """Who waits for whom: for every op the ops that must have ended, and whether its weight operand need not wait."""

    after: tuple[tuple[int, ...], ...]
    weight_ready: tuple[bool, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tasks:
    """Arrays by op, and by phase, op ``i`` at ``first[i]:first[i + 1]``; times in 1/``rate`` cycles, sizes in bytes.

    In a phase ``busy`` of the op's engine, ``transfer``, the time of DRAM for ``read + written``, and ``sore`` run at
    the same time; ``loads`` is 1 where it loads from the west, 2 from the north, 3 from both. Op ``i`` waits for the
    ops ``after[after_first[i]:after_first[i + 1]]``. Of array ops only: ``west`` and ``north`` (with ``north_sore``)
    are loaded before the first phase, ``*_ready`` if they wait for no other op, in ``*_time``; a half of the buffer is
    free for the next op's after phase ``free_*``. ``lead`` is what a streamed op waits for its first k-chunk, ``ramp``
    fill and drain of the array, ``store`` (``store_time``) the last macro-tile.
    """

    rate: int
    engine: Int64
    first: Int64
    busy: Int64
    transfer: Int64
    read: Int64
    written: Int64
    sore: Int64
    loads: Int64
    resident: Int64
    west: Int64
    north: Int64
    west_time: Int64
    north_time: Int64
    north_sore: Int64
    west_ready: Int64
    north_ready: Int64
    free_west: Int64
    free_north: Int64
    lead: Int64
    ramp: Int64
    store: Int64
    store_time: Int64
    after_first: Int64
    after: Int64

    def __len__(self) -> int:
        return len(self.engine)


def serial_order(workload: Workload) -> Order:
    """Every op after the one before it, as the step level runs them."""
    count = len(workload.ops)
    return Order(after=tuple((i - 1,) if i else () for i in range(count)), weight_ready=(False,) * count)


def order_of(workload: Workload) -> Order:
    """What must wait for what: by the tensors of the trace, or where there was none by role."""
    if workload.after:
        return Order(after=workload.after, weight_ready=_weights_ready(workload))
    return role_order(workload)


def role_order(workload: Workload) -> Order:
    """What must wait for what, as far as passes, names and roles tell (docs/design/machine.md, "The system")."""
    ops = workload.ops
    after: list[tuple[int, ...]] = []
    spine = side = -1
    for i, op in enumerate(ops):
        if isinstance(op, UpdateOp):
            after.append(())
        elif op.pass_ is Pass.WU:
            # The twin BP op of the same layer reads the same gradient, so what it waited for is enough.
            source = after[spine] if spine >= 0 and _twins(ops[spine], op) else (spine,)
            after.append(_known(*source, side))
            side = i
        else:
            after.append(_known(spine))
            spine = i
    gradients = _Gradients(workload, _known(spine, side))
    for i, op in enumerate(ops):
        if isinstance(op, UpdateOp):
            after[i] = gradients.of(op.name)
    return Order(after=tuple(after), weight_ready=_weights_ready(workload))


def _known(*ops: int) -> tuple[int, ...]:
    return tuple(sorted({op for op in ops if op >= 0}))


def _twins(one: Op, other: Op) -> bool:
    """Whether a BP and a WU product are the gradients of one forward product."""
    return (
        isinstance(one, MatrixOp)
        and isinstance(other, MatrixOp)
        and one.pass_ is Pass.BP
        and (one.name, one.parameter) == (other.name, other.parameter)
    )


class _Gradients:
    """The ops that an update waits for: those that make its gradient, and the last that reads the old weight."""

    def __init__(self, workload: Workload, ends: tuple[int, ...]) -> None:
        self._ends, self._model = ends, workload.model
        self._readers: dict[str, int] = {}
        self._makers: dict[str, int] = {}
        self._modules: dict[tuple[str, Pass], int] = {}
        followers: dict[int, int] = {}
        last_product = -1
        for i, op in enumerate(workload.ops):
            if isinstance(op, UpdateOp):
                continue
            if op.pass_ in (Pass.BP, Pass.WU):
                self._modules[op.name, op.pass_] = i
            if isinstance(op, MatrixOp):
                last_product = i if op.pass_ is Pass.WU else last_product
                into = self._makers if op.pass_ is Pass.WU else self._readers
                into.update(dict.fromkeys((op.parameter or "").split("+"), i))
            elif op.pass_ is Pass.WU:
                # Vector work behind a weight gradient may add to it.
                followers[last_product] = i
        self._makers = {name: followers.get(i, i) for name, i in self._makers.items()}

    def of(self, label: str) -> tuple[int, ...]:
        """Ops that the update of a parameter waits for; all of them where none is known to make its gradient."""
        modules = [name.rpartition(".")[0] or self._model for name in label.split("=")]
        last = (self._modules.get((module, p), -1) for module in modules for p in (Pass.BP, Pass.WU))
        made = [self._makers.get(label, -1), *last]
        return _known(*made, self._readers.get(label, -1)) if max(made) >= 0 else self._ends


def _weights_ready(workload: Workload) -> tuple[bool, ...]:
    """Whether the weight operand of each op is in memory from the start.

    Not where vector work of the forward pass went before in the same module or below it: it may have made the weight
    (a cast, a weight norm).
    """
    made: set[str] = set()
    ready = []
    for op in workload.ops:
        ready.append(isinstance(op, MatrixOp) and op.name not in made)
        if isinstance(op, VectorOp) and op.pass_ is Pass.FF:
            parts = op.name.split(".")
            made.update(".".join(parts[: n + 1]) for n in range(len(parts)))
    return tuple(ready)


_NO_ENDS = EndLoads(0, 0, 0, 0, 0, 0, 0, -1, -1)


@dataclass(frozen=True, slots=True, eq=False)
class _Phases:
    """The part of one op in `Tasks`."""

    busy: Int64
    transfer: Int64
    read: Int64
    written: Int64
    sore: Int64
    loads: Int64
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
        return float(sum(part.sum(dtype=np.float64) for part in (self.busy, self.transfer, self.sore)) + ends)


def tasks_of(schedule: Schedule, order: Order | None = None, transfers: Transfers | None = None) -> Tasks:
    """The tasks of a schedule, by `order_of` and `by_shape` unless others are given."""
    spec, workload = schedule.spec, schedule.workload
    order = order or order_of(workload)
    transfers = transfers or by_shape(spec)
    rate = memory_machine(spec).rate
    parts = [
        _phases(op, placement, spec, workload.optimizer, transfers)
        for op, placement in zip(workload.ops, schedule.placements, strict=True)
    ]
    sizes = [len(part.busy) for part in parts]
    if sum(sizes) > _MOST_PHASES:
        raise InputError(
            f"{workload.model!r} at batch {workload.batch} has {sum(sizes):,} macro-tile phases on {spec.name!r}, more "
            f"than the system level takes ({_MOST_PHASES:,}); use a smaller batch, larger buffers, or the step level"
        )
    longest = sum(part.longest for part in parts)
    _require_timed(longest, f"{workload.model!r} at batch {workload.batch}", spec)
    ready = [
        _ready_sides(op, placement, free)
        for op, placement, free in zip(workload.ops, schedule.placements, order.weight_ready, strict=True)
    ]

    def by_op(*values: int) -> Int64:
        return np.array(values, np.int64)

    def joined(name: str) -> Int64:
        return np.concatenate([getattr(part, name) for part in parts])

    return Tasks(
        rate=rate,
        engine=by_op(*(_engine(op) for op in workload.ops)),
        first=np.concatenate([by_op(0), np.cumsum(by_op(*sizes))]),
        busy=joined("busy"), transfer=joined("transfer"), read=joined("read"), written=joined("written"),
        sore=joined("sore"), loads=joined("loads"),
        resident=by_op(*(part.resident for part in parts)),
        west=by_op(*(part.ends.west for part in parts)),
        north=by_op(*(part.ends.north for part in parts)),
        west_time=by_op(*(part.ends.west_time for part in parts)),
        north_time=by_op(*(part.ends.north_time for part in parts)),
        north_sore=by_op(*(part.ends.sore for part in parts)),
        west_ready=by_op(*(west for west, _ in ready)), north_ready=by_op(*(north for _, north in ready)),
        free_west=by_op(*(part.ends.free_west for part in parts)),
        free_north=by_op(*(part.ends.free_north for part in parts)),
        lead=by_op(*(part.lead for part in parts)), ramp=by_op(*(part.ramp for part in parts)),
        store=by_op(*(part.ends.store for part in parts)),
        store_time=by_op(*(part.ends.store_time for part in parts)),
        after_first=np.concatenate([by_op(0), np.cumsum(by_op(*map(len, order.after)))]),
        after=by_op(*(op for ops in order.after for op in ops)),
    )  # fmt: skip


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
    op: Op, placement: Placement | None, spec: AcceleratorSpec, optimizer: str, transfers: Transfers
) -> _Phases:
    match op:
        case MatrixOp():
            assert placement is not None, "a schedule places every matrix op"
            mapping = placement.mapping
            problem = problem_of(op, mapping.n2s, spec.wuve.pregenerate)
            return _matrix_phases(problem, mapping, spec, layout_of(op, mapping.n2s), transfers)
        case VectorOp():
            return _chunks(vector_work(op, spec), spec, transfers)
        case UpdateOp():
            return _chunks(update_work(op, spec, optimizer), spec, transfers)


@lru_cache(maxsize=1024)
def _matrix_phases(
    p: Problem, mapping: Mapping, spec: AcceleratorSpec, layout: Layout, transfers: Transfers
) -> _Phases:
    tiles, lead, ramp = macro_tiles(p, mapping, spec)
    count = tiles.groups * tiles.row_tiles * tiles.col_tiles
    if count > _MOST_PHASES:
        raise InputError(
            f"a product of {p.groups} x {p.rows} x {p.k} x {p.cols} takes {count:,} macro-tiles on {spec.name!r}, more "
            f"than the system level takes ({_MOST_PHASES:,}); use larger buffers, or the step level"
        )
    memory = memory_machine(spec)
    tiles = timed(tiles, p, mapping, layout, memory.w2e_half, transfers)
    busy, transfer, read, written, sore, loads = np.zeros((6, count), np.int64)
    ends = EndLoads(*list_phases(tiles, busy, transfer, read, written, sore, loads))
    # What a streamed op waits for its first k-chunk is counted in bytes at the machine's one rate.
    resident = int(mapping.resident)
    return _Phases(busy, transfer, read, written, sore, loads, ends, resident, lead * RATE, ramp * memory.rate)


@lru_cache(maxsize=4096)
def _chunks(work: Work, spec: AcceleratorSpec, transfers: Transfers) -> _Phases:
    """Work beside the array in pieces of `_PIECE`, larger ones beyond `_PIECES` of them, half a W2E buffer at most.

    The slowest of lanes, memory and SORE is cut evenly, at multiples of `RATE` units, and the others in proportion,
    rounded down: so the same one is the slowest of every piece, and the pieces last as long as the whole.
    """
    memory = memory_machine(spec)
    size = work.read + work.write
    pieces = max(ceil_div(size, memory.w2e_half), min(ceil_div(size, _PIECE), _PIECES), 1)
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
    return _Phases(
        split(lanes), split(moving), read, split(size) - read, split(sore), np.zeros(pieces, np.int64)
    )  # fmt: skip
