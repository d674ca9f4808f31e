"""Unstructured techniques: a mask without pattern over all weights of a layer.

The same mask serves FF and BP. No pattern means that the machine gains nothing; its ops say so (``kept_dense``). The
share of the weights that stays is that of the N:M pattern, keep / group, unless ``density`` says otherwise, so that
2:8 names the same budget here as in N:M training: three of four weights are zero.

Weights outside the mask are zero, and so are their gradients, momentum and second moments, as in the repositories of
RigL and GraNet. Equal scores keep the lower index, where RigL adds noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..errors import InputError, nearest
from ..sparsity import NMPattern
from .allocation import erk_densities
from .layer import SparseLayer
from .scheme import Scheme, target_density
from .technique import Options, Technique, hold_zero, mask_of

__all__ = ["Erk", "Unstructured", "UnstructuredOptions", "drop_and_grow", "kept", "top"]

_DISTRIBUTIONS = ("erk", "uniform")


def top(score: Tensor, count: int, among: Tensor) -> Tensor:
    """Mask of the ``count`` largest of ``score`` where ``among`` is True, the earlier of equal ones; all, if fewer.

    ``score``: any shape and dtype; ``among`` and the mask: bool of that shape.
    """
    index = among.reshape(-1).nonzero()[:, 0]
    order = score.reshape(-1)[index].argsort(descending=True, stable=True)[:count]
    mask = torch.zeros_like(among).reshape(-1)
    mask[index[order]] = True
    return mask.reshape(among.shape)


def kept(share: float, size: int) -> int:
    """Weights that ``share`` of ``size`` comes to: the nearest number, at least one."""
    return min(max(round(share * size), 1), size)


def drop_and_grow(weight: Tensor, mask: Tensor, growth: Tensor, count: int) -> Tensor:
    """The mask without the ``count`` smallest |W| of it, and with the ``count`` largest of ``growth`` among the rest.

    A weight just dropped may grow again, as in the repository of RigL. Any shape, one for all; masks are bool.
    """
    left = top(weight.abs(), int(mask.sum()) - count, mask)
    return left | top(growth, count, ~left)


@dataclass(frozen=True, slots=True, kw_only=True)
class UnstructuredOptions(Options):
    """``density``: share of the weights that stays; that of the N:M pattern if None.

    ``distribution``: of it over the layers: ``erk`` (:func:`.erk_densities`) or ``uniform``.
    """

    density: float | None = None
    distribution: str = "erk"

    def __post_init__(self) -> None:
        if self.distribution not in _DISTRIBUTIONS:
            raise InputError(
                f"option 'distribution' is {self.distribution!r}: {nearest(str(self.distribution), _DISTRIBUTIONS)}"
            )


class Unstructured(Technique):
    """What techniques with a mask without pattern share; as it stands, a mask drawn at the start that stays."""

    options_type: ClassVar[type[Options]] = UnstructuredOptions
    options: Any
    grows_by_gradient = False
    """Whether :meth:`move` reads the dense dW of its step."""

    def __init__(
        self, model: nn.Module, chosen: Scheme, pattern: NMPattern | None, *, seed: int, steps: int, options: Options
    ) -> None:
        given: Any = options
        self.density = target_density(chosen.name, pattern, given.density)
        super().__init__(model, chosen, pattern, seed=seed, steps=steps, options=options)
        self._gradients: dict[str, Tensor] = {}
        for number, (layer, share) in enumerate(self.shares(self.initial_density)):
            size = layer.weight.numel()
            order = torch.randperm(size, generator=self.generator(3, number))
            mask = torch.zeros(size, dtype=torch.bool)
            mask[order[: kept(share, size)]] = True
            self.set_mask(layer, mask.reshape(layer.weight.shape).to(layer.weight.device))

    @property
    def initial_density(self) -> float:
        """Share of the weights that the first masks keep."""
        return self.density

    def shares(self, density: float) -> list[tuple[SparseLayer, float]]:
        """Densities of the layers that ``density`` over all of them comes to."""
        own = list(self.own_layers())
        if self.options.distribution == "uniform":
            return [(layer, density) for layer in own]
        return list(zip(own, erk_densities([tuple(layer.weight.shape) for layer in own], density), strict=True))

    def set_mask(self, layer: SparseLayer, mask: Tensor) -> None:
        """Give ``layer``, and those that share its weight, this mask; bool of any shape, the weight's."""
        for tied in self.layers.values():
            if tied.weight is layer.weight:
                tied.state["mask"] = mask
                tied.forget()

    def forward_weight(self, layer: SparseLayer, weight: Tensor) -> Tensor:
        return weight.masked_fill(~mask_of(layer), 0)

    def moves(self, done: int) -> bool:
        """Whether the masks move once ``done`` steps are done."""
        return False

    def move(self, done: int) -> None:
        """New masks once ``done`` steps are done."""

    def gradient(self, layer: SparseLayer) -> Tensor | None:
        """|dW| of all weights in a step whose masks move; None if there was none, or one that is not finite.

        Of any shape, the weight's, and of its dtype.
        """
        return self._gradients.get(layer.name)

    def adjust_gradients(self, step: int) -> None:
        self._gradients = {}
        wanted = self.grows_by_gradient and self.moves(step + 1)
        for layer in self.own_layers():
            gradient = layer.weight.grad
            if gradient is None:
                continue
            if wanted and bool(gradient.isfinite().all()):
                self._gradients[layer.name] = gradient.detach().abs()
            gradient.masked_fill_(~mask_of(layer), 0)

    def after_step(self, step: int, optimizer: torch.optim.Optimizer) -> None:
        # Before the masks move, so that what grows starts at 0 with empty momentum; after it for what was dropped.
        self._hold(optimizer)
        if self.moves(step + 1):
            self.move(step + 1)
            self._hold(optimizer)
        self._gradients = {}

    def _hold(self, optimizer: torch.optim.Optimizer) -> None:
        for layer in self.own_layers():
            hold_zero(layer, mask_of(layer), optimizer)


class Erk(Unstructured):
    """A random mask, drawn once, with the densities of :func:`.erk_densities` (Liu et al., arXiv 2202.02643)."""
