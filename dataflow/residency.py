"""Tensors that stay in memory on chip between ops, and so never cross DRAM: chosen for a schedule, by what each saves.

A tensor (`kept.py`) is held whole or not at all. Mappings stay as they were chosen without, so no op moves more bytes
than it did, nor takes longer with the work that is joined to it. The memory is taken to fill a buffer as fast as an
engine asks (assumed: a port as wide as the buffers').
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import assert_never

from ..workloads.step import MatrixOp, Op, UpdateOp, VectorOp, Workload
from .accelerator import AcceleratorSpec
from .allocation import Lifetime, keep
from .engines import placed_on
from .kept import UPDATED, Kept, Use, candidates
from .mapping import SIDES, Side
from .placement import Placement
from .prices import Pricing, unpriced

__all__ = ["Residency", "resident"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Residency:
    """What stays in ``capacity`` bytes, the most saved first, and where (``offsets``); ``candidates``: what could."""

    capacity: int
    kept: tuple[Kept, ...]
    offsets: tuple[int, ...]
    candidates: tuple[Kept, ...]

    @property
    def saved(self) -> int:
        """DRAM bytes that the step moves no more."""
        return sum(one.saved for one in self.kept)

    @property
    def peak(self) -> int:
        """The most bytes in use."""
        return max((offset + one.size for offset, one in zip(self.offsets, self.kept, strict=True)), default=0)

    def turns(self) -> dict[int, set[int]]:
        """By op that is the first to use a tensor, the ops that use what lay in its place before: where ops overlap,
        it waits for them."""
        found: dict[int, set[int]] = defaultdict(set)
        placed = sorted(zip(self.kept, self.offsets, strict=True), key=lambda pair: pair[0].first)
        for i, (one, at) in enumerate(placed):
            for other, where in placed[:i]:
                if other.last < one.first and at < where + other.size and where < at + one.size:
                    found[min(use.op for use in one.uses)].update(use.op for use in other.uses)
        return found


def resident(
    workload: Workload, placements: Sequence[Placement | None], spec: AcceleratorSpec, pricing: Pricing = unpriced
) -> tuple[Workload, tuple[Placement | None, ...], Residency]:
    """What stays in ``buffers.resident_bytes`` of ``spec``, and the step as it then runs: ops and placements."""
    able = candidates(workload, placements, spec)
    lives = [Lifetime(name=str(i), size=one.size, first=one.first, last=one.last) for i, one in enumerate(able)]
    offsets = keep(lives, [one.saved for one in able], spec.buffers.resident_bytes)
    chosen = sorted(offsets, key=lambda i: -able[int(i)].saved)
    found = Residency(
        capacity=spec.buffers.resident_bytes,
        kept=tuple(able[int(i)] for i in chosen),
        offsets=tuple(offsets[i] for i in chosen),
        candidates=able,
    )
    ops, placed = list(workload.ops), list(placements)
    uses: dict[int, list[Use]] = defaultdict(list)
    for one in found.kept:
        for use in one.uses:
            uses[use.op].append(use)
    known: dict[tuple[int, tuple[Side, ...]], Placement] = {}
    for i, of in uses.items():
        placement = placements[i]
        if placement is None:
            ops[i] = _held(ops[i], of)
            continue
        # Products of equal shape share a placement.
        parts = {use.part for use in of}
        key = id(placement), tuple(side for side in SIDES if side in parts)
        if key not in known:
            known[key] = _placed(ops[i], placement, key[1], spec, pricing)
        placed[i] = known[key]
    return replace(workload, ops=tuple(ops)), tuple(placed), found


def _placed(
    op: Op, placement: Placement, on_chip: tuple[Side, ...], spec: AcceleratorSpec, pricing: Pricing
) -> Placement:
    """The placement of a product with these operands on chip."""
    assert isinstance(op, MatrixOp), "only products are placed"
    found = placed_on(placement, spec).evaluate(op, replace(placement.mapping, on_chip=on_chip), pricing)
    return replace(found, constrained=placement.constrained, energy_pj=placement.energy_pj)


def _held(op: Op, uses: Sequence[Use]) -> Op:
    """Work beside the array with these uses of tensors on chip."""
    match op:
        case UpdateOp():
            parts = {use.part for use in uses}
            return replace(op, on_chip=tuple(part for part in UPDATED if part in parts))
        case VectorOp():
            read, write = sum(use.read for use in uses), sum(use.write for use in uses)
            return replace(op, chip_read=read, chip_write=write)
        case MatrixOp():
            raise AssertionError("a schedule places every matrix op")
        case _:
            assert_never(op)
