"""What decoding takes: a stream of steps, each by itself, without running those between the first and the last.

Ops that are alike, as those of all layers are, are priced once. What grows is placed behind every context, in one
kernel (`dataflow/batch/sizes.py`), or one by one where that cannot. The sum is that of all steps, exactly.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from operator import attrgetter
from typing import Any, assert_never

import numpy as np
from numpy.typing import NDArray

from ..dataflow.accelerator import AcceleratorSpec
from ..dataflow.actions import Action, Where
from ..dataflow.batch.amounts import COUNTED, actions_of
from ..dataflow.batch.sizes import ROLES, Sizes, beside_rows, placed_sizes
from ..dataflow.beside import alone_of, joined_lanes, joined_products, vector_bytes
from ..dataflow.engines import place
from ..dataflow.fusion.fuse import require_rows
from ..dataflow.objective import Objective
from ..dataflow.placement import Placement
from ..dataflow.prices import Pricing, unpriced
from ..dataflow.problem import memory_machine
from ..dataflow.schedule import Schedule, schedule
from ..workloads.errors import InputError
from ..workloads.growth import Growth, Piece, column
from ..workloads.joined import Joined
from ..workloads.one_line import OneLine
from ..workloads.step import MatrixOp, Op, UpdateOp, VectorOp, Workload
from ..workloads.update_rule import UpdateRule
from .memory import require_room
from .result import OpResult
from .row_misses import Beyond, row_misses
from .step import op_result
from .system import step_time
from .transfers import by_shape

__all__ = ["Decoded", "Grown", "decode", "overlapped"]

_READ, _WRITE, _ELEMENTS = (COUNTED[name] for name in ("dram_read_bytes", "dram_write_bytes", "vector_elements"))
_NOTHING = Beyond(0, 0, 0)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Grown:
    """An op that grows, in all steps of a piece: ``op`` in the first of them, ``times`` in each. ``cycles``: int64
    [steps]. ``counts``: int64 [steps, counted], columns as `amounts.COUNTED`. ``sizes``: of a product."""

    op: Op
    times: int
    cycles: NDArray[np.int64]
    counts: NDArray[np.int64]
    sizes: Sizes | None = None

    @property
    def sums(self) -> list[int]:
        """Its counts in all steps together."""
        return _weighted(self.counts, [1] * len(self.counts))

    def amounts(self, rule: UpdateRule, spec: AcceleratorSpec) -> dict[Action, int]:
        """What one of it does in all steps together, on a chip and on an FPGA, beside what is done standing."""
        found = Counter[Action]()
        roles = np.zeros(len(self.cycles), np.int64) if self.sizes is None else self.sizes.roles
        for number, n2s in enumerate(ROLES):
            counts = self.counts[roles == number]
            if len(counts):
                found.update(actions_of(_weighted(counts, [1] * len(counts)), Where(self.op, rule, spec, n2s=n2s)))
        return found


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Decoded(OneLine):
    """Decoding on one machine. ``parts``: what is done in steps, with how often in all; but for ``grown``, piece by
    piece, which is of another size in each. ``by_step``: cycles of every step. ``beyond``: what DRAM does in all steps
    beyond streams, where ops are overlapped and the shapes of transfers known.
    """

    growth: Growth
    spec: AcceleratorSpec
    parts: tuple[tuple[OpResult, int], ...]
    grown: tuple[tuple[Grown, ...], ...]
    by_step: tuple[int, ...]
    beyond: Beyond = _NOTHING

    @property
    def tokens(self) -> int:
        """Those that are made, of all samples."""
        return self.growth.steps * self.growth.first.batch

    @property
    def cycles(self) -> int:
        """Of all steps, one behind the other."""
        return sum(self.by_step)

    @property
    def dram_bytes(self) -> int:
        """Read and written in all steps."""
        known = sum(r.counts.dram_bytes * times for r, times in self.parts)
        grown = (one for piece in self.grown for one in piece)
        return known + sum(one.times * sum(one.sums[at] for at in (_READ, _WRITE)) for one in grown)

    @property
    def seconds(self) -> float:
        """Of all steps."""
        return self.cycles / self.spec.clock_hz

    def _said(self) -> str:
        return f"{self.growth.first.title}: {self.tokens:,} tokens in {self.cycles:,} cycles"


def decode(
    growth: Growth,
    spec: AcceleratorSpec,
    objective: Objective | str = Objective.THRIFT,
    prices: Pricing | None = None,
    chosen: Schedule | None = None,
) -> Decoded:
    """All steps of ``growth`` on ``spec``, op after op; ``chosen`` is the schedule of the first, if it is known.

    Refused where DRAM cannot hold the last of them, and where what grows is run otherwise than it was asked for.
    """
    _require(growth, spec)
    goal = Objective.named(objective) if chosen is None else chosen.objective
    if goal.priced and prices is None:
        raise InputError(f"objective {goal} needs the energy of each action; pass prices, or let generate do it")
    parts, grown, by_step = list[tuple[OpResult, int]](), list[tuple[Grown, ...]](), list[int]()
    for piece in growth.pieces:
        require_rows(piece.last, spec)
        known = chosen if piece.first is growth.first else None
        stream = _Stream(piece, known or schedule(piece.first, spec, goal, prices), prices or unpriced)
        parts += stream.parts
        grown.append(tuple(stream.grown))
        by_step += stream.by_step
    return Decoded(growth=growth, spec=spec, parts=tuple(parts), grown=tuple(grown), by_step=tuple(by_step))


def overlapped(
    growth: Growth,
    spec: AcceleratorSpec,
    choose: Callable[[Workload], Schedule],
    progress: Callable[[int, int], None] | None = None,
) -> Decoded:
    """All steps of ``growth`` on ``spec``, the ops of each overlapped and transfers timed by their shape, as
    `system.simulate_system` has it: each scheduled, by ``choose``, and run by itself.

    Refused where `decode` is. ``progress`` is called with the steps done and all steps.
    """
    _require(growth, spec)
    parts, by_step, misses, transfers = list[tuple[OpResult, int]](), list[int](), list[Beyond](), by_shape(spec)
    for step in range(growth.steps):
        chosen = choose(growth.at(step))
        parts += _Stream(Piece(first=chosen.workload, steps=1, rates={}), chosen, unpriced).parts
        by_step.append(step_time(chosen, transfers=transfers))
        misses += row_misses(chosen, transfers)
        if progress is not None:
            progress(len(by_step), growth.steps)
    return Decoded(
        growth=growth,
        spec=spec,
        parts=tuple(parts),
        grown=((),) * len(growth.pieces),
        by_step=tuple(by_step),
        beyond=Beyond(*map(sum, zip(*misses, strict=True))),
    )


def _require(growth: Growth, spec: AcceleratorSpec) -> None:
    require_room(growth.last, spec)
    if spec.buffers.resident_bytes:
        raise InputError(
            f"{spec.name!r} keeps tensors on chip (buffers.resident_bytes {spec.buffers.resident_bytes:,}), and which "
            "stay while the context grows is not known: ask for single steps, or 0 bytes"
        )


class _Stream:
    """A piece of a stream on one machine, by the schedule of its first step: ``parts``, ``grown`` and ``by_step`` as of
    `Decoded`."""

    def __init__(self, piece: Piece, chosen: Schedule, prices: Pricing) -> None:
        self._piece, self._chosen, self._prices = piece, chosen, prices
        self._ops, self._spec = chosen.as_run.ops, chosen.spec
        for i in piece.rates:
            if self._ops[i] != piece.first.ops[i]:
                raise InputError(
                    f"{self._ops[i].name!r} grows with the context, and {piece.first.scheme} runs it by its size: "
                    "what a stream takes is not known; ask for single steps"
                )
        self.parts, self.grown = list[tuple[OpResult, int]](), list[Grown]()
        self.by_step, self._every = [0] * piece.steps, 0
        alike: dict[tuple[object, ...], list[Sequence[int]]] = {}
        for group in _groups(self._ops):
            alike.setdefault(self._key(group), []).append(group)
        for group, *others in alike.values():
            self._add(group, 1 + len(others))
        every = [self._every] * piece.steps
        if self.grown:
            growing = _weighted([one.cycles for one in self.grown], [one.times for one in self.grown])
            every = [self._every + more for more in growing]
        self.by_step = [own + more for own, more in zip(self.by_step, every, strict=True)]

    def _key(self, group: Sequence[int]) -> tuple[object, ...]:
        """What groups that cost the same have in common: all but where they are."""
        rates, placements = self._piece.rates, self._chosen.placements
        # A placement is one object for all that are placed alike.
        found = [(_nameless(self._ops[i]), id(placements[i]), *(rates[i].items() if i in rates else ())) for i in group]
        return found[0] if len(found) == 1 else tuple(found)

    def _add(self, group: Sequence[int], times: int) -> None:
        """What a group does that is there so often in a step."""
        steps, ops = self._piece.steps, [self._ops[i] for i in group]
        if self._piece.rates.keys().isdisjoint(group):
            self._add_alike(self._results(ops, [self._chosen.placements[i] for i in group]), steps, times)
            return
        found = self._sized(group, times)
        if found is None:
            for step in range(steps):
                results = self._results(*self._placed(group, step))
                self.parts += [(r, times) for r in results]
                self.by_step[step] += times * sum(r.cycles.total for r in results)
            return
        alike, grown = found
        self._add_alike(alike, steps, times)
        self.grown += grown

    def _add_alike(self, results: Sequence[OpResult], steps: int, times: int) -> None:
        self.parts += [(r, steps * times) for r in results]
        self._every += times * sum(r.cycles.total for r in results)

    def _results(self, ops: Sequence[Op], placements: Sequence[Placement | None]) -> list[OpResult]:
        """A group in one step."""
        spec, lanes = self._spec, joined_lanes(ops, placements, self._spec)
        return [
            op_result(op, at, spec, self._chosen.workload.rule, lanes.get(i))
            for i, (op, at) in enumerate(zip(ops, placements, strict=True))
        ]

    def _placed(self, group: Sequence[int], step: int) -> tuple[list[Op], list[Placement | None]]:
        """A group in one step, with what grows placed by itself."""
        ops, placements = list[Op](), list[Placement | None]()
        for i in group:
            op, at = self._piece.op(i, step), self._chosen.placements[i]
            if isinstance(op, MatrixOp) and i in self._piece.rates:
                at = place(op, self._spec, self._chosen.objective, self._prices)
            ops.append(op)
            placements.append(at)
        return ops, placements

    def _sized(self, group: Sequence[int], times: int) -> tuple[list[OpResult], list[Grown]] | None:
        """A group that grows, in all steps at once: what of it does not, and what does; None where that is not a
        question of numbers alone."""
        steps, behind = self._piece.steps, joined_products([self._ops[i] for i in group])
        alike, grown = list[OpResult](), list[Grown]()
        product, before = np.empty(0, np.int64), np.zeros(steps, np.int64)
        for at, i in enumerate(group):
            op = self._ops[i]
            match op:
                case MatrixOp() if i in self._piece.rates:
                    product_at = partial(self._product, i)
                    sizes = placed_sizes(steps, product_at, self._spec, self._chosen.objective, self._prices)
                    if sizes is None:
                        return None
                    grown.append(Grown(op=op, times=times, cycles=sizes.cycles, counts=sizes.counts, sizes=sizes))
                    product = sizes.cycles
                case MatrixOp():
                    alike += self._results([op], [self._chosen.placements[i]])
                    product = np.full(steps, alike[-1].cycles.total)
                case VectorOp() if not op.chip_read and not op.chip_write:
                    joined = at in behind
                    cycles, counts = self._vector(i, op, product if joined else product[:0], before)
                    if joined:
                        before = before + self._column(i, "joined", "lanes")
                    grown.append(Grown(op=op, times=times, cycles=cycles, counts=counts))
                case VectorOp() | UpdateOp():
                    return None
                case _:
                    assert_never(op)
        return alike, grown

    def _vector(
        self, i: int, op: VectorOp, product: NDArray[np.int64], before: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Cycles and counts of vector work in all steps, by cycles of the product that it is joined to, if any."""
        spec = self._spec
        plain = self._column(i, "read_bytes"), self._column(i, "write_bytes")
        wide = self._column(i, "wide_read"), self._column(i, "wide_write")
        read, write = vector_bytes(op, *plain, *wide, spec)
        elements = self._column(i, "elements")
        lanes = elements if op.joined is None else self._column(i, "joined", "lanes")
        rate, alone = memory_machine(spec).rate, alone_of(spec)
        counts = np.zeros((len(elements), len(COUNTED)), np.int64)
        counts[:, _READ], counts[:, _WRITE], counts[:, _ELEMENTS] = read, write, elements
        return beside_rows(read + write, before, lanes, product, rate, spec.vector.lanes, alone), counts

    def _product(self, i: int, step: int) -> MatrixOp:
        op = self._piece.op(i, step)
        assert isinstance(op, MatrixOp), "an op grows as what it is"
        return op

    def _column(self, i: int, *place: str) -> NDArray[np.int64]:
        return column(self._ops[i], self._piece.rates.get(i, {}), place, self._piece.steps)


def _weighted(rows: Sequence[NDArray[np.int64]] | NDArray[np.int64], times: Sequence[int]) -> list[int]:
    """Sum of rows, int64 [columns], each so many times, however large."""
    found = np.array(rows)
    held = len(times) * max(times) * float(found.max()) < 2.0**62
    sums: list[int] = (np.array(times) @ found if held else np.array(times, object) @ found.astype(object)).tolist()
    return sums


def _groups(ops: Sequence[Op]) -> Iterable[Sequence[int]]:
    """Ops that are priced together: a product and what is joined to it, or one alone."""
    behind = joined_products(ops)
    groups: dict[int, list[int]] = {}
    for i in range(len(ops)):
        groups.setdefault(behind[i].product if i in behind else i, []).append(i)
    return groups.values()


def _but(kind: type, *names: str) -> Callable[[Any], tuple[object, ...]]:
    return attrgetter(*(field.name for field in fields(kind) if field.name not in names))


_PRODUCT, _VECTOR = _but(MatrixOp, "name", "parameter"), _but(VectorOp, "name", "parameter", "joined")
_JOINED, _UPDATE = _but(Joined, "name"), _but(UpdateOp, "name")


def _nameless(op: Op) -> tuple[object, ...]:
    """All of an op but where it is; what it costs depends on nothing else, and on the placement of a product."""
    match op:
        case MatrixOp():
            return _PRODUCT(op)
        case VectorOp():
            return _VECTOR(op), op.joined and _JOINED(op.joined)
        case UpdateOp():
            return _UPDATE(op)
        case _:
            assert_never(op)
