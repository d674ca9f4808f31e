"""The tensors of a step that cross memory from the op that makes them to those that read them, fused or not."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from ...workloads.step import MatrixOp, VectorOp, Workload
from .facts import Facts
from .fuse import Account, as_fused
from .groups import Groups

__all__ = ["Crossing", "crossings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Crossing:
    """A tensor, by its place in ``Workload.tensors``, that op ``made`` writes whole. ``read``: who reads it whole, and
    as which tensor (a cast may be the same). ``first``: when its trip is made. ``bits``: it takes a bit an element."""

    tensor: int
    first: int
    made: int
    read: tuple[tuple[int, int], ...]
    bits: bool


def crossings(workload: Workload) -> list[Crossing]:
    """Those that are made and read within the step, in order; not what a later step reads, nor what anybody reads or
    writes in parts, nor gradients of parameters."""
    if workload.phase.cached or not workload.tensors:
        return []
    facts, groups = as_fused(workload)
    moved = _Moved(facts, groups)
    return [
        Crossing(
            tensor=tensor,
            first=min(made, moved.heads.get(made, made)),
            made=made,
            read=tuple(moved.read[tensor]),
            bits=tensor in groups.bits,
        )
        for tensor, made in sorted(moved.made.items(), key=lambda pair: (pair[1], pair[0]))
        if moved.read[tensor] and tensor not in moved.in_parts and tensor not in groups.constants
    ]


class _Moved:
    """Who writes and who reads each tensor in memory."""

    def __init__(self, facts: Facts, groups: Groups) -> None:
        self._facts, self._same = facts, groups.same
        self.heads = {i: group.head for group in groups.groups for i in group.ops}
        self.made: dict[int, int] = {}
        self.read = defaultdict[int, list[tuple[int, int]]](list)
        self.in_parts: set[int] = set()
        account = Account(facts, groups)
        for group in groups.groups:
            for i, _, given, left, _ in account.touched(group):
                self._reads(i, given)
                self.made.update(dict.fromkeys(left, i))
            written = account.written_by_head(group) if group.product else None
            if written is not None:
                self.made[written] = group.head
        for i, op in enumerate(facts.ops):
            made = facts.made.get(i, ())
            if isinstance(op, MatrixOp):
                self._reads(i, self._all(i))
                if i not in self.heads and len(made) == 1:
                    self.made[made[0]] = i
            elif not isinstance(op, VectorOp):
                self._reads(i, None)
            elif i not in self.heads:
                self._reads(i, self._all(i) if facts.reads_whole[i] else None)
                if facts.writes_whole[i]:
                    self.made.update(dict.fromkeys(made, i))

    def _all(self, i: int) -> dict[int, int]:
        return {self._same.get(t, t): t for t in self._facts.read.get(i, ())}

    def _reads(self, i: int, given: dict[int, int] | None) -> None:
        if given is None:
            self.in_parts.update(self._all(i))
            return
        for stored, tensor in given.items():
            self.read[stored].append((i, tensor))
