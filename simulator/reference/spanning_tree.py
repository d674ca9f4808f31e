"""A layer in the order of a spanning tree, a bit at a time: to be read beside docs/binary.md.

Knows parents alone: levels, who compares which places on which lane, and when, are worked out here anew from Python's
integers; nothing is shared with the stepped machine or the closed forms.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["ReferenceTree", "tree_reference"]


class ReferenceTree(NamedTuple):
    """By position and channel the sum of products of -1 and +1, and the cycle of its last bits; bits, and cycles."""

    sums: list[list[int]]
    made: list[list[int]]
    compared: int
    cycles: int


def tree_reference(
    weights: Sequence[Sequence[bool]],
    parent: Sequence[int],
    inverted: Sequence[bool],
    inputs: Sequence[Sequence[bool]],
    *,
    lanes: int,
    word_bits: int,
) -> ReferenceTree:
    """``weights`` by channel and ``inputs`` by position, each of as many bits; the root is its own ``parent`` by -1.

    The channels of a level, the one of most places first, each at all positions, are dealt to the lanes in turn. A lane
    looks at ``word_bits`` places of one of them in a cycle; when the last lane has ended, a cycle more ends the level.
    """

    def generation(channel: int) -> int:
        return 0 if parent[channel] < 0 else 1 + generation(parent[channel])

    places = [_places(weights, parent[c], inverted[c], c) for c in range(len(weights))]
    sums = [[0] * len(weights) for _ in inputs]
    made = [[0] * len(weights) for _ in inputs]
    now = compared = 0
    for level in range(1 + max(map(generation, range(len(weights))))):
        of_level = sorted((c for c in range(len(weights)) if generation(c) == level), key=lambda c: -len(places[c]))
        clocks = [now] * lanes
        for turn, (c, p) in enumerate((c, p) for c in of_level for p in range(len(inputs))):
            lane = turn % lanes
            first = clocks[lane]
            for i, place in enumerate(places[c]):
                agrees = 1 if weights[c][place] == inputs[p][place] else -1
                # Where a child differs from its parent, the parent's product was the other sign: both sides change.
                sums[p][c] += agrees if parent[c] < 0 else 2 * agrees
                clocks[lane] = first + i // word_bits + 1
                compared += 1
            if parent[c] >= 0:
                sums[p][c] += -sums[p][parent[c]] if inverted[c] else sums[p][parent[c]]
            made[p][c] = max(clocks[lane] - 1, now)
        now = max(clocks) + 1
    return ReferenceTree(sums, made, compared, now)


def _places(weights: Sequence[Sequence[bool]], parent: int, inverted: bool, channel: int) -> list[int]:
    own = weights[channel]
    return [i for i in range(len(own)) if parent < 0 or (own[i] != weights[parent][i]) != inverted]
