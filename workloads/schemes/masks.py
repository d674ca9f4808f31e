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

from ..compiled import use_private_cache
from ..errors import InputError
from ..sparsity import NMPattern

__all__ = [
    "BUBBLE",
    "CompactWeight",
    "bits_of",
    "grouped",
    "largest",
    "largest_by_sorting",
    "mask_from",
    "mask_of_largest",
    "pack",
    "soft_threshold",
    "ungrouped",
]

BUBBLE = 255
"""Index of a slot without an element."""

_WORDS = {
    torch.float16: torch.int16,
    torch.bfloat16: torch.int16,
    torch.float32: torch.int32,
    torch.float64: torch.int64,
}
_LANES = 128
"""Groups that one sweep of the kernel works on side by side, so that it compiles to vector instructions."""

View = tuple[int, int, int]
F = TypeVar("F", bound=Callable[..., Any])


def kernel(function: F) -> F:
    use_private_cache()
    # All kernels that call each other stand in this file: Numba's cache watches the file of the cached function only.
    return cast(F, njit(cache=True, nogil=True, error_model="numpy")(function))


def _inlined(function: F) -> F:
    return cast(F, njit(nogil=True, error_model="numpy", forceinline=True)(function))


def largest(x: Tensor, view: View, pattern: NMPattern) -> Tensor:
    """``x``, of any shape and float dtype, with zeros but for the ``min(keep, length)`` largest magnitudes of every
    group."""
    made = x.detach().contiguous()
    mask = mask_of_largest(made, view, pattern)
    if x.device.type != "cpu":
        return torch.where(mask, made, 0)
    out = torch.empty_like(made)
    _fill(_flat(_words(made)), _flat(mask), _flat(_words(out)))
    return out


def mask_of_largest(x: Tensor, view: View, pattern: NMPattern) -> Tensor:
    """Where :func:`largest` keeps ``x``, of any shape and float dtype; bool, same shape."""
    if x.device.type != "cpu":
        return largest_by_sorting(x, view, pattern)
    out = torch.empty(x.shape, dtype=torch.bool)
    _mark_largest(_flat(_words(x)), _flat(out), *view, pattern.keep, pattern.group)
    return out


def largest_by_sorting(x: Tensor, view: View, pattern: NMPattern) -> Tensor:
    """:func:`mask_of_largest` by a stable sort of every group: the obvious twin, and the way on a GPU;
    bool, of any shape, that of ``x``."""
    words = _words(x)
    magnitude = words & torch.iinfo(words.dtype).max
    order = grouped(magnitude, view, pattern.group, fill=-1).argsort(dim=2, descending=True, stable=True)
    mask = torch.zeros(order.shape, dtype=torch.bool, device=x.device)
    mask.scatter_(2, order[:, :, : pattern.keep], True)
    return ungrouped(mask, view, x.shape)


def soft_threshold(x: Tensor, view: View, pattern: NMPattern) -> Tensor:
    """sign(x) max(|x| - t, 0), where t is the largest magnitude that its group drops (S-STE, arXiv 2409.09099).

    A group at 2:4 loses its second smallest magnitude; a tie with t leaves fewer than ``keep``. Any shape and float
    dtype, the result has the same.
    """
    dropped = x.masked_fill(mask_of_largest(x, view, pattern), 0).abs()
    groups = grouped(dropped, view, pattern.group)
    threshold = ungrouped(groups.amax(dim=2, keepdim=True).expand_as(groups), view, x.shape)
    return x.sign() * (x.abs() - threshold).clamp_min(0)


def grouped(x: Tensor, view: View, group: int, fill: float = 0) -> Tensor:
    """``x`` of any dtype as [outer, groups, group, inner], the short last group filled up."""
    outer, length, inner = view
    short = -length % group
    flat = x.reshape(outer, length, inner)
    if short:
        flat = torch.nn.functional.pad(flat, (0, 0, 0, short), value=fill)
    return flat.reshape(outer, -(-length // group), group, inner)


def ungrouped(groups: Tensor, view: View, shape: torch.Size) -> Tensor:
    """Inverse of :func:`grouped`: [outer, groups, group, inner] of any dtype as ``shape``."""
    outer, length, inner = view
    return groups.reshape(outer, groups.shape[1] * groups.shape[2], inner)[:, :length].reshape(shape)


def _words(x: Tensor) -> Tensor:
    """The bits of ``x`` as signed integers, side by side."""
    if x.dtype not in _WORDS:
        raise InputError(f"N:M selection is for floating tensors, not {x.dtype}")
    return x.detach().contiguous().view(_WORDS[x.dtype])


def _flat(x: Tensor) -> npt.NDArray[Any]:
    array: npt.NDArray[Any] = x.numpy().reshape(-1)
    return array


@kernel
def _take(held: Any, keep: int, lanes: int, best: Any, sunk: Any, take: Any) -> None:
    """Mark in ``take`` [group, lanes] the ``keep`` largest of ``held`` [group, lanes], the earlier of equal ones.

    ``best`` [keep, lanes] is held in falling order: a word sinks through it, and the last row ends as the smallest word
    kept. Of the words equal to that one the first are taken until ``keep`` are.
    """
    group, least = len(held), best[keep - 1]
    best[:] = -1
    for j in range(group):
        word = held[j]
        # The loops differ so that each works in place or on separate rows: else the compiler must go word by word.
        for rank in range(keep - 1):
            row = best[rank]
            if rank == 0:
                for lane in range(lanes):
                    above = row[lane]
                    row[lane] = max(above, word[lane])
                    sunk[lane] = min(above, word[lane])
            else:
                for lane in range(lanes):
                    above, sinking = row[lane], sunk[lane]
                    row[lane] = max(above, sinking)
                    sunk[lane] = min(above, sinking)
        last = sunk if keep > 1 else word
        for lane in range(lanes):
            least[lane] = max(least[lane], last[lane])
    left = sunk
    left[:] = keep
    for rank in range(keep - 1):
        row = best[rank]
        for lane in range(lanes):
            left[lane] -= row[lane] > least[lane]
    for j in range(group):
        row, taken = held[j], take[j]
        for lane in range(lanes):
            equal = (row[lane] == least[lane]) & (left[lane] > 0)
            left[lane] -= equal
            taken[lane] = equal | (row[lane] > least[lane])


@_inlined
def _turn(source: Any, held: Any, groups: int, group: int, magnitude: int) -> None:
    for g in range(groups):
        for j in range(group):
            held[j, g] = source[g * group + j] & magnitude


@_inlined
def _turn_back(take: Any, target: Any, groups: int, group: int) -> None:
    for g in range(groups):
        for j in range(group):
            target[g * group + j] = take[j, g]


@kernel
def _mark_rows(
    words: Any, out: Any, outer: int, length: int, inner: int, begin: int, count: int, group: int, keep: int
) -> None:
    """The same for the ``count`` groups of one length that start at ``begin``; lanes lie side by side along inner."""
    best, sunk = np.empty((keep, _LANES), words.dtype), np.empty(_LANES, words.dtype)
    held, take = np.zeros((group, _LANES), words.dtype), np.empty((group, _LANES), np.bool_)
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
            _take(held, keep, -(-used // 32) * 32, best, sunk, take)
            for j in range(group):
                at = start + j * inner + first
                target, taken = out[at : at + used], take[j]
                for lane in range(used):
                    target[lane] = taken[lane]


@kernel
def _mark_turned(
    words: Any, out: Any, outer: int, length: int, inner: int, begin: int, count: int, group: int, keep: int
) -> None:
    """The same where inner is short: whole groups are turned so that their lanes lie side by side."""
    size, most = group * inner, _LANES // inner
    best, sunk = np.empty((keep, _LANES), words.dtype), np.empty(_LANES, words.dtype)
    held, take = np.zeros((group, _LANES), words.dtype), np.empty((group, _LANES), np.bool_)
    flat, marks = held.reshape(-1), take.reshape(-1)
    place = np.empty(most * size, np.uint32)
    for i in range(most * size):
        place[i] = (i // inner) % group * _LANES + i // size * inner + i % inner
    magnitude = np.iinfo(words.dtype).max
    block, blocks = 0, outer * count
    while block < blocks:
        used = min(most, blocks - block)
        if count * group < length:
            used = min(used, count - block % count)
        start, n = ((block // count) * length + begin + (block % count) * group) * inner, used * size
        source, target = words[start : start + n], out[start : start + n]
        # With the commonest groups as constants the compiler turns whole vectors, twice as fast.
        if inner == 1 and group == 8:
            _turn(source, held, used, 8, magnitude)
        elif inner == 1 and group == 4:
            _turn(source, held, used, 4, magnitude)
        else:
            for i in range(n):
                flat[place[i]] = source[i] & magnitude
        _take(held, keep, -(-used * inner // 32) * 32, best, sunk, take)
        if inner == 1 and group == 8:
            _turn_back(take, target, used, 8)
        elif inner == 1 and group == 4:
            _turn_back(take, target, used, 4)
        else:
            for i in range(n):
                target[i] = marks[place[i]]
        block += used


@kernel
def _mark_largest(words: Any, out: Any, outer: int, length: int, inner: int, keep: int, group: int) -> None:
    """Fill ``out`` with whether the group of each of ``words`` keeps it; both flat, [outer, length, inner]."""
    whole = length // group
    for begin, count, size in ((0, whole, group), (whole * group, 1, length % group)):
        if count == 0 or size == 0:
            continue
        if keep >= size:
            for block in range(outer):
                start = (block * length + begin) * inner
                out[start : start + count * size * inner] = True
        elif inner >= _LANES:
            _mark_rows(words, out, outer, length, inner, begin, count, size, keep)
        else:
            _mark_turned(words, out, outer, length, inner, begin, count, size, keep)


@kernel
def _fill(words: Any, marks: Any, out: Any) -> None:
    """The marked words, and zeros; torch.where is a tenth as fast with a number in it."""
    for i in range(len(words)):
        out[i] = words[i] & (0 - marks[i])


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
        values=np.concatenate(found, axis=1),
        indices=np.concatenate(index, axis=1),
        pattern=pattern,
        k=k,
        run=run,
        order=order,
    )


def bits_of(marks: Tensor | None) -> Tensor | None:
    """A mask, bool of any shape, as uint8 [ceil(elements / 8)], which `mask_from` takes back."""
    return None if marks is None else torch.from_numpy(np.packbits(marks.cpu().numpy().ravel()))


def mask_from(bits: Tensor | None, like: Tensor, planes: int) -> Tensor | None:
    """``planes`` masks of `bits_of`, bool of the shape of ``like``, [planes, ...] if several, on its device."""
    if bits is None:
        return None
    flat = np.unpackbits(bits.cpu().numpy(), count=planes * like.numel()).astype(np.bool_)
    return torch.from_numpy(flat).reshape(like.shape if planes == 1 else (planes, *like.shape)).to(like.device)
