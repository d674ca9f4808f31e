"""The compact form of an N:M operand: (value, index-in-group) pairs in slot order, as the N2S buffer holds them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..workloads.errors import InputError, require_int
from ..workloads.one_line import OneLine
from ..workloads.sparsity import NMPattern
from .operand import ENCODINGS, RANK, Half, ranked

__all__ = [
    "BUBBLE",
    "Compact",
    "Cut",
    "compress",
    "cut",
    "decompress",
    "either",
    "from_mask",
    "require_matrix",
    "require_run",
]

BUBBLE = 255
"""Index of a pair that holds nothing: it adds -0.0 whatever the dense operand is."""

_BLOCK_ELEMENTS = 1 << 16
"""Elements packed at a time, so that the temporaries of a block stay in the cache."""

Bool = npt.NDArray[np.bool_]
Index = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)
class Cut:
    """Groups of a contraction of ``k``: where each starts, its length, the pairs it yields; int64 [groups]."""

    start: npt.NDArray[np.int64]
    length: npt.NDArray[np.int64]
    kept: npt.NDArray[np.int64]

    @property
    def first_slot(self) -> npt.NDArray[np.int64]:
        """Slot of the first pair of each group; int64 [groups]."""
        return np.cumsum(self.kept) - self.kept

    @property
    def slot_base(self) -> npt.NDArray[np.int64]:
        """Contraction index that the index of each slot counts from; int64 [slots]."""
        return np.repeat(self.start, self.kept)


def cut(pattern: NMPattern, k: int, run: int) -> Cut:
    """Cut runs of ``run`` elements into groups; the last group of a run may be shorter."""
    within = np.arange(0, run, pattern.group, dtype=np.int64)
    start = (np.arange(0, k, run, dtype=np.int64)[:, None] + within).ravel()
    length = np.tile(np.minimum(pattern.group, run - within), k // run)
    return Cut(start, length, np.minimum(pattern.keep, length))


@dataclass(frozen=True, slots=True, kw_only=True, repr=False, eq=False)
class Compact(OneLine):
    """N2S operand of contraction ``k``; one column of pairs an output column.

    ``values`` [slots, n] of any operand type and ``indices`` uint8 [slots, n] hold the kept elements of every group
    in index order, ``min(keep, length)`` slots a group; a slot without an element holds -0.0 with index ``BUBBLE``, at
    the end of its group.
    """

    values: Half
    indices: Index
    pattern: NMPattern
    k: int
    run: int

    def __post_init__(self) -> None:
        require_matrix("values of a Compact", self.values, *ENCODINGS)
        require_matrix("indices of a Compact", self.indices, np.uint8)
        require_run("run of a Compact", self.k, self.run)
        groups = self.cut
        slots = int(groups.kept.sum())
        if self.values.shape != self.indices.shape or self.values.shape[0] != slots:
            raise InputError(
                f"values and indices of a Compact have shapes {self.values.shape} and {self.indices.shape}, but k = "
                f"{self.k} in runs of {self.run} at {self.pattern} has {slots} slots; both must be [{slots}, n]"
            )
        length = np.repeat(groups.length, groups.kept)[:, None]
        outside = (self.indices >= length) & (self.indices != BUBBLE)
        if outside.any():
            slot, column = np.argwhere(outside)[0]
            raise InputError(
                f"indices of a Compact hold {self.indices[slot, column]} at slot {slot}, column {column}, "
                f"where the group has {length[slot, 0]} elements; use an index below that, or {BUBBLE} for a bubble"
            )

    @property
    def cut(self) -> Cut:
        """The groups that the slots belong to."""
        return cut(self.pattern, self.k, self.run)

    @property
    def n(self) -> int:
        """Columns."""
        return int(self.values.shape[1])

    @property
    def nan_flags(self) -> Bool:
        """Whether each group holds a NaN; bool [groups, n]."""
        with np.errstate(invalid="ignore"):  # a signalling NaN is data here
            flags: Bool = np.logical_or.reduceat(np.isnan(self.values), self.cut.first_slot, axis=0)
        return flags


def compress(b: Half, pattern: NMPattern, run: int = 0) -> Compact:
    """Keep the ``min(keep, length)`` largest magnitudes of every group of ``b`` [k, n], of any operand type.

    Magnitude is the bits below the sign, so NaN is the largest, and of an integer its value; equal magnitudes keep the
    lower index.
    """
    return _pack(b, None, pattern, run)


def from_mask(b: Half, mask: Bool, pattern: NMPattern, run: int = 0) -> Compact:
    """Keep the elements of ``b`` [k, n], of any operand type, where ``mask``, bool [k, n], is True.

    A group with fewer than its slots ends in bubbles.
    """
    require_matrix("mask", mask, np.bool_)
    if mask.shape != b.shape:
        raise InputError(f"mask has shape {mask.shape}, but b has {b.shape}; they must be equal")
    return _pack(b, mask, pattern, run)


def decompress(compact: Compact) -> Half:
    """The operand with zeros where nothing was kept; [k, n], of the dtype of the values."""
    base = compact.cut.slot_base[:, None]
    rows = np.where(compact.indices == BUBBLE, compact.k, base + compact.indices)
    dense = np.zeros((compact.k + 1, compact.n), compact.values.dtype)
    np.put_along_axis(dense, rows, compact.values, axis=0)
    return dense[: compact.k]


def require_matrix(where: str, value: object, *dtypes: type[np.generic]) -> None:
    """Refuse anything but a non-empty matrix of exactly one of ``dtypes``."""
    if not isinstance(value, np.ndarray) or value.ndim != 2 or value.dtype.type not in dtypes or not value.size:
        names = either([dtype.__name__ for dtype in dtypes])
        shown = f"{value.dtype} {list(value.shape)}" if isinstance(value, np.ndarray) else repr(type(value).__name__)
        raise InputError(f"{where} must be a non-empty matrix of {names}, not {shown}")


def either(names: Sequence[str]) -> str:
    """``a``, ``a or b``, ``a, b or c``."""
    return " or ".join([", ".join(names[:-1]), names[-1]]) if names[1:] else names[0]


def require_run(where: str, k: int, run: int) -> None:
    require_int(where, run, 1, k)
    if k % run:
        raise InputError(f"{where} must divide k, but k = {k} and run = {run}")


def _pack(b: Half, mask: Bool | None, pattern: NMPattern, run: int) -> Compact:
    """Pack whole groups and the short last groups of the runs each in one sweep."""
    require_matrix("b", b, *ENCODINGS)
    k, n = b.shape
    run = run or k
    require_run("run", k, run)
    runs, whole = k // run, run // pattern.group * pattern.group
    slots_whole, slots = pattern.kept(whole, whole or 1), pattern.kept(run, run)
    values = np.empty((runs, slots, n), b.dtype)
    indices = np.empty((runs, slots, n), np.uint8)
    for lo, hi, first, last in ((0, whole, 0, slots_whole), (whole, run, slots_whole, slots)):
        if lo == hi:
            continue
        length = min(pattern.group, hi - lo)
        part = b.reshape(runs, run, n)[:, lo:hi].reshape(-1, length, n)
        kept = None if mask is None else mask.reshape(runs, run, n)[:, lo:hi].reshape(-1, length, n)
        packed = _pack_groups(part, kept, min(pattern.keep, length), pattern)
        values[:, first:last] = packed[0].reshape(runs, -1, n)
        indices[:, first:last] = packed[1].reshape(runs, -1, n)
    return Compact(values=values.reshape(-1, n), indices=indices.reshape(-1, n), pattern=pattern, k=k, run=run)


def _pack_groups(part: Half, mask: Bool | None, slots: int, pattern: NMPattern) -> tuple[Half, Index]:
    """Groups of one length [groups, length, n] to pairs [groups, slots, n]."""
    groups, length, n = part.shape
    values = np.empty((groups, slots, n), part.dtype)
    indices = np.empty((groups, slots, n), np.uint8)
    step = max(1, _BLOCK_ELEMENTS // (length * n))
    for lo in range(0, groups, step):
        block = slice(lo, lo + step)
        if slots == length and mask is None:
            values[block] = part[block]
            indices[block] = np.arange(length, dtype=np.uint8)[:, None]
            continue
        kept = _largest(part[block], slots) if mask is None else mask[block]
        if mask is not None and int(np.count_nonzero(kept, axis=1).max()) > slots:
            group, column = np.argwhere(np.count_nonzero(kept, axis=1) > slots)[0]
            raise InputError(
                f"mask keeps {np.count_nonzero(kept[group, :, column])} of {length} elements of a group of column "
                f"{column}, but the pattern is {pattern}; keep at most {slots}"
            )
        _place(part[block], kept, values[block], indices[block])
    return values, indices


def _largest(part: Half, slots: int) -> Bool:
    """The ``slots`` largest magnitudes of each group; an element is ranked by counting those ahead of it."""
    magnitude = ranked(part) & RANK
    rank = np.zeros(part.shape, np.uint8)
    for later in range(1, part.shape[1]):
        for earlier in range(later):
            earlier_wins = magnitude[:, earlier] >= magnitude[:, later]
            rank[:, later] += earlier_wins
            rank[:, earlier] += ~earlier_wins
    return rank < slots


def _place(part: Half, kept: Bool, values: Half, indices: Index) -> None:
    """Write the kept elements of each group to its slots in index order.

    The index of a slot is the number of elements up to which no more than ``slot`` have been kept.
    """
    length = part.shape[1]
    indices[...] = 0
    used = np.zeros((part.shape[0], part.shape[2]), np.uint8)
    for j in range(length):
        used += kept[:, j]
        for slot in range(indices.shape[1]):
            indices[:, slot] += used <= slot
    values[...] = np.take_along_axis(part, np.minimum(indices, length - 1), axis=1)
    bubble = indices == length
    values[bubble] = -0.0
    indices[bubble] = BUBBLE
