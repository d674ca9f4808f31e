"""What the order of a spanning tree (`workloads/spanning_tree.py`) costs, beside what it saves.

Which places differ must be stored, levels of the tree wait for each other, and a lane reads its bits by index instead
of word by word.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from ..workloads.errors import require_int
from ..workloads.spanning_tree import ROOT, SpanningTree
from .integers import ceil_div

__all__ = ["TreeCost", "TreeEngine", "tree_cost"]

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeEngine:
    """``lanes`` that each compare ``word_bits`` indexed bits a cycle; ``positions`` inputs are held at once."""

    lanes: int
    word_bits: int
    positions: int = 1

    def __post_init__(self) -> None:
        for field in fields(self):
            require_int(f"{field.name} of a tree engine", getattr(self, field.name), 1, 2**20)


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeCost:
    """The tree beside the plain layer, for one output position; layers, and groups of one, add up.

    ``compared``: bits. ``stored``: bits of weights, where every edge takes the shorter of a list of indices and a mask;
    ``held``: what a lane reads of them, an index, a sign and a mask bit for each place, edges in whole words.
    ``cycles``: of a block of positions. ``levels``: those that wait for each other. ``*_plain``: of the channels by
    themselves, on the same lanes.
    """

    compared: int
    compared_plain: int
    stored: int
    stored_plain: int
    held: int
    cycles: int
    cycles_plain: int
    levels: int

    def __add__(self, other: TreeCost) -> TreeCost:
        return TreeCost(**{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)})


def tree_cost(tree: SpanningTree, engine: TreeEngine) -> TreeCost:
    """What ``tree`` costs on ``engine``, and all channels by themselves on the same lanes."""
    channels, edges = len(tree.parent), tree.distance[tree.parent != ROOT]
    index, name = (tree.k - 1).bit_length(), (channels - 1).bit_length()
    listed = np.minimum(edges * index, tree.k) + name + 1 + bool(tree.inverted.any())  # a bit says which it is
    plain = ceil_div(tree.k, engine.word_bits)
    words = int((-(-tree.distance // engine.word_bits)).sum())
    return TreeCost(
        compared=int(tree.distance.sum()),
        compared_plain=channels * tree.k,
        stored=tree.k + int(listed.sum()),
        stored_plain=channels * tree.k,
        held=words * engine.word_bits * (index + 2),
        cycles=sum(_level(tree.distance[level], engine) for level in tree.levels),
        cycles_plain=ceil_div(channels * engine.positions, engine.lanes) * plain,
        levels=len(tree.levels),
    )


def _level(distance: Int64, engine: TreeEngine) -> int:
    """Cycles of a level: its channels, each at all positions, are dealt to the lanes in turn; one more writes back."""
    beats = np.repeat(-(-distance // engine.word_bits), engine.positions)
    lane = np.arange(len(beats)) % engine.lanes
    return int(np.bincount(lane, beats).max()) + 1
