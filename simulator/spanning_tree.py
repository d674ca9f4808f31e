"""A layer in the order of a spanning tree (`workloads/spanning_tree.py`), stepped on real bits, lane by lane."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..dataflow.spanning_tree import TreeEngine
from ..workloads.errors import InputError
from ..workloads.one_line import OneLine
from ..workloads.spanning_tree import ROOT, SpanningTree

__all__ = ["TreeRun", "run_tree"]

Int64 = npt.NDArray[np.int64]
Bits = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False, eq=False)
class TreeRun(OneLine):
    """``result`` int64 [positions, channels], the sums of products of -1 and +1; ``made`` int64, the cycle from 0 in
    which each of them has compared its last bits; bits compared; cycles.

    What differs nowhere from its parent is made with what comes before it on its lane, or in the first cycle of its
    level.
    """

    result: Int64
    made: Int64
    compared: int
    cycles: int


@dataclass(slots=True)
class _Count:
    """A channel at a position on its lane: where its bits are, how far it is, and the ones so far."""

    channel: int
    position: int
    places: Int64
    done: int = 0
    ones: int = 0


def run_tree(tree: SpanningTree, weights: Bits, inputs: Bits, engine: TreeEngine) -> TreeRun:
    """Step ``inputs``, bool [positions, k], through the channels of ``weights``, bool [channels, k], whose tree it is.

    As many positions as the engine holds at once; `InputError` for another number.
    """
    if inputs.shape != (engine.positions, tree.k) or weights.shape != (len(tree.parent), tree.k):
        raise InputError(
            f"the tree is of {len(tree.parent)} x {tree.k} weights and the engine holds {engine.positions} positions, "
            f"not {list(weights.shape)} weights and {list(inputs.shape)} inputs"
        )
    counts, made = (np.zeros((engine.positions, len(tree.parent)), np.int64) for _ in range(2))
    compared = cycles = 0
    for level in tree.levels:
        lanes: list[deque[_Count]] = [deque() for _ in range(engine.lanes)]
        tasks = [_Count(c, p, _places(tree, weights, c)) for c in level.tolist() for p in range(engine.positions)]
        for i, task in enumerate(tasks):
            lanes[i % engine.lanes].append(task)
        _finish(tree, lanes, counts, made, cycles)  # what differs nowhere takes no beat
        while any(lanes):
            compared += sum(_beat(lane[0], weights, inputs, engine.word_bits) for lane in lanes if lane)
            _finish(tree, lanes, counts, made, cycles)
            cycles += 1
        cycles += 1
    return TreeRun(result=2 * counts - tree.k, made=made, compared=compared, cycles=cycles)


def _places(tree: SpanningTree, weights: Bits, channel: int) -> Int64:
    parent = int(tree.parent[channel])
    if parent == ROOT:
        return np.arange(tree.k)
    return np.flatnonzero(weights[channel] != (weights[parent] ^ tree.inverted[channel]))


def _beat(task: _Count, weights: Bits, inputs: Bits, word: int) -> int:
    """A lane's cycle: the next bits of its task; how many."""
    places = task.places[task.done : task.done + word]
    task.ones += int((weights[task.channel, places] == inputs[task.position, places]).sum())
    task.done += len(places)
    return len(places)


def _finish(tree: SpanningTree, lanes: list[deque[_Count]], counts: Int64, made: Int64, cycle: int) -> None:
    """Counts of the tasks that are done in this cycle leave their lanes."""
    for lane in lanes:
        while lane and lane[0].done == len(lane[0].places):
            task = lane.popleft()
            counts[task.position, task.channel] = _sum(tree, counts, task)
            made[task.position, task.channel] = cycle


def _sum(tree: SpanningTree, counts: Int64, task: _Count) -> int:
    parent = int(tree.parent[task.channel])
    if parent == ROOT:
        return task.ones
    above = int(counts[task.position, parent])
    base = tree.k - above if tree.inverted[task.channel] else above
    return base + 2 * task.ones - len(task.places)
