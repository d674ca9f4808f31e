"""Blocks between streams: beats that come late, and receivers that are not ready (docs/design/machine.md, "Streams").

A block stands still as a whole, so that its own cycles are those of a run without a wait; here they are put on the
clock.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..dataflow.streams import StreamPlan
from ..workloads.errors import InputError, require_int
from .stalls import Bools

__all__ = ["StreamRun", "clocked_beats", "run_streams"]

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StreamRun:
    """Clock cycles: ``entered`` int64 [beats] of the beats; ``open``, int64, in which one would be taken in; by output,
    int64 [beats of it], ``shown``, from which on each is there, and ``taken``, in which it is taken; the length of the
    run."""

    entered: Int64
    open: Int64
    shown: tuple[Int64, ...]
    taken: tuple[Int64, ...]
    cycles: int


def run_streams(plan: StreamPlan, beats: int, offered: Bools | None = None, ready: Bools | None = None) -> StreamRun:
    """Put ``beats`` through a block of ``plan``.

    ``offered`` bool [cycles]: in which cycles the next beat is offered; ``ready`` bool [cycles, outputs]: in which a
    beat of an output would be taken. Both are always after their last cycle.
    """
    require_int("beats", beats, 1, 2**40)
    outputs = len(plan.outputs)
    offers = _next(_require("offered", offered, (1,))[:, 0])
    takes = [_next(column) for column in _require("ready", ready, (outputs,)).T]
    entered: list[int] = []
    accepts: list[int] = []
    shown: list[list[int]] = [[] for _ in plan.outputs]
    taken: list[list[int]] = [[] for _ in plan.outputs]
    due: list[deque[int]] = [deque() for _ in plan.outputs]
    t = cycle = opens = 0
    while len(entered) < beats or any(due):
        if cycle >= opens:
            accepts.append(t)
        if len(entered) < beats and cycle >= opens and _from(offers, t) == t:
            entered.append(t)
            for coming, flow in zip(due, plan.outputs, strict=True):
                if len(entered) % flow.every == 0:
                    coming.extend(cycle + after for after in flow.after)
            if len(entered) % plan.fill == 0:
                opens = cycle + 1 + plan.pause
        latest = t
        for coming, since, at, when in zip(due, shown, taken, takes, strict=True):
            if coming and coming[0] == cycle:
                coming.popleft()
                since.append(t)
                at.append(_from(when, t))
                latest = max(latest, at[-1])
        t, cycle = latest + 1, cycle + 1
    last = max((times[-1] for times in taken if times), default=entered[-1])
    return StreamRun(
        entered=np.array(entered, np.int64),
        open=np.array(accepts, np.int64),
        shown=tuple(np.array(times, np.int64) for times in shown),
        taken=tuple(np.array(times, np.int64) for times in taken),
        cycles=last + 1,
    )


def clocked_beats(
    plan: StreamPlan, beats: int, left: Int64, output: int, offered: Bools | None, ready: Bools | None
) -> tuple[Int64, int]:
    """``left``, int64 of any shape, cycles of a run without a wait in which something leaves at ``output``, on the
    clock; and the length of the run. ``offered`` and ``ready`` as of `run_streams`."""
    at_once, run = run_streams(plan, beats), run_streams(plan, beats, offered, ready)
    return run.taken[output][np.searchsorted(at_once.taken[output], left)], run.cycles


def _require(name: str, given: Bools | None, columns: tuple[int, ...]) -> Bools:
    if given is None:
        return np.zeros((0, *columns), np.bool_)
    shape = given[:, None] if given.ndim == 1 and columns == (1,) else given
    if shape.dtype != np.bool_ or shape.ndim != 2 or shape.shape[1:] != columns:
        wanted = "bool [cycles]" if columns == (1,) else f"bool [cycles, {columns[0]}], a column for each output"
        raise InputError(f"{name} must be {wanted}, not {given.dtype} {list(given.shape)}")
    return shape


def _next(bools: Bools) -> Int64:
    """By cycle, the first from there on that is set; there is one after the last."""
    where = np.where(np.append(bools, True), np.arange(len(bools) + 1), len(bools))
    found: Int64 = np.minimum.accumulate(where[::-1])[::-1]
    return found


def _from(following: Int64, t: int) -> int:
    return int(following[t]) if t < len(following) else t
