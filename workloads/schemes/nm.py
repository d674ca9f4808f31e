"""The N:M family: what is kept of weights and output gradients, N of every M along the contraction of a pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..errors import InputError, require_int
from ..gemm import Pass
from ..sparsity import NMPattern
from .layer import SparseLayer
from .masks import View, grouped, largest, mask_of_largest, soft_threshold
from .sampling import two_draws
from .technique import Options, Technique
from .transposable import transposable_mask

__all__ = [
    "Bdwp",
    "BdwpOptions",
    "BiMask",
    "DecayOptions",
    "SSte",
    "Sdgp",
    "SdgpRescaled",
    "Sdwp",
    "SrSte",
    "Transposable",
    "TransposableMvue",
    "require_share",
    "sampled",
]


def require_share(name: str, value: object, low: float, high: float) -> None:
    """Refuse anything but a finite number in ``[low, high]``."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not isfinite(value) or not low <= value <= high:
        raise InputError(f"option {name!r} must be a number from {low:g} to {high:g}, not {value!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class DecayOptions(Options):
    """``decay``: lambda of the sparse-refined term."""

    decay: float = 2e-4

    def __post_init__(self) -> None:
        require_share("decay", self.decay, 0.0, 1.0)


def refine(technique: Technique, decay: float) -> None:
    """Add lambda (1 - m_ff) W to the gradient of every weight whose FF is sparse (SR-STE, eq. of the refined term).

    It pulls the weights that FF left out towards zero, so that masks settle.
    """
    if not decay:
        return
    for layer in technique.own_layers():
        weight = layer.weight
        if Pass.FF in layer.passes and weight.grad is not None:
            dense = weight.detach()
            weight.grad.add_(dense.masked_fill(layer.operand(Pass.FF) != 0, 0), alpha=decay)


class SrSte(Technique):
    """SR-STE (Zhou et al., ICLR 2021, arXiv 2102.04010; repository aojunzz/NM-sparsity).

    m = the N largest |W| of every M along the inputs, at every step; W_ff = m W; BP reads W_ff; dW = X^T dY goes
    straight to the dense master; gradient += lambda (1 - m) W with lambda = 2e-4.
    """

    options_type: ClassVar[type[Options]] = DecayOptions
    options: DecayOptions

    def forward_weight(self, layer: SparseLayer, weight: Tensor) -> Tensor:
        return largest(weight, layer.view(Pass.FF), self.nm())

    def adjust_gradients(self, step: int) -> None:
        refine(self, self.options.decay)


class Sdgp(Technique):
    """Structured data gradient pruning (McDanel et al., repository BradMcDanel/sdgp), by magnitude.

    BP: dX = prune(dY) W^T, where prune keeps the N largest |dY| of every M along the output channels; FF and WU are
    dense. The repository converts convolutions only; here linear layers take part too.
    """

    def backward_gradient(self, layer: SparseLayer, dy: Tensor) -> Tensor:
        return largest(dy, layer.gradient_view(dy), self.nm())


class SdgpRescaled(Sdgp):
    """SDGP with rescaled maps (the same repository, ``maxnorm``).

    prune(dY) is multiplied by sum|dY| / (sum|prune(dY)| + 1e-4), both sums over the positions of one channel of one
    sample; over the tokens in a linear layer. One without tokens has maps of one element: what is kept loses
    1e-4 / (|dY| + 1e-4) of itself there.
    """

    scales = frozenset((Pass.BP,))

    def backward_gradient(self, layer: SparseLayer, dy: Tensor) -> Tensor:
        pruned = super().backward_gradient(layer, dy)
        positions = tuple(range(2, dy.dim())) if layer.kind.convolution else tuple(range(1, dy.dim() - 1))

        def magnitude(x: Tensor) -> Tensor:
            # An empty tuple of dimensions would sum over all of them.
            return x.abs().float().sum(positions, keepdim=True) if positions else x.abs().float()

        return (pruned.float() * (magnitude(dy) / (magnitude(pruned) + 1e-4))).to(dy.dtype)


class Sdwp(Technique):
    """N:M weights in BP only: the baseline of that name in the BDWP paper (arXiv 2309.13015), recalled.

    W_bp = the N largest |W| of every M along the outputs, at every step; FF and WU are dense.
    """

    def backward_weight(self, layer: SparseLayer, weight: Tensor, forward: Tensor) -> Tensor:
        return largest(weight, layer.view(Pass.BP), self.nm())


@dataclass(frozen=True, slots=True, kw_only=True)
class BdwpOptions(DecayOptions):
    """``decay`` is off: whether the paper has the term of SR-STE could not be read."""

    decay: float = 0.0


class Bdwp(SrSte):
    """Bidirectional weight pruning (Fang et al., IEEE TCAD, arXiv 2309.13015).

    W_ff = the N largest |W| of every M along the inputs, W_bp along the outputs, both from the dense master at every
    step; WU is dense. The axes and the dense WU are published, the magnitude criterion and the absence of a decay term
    are recalled.
    """

    options_type: ClassVar[type[Options]] = BdwpOptions
    options: BdwpOptions

    def backward_weight(self, layer: SparseLayer, weight: Tensor, forward: Tensor) -> Tensor:
        return largest(weight, layer.view(Pass.BP), self.nm())


@dataclass(frozen=True, slots=True, kw_only=True)
class BiMaskOptions(DecayOptions):
    """``period``: steps between searches; ``candidates``: random permutations that a search tries."""

    period: int = 100
    candidates: int = 100

    def __post_init__(self) -> None:
        DecayOptions.__post_init__(self)
        require_int("option 'period'", self.period, 1, 2**31)
        require_int("option 'candidates'", self.candidates, 1, 2**31)


class BiMask(SrSte):
    """Bi-Mask (Zhang et al., ICML 2023, arXiv 2302.06058; repository zyxxmu/Bi-Mask).

    m_f as in SR-STE with its decay term. W_bp keeps the N largest |m_f W| of every M output channels that are
    neighbours under a permutation of them, so BP reads a subset of what FF reads. Every ``period`` steps the
    permutation is chosen among random ones as that which lets W_bp keep the most elements; here the one in use is a
    candidate too. Channels stay within their convolution group; all groups have the same permutation.

    Groups of m_f lie along the input channels at one kernel tap, as in every scheme here and as im2col feeds the array.
    The repository flattens a weight to [out, in x height x width] and groups along that, over the taps: where a kernel
    has more than one tap its FF masks are others than these. Its BP groups, permuted outputs at one input and tap, are
    the same.
    """

    options_type: ClassVar[type[Options]] = BiMaskOptions
    options: BiMaskOptions

    def prepare(self, layer: SparseLayer) -> None:
        layer.state["order"] = torch.arange(layer.shape[1])

    def refresh(self, layer: SparseLayer) -> None:
        if Pass.BP in layer.passes and self.step % self.options.period == 0:
            layer.state["order"] = self._search(layer)

    def _search(self, layer: SparseLayer) -> Tensor:
        """Only how many elements of a group are alive in FF decides how many of them BP can keep."""
        pattern = self.nm()
        dense = layer.weight.detach()
        forward = self.forward_weight(layer, dense) if Pass.FF in layer.passes else dense
        alive = (layer.canonical(forward) != 0).flatten(2).float()
        order = layer.state["order"]
        generator = self.generator(2, list(self.layers).index(layer.name))
        tried = [order, *(torch.randperm(len(order), generator=generator) for _ in range(self.options.candidates))]

        def kept(candidate: Tensor) -> int:
            taken = alive[:, candidate.to(alive.device)]
            counts = grouped(taken, (taken.shape[0], taken.shape[1], taken.shape[2]), pattern.group).sum(dim=2)
            return int(counts.clamp_max(pattern.keep).sum())

        return max(tried, key=kept)

    def backward_weight(self, layer: SparseLayer, weight: Tensor, forward: Tensor) -> Tensor:
        groups, outputs, inputs, taps = layer.shape
        order = layer.state["order"].to(weight.device)
        permuted = layer.canonical(forward)[:, order].contiguous()
        chosen = largest(permuted, (groups, outputs, inputs * taps), self.nm())
        return layer.stored(chosen[:, order.argsort()])

    def channel_order(self, layer: SparseLayer) -> npt.NDArray[np.int64] | None:
        return layer.state["order"].cpu().numpy()


@dataclass(frozen=True, slots=True, kw_only=True)
class TransposableOptions(DecayOptions):
    """``period``: steps between searches of the masks."""

    period: int = 40

    def __post_init__(self) -> None:
        DecayOptions.__post_init__(self)
        require_int("option 'period'", self.period, 1, 2**31)


class Transposable(SrSte):
    """Transposable masks (Hubara et al., NeurIPS 2021, arXiv 2102.08124), re-made every ``period`` steps.

    One mask m that is N:M along inputs and outputs alike: W_ff = W_bp = m W. The decay term of SR-STE acts on what m
    drops, as in Hu et al. 2024. Where channels of one side are fewer than M, the other side has a plain N:M mask.
    """

    options_type: ClassVar[type[Options]] = TransposableOptions
    options: TransposableOptions

    def refresh(self, layer: SparseLayer) -> None:
        if layer.passes & {Pass.FF, Pass.BP} and self.step % self.options.period == 0:
            layer.state["mask"] = self._search(layer)

    def _search(self, layer: SparseLayer) -> Tensor:
        weight, pattern = layer.weight.detach(), self.nm()
        if {Pass.FF, Pass.BP} <= layer.passes:
            return layer.stored(transposable_mask(layer.canonical(weight), pattern))
        only = Pass.FF if Pass.FF in layer.passes else Pass.BP
        return mask_of_largest(weight, layer.view(only), pattern)

    def _masked(self, layer: SparseLayer, weight: Tensor) -> Tensor:
        if "mask" not in layer.state:
            layer.state["mask"] = self._search(layer)
        return weight.masked_fill(~layer.state["mask"].to(weight.device), 0)

    def forward_weight(self, layer: SparseLayer, weight: Tensor) -> Tensor:
        return self._masked(layer, weight)

    def backward_weight(self, layer: SparseLayer, weight: Tensor, forward: Tensor) -> Tensor:
        return self._masked(layer, weight)


Draw = Callable[[Tensor, View, NMPattern, torch.Generator], Tensor]
"""An unbiased N:M sample of a tensor (`sampling.py`)."""


def sampled(technique: Technique, layer: SparseLayer, dy: Tensor, draw: Draw) -> Tensor:
    """dY with an N:M sample along batch and positions; whole where these are fewer than one group.

    The annotation keeps an op with so short a contraction dense too. ``dy``: [batch, *positions, out], of a convolution
    [batch, out, *positions], of any float dtype, the result's.
    """
    pattern = technique.nm()
    if layer.rows(dy) < pattern.group:
        return dy
    generator = technique.sampler(dy.device)

    def sample(x: Tensor, view: View) -> Tensor:
        return draw(x, view, pattern, generator)

    return layer.along_rows(dy, pattern.group, sample)


@dataclass(frozen=True, slots=True, kw_only=True)
class TransposableMvueOptions(TransposableOptions):
    """``dense_tail``: last share of the steps, in which training is dense."""

    dense_tail: float = 1 / 6

    def __post_init__(self) -> None:
        TransposableOptions.__post_init__(self)
        require_share("dense_tail", self.dense_tail, 0.0, 1.0)

    def schedule(self) -> dict[str, Any]:
        return {"dense_tail": self.dense_tail}


class TransposableMvue(Transposable):
    """All three GEMMs N:M (Hu et al., ICML 2024, arXiv 2404.01847; repository huyz2023/2by4-pretrain).

    FF and BP read the weights under one transposable mask, re-made every 40 steps; dW = s(dY)^T X with the unbiased
    sample s of :func:`.sampling.two_draws`; masked decay on the gradient; dense fine-tuning at the end. The paper has
    2:4 in the linear layers of the feed-forward blocks; here every layer takes part.
    """

    options_type: ClassVar[type[Options]] = TransposableMvueOptions
    scales = frozenset((Pass.WU,))

    def update_gradient(self, layer: SparseLayer, dy: Tensor) -> Tensor:
        return sampled(self, layer, dy, two_draws)


class SSte(Technique):
    """S-STE (Hu, Zhu, Chen, NeurIPS 2024, arXiv 2409.09099).

    W_ff = beta s(W), where s lowers every magnitude by the largest one that its group of M inputs drops, which is
    continuous in W; beta = <W, s(W)> / <s(W), s(W)> of each tensor when the technique is attached. BP reads W_ff
    (recalled); dW = sample(dY)^T X goes to the dense master without beta.
    """

    scales = frozenset((Pass.WU,))

    def prepare(self, layer: SparseLayer) -> None:
        weight = layer.weight.detach().double()
        soft = soft_threshold(weight, layer.view(Pass.FF), self.nm())
        square = (soft * soft).sum()
        layer.state["beta"] = torch.where(square > 0, (weight * soft).sum() / square, 1.0).cpu()

    def forward_weight(self, layer: SparseLayer, weight: Tensor) -> Tensor:
        return soft_threshold(weight, layer.view(Pass.FF), self.nm()) * float(layer.state["beta"])

    def update_gradient(self, layer: SparseLayer, dy: Tensor) -> Tensor:
        return sampled(self, layer, dy, two_draws)
