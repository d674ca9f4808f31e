"""The spanning tree of the channels of a binary layer: a channel is its parent's count, corrected where their weights
differ (MST-compression: Vo et al., ICCV 2023, arXiv 2308.13735).

With ``P`` ones in the XNOR of a channel's weights and its input, ``D`` the places where child and parent differ and
``P_D`` the child's ones among these, ``P_child = P_parent + 2 P_D - |D|``: on ``D`` the XNOR of one is the inverse of
the other's. So the tree of least total Hamming distance compares the fewest bits. A child may also be made of the
inverse of its parent, ``k - P_parent``, where that is nearer (ours, an option).

Weights are those of inference: training changes the tree. A technique pulls channels together along it
(`schemes/spanning.py`); what it costs on a machine is in `dataflow/spanning_tree.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .errors import InputError
from .one_line import OneLine

__all__ = ["ROOT", "SpanningTree", "spanning_tree"]

Int64 = npt.NDArray[np.int64]
Bits = npt.NDArray[np.bool_]

ROOT = -1
"""Parent of a channel that is made of its own weights alone."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False, eq=False)
class SpanningTree(OneLine):
    """Channels of ``k`` weights each, int64 [channels] by channel: its ``parent`` or `ROOT`, the ``distance`` to it (of
    the root ``k``), its ``depth``; bool [channels] ``inverted``: made of the inverse of its parent."""

    k: int
    parent: Int64
    distance: Int64
    depth: Int64
    inverted: Bits

    @property
    def levels(self) -> list[Int64]:
        """Channels of equal depth, int64 [of the level] each, the root first; the farthest of a level first."""
        found = []
        for depth in range(int(self.depth.max()) + 1):
            level = np.flatnonzero(self.depth == depth)
            found.append(level[np.argsort(-self.distance[level], kind="stable")])
        return found


def spanning_tree(weights: Bits, *, inverse: bool = False) -> SpanningTree:
    """The tree of least total distance over ``weights``, bool [channels, k]; ``inverse``: to a parent or its inverse.

    Its root is a centre of the tree, which makes it as shallow as this tree can be.
    """
    if weights.ndim != 2 or weights.dtype != np.bool_ or 0 in weights.shape:
        raise InputError(
            f"weights must be bool [channels, k], one of each at least, not {weights.dtype} {list(weights.shape)}"
        )
    channels, k = weights.shape
    apart = _distances(weights)
    far = apart > k - apart if inverse else np.zeros_like(apart, np.bool_)
    near = np.where(far, k - apart, apart)
    edges = _edges(near)
    parent, depth = _rooted(edges, channels)
    own = np.arange(channels)
    above = np.where(parent == ROOT, own, parent)
    return SpanningTree(
        k=k,
        parent=parent,
        distance=np.where(parent == ROOT, k, near[own, above]),
        depth=depth,
        inverted=far[own, above] & (parent != ROOT),
    )


def _distances(weights: Bits) -> Int64:
    """Hamming distances, int64 [channels, channels].

    By words of bits instead of a product of signs: a training asks every step, beside its own threads.
    """
    packed = np.packbits(weights, axis=1)
    words = np.pad(packed, ((0, 0), (0, -packed.shape[1] % 8))).view(np.uint64)
    return np.stack([np.bitwise_count(words ^ row).sum(1, dtype=np.int64) for row in words])


def _edges(near: Int64) -> list[tuple[int, int]]:
    """Prim's algorithm: the nearest channel that is not in the tree yet, again and again; of equals the first."""
    least, joins = near[0].copy(), np.zeros(len(near), np.int64)
    outside = np.arange(len(near)) > 0
    found = []
    for _ in range(len(near) - 1):
        nearest = int(np.where(outside, least, np.iinfo(np.int64).max).argmin())
        found.append((int(joins[nearest]), nearest))
        outside[nearest] = False
        closer = near[nearest] < least
        least[closer], joins[closer] = near[nearest][closer], nearest
    return found


def _rooted(edges: list[tuple[int, int]], channels: int) -> tuple[Int64, Int64]:
    """Parents and depths from a centre on: the middle of a longest path, whose ends two walks find."""
    beside: list[list[int]] = [[] for _ in range(channels)]
    for one, other in edges:
        beside[one].append(other)
        beside[other].append(one)
    parent, depth = _walk(beside, 0)
    end = int(depth.argmax())
    parent, depth = _walk(beside, end)
    middle = int(depth.argmax())
    for _ in range(int(depth.max()) // 2):
        middle = int(parent[middle])
    return _walk(beside, middle)


def _walk(beside: list[list[int]], root: int) -> tuple[Int64, Int64]:
    parent, depth = np.full(len(beside), ROOT, np.int64), np.zeros(len(beside), np.int64)
    waiting = [root]
    while waiting:
        channel = waiting.pop()
        for other in beside[channel]:
            if other != parent[channel]:
                parent[other], depth[other] = channel, depth[channel] + 1
                waiting.append(other)
    return parent, depth
