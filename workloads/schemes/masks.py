"""N:M selection by magnitude on tensors, at memory speed, and the compact form of what was selected.

Tensors are looked at as [outer, length, inner]; groups of M lie along ``length``, the last of them may be shorter. The
rule is that of SORE (docs/design/machine.md): magnitude is the word without its sign, equal magnitudes keep the lower
index, NaN counts as the largest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt
import torch
from numba import njit
from torch import Tensor

from ..errors import InputError
from ..sparsity import NMPattern

__all__ = [
    "BUBBLE", "CompactWeight", "grouped", "largest", "largest_by_sorting", "mask_of_largest", "pack", "soft_threshold",
    "ungrouped",
]  # fmt: skip

BUBBLE = 255
"""Index of a slot without an element."""

_WORDS = {
    torch.float16: torch.int16, torch.bfloat16: torch.int16, torch.float32: torch.int32, torch.float64: torch.int64,
}  # fmt: skip
_LANES = 128
"""Groups that one sweep of the kernel works on side by side, so that it compiles to vector instructions."""
_SWEEP = 1024
"""Elements that are ranked at a time, so that they stay in the first-level cache."""

View = tuple[int, int, int]
F = TypeVar("F", bound=Callable[..., Any])


def kernel(function: F) -> F:
    # All kernels that call each other stand in this file: Numba's cache watches the file of the cached function only.
    return cast(F, njit(cache=True, error_model="numpy")(function))


def largest(x: Tensor, view: View, pattern: NMPattern) -> Tensor:
    """``x`` with zeros but for the ``min(keep, length)`` largest magnitudes of every group; same shape and dtype."""
    words, made = _words(x)
    if x.device.type != "cpu":
        return torch.where(largest_by_sorting(x, view, pattern), made, 0)
    out = made.clone()
    _drop_the_rest(_flat(words), _flat(out.view(words.dtype)), *view, pattern.keep, pattern.group)
    return out


def mask_of_largest(x: Tensor, view: View, pattern: NMPattern) -> Tensor:
    """Where :func:`largest` keeps ``x``; bool, same shape."""
    if x.device.type != "cpu":
        return largest_by_sorting(x, view, pattern)
    words, _ = _words(x)
    out = torch.ones(x.shape, dtype=torch.bool)
    _drop_the_rest(_flat(words), _flat(out), *view, pattern.keep, pattern.group)
    return out


def largest_by_sorting(x: Tensor, view: View, pattern: NMPattern) -> Tensor:
    """:func:`mask_of_largest` by a stable sort of every group: the obvious twin, and the way on a GPU."""
    words, _ = _words(x)
    magnitude = words & torch.iinfo(words.dtype).max
    order = grouped(magnitude, view, pattern.group, fill=-1).argsort(dim=2, descending=True, stable=True)
    mask = torch.zeros(order.shape, dtype=torch.bool, device=x.device)
    mask.scatter_(2, order[:, :, : pattern.keep], True)
    return ungrouped(mask, view, x.shape)


def soft_threshold(x: Tensor, view: View, pattern: NMPattern) -> Tensor:
    """sign(x) max(|x| - t, 0), where t is the largest magnitude that its group drops (S-STE, arXiv 2409.09099).

    A group at 2:4 loses its second smallest magnitude; a tie with t leaves fewer than ``keep``.
    """
    dropped = x.masked_fill(mask_of_largest(x, view, pattern), 0).abs()
    groups = grouped(dropped, view, pattern.group)
    threshold = ungrouped(groups.amax(dim=2, keepdim=True).expand_as(groups), view, x.shape)
    return x.sign() * (x.abs() - threshold).clamp_min(0)


def grouped(x: Tensor, view: View, group: int, fill: float = 0) -> Tensor:
    """``x`` as [outer, groups, group, inner], the short last group filled up."""
    outer, length, inner = view
    short = -length % group
    flat = x.reshape(outer, length, inner)
    if short:
        flat = torch.nn.functional.pad(flat, (0, 0, 0, short), value=fill)
    return flat.reshape(outer, -(-length // group), group, inner)


def ungrouped(groups: Tensor, view: View, shape: torch.Size) -> Tensor:
    """Inverse of :func:`grouped`."""
    outer, length, inner = view
    return groups.reshape(outer, groups.shape[1] * groups.shape[2], inner)[:, :length].reshape(shape)


def _words(x: Tensor) -> tuple[Tensor, Tensor]:
    """The bits of ``x`` as signed integers, and the contiguous tensor they belong to."""
    if x.dtype not in _WORDS:
        raise InputError(f"N:M selection is for floating tensors, not {x.dtype}")
    made = x.detach().contiguous()
    return made.view(_WORDS[x.dtype]), made


def _flat(x: Tensor) -> npt.NDArray[Any]:
    array: npt.NDArray[Any] = x.numpy().reshape(-1)
    return array


@kernel
def _take(words: Any, keep: Any, best: Any, sunk: Any, take: Any) -> None:
    """Mark in ``take`` [group, lanes] the ``keep`` largest of ``words`` [group, lanes], the earlier of equal ones.

    ``best`` [keep, lanes] is held in falling order: a word sinks through it, and the last row ends as the smallest word
    kept. Of the words equal to that one the first are taken until ``keep`` are.
    """
    group, lanes = words.shape
    best[:] = -1
    for j in range(group):
        # The loops differ so that each works in place or on separate rows: else the compiler must go word by word.
        row, word = best[0], words[j]
        for lane in range(lanes):
            held = row[lane]
            row[lane] = max(held, word[lane])
            sunk[lane] = min(held, word[lane])
        for rank in range(1, keep):
            row = best[rank]
            for lane in range(lanes):
                held, sinking = row[lane], sunk[lane]
                row[lane] = max(held, sinking)
                sunk[lane] = min(held, sinking)
    least, left = best[keep - 1], sunk
    left[:] = keep
    for j in range(group):
        row = words[j]
        for lane in range(lanes):
            left[lane] -= row[lane] > least[lane]
    for j in range(group):
        row, taken = words[j], take[j]
        for lane in range(lanes):
            equal = (row[lane] == least[lane]) & (left[lane] > 0)
            left[lane] -= equal
            taken[lane] = equal | (row[lane] > least[lane])


@kernel
def _drop_rows(
    words: Any, out: Any, outer: Any, length: Any, inner: Any, begin: Any, count: Any, group: Any, keep: Any
) -> None:
    """The same for the ``count`` groups of one length that start at ``begin``; lanes lie side by side along inner."""
    best, sunk = np.empty((keep, _LANES), words.dtype), np.empty(_LANES, words.dtype)
    held, take = np.zeros((group, _LANES), words.dtype), np.empty((group, _LANES), words.dtype)
    magnitude = np.iinfo(words.dtype).max
    for block in range(outer * count):
        start = ((block // count) * length + begin + (block % count) * group) * inner
        for first in range(0, inner, _LANES):
            used = min(_LANES, inner - first)
            for j in range(group):
                at = start + j * inner + first
                source, row = words[at : at + used], held[j]
                for lane in range(used):
                    row[lane] = source[lane] & magnitude
            _take(held, keep, best, sunk, take)
            for j in range(group):
                at = start + j * inner + first
                target, taken = out[at : at + used], take[j]
                for lane in range(used):
                    target[lane] = target[lane] if taken[lane] else 0


@kernel
def _drop_ranked(
    words: Any, out: Any, outer: Any, length: Any, inner: Any, begin: Any, count: Any, group: Any, keep: Any
) -> None:
    """The same where inner is short: every element counts the larger ones of its group, M - 1 sweeps as they lie."""
    size = group * inner
    most = max(_SWEEP // size, 1)
    held, place = np.empty(most * size, words.dtype), np.empty(most * size, np.int16)
    # How many of those before and behind an element go first; two rows, as each sweep writes both, one of them shifted.
    before, behind = np.empty(most * size, np.int16), np.empty(most * size, np.int16)
    for i in range(most * size):
        place[i] = (i // inner) % group
    magnitude = np.iinfo(words.dtype).max
    block, blocks = 0, outer * count
    while block < blocks:
        used = min(most, blocks - block)
        if count * group < length:
            used = min(used, count - block % count)
        start, n = ((block // count) * length + begin + (block % count) * group) * inner, used * size
        source, target = words[start : start + n], out[start : start + n]
        for i in range(n):
            held[i] = source[i] & magnitude
            before[i] = 0
            behind[i] = 0
        for step in range(1, group):
            shift = step * inner
            later, smaller = held[shift:n], before[shift:n]
            for i in range(n - shift):
                inside = place[i] < group - step
                larger = later[i] > held[i]
                behind[i] += inside & larger
                smaller[i] += inside & (not larger)
        for i in range(n):
            target[i] = target[i] if before[i] + behind[i] < keep else 0
        block += used


@kernel
def _drop_the_rest(words: Any, out: Any, outer: Any, length: Any, inner: Any, keep: Any, group: Any) -> None:
    """Zero ``out`` wherever the group of ``words`` drops its element; both flat, [outer, length, inner]."""
    whole = length // group
    for begin, count, size in ((0, whole, group), (whole * group, 1, length % group)):
        if keep >= size or count == 0:
            continue
        if inner >= _LANES // 4:
            _drop_rows(words, out, outer, length, inner, begin, count, size, keep)
        else:
            _drop_ranked(words, out, outer, length, inner, begin, count, size, keep)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CompactWeight:
    """N:M weight of one pass as (value, index) pairs; ``groups`` products of contraction ``k`` in runs of ``run``.

    ``values`` float16 [groups, slots, n] and ``indices`` uint8 [groups, slots, n] hold the kept elements of every N:M
    group in index order, ``min(keep, length)`` slots each; a slot without an element holds -0.0 with index 255, last in
    its group. ``order``: output channel that stands at each place of the contraction, where it is not that of storage.
    """

    values: npt.NDArray[np.float16]
    indices: npt.NDArray[np.uint8]
    pattern: NMPattern
    k: int
    run: int
    order: npt.NDArray[np.int64] | None = None


def pack(
    values: npt.NDArray[Any],
    mask: npt.NDArray[Any],
    pattern: NMPattern,
    run: int,
    order: npt.NDArray[np.int64] | None = None,
) -> CompactWeight:
    """Compact ``values`` float16 [groups, k, n] where ``mask`` is True; at most ``keep`` of every N:M group."""
    k = values.shape[1]
    found: list[npt.NDArray[Any]] = []
    index: list[npt.NDArray[Any]] = []
    for base in range(0, k, run):
        for begin in range(base, base + run, pattern.group):
            end = min(begin + pattern.group, base + run)
            kept = mask[:, begin:end]
            if (kept.sum(axis=1) > pattern.keep).any():
                raise InputError(f"operand is not {pattern} along its contraction: {kept.sum(axis=1).max()} are kept")
            # Kept elements first, in index order.
            slots = np.argsort(~kept, axis=1, kind="stable")[:, : min(pattern.keep, end - begin)]
            empty = ~np.take_along_axis(kept, slots, axis=1)
            found.append(np.where(empty, np.float16(-0.0), np.take_along_axis(values[:, begin:end], slots, axis=1)))
            index.append(np.where(empty, BUBBLE, slots).astype(np.uint8))
    return CompactWeight(
        values=np.concatenate(found, axis=1), indices=np.concatenate(index, axis=1),
        pattern=pattern, k=k, run=run, order=order,
    )  # fmt: skip
