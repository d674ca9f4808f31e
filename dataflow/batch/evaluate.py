"""A step on many machines, exactly as `schedule` and `simulate` have it on each of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import IntEnum
from typing import NamedTuple, assert_never

import numpy as np
from numpy.typing import NDArray

from ...workloads.errors import InputError
from ...workloads.step import Workload
from ...workloads.update_rule import UpdateRule
from ..accelerator import AcceleratorSpec
from ..engine_time import wuve_latency
from ..macro_tiles import FITS, TOO_LARGE, TOO_LONG
from ..objective import Objective
from ..stce.search import CYCLES, EDP, ENERGY, THRIFT
from ..stce.space import FREE_SPACE
from ..stce.spec import PESpec
from .amounts import ACTIONS, COUNTED, amounts_of
from .bound import LEFT_OUT
from .kernels import evaluate_rows
from .memory import Asked
from .placed import PATTERN, TOO_MANY, TOO_SLOW, UNPRICED
from .points import COLUMN, Points, PricesOf, alike_together, points_of
from .step import Step, step_of
from .xnor import engines_of_rows, in_parts

__all__ = ["Evaluated", "Status", "asked_of", "depths", "evaluate", "points_from", "steps_of"]


class Status(IntEnum):
    """Whether a step runs on a machine, and if not what is in the way of its first product that does not."""

    RUNS = FITS
    NO_ROOM = TOO_LARGE
    """No tile fits the buffers and registers; `weft.schedule` of the machine says which would do."""
    TOO_LONG = TOO_LONG
    """No mapping can be timed within 2^62 parts of a cycle; `weft.schedule` says what to change."""
    PATTERN = PATTERN
    """Groups are longer than the PEs hold; `weft.schedule` says by how much."""
    TOO_SLOW = TOO_SLOW
    """DRAM gives less than a byte in 256 cycles, which `weft.schedule` refuses."""
    TOO_MANY = TOO_MANY
    """Numbers that would leave 64 bits: cycles, of a product 2^55 or of a step 2^62, or 2^62 of an action that is asked
    for. `weft.schedule` can have it."""
    LEFT_OUT = LEFT_OUT
    """Not scheduled, since by its bound another machine is better (`front.Front`)."""
    UNPRICED = UNPRICED
    """The objective is energy or edp, and nobody can price the machine; what was asked for its prices says why."""


class Evaluated(NamedTuple):
    """A step by machine: ``status`` int64 [points], of `Status`; ``cycles`` and ``dram_bytes`` int64 [points], of the
    whole step, 0 where it does not run; ``amounts``: if they are asked for, int64 [points, actions], how often it does
    each action of `amounts.ACTIONS`, those of a chip and those of an FPGA."""

    status: NDArray[np.int64]
    cycles: NDArray[np.int64]
    dram_bytes: NDArray[np.int64]
    amounts: NDArray[np.int64] | None = None


def evaluate(
    workload: Workload,
    machines: Iterable[AcceleratorSpec] | Points,
    objective: Objective | str = Objective.THRIFT,
    prices: PricesOf | None = None,
    *,
    amounts: bool = False,
) -> Evaluated:
    """The step of ``workload`` on every machine: cycles and DRAM bytes of ``simulate(schedule(workload, machine,
    objective, prices(machine)))``, fallback to dense, vector work and updates included; ``amounts``: and what is done
    there, for energy. The objectives energy and edp need ``prices``, of `Points` when they are made.

    A machine that the step cannot run on is a `Status`. Refused are steps with a layer both under N:M and of few values
    and machines with an engine of others.
    """
    points, asked = points_from(machines, objective, prices), asked_of(objective)
    depth, done = depths(points, workload.rule), np.zeros((len(points), 3), np.int64)
    acted = np.zeros((len(points), len(ACTIONS) if amounts else 0), np.int64)
    order = alike_together(points.rows)
    for number, step in enumerate(steps_of(workload, points, objective)):
        own = order[points.family[order] == number]
        if step is None:
            done[own, 0] = Status.UNPRICED
            continue
        classes = 1 + int(step.classes[:, 0].max(initial=0)) if amounts else 0
        for some in in_parts(step, own):
            found, rows = np.zeros((len(some), 3), np.int64), points.rows[some]
            totals = np.zeros((len(some), classes, len(COUNTED)), np.int64)
            engines = engines_of_rows(step, rows, np.arange(len(some)), len(COUNTED) if amounts else 0)
            evaluate_rows(step, rows, depth[some], engines, asked, found, totals)
            if amounts:
                acted[some], held = amounts_of(totals, found[:, 1], step.classes)
                found[~held] = Status.TOO_MANY, 0, 0
            done[some] = found
    acted[done[:, 0] != Status.RUNS] = 0
    status, cycles, moved = np.ascontiguousarray(done.T)
    return Evaluated(status, cycles, moved, acted if amounts else None)


def points_from(
    machines: Iterable[AcceleratorSpec] | Points, objective: Objective | str, prices: PricesOf | None
) -> Points:
    """Machines as points, as they may be already; refuses those without the prices that an objective needs."""
    priced = Objective.named(objective).priced
    points = machines if isinstance(machines, Points) else points_of(machines, prices if priced else None)
    if priced and not points.pricings:
        raise InputError(
            f"objective {objective} needs the energy of each action; pass prices, with points when they are made, or "
            "use weft.analysis.scheduling.evaluated"
        )
    return points


def steps_of(workload: Workload, points: Points, objective: Objective | str) -> Iterator[Step | None]:
    """The step of every family of machines; None of one that nobody can price, under an objective that needs it."""
    priced = Objective.named(objective).priced
    for number, machine in enumerate(points.families):
        pricing = points.pricings[number] if priced else None
        yield None if priced and pricing is None else step_of(workload, machine, pricing)


def asked_of(objective: Objective | str) -> Asked:
    """What searches are asked under an objective."""
    goal = Objective.named(objective)
    match goal:
        case Objective.THRIFT:
            return Asked(THRIFT, FREE_SPACE)
        case Objective.CYCLES:
            return Asked(CYCLES, FREE_SPACE)
        case Objective.ENERGY:
            return Asked(ENERGY, FREE_SPACE)
        case Objective.EDP:
            return Asked(EDP, FREE_SPACE)
        case _:
            assert_never(goal)


def depths(points: Points, rule: UpdateRule) -> NDArray[np.int64]:
    """Depth of the update's pipeline, int64 [points]."""
    latencies = points.rows[:, (COLUMN["Lm"], COLUMN["La"])]
    kinds, which = np.unique(latencies, axis=0, return_inverse=True)
    found = [wuve_latency(rule, PESpec(multiply_latency=int(m), add_latency=int(a))) for m, a in kinds]
    return np.array(found, np.int64)[which.reshape(-1)]
