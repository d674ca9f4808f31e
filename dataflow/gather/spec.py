"""What describes a gather engine: lanes that take the kept elements of lines one by one (docs/gather.md)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from ..ranges import Range, require_ranges

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["READ_LATENCY", "Balance", "GatherSpec", "line_order"]

Balance = Literal["static", "sorted", "stealing"]
"""``static``: line i on lane i mod lanes. ``sorted``: the same of the lines with the longest first, as whoever stores
the operand orders them. ``stealing``: the next line to the first lane that is free, of those the first."""

READ_LATENCY = 2
"""Cycles from the place of a kept element to the line of the dense operand: its address, and the memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GatherSpec:
    """``lanes`` work on lines, with ``width`` PEs side by side along the dense operand.

    ``banks``: of the dense operand, row k in bank k mod banks, each for one row at a time; 0: every lane has a copy
    of its own in its share of the buffer, and none waits. ``interleave``: the most lines that a lane holds at once; it
    takes an element of each in turn, so that few columns need not wait for the adder.
    """

    __pydantic_config__ = {"extra": "forbid"}
    kind: ClassVar[Literal["gather"]] = "gather"
    lanes: Annotated[int, Range(1, 1024, "lines")]
    width: Annotated[int, Range(1, 1024, "PEs")]
    balance: Balance = "sorted"
    banks: Annotated[int, Range(0, 4096, "banks")] = 0
    interleave: Annotated[int, Range(1, 64, "lines"), Field(exclude_if=lambda most: most == 1)] = 1

    def __post_init__(self) -> None:
        require_ranges(self, "gather")

    @property
    def peak(self) -> int:
        """Multiply-accumulates a cycle."""
        return self.lanes * self.width


def line_order(own: GatherSpec, kept: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The order in which lines that keep ``kept`` elements, int64 [lines], are given out; int64 [lines]."""
    import numpy as np

    if own.balance == "sorted":
        return np.argsort(-kept, kind="stable")
    return np.arange(len(kept))
