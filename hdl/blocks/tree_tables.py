"""What the tables of a `TreeUnit` hold for a tree: tasks and words of places of every lane, and where counts end up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ...dataflow.tree_spec import TreeSpec
from ...workloads.errors import InputError
from ...workloads.spanning_tree import ROOT, SpanningTree
from .tree_lane import INPUT_BITS, TreeFormat

__all__ = ["Place", "TreeTables", "input_words", "tree_tables"]

Bits = npt.NDArray[np.bool_]
Int64 = npt.NDArray[np.int64]
Place = tuple[int, int]
"""A lane and a slot of it."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TreeTables:
    """``tasks`` and ``words`` of each lane, in the bits of `TreeFormat`; ``levels`` of the run, those without a task
    among them. int64 [positions, channels]: ``lane`` and ``slot`` of every count, bool [channels] ``inverted``: it is
    to be inverted. ``own``, bool [channels]: it is made; else it is that of an ancestor from which nothing differs.
    """

    levels: int
    length: int
    tasks: list[list[int]]
    words: list[list[int]]
    lane: Int64
    slot: Int64
    inverted: Bits
    own: Bits


def tree_tables(spec: TreeSpec, tree: SpanningTree, weights: Bits) -> TreeTables:
    """The tables for ``weights``, bool [channels, k], whose tree it is; `InputError` where the unit does not hold them.

    Tasks are dealt as `TreeEngine` has it: those of a level, channel by channel and position by position, to the lanes
    in turn. A channel that differs nowhere from its parent takes no task.
    """
    f = TreeFormat(spec)
    _require_fits("bits of an input", tree.k, "tree.inputs", spec.inputs)
    source, flipped = _sources(tree)
    levels = tree.levels
    lane, slot = (np.zeros((spec.positions, len(source)), np.int64) for _ in range(2))
    tasks: list[list[int]] = [[] for _ in range(spec.lanes)]
    words: list[list[int]] = [[] for _ in range(spec.lanes)]
    for number, level in enumerate(levels):
        starts: dict[Place, int] = {}
        dealt = [(c, p) for c in level.tolist() for p in range(spec.positions)]
        for i, (c, p) in enumerate(dealt):
            on = i % spec.lanes
            if source[c] != c:
                continue
            if (on, c) not in starts:
                starts[on, c] = len(words[on])
                words[on] += _words(f, tree, weights, c)
            lane[p, c], slot[p, c] = on, len(tasks[on])
            above = 0 if tree.parent[c] == ROOT else int(source[tree.parent[c]])
            inverted = bool(tree.inverted[c] ^ flipped[tree.parent[c]])
            fields = {"level": number, "start": starts[on, c], "position": p, "slot": slot[p, above]}
            tasks[on].append(_pack(f.task, fields | {"lane": lane[p, above]} | _sum(f, tree, c, inverted)))
    _require_fits("levels of the tree", len(levels), "what the unit counts", (1 << f.level) - 1)
    _require_fits("counts of a lane", max(map(len, tasks)), "tree.tasks", spec.tasks)
    _require_fits("words of a lane", max(map(len, words)), "tree.words", spec.words)
    for of in tasks:
        of.append(_pack(f.task, {"level": (1 << f.level) - 1}))
    return TreeTables(
        levels=len(levels),
        length=tree.k,
        tasks=tasks,
        words=words,
        lane=lane[:, source],
        slot=slot[:, source],
        inverted=flipped,
        own=source == np.arange(len(source)),
    )


def _require_fits(what: str, found: int, where: str, has: int) -> None:
    if found > has:
        raise InputError(f"{found:,} {what}, but {where} is {has:,}")


def _sources(tree: SpanningTree) -> tuple[Int64, Bits]:
    """The channel whose count each one's is, and whether inverted: its own, unless nothing differs from its parent."""
    source, flipped = np.arange(len(tree.parent)), np.zeros(len(tree.parent), np.bool_)
    for c in np.argsort(tree.depth, kind="stable").tolist():
        parent = tree.parent[c]
        if parent != ROOT and tree.distance[c] == 0:
            source[c], flipped[c] = source[parent], flipped[parent] ^ tree.inverted[c]
    return source, flipped


def _words(f: TreeFormat, tree: SpanningTree, weights: Bits, channel: int) -> list[int]:
    """The places that a channel compares, in words; what is left of the last one is masked."""
    parent, width = int(tree.parent[channel]), f.spec.word_bits
    differs = (
        np.ones(tree.k, np.bool_) if parent == ROOT else weights[channel] ^ weights[parent] ^ tree.inverted[channel]
    )
    places = np.flatnonzero(differs)
    made = []
    for at in range(0, len(places), width):
        of = places[at : at + width].tolist()
        place = sum(p << f.place * i for i, p in enumerate(of))
        sign = sum(int(weights[channel, p]) << i for i, p in enumerate(of))
        made.append(_pack(f.word, {"place": place, "sign": sign, "mask": (1 << len(of)) - 1}))
    return made


def _sum(f: TreeFormat, tree: SpanningTree, channel: int, inverted: bool) -> dict[str, int]:
    """How the count of a task is made of its parent's."""
    whole, distance = bool(tree.parent[channel] == ROOT), int(tree.distance[channel])
    offset = 0 if whole else (tree.k - distance if inverted else -distance)
    return {
        "beats": -(-distance // f.spec.word_bits) - 1,
        "whole": whole,
        "inverted": inverted and not whole,
        "offset": offset % (1 << f.count),
    }


def _pack(layout: Any, values: dict[str, int]) -> int:
    """A value of ``layout``, fields that are not given 0."""
    packed = 0
    for name, value in values.items():
        field = layout[name]
        if field.width:
            packed |= int(value) << field.offset
    return packed


def input_words(spec: TreeSpec, inputs: Bits) -> tuple[list[int], list[int]]:
    """Addresses and contents of the input memory for ``inputs``, bool [positions, k]."""
    f = TreeFormat(spec)
    rows = max(f.place - (INPUT_BITS - 1).bit_length(), 0)
    addresses, contents = [], []
    for p, bits in enumerate(inputs.tolist()):
        for word in range(-(-len(bits) // INPUT_BITS)):
            part = bits[word * INPUT_BITS : (word + 1) * INPUT_BITS]
            addresses.append(p << rows | word)
            contents.append(sum(int(bit) << i for i, bit in enumerate(part)))
    return addresses, contents
