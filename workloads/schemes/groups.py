"""Group pruning: masks whose groups are kept whole or not at all (`workloads/groups.py`), pruned little by little.

A layer whose outputs or channels are no whole groups stays as it is. Otherwise as in `unstructured.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..errors import InputError
from ..gemm import Pass
from ..groups import GroupShape
from .description import Phase
from .dynamic import Gradual, GradualOptions
from .layer import SparseLayer
from .technique import Options, mask_of
from .unstructured import kept, top

__all__ = ["GroupLevel", "GroupMagnitude"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupOptions(GradualOptions):
    """``shape``: of a group, as 1x16 or kernel; that of the scheme if empty."""

    shape: str = ""

    def __post_init__(self) -> None:
        GradualOptions.__post_init__(self)
        if not isinstance(self.shape, str):
            raise InputError(f"option 'shape' must be lines x places, for example 1x16, not {self.shape!r}")
        if self.shape:
            GroupShape.parse(self.shape)


class GroupMagnitude(Gradual):
    """Gradual pruning of groups: at every event those of a layer stay whose sum of |W| is largest.

    The schedule is that of `GradualMagnitude`; what was pruned never comes back.
    """

    options_type: ClassVar[type[Options]] = GroupOptions

    @property
    def shape(self) -> GroupShape:
        """Of its groups."""
        return GroupShape.parse(self.options.shape or self.scheme.groups)

    @property
    def initial_density(self) -> float:
        return 1.0

    def passes_of(self, layer: SparseLayer, phase: Phase, reasons: dict[Pass, str]) -> frozenset[Pass]:
        _, outputs, inputs, _ = layer.shape
        misfit = self.shape.misfit(outputs, inputs)
        if misfit:
            reasons.update(dict.fromkeys((Pass.FF, Pass.BP), misfit))
            return frozenset()
        return super().passes_of(layer, phase, reasons)

    def cells(self, layer: SparseLayer, weight: Tensor) -> Tensor:
        """A tensor stored like the weight, of any dtype, as [rows, groups of a row, elements of a group]."""
        groups, outputs, _, taps = layer.shape
        lines, places = self.shape.lines, self.shape.places
        # [rows, lines, groups across the channels, channels of one, taps]
        found = layer.canonical(weight).reshape(groups * outputs // lines, lines, -1, places or 1, taps)
        order = (0, 2, 1, 3, 4) if places is None else (0, 4, 2, 1, 3)
        columns = found.shape[2] if places is None else found.shape[2] * taps
        return found.permute(*order).reshape(len(found), columns, -1)

    def spread(self, layer: SparseLayer, chosen: Tensor) -> Tensor:
        """The mask of the groups that are ``chosen``, bool [rows, groups of a row]; bool of any shape, the weight's."""
        groups, outputs, inputs, taps = layer.shape
        lines, places = self.shape.lines, self.shape.places
        if places is None:
            found = chosen[:, None, :, None].expand(-1, lines, -1, taps)
        else:
            by_tap = chosen.reshape(len(chosen), taps, -1).repeat_interleave(places, 2)
            found = by_tap.transpose(1, 2)[:, None].expand(-1, lines, -1, -1)
        return layer.stored(found.reshape(groups, outputs, inputs, taps)).contiguous()

    def choose(self, magnitudes: Tensor, alive: Tensor, share: float) -> Tensor:
        """Which groups stay, bool [rows, groups of a row], of those ``alive``; ``magnitudes`` of their dtype: float."""
        return top(magnitudes, kept(share, magnitudes.numel()), alive)

    def magnitudes(self, cells: Tensor) -> Tensor:
        """Of the elements [rows, groups of a row, elements] of groups, of any dtype: [rows, groups of a row]."""
        return cells.abs().sum(2)

    def move(self, done: int) -> None:
        for layer, share in self.shares(self.density):
            alive = self.cells(layer, mask_of(layer)).all(2)
            found = self.magnitudes(self.cells(layer, layer.weight.detach()))
            self.set_mask(layer, self.spread(layer, self.choose(found, alive, self.scheduled(1.0, share, done))))


class GroupLevel(GroupMagnitude):
    """At most k groups a row: of every row as many groups stay, those of the largest norm (l2).

    The constraint of weighted group sparse envelopes (arXiv 2212.12921), with equal weights, met by projection; their
    regulariser, the convex envelope of that constraint, is not here.
    """

    def choose(self, magnitudes: Tensor, alive: Tensor, share: float) -> Tensor:
        level = kept(share, magnitudes.shape[1])
        # A stable order: of equal ones the earlier stays, and none that is gone comes back.
        order = magnitudes.masked_fill(~alive, -1).argsort(dim=1, descending=True, stable=True)[:, :level]
        return torch.zeros_like(alive).scatter_(1, order, True) & alive

    def magnitudes(self, cells: Tensor) -> Tensor:
        return cells.square().sum(2)
