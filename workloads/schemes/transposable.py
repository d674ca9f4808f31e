"""Masks that are N:M along rows and columns alike: of every M x M block, N are kept in each row and each column.

Hubara et al., NeurIPS 2021 (arXiv 2102.08124), pose it as a min-cost flow over each block. At 2:4 there are 90 masks,
and the best of them is looked up (repository huyz2023/2by4-pretrain); elsewhere the flow is solved exactly.
"""

from __future__ import annotations

from functools import cache
from itertools import combinations, product
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..sparsity import NMPattern
from .masks import kernel

__all__ = ["best_of_all", "best_of_flow", "transposable_mask"]

_SCALE = 2.0**40
"""Magnitudes of a block are solved as integers of 40 bits below its largest, so that no rounding can make a cycle."""


def transposable_mask(weight: Tensor, pattern: NMPattern) -> Tensor:
    """Where the largest sum of magnitudes is kept of ``weight`` [groups, out, in, taps]; bool, same shape.

    Blocks lie over (out, in) of every group and tap. Edge blocks are filled up with zeros, so of their rows and columns
    at most N stay. Equal sums are decided by the order of the search, the same on every run.
    """
    m = pattern.group
    groups, outputs, inputs, taps = weight.shape
    magnitude = weight.detach().abs().permute(0, 3, 1, 2).double()
    padded = torch.nn.functional.pad(magnitude, (0, -inputs % m, 0, -outputs % m))
    rows, columns = padded.shape[2] // m, padded.shape[3] // m
    blocks = padded.reshape(groups, taps, rows, m, columns, m).transpose(3, 4).reshape(-1, m, m)
    best = best_of_all if (pattern.keep, m) == (2, 4) else best_of_flow
    mask = best(blocks, pattern.keep).reshape(groups, taps, rows, columns, m, m).transpose(3, 4)
    return mask.reshape(groups, taps, rows * m, columns * m)[:, :, :outputs, :inputs].permute(0, 2, 3, 1).contiguous()


def best_of_all(blocks: Tensor, keep: int) -> Tensor:
    """Mask, bool, of each of ``blocks``, float [n, M, M], by trying every mask there is; for small M only (90 of them
    at 2:4)."""
    m = blocks.shape[-1]
    masks = _all_masks(keep, m).to(blocks.device)
    chosen = (blocks.reshape(-1, m * m) @ masks.T.to(blocks.dtype)).argmax(dim=1)
    return masks[chosen].reshape(-1, m, m).bool()


@cache
def _all_masks(keep: int, m: int) -> Tensor:
    rows = [np.isin(np.arange(m), chosen) for chosen in combinations(range(m), keep)]
    found = [np.concatenate(mask) for mask in product(rows, repeat=m) if (np.sum(mask, axis=0) == keep).all()]
    return torch.from_numpy(np.array(found, np.uint8))


def best_of_flow(blocks: Tensor, keep: int) -> Tensor:
    """Mask, bool, of each of ``blocks`` [n, M, M], non-negative, by a maximum-weight flow; exact for every N:M.

    Weights are rounded to 2^-40 of the largest of their block.
    """
    largest = blocks.amax(dim=(1, 2), keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)
    whole = torch.nan_to_num(blocks.double() / largest * _SCALE).round().to(torch.int64).cpu().numpy()
    mask = np.zeros(whole.shape, np.bool_)
    _solve(whole, keep, mask)
    return torch.from_numpy(mask).to(blocks.device)


@kernel
def _augment(weight: Any, mask: Any, row_left: Any, column_left: Any, gain: Any, before: Any) -> None:
    """Add one element to ``mask`` [M, M] along the alternating path of the greatest gain.

    Nodes are rows, then columns. Taking an element leads from its row to its column and gains its weight; giving one
    back leads from its column to its row and loses it.
    """
    m = len(row_left)
    for node in range(2 * m):
        gain[node] = 0 if node < m and row_left[node] > 0 else -(2**62)
        before[node] = -1
    changed = True
    while changed:
        changed = False
        for i in range(m):
            if gain[i] > -(2**62):
                for j in range(m):
                    if not mask[i, j] and gain[i] + weight[i, j] > gain[m + j]:
                        gain[m + j], before[m + j], changed = gain[i] + weight[i, j], i, True
        for j in range(m):
            if gain[m + j] > -(2**62):
                for i in range(m):
                    if mask[i, j] and gain[m + j] - weight[i, j] > gain[i]:
                        gain[i], before[i], changed = gain[m + j] - weight[i, j], m + j, True
    end = -1
    for j in range(m):
        if column_left[j] > 0 and (end < 0 or gain[m + j] > gain[m + end]):
            end = j
    node = m + end
    column_left[end] -= 1
    while before[node] >= 0:
        last = before[node]
        if node >= m:
            mask[last, node - m] = True
        else:
            mask[node, last - m] = False
        node = last
    row_left[node] -= 1


@kernel
def _solve(blocks: Any, keep: int, masks: Any) -> None:
    """Successive augmentation: after f steps the mask is the best of all with f elements (no cycle can improve it)."""
    m = blocks.shape[1]
    gain, before = np.empty(2 * m, np.int64), np.empty(2 * m, np.int64)
    for b in range(len(blocks)):
        row_left, column_left = np.full(m, keep), np.full(m, keep)
        for _ in range(keep * m):
            _augment(blocks[b], masks[b], row_left, column_left, gain, before)
