"""The update with SORE right behind it: master, state, compact copies, and exact cycles (docs/design/machine.md)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ..dataflow.accelerator import AcceleratorSpec
from ..dataflow.pregenerate import COPIES, Copy, Line, TilePlan, WeightShape, line_order, tile_plan, walk
from ..dataflow.streams import pregenerate_streams
from ..workloads.errors import InputError
from ..workloads.sparsity import NMPattern
from .engines import SoreRun, WuveRun, run_sore, run_wuve
from .operand import Half
from .stalls import Bools
from .streams import clocked_beats
from .update_settings import UpdateSettings

__all__ = ["PregenerateRun", "run_pregenerate"]

Single = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PregenerateRun:
    """What leaves WUVE and, for each compact copy asked for, SORE; all cycles count from the start of the run."""

    update: WuveRun
    copies: dict[Copy, SoreRun]
    cycles: int


def run_pregenerate(
    spec: AcceleratorSpec,
    settings: UpdateSettings,
    pattern: NMPattern,
    shape: WeightShape,
    master: Single,
    gradient16: Half,
    state: tuple[Single, ...],
    copies: Sequence[Copy] = COPIES,
    *,
    offered: Bools | None = None,
    ready: Bools | None = None,
) -> PregenerateRun:
    """Update a weight, stored as [taps, inputs, outputs], and compress it for the passes in ``copies``.

    The vectors are those of `run_wuve`: float32 [n], the gradient float16 or bfloat16 [n]. A copy has the contraction
    of its pass in runs of the channels under a tap: ``ff`` [taps x inputs, outputs], ``bp`` [taps x outputs, inputs].
    What the engines make does not depend on the order in which they are given it; when it leaves does. ``offered`` and
    ``ready`` as of `run_streams`, whose outputs are updated parameters and pairs; by default always.
    """
    plan = tile_plan(spec, settings.rule, pattern, len(copies))
    order = walk(plan, pattern, shape, copies)
    if len(master) != shape.elements:
        raise InputError(f"master has {len(master)} elements, but {shape} has {shape.elements}; they must be equal")
    update = run_wuve(spec, settings, master, gradient16, state)
    weight = update.weights16.reshape(shape.taps, shape.inputs, shape.outputs)
    made = {}
    for place, (copy, line) in enumerate(zip(copies, line_order(plan, pattern, shape, order, copies), strict=True)):
        run, columns = shape.contraction(copy)
        operand = weight if copy == "ff" else weight.transpose(0, 2, 1)
        alone = run_sore(spec, np.ascontiguousarray(operand.reshape(-1, columns)), pattern, run)
        left = _pairs_left(spec, plan, pattern, alone, line, place)
        made[copy] = replace(alone, left=left)
    beats = np.arange(plan.blocks * pattern.group**2) // spec.wuve.lanes
    cycle = plan.depth + plan.distance * np.arange(len(order))[:, None] + beats
    left = np.zeros(shape.elements + 1, np.int64)
    left[order.reshape(len(order), -1)] = cycle
    cycles = plan.first_step(len(order) - 1) + plan.reduce + plan.tail
    if offered is not None or ready is not None:
        streams, entering = pregenerate_streams(spec, pattern, plan), plan.fill * len(order)
        left, cycles = clocked_beats(streams, entering, left, 0, offered, ready)
        made = {
            copy: replace(run, left=clocked_beats(streams, entering, run.left, 1, offered, ready)[0])
            for copy, run in made.items()
        }
    return PregenerateRun(
        update=replace(update, left=left[:-1], cycles=int(left[:-1].max()) + 1),
        copies={copy: replace(run, cycles=int(run.left.max()) + 1) for copy, run in made.items()},
        cycles=cycles,
    )


def _pairs_left(
    spec: AcceleratorSpec, plan: TilePlan, pattern: NMPattern, alone: SoreRun, line: Line, place: int
) -> npt.NDArray[np.int64]:
    """When each pair of a copy leaves, int64 [slots, n]: rounds at once, tiles at the distance of the plan."""
    serial = spec.sore.kind == "serial"
    tiles, rounds, _ = line.group.shape
    before = place * rounds + np.arange(rounds)
    taken = plan.first_step(0) + plan.distance * np.arange(tiles)[:, None] + before * (pattern.group if serial else 1)
    first = taken + (pattern.group if serial else plan.tail)
    cut, there = alone.compact.cut, line.group >= 0
    by_group = np.zeros((len(cut.start), alone.compact.n), np.int64)
    by_group[line.group[there], line.column[there]] = np.broadcast_to(first[:, :, None], line.group.shape)[there]
    pair: Any = np.arange(int(cut.kept.sum())) - np.repeat(cut.first_slot, cut.kept)
    return np.repeat(by_group, cut.kept, axis=0) + (pair[:, None] if serial else 0)
