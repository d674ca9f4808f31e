"""How long lanes take for lines of given lengths, in slots; a slot is what a lane takes for one kept element.

A line takes a slot an element, and one if it has none, so that its zeros leave. Where no lane waits for a bank,
`static` and `sorted` have a closed form in these lengths, and where lanes walk over all banks in turn. Otherwise there
are bounds, and `simulator/gather.py` steps the mask.
"""

from __future__ import annotations

from typing import NamedTuple, assert_never

import numpy as np
import numpy.typing as npt

from ...workloads.unstructured import Histogram
from ..accelerator import AcceleratorSpec
from ..account import Cycles
from ..integers import ceil_div
from .mapping import require_gather
from .spec import READ_LATENCY, GatherSpec

__all__ = ["Slots", "gather_cycles", "ramp", "slot_cycles", "slots_of", "slots_of_lines"]

Int64 = npt.NDArray[np.int64]


class Slots(NamedTuple):
    """No run takes less than ``least``, none more than ``most``; equal where that is known."""

    least: int
    most: int


def _in_turn(own: GatherSpec, walk: int, shortest: int) -> bool:
    """Whether all lanes walk over all banks in turn, as groups begin at bank 0 and end at the last one.

    All ask bank 0 first: lane i waits i slots, once. From there on each is at a bank of its own.
    """
    return own.banks > 0 and own.lanes <= own.banks and walk % own.banks == 0 and shortest > 0


def slots_of(own: GatherSpec, known: Histogram, walk: int = 1) -> Slots:
    """Slots for lines of which only the lengths are known, not their order.

    ``walk``: every line takes so many places side by side one after the other, beginning at a multiple of it.
    """
    work, lines = np.maximum(known.kept, 1)[::-1], known.lines[::-1]
    ends = np.cumsum(lines)
    total, longest, count = int(work @ lines), int(work[0]), int(ends[-1])
    least = max(ceil_div(total, own.lanes), longest)
    in_turn = _in_turn(own, walk, int(known.kept[0]))
    match own.balance:
        case "sorted":
            # Lane 0 has the longest line of every round.
            rounds = -(-ends // own.lanes)
            least = most = int(work @ np.diff(rounds, prepend=0))
            if in_turn:
                lane = np.arange(min(own.lanes, count))[:, None]
                mine = np.maximum(-(-(ends - lane) // own.lanes), 0)
                least = most = _last(np.diff(mine, prepend=0) @ work)
        case "static":
            # The longest lines could all be on one lane.
            upto = np.minimum(ends, ceil_div(count, own.lanes))
            most = int(work @ np.diff(upto, prepend=0))
        case "stealing":
            # Of the line that ends last all lanes were busy when it began (Graham 1966).
            most = (total - longest) // own.lanes + longest
        case _:
            assert_never(own.balance)
    if own.banks == 0:
        return Slots(least, most)
    if not in_turn:
        return Slots(least, total)
    return Slots(least, most if own.balance == "sorted" else most + min(own.lanes, count) - 1)


def _last(work: Int64) -> int:
    """The slot in which the last lane is done, of lanes of ``work`` slots, int64 [lanes], of which lane i waits i."""
    return int((work + np.arange(len(work))).max())


def slots_of_lines(own: GatherSpec, kept: Int64, walk: int = 1) -> Slots:
    """Slots for lines that keep ``kept`` elements each, int64 [lines], in their order; ``walk`` as of `slots_of`."""
    values, many = np.unique(kept, return_counts=True)
    known = slots_of(own, Histogram(values.astype(np.int64), many.astype(np.int64)), walk)
    if own.balance != "static":
        return known
    work = np.maximum(kept, 1)
    by_lane = np.pad(work, (0, -len(work) % own.lanes)).reshape(-1, own.lanes).sum(axis=0)[: len(work)]
    if _in_turn(own, walk, int(kept.min())):
        last = _last(by_lane)
        return Slots(last, last)
    least = int(by_lane.max())
    return Slots(least, least if own.banks == 0 else known.most)


def slot_cycles(spec: AcceleratorSpec, columns: int) -> tuple[int, int]:
    """Cycles of a slot over so many columns of the dense operand that issue, and those until their sums are back."""
    issue = ceil_div(columns, require_gather(spec).width)
    return issue, max(issue, spec.pe.add_latency) - issue


def ramp(spec: AcceleratorSpec) -> int:
    """Cycles before the first multiply, and from the end of the last slot until its sums are there."""
    return READ_LATENCY + spec.mac_latency


def gather_cycles(spec: AcceleratorSpec, slots: int, columns: int) -> Cycles:
    """Cycles of so many ``slots`` over ``columns`` of the dense operand, with unlimited buffers and memory."""
    issue, wait = slot_cycles(spec, columns)
    return Cycles(compute=slots * issue, interleave_stall=slots * wait, fill_drain=ramp(spec))
