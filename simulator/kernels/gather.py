"""The lanes of a gather engine, stepped slot by slot over the kept elements of a mask."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .jit import kernel

Int64 = NDArray[np.int64]


class Lines(NamedTuple):
    """Kept elements line by line: where each line starts, int64 [lines + 1]; the rows that they want, int32 [kept], and
    the bank of each row, uint16 [rows], none of either without banks; the order in which lines are given out, int64
    [lines]."""

    start: Int64
    row: NDArray[np.int32]
    bank: NDArray[np.uint16]
    order: Int64


class Lanes(NamedTuple):
    """How many lanes and banks (0: none waits) there are; 1: the next line is for the first lane that is free; how many
    lines a lane holds, to take an element of each in turn."""

    lanes: int
    banks: int
    stealing: int
    interleave: int


class Stepped(NamedTuple):
    """Slots in all; slots in which lanes waited for a bank, of all lanes together."""

    slots: int
    waited: int


@kernel
def kept_rows(lines: NDArray[np.bool_], row: NDArray[np.int32]) -> None:
    """Fills ``row``, int32 [kept + 1], with the places of what ``lines``, bool [lines, places], keep; one is spare."""
    at = 0
    for line in range(len(lines)):
        for place in range(lines.shape[1]):
            row[at] = place
            at += lines[line, place]


@kernel
def step_lines(x: Lines, own: Lanes, done: Int64) -> Stepped:
    """Fills ``done``, int64 [lines]: the slot in which the last element of each line is taken.

    In slot s lane s mod lanes asks the banks first, then the others in their order. A bank answers the first, and all
    who want the same row; a lane that waits keeps its turn.
    """
    count, held = len(x.order), own.lanes * own.interleave
    # Of line j of lane i at j x lanes + i, in the order in which static balance gives them out.
    line, at, following = np.full(held, -1, np.int64), np.zeros(held, np.int64), np.arange(held)
    turn = np.arange(own.lanes)
    asked, answered = np.full(own.banks, -1, np.int64), np.zeros(own.banks, np.int32)
    given = left = slot = waited = 0
    while left < count:
        for lane in range(own.lanes):
            mine = turn[lane]
            if line[mine] >= 0:
                continue
            new = given if own.stealing else following[mine]
            if new < count:
                line[mine] = x.order[new]
                at[mine] = x.start[line[mine]]
                given += 1
                following[mine] += held
        lane = slot % own.lanes
        for _ in range(own.lanes):
            mine, served = turn[lane], True
            if line[mine] >= 0:
                end = x.start[line[mine] + 1]
                if own.banks and at[mine] < end:
                    row = x.row[at[mine]]
                    bank = x.bank[row]
                    if asked[bank] < slot:
                        asked[bank], answered[bank] = slot, row
                    served = answered[bank] == row
                if served:
                    at[mine] += 1
                    if at[mine] >= end:
                        done[line[mine]] = slot
                        line[mine] = -1
                        left += 1
                else:
                    waited += 1
            if served:
                turn[lane] = mine + own.lanes if mine + own.lanes < held else lane
            lane += 1
            if lane == own.lanes:
                lane = 0
        slot += 1
    return Stepped(slot, waited)
