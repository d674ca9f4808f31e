"""The lanes of a gather engine, stepped slot by slot over the kept elements of a mask."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .jit import kernel

Int64 = NDArray[np.int64]


class Lines(NamedTuple):
    """Kept elements line by line: where each line starts, int64 [lines + 1]; their places, int64 [kept]; the order in
    which lines are given out, int64 [lines]."""

    start: Int64
    place: Int64
    order: Int64


class Lanes(NamedTuple):
    """How many lanes and banks (0: none waits) there are; 1: the next line is for the first lane that is free."""

    lanes: int
    banks: int
    stealing: int


class Stepped(NamedTuple):
    """Slots in all; slots in which lanes waited for a bank, of all lanes together."""

    slots: int
    waited: int


@kernel
def step_lines(x: Lines, own: Lanes, done: Int64) -> Stepped:
    """Fills ``done``, int64 [lines]: the slot in which the last element of each line is taken.

    In slot s lane s mod lanes asks the banks first, then the others in their order.
    """
    count = len(x.order)
    line, at = np.full(own.lanes, -1, np.int64), np.zeros(own.lanes, np.int64)
    following = np.arange(own.lanes)
    busy_until = np.full(max(own.banks, 1), -1, np.int64)
    given = left = slot = waited = 0
    while left < count:
        for lane in range(own.lanes):
            if line[lane] >= 0:
                continue
            mine = given if own.stealing else following[lane]
            if mine < count:
                line[lane] = x.order[mine]
                at[lane] = x.start[line[lane]]
                given += 1
                following[lane] += own.lanes
        lane = slot % own.lanes
        for _ in range(own.lanes):
            mine = line[lane]
            if mine >= 0:
                end = x.start[mine + 1]
                served = True
                if own.banks and at[lane] < end:
                    bank = x.place[at[lane]] % own.banks
                    served = busy_until[bank] < slot
                    busy_until[bank] = slot
                if served:
                    at[lane] += 1
                    if at[lane] >= end:
                        done[mine] = slot
                        line[lane] = -1
                        left += 1
                else:
                    waited += 1
            lane += 1
            if lane == own.lanes:
                lane = 0
        slot += 1
    return Stepped(slot, waited)
