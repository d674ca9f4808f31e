"""How long lanes take for lines of given lengths, in slots; a slot is what a lane takes for one kept element.

A line takes a slot an element, and one if it has none, so that its zeros leave; a lane that holds ``interleave`` lines
gives each a slot in turn, an empty one where it has no more for it. Where no lane waits for a bank, `static` and
`sorted` have a closed form in these lengths: there is a copy for each, or all take the same row. Otherwise there are
bounds, close ones where lanes walk over all banks in turn, and `simulator/gather.py` steps the mask.
"""

from __future__ import annotations

from typing import Any, NamedTuple, assert_never

import numpy as np
import numpy.typing as npt

from ...workloads.unstructured import SINGLE, Cell, Histogram
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


def _nobody_waits(own: GatherSpec, cell: Cell) -> bool:
    """Whether every lane has a copy, or whichever lines lanes take at once keep the same places."""
    return own.banks == 0 or cell.lines % own.lanes == 0


def _in_turn(own: GatherSpec, cell: Cell, shortest: int, interleave: int) -> bool:
    """Whether all lanes walk over all banks in turn, as groups begin at bank 0 and end at the last one.

    A lane is then as far behind as it has waited, and waits once more only if another lane stays where it was. Where
    one has stayed one always is, until it has no line any more; so a lane waits at most once for each of the others.
    """
    whole = own.lanes <= own.banks and cell.places % own.banks == 0
    return interleave == 1 and whole and shortest > 0


def slots_of(own: GatherSpec, known: Histogram, cell: Cell = SINGLE, interleave: int = 1) -> Slots:
    """Slots for lines of which only the lengths are known, not their order, and what of the mask is kept alike."""
    work, lines = np.maximum(known.kept, 1)[::-1], known.lines[::-1]
    ends = np.cumsum(lines)
    total, longest, count = int(work @ lines), int(work[0]), int(ends[-1])
    held, turns = own.lanes * interleave, min(interleave, ceil_div(count, own.lanes))
    least = max(ceil_div(total, own.lanes), _ends(longest, 0, interleave))
    match own.balance:
        case "sorted":
            # Lane 0 has the longest lines of every round.
            turn = np.arange(turns)
            upto = np.maximum(-(-(ends - own.lanes * turn[:, None]) // held), 0)
            taken = np.diff(upto, prepend=0) @ work
            busiest = int(taken[0])
            least = most = int(_ends(taken, turn, interleave).max())
        case "static":
            # The longest lines could all follow each other.
            upto = np.minimum(ends, ceil_div(count, held))
            busiest = int(work @ np.diff(upto, prepend=0))
            most = _ends(busiest, turns - 1, interleave)
        case "stealing":
            # Of the line that ends last all lanes were busy when it began (Graham 1966).
            busiest, most = longest, (total - longest) // own.lanes + _ends(longest, 0, interleave)
        case _:
            assert_never(own.balance)
    # One after the other, and the empty slots of the lane that is the last.
    worst = total + busiest * (interleave - 1)
    return Slots(least, _waiting(own, known, cell, interleave, most, worst))


def _waiting(own: GatherSpec, known: Histogram, cell: Cell, interleave: int, alone: int, worst: int) -> int:
    """The most slots of lanes that wait for banks: of ``alone`` where nobody does, and ``worst`` where all may."""
    if _nobody_waits(own, cell):
        return alone
    if not _in_turn(own, cell, int(known.kept[0]), interleave):
        return worst
    waits = min(own.lanes, int(known.lines.sum())) - 1
    # Until the last line begins, lanes that steal wait for half as many on average.
    return alone + waits + (ceil_div(waits, 2) if own.balance == "stealing" else 0)


def _ends(work: Any, turn: Any, interleave: int) -> Any:
    """Slots of a lane until ``work`` elements are taken, one after the other in ``turn``, turn + interleave, ..."""
    return (work - 1) * interleave + turn + 1


def slots_of_lines(own: GatherSpec, kept: Int64, cell: Cell = SINGLE, interleave: int = 1) -> Slots:
    """Slots for lines that keep ``kept`` elements each, int64 [lines], in their order; the rest as of `slots_of`."""
    values, many = np.unique(kept, return_counts=True)
    known = Histogram(values.astype(np.int64), many.astype(np.int64))
    found = slots_of(own, known, cell, interleave)
    if own.balance != "static":
        return found
    work, held = np.maximum(kept, 1), own.lanes * interleave
    following = np.pad(work, (0, -len(work) % held)).reshape(-1, held).sum(axis=0)[: len(work)]
    least = int(_ends(following, np.arange(len(following)) // own.lanes, interleave).max())
    return Slots(least, _waiting(own, known, cell, interleave, least, found.most))


def slot_cycles(spec: AcceleratorSpec, columns: int, interleave: int = 1) -> tuple[int, int]:
    """Cycles of a slot over so many columns of the dense operand that issue, and those until their sums, to which a
    lane adds again ``interleave`` slots later, are back."""
    issue = ceil_div(columns, require_gather(spec).width)
    return issue, max(issue, ceil_div(spec.pe.add_latency, interleave)) - issue


def ramp(spec: AcceleratorSpec) -> int:
    """Cycles before the first multiply, and from the end of the last slot until its sums are there."""
    return READ_LATENCY + spec.mac_latency


def gather_cycles(spec: AcceleratorSpec, slots: int, columns: int, interleave: int = 1) -> Cycles:
    """Cycles of so many ``slots`` over ``columns`` of the dense operand, with unlimited buffers and memory."""
    issue, wait = slot_cycles(spec, columns, interleave)
    return Cycles(compute=slots * issue, interleave_stall=slots * wait, fill_drain=ramp(spec))
