"""What describes the unit of a machine that computes binary channels in the order of a spanning tree."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from ..workloads.errors import InputError
from .ranges import Range, require_ranges

__all__ = ["TreeSpec", "require_tree"]

_STRICT = {"extra": "forbid"}


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeSpec:
    """``lanes`` that each compare ``word_bits`` indexed bits a cycle, of ``positions`` inputs of up to ``inputs`` bits.

    A lane keeps up to ``tasks`` counts, a channel at a position each, and ``words`` of places. It is a unit for
    inference with fixed weights: a training step runs nothing on it.
    """

    __pydantic_config__ = _STRICT
    lanes: Annotated[int, Range(1, 256, "lanes")]
    word_bits: Annotated[int, Range(1, 256, "bits a cycle")]
    positions: Annotated[int, Range(1, 256, "inputs at once")] = 1
    inputs: Annotated[int, Range(1, 2**16, "bits")] = 1024
    tasks: Annotated[int, Range(1, 2**16, "counts")] = 256
    words: Annotated[int, Range(1, 2**20, "words of places")] = 1024
    popcount_latency: Annotated[int, Range(1, 32, "cycles")] = 1

    def __post_init__(self) -> None:
        require_ranges(self, "tree")
        least = -(-self.positions // self.lanes)
        if self.tasks < least:
            raise InputError(
                f"tree.tasks must hold a channel at {self.positions} positions on {self.lanes} lanes, not {self.tasks}"
                f"; the nearest valid value is {least}"
            )

    @property
    def latency(self) -> int:
        """Cycles from the issue of a channel's last places to its count: places, bits, and the popcount."""
        return 2 + self.popcount_latency

    @property
    def local(self) -> bool:
        """Whether a position stays on one lane, so that no lane reads the counts of another."""
        return self.positions % self.lanes == 0


def require_tree(tree: TreeSpec | None, name: str) -> TreeSpec:
    """The unit of the machine called ``name``; one without is refused."""
    if tree is None:
        raise InputError(f"{name!r} has no unit for spanning trees: give it a table [tree]")
    return tree
