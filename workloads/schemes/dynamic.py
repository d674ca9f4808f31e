"""Unstructured masks that move during training, as weights are pruned little by little or exchanged for others."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, cos, pi
from typing import ClassVar

import torch
from torch import Tensor

from ..errors import require_int
from .layer import SparseLayer
from .nm import require_share
from .technique import Options, mask_of
from .unstructured import Unstructured, UnstructuredOptions, drop_and_grow, kept, top

__all__ = ["GraNet", "GradualMagnitude", "RigL", "Set", "SparCl", "SparseWide", "cosine", "cubic"]


def cubic(initial: float, final: float, progress: float) -> float:
    """Sparsity s_f + (s_i - s_f) (1 - progress)^3 (Zhu and Gupta, arXiv 1710.01878), progress held to [0, 1]."""
    return final + (initial - final) * (1.0 - min(max(progress, 0.0), 1.0)) ** 3


def cosine(first: float, last: float, progress: float) -> float:
    """From ``first`` down to ``last`` along half a cosine, progress held to [0, 1]."""
    return last + (first - last) / 2.0 * (1.0 + cos(pi * min(max(progress, 0.0), 1.0)))


@dataclass(frozen=True, slots=True, kw_only=True)
class MovingOptions(UnstructuredOptions):
    """``period``: steps between moves of the masks; ``end``: share of the steps after which they stay."""

    period: int = 100
    end: float = 1.0

    def __post_init__(self) -> None:
        UnstructuredOptions.__post_init__(self)
        require_int("option 'period'", self.period, 1, 2**31)
        require_share("end", self.end, 0.0, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class GradualOptions(MovingOptions):
    """``begin``, ``end``: shares of the steps at which pruning begins and its density is reached.

    ``distribution``: of that density over the layers; every layer alike in the paper.
    """

    begin: float = 0.0
    end: float = 0.5
    distribution: str = "uniform"

    def __post_init__(self) -> None:
        MovingOptions.__post_init__(self)
        require_share("begin", self.begin, 0.0, self.end)


class Gradual(Unstructured):
    """The events of gradual pruning: every ``period`` steps from ``begin``, and at ``end``."""

    @property
    def stretch(self) -> tuple[int, int]:
        """Steps done when pruning begins, and when its density is reached."""
        return round(self.options.begin * self.steps), max(round(self.options.end * self.steps), 1)

    def prunes(self, done: int) -> bool:
        """Whether the density falls once ``done`` steps are done."""
        begin, end = self.stretch
        return done == end or (begin <= done < end and (done - begin) % self.options.period == 0)

    def scheduled(self, initial: float, final: float, done: int) -> float:
        """Density once ``done`` steps are done, on the way from ``initial`` to ``final``."""
        begin, end = self.stretch
        progress = (done - begin) / (end - begin) if end > begin else 1.0
        return 1.0 - cubic(1.0 - initial, 1.0 - final, progress)

    moves = prunes


class GradualMagnitude(Gradual):
    """Gradual magnitude pruning (Zhu and Gupta, arXiv 1710.01878).

    Sparsity s_t = s_f + (s_i - s_f) (1 - (t - t_0) / (t_1 - t_0))^3 from s_i = 0, and at every ``period`` steps the
    largest |W| of each layer stay. Here what was pruned never comes back.
    """

    options_type: ClassVar[type[Options]] = GradualOptions

    @property
    def initial_density(self) -> float:
        return 1.0

    def move(self, done: int) -> None:
        for layer, share in self.shares(self.density):
            mask, weight = mask_of(layer), layer.weight.detach()
            left = kept(self.scheduled(1.0, share, done), weight.numel())
            self.set_mask(layer, top(weight.abs(), left, mask))


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeOptions(MovingOptions):
    """``fraction``: share of the mask that a move exchanges."""

    fraction: float = 0.3

    def __post_init__(self) -> None:
        MovingOptions.__post_init__(self)
        require_share("fraction", self.fraction, 0.0, 1.0)


class Set(Unstructured):
    """Sparse evolutionary training (Mocanu et al. 2018), as the baseline in the repository of RigL.

    Every ``period`` steps the ``fraction`` of a layer's mask with the smallest |W| is dropped, and as many weights grow
    at random from zero.
    """

    options_type: ClassVar[type[Options]] = ExchangeOptions

    def moves(self, done: int) -> bool:
        return bool(done % self.options.period == 0 and done <= self.options.end * self.steps)

    def fraction(self, done: int) -> float:
        """Share of the mask that moves once ``done`` steps are done."""
        return float(self.options.fraction)

    def growth(self, number: int, layer: SparseLayer) -> Tensor | None:
        """Scores by which weights grow, float32 of any shape, the weight's; None leaves the mask as it is."""
        made = torch.rand(layer.weight.shape, generator=self.generator(4, number))
        return made.to(layer.weight.device)

    def move(self, done: int) -> None:
        for number, layer in enumerate(self.own_layers()):
            mask, growth = mask_of(layer), self.growth(number, layer)
            if growth is not None:
                count = int(self.fraction(done) * int(mask.sum()))
                self.set_mask(layer, drop_and_grow(layer.weight.detach(), mask, growth, count))


@dataclass(frozen=True, slots=True, kw_only=True)
class RigLOptions(ExchangeOptions):
    """``end``: 25,000 of 32,000 steps in the paper's ImageNet recipe."""

    end: float = 25 / 32


class RigL(Set):
    """RigL (Evci et al., ICML 2020, arXiv 1911.11134; repository google-research/rigl).

    As SET, but those weights grow whose |dW| is largest, from a dense dW in these steps only; the fraction falls as
    f/2 (1 + cos(pi t / t_end)). The repository makes no update of weights in a step that moves masks; here it does,
    before the masks move.
    """

    options_type: ClassVar[type[Options]] = RigLOptions
    grows_by_gradient = True

    def fraction(self, done: int) -> float:
        return cosine(self.options.fraction, 0.0, done / max(self.options.end * self.steps, 1.0))

    def growth(self, number: int, layer: SparseLayer) -> Tensor | None:
        """|dW|, of any shape and dtype, those of the weight."""
        return self.gradient(layer)


class SparseWide(RigL):
    """Sparse-IFT, the wide family (Thangarasa et al., ICML 2024, arXiv 2303.11525), under RigL.

    Every width is multiplied by sqrt(1 / density), so that a layer between two of them costs as many operations as the
    dense one had. The model must have been built so (:func:`.scheme.widening`): `weft train` does it for mlp, resnet9
    and vit_s; nothing here can widen a finished model.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class GraNetOptions(GradualOptions):
    """``initial``: density at the start; ``fraction``: share that regrows at first, 0.005 at the end of training."""

    end: float = 110 / 160
    distribution: str = "erk"
    initial: float = 0.5
    fraction: float = 0.5

    def __post_init__(self) -> None:
        GradualOptions.__post_init__(self)
        for name in ("initial", "fraction"):
            require_share(name, getattr(self, name), 0.0, 1.0)


class GraNet(Gradual):
    """GraNet (Liu et al., NeurIPS 2021, arXiv 2106.10404; repository VITA-Group/GraNet).

    Density falls along the cubic schedule; at each event the largest |W| of all layers together stay, and then every
    layer drops the share p of its smallest |W| and grows as many by |dW|. p falls along a cosine to 0.005 at the end of
    training, and regrowth goes on after ``end``. Initial density, p and ``end`` are those of the repository for
    CIFAR-10; its period there is 1000.
    """

    options_type: ClassVar[type[Options]] = GraNetOptions
    grows_by_gradient = True

    @property
    def initial_density(self) -> float:
        return max(float(self.options.initial), self.density)

    def moves(self, done: int) -> bool:
        begin, end = self.stretch
        return self.prunes(done) or (done > end and (done - begin) % self.options.period == 0)

    def move(self, done: int) -> None:
        if self.prunes(done):
            self._prune(self.scheduled(self.initial_density, self.density, done))
        share = cosine(self.options.fraction, 0.005, done / self.steps)
        for layer in self.own_layers():
            mask, growth = mask_of(layer), self.gradient(layer)
            if growth is not None:
                count = min(ceil(share * int(mask.sum())), int(mask.sum()))
                self.set_mask(layer, drop_and_grow(layer.weight.detach(), mask, growth, count))

    def _prune(self, density: float) -> None:
        own = list(self.own_layers())
        scores = torch.cat([layer.weight.detach().abs().float().flatten() for layer in own])
        masks = torch.cat([mask_of(layer).flatten() for layer in own])
        left = top(scores, kept(density, len(scores)), masks)
        begin = 0
        for layer in own:
            mask = left[begin : begin + layer.weight.numel()]
            self.set_mask(layer, mask.reshape(layer.weight.shape).clone())
            begin += layer.weight.numel()


@dataclass(frozen=True, slots=True, kw_only=True)
class SparClOptions(MovingOptions):
    """``gradient``: share of dW that is left out; ``margin``: how much sparser a mask gets before it grows again.

    ``weigh``: lambda, what |dW| adds to |W| when weights are dropped.
    """

    end: float = 0.9
    gradient: float = 0.8
    margin: float = 0.01
    weigh: float = 0.5

    def __post_init__(self) -> None:
        MovingOptions.__post_init__(self)
        require_share("gradient", self.gradient, 0.0, 1.0)
        require_share("margin", self.margin, 0.0, 1.0)
        require_share("weigh", self.weigh, 0.0, 1e6)


class SparCl(Unstructured):
    """SparCL (Wang et al., NeurIPS 2022, arXiv 2209.09476; repository neu-spiral/SparCL), for one task.

    Weights: every ``period`` steps (5 epochs there) those with the smallest |W| + lambda |dW| are dropped until the
    mask is sparser than its density by ``margin``, and as many grow at random from zero. Gradients: in every step the
    largest (1 - g) of a layer's |dW| stay, counted over all of its weights. The mask of dW is known after dW only, so
    WU is dense work. The replay buffer and the removal of data, which need a sequence of tasks, are left out; masks
    begin random here, by magnitude there.
    """

    options_type: ClassVar[type[Options]] = SparClOptions
    grows_by_gradient = True

    def moves(self, done: int) -> bool:
        return bool(done % self.options.period == 0 and done <= self.options.end * self.steps)

    def adjust_gradients(self, step: int) -> None:
        super().adjust_gradients(step)
        for layer in self.own_layers():
            gradient = layer.weight.grad
            if gradient is not None:
                left = kept(1.0 - self.options.gradient, gradient.numel())
                gradient.masked_fill_(~top(gradient.abs(), left, mask_of(layer)), 0)

    def move(self, done: int) -> None:
        for number, layer in enumerate(self.own_layers()):
            mask, gradient = mask_of(layer), self.gradient(layer)
            if gradient is not None:
                count = min(round(self.options.margin * mask.numel()), int(mask.sum()))
                left = top(layer.weight.detach().abs() + self.options.weigh * gradient, int(mask.sum()) - count, mask)
                growth = torch.rand(mask.shape, generator=self.generator(4, number)).to(mask.device)
                self.set_mask(layer, left | top(growth, count, ~left))
