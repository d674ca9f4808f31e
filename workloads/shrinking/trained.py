"""What forms of low rank do between the steps of a training."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..training.seeds import PATH, generator_of
from ..training.spec import TrainSpec
from .factors import FactorPair, matrix_of, pairs_of, rank_of, weighted_layers

__all__ = ["EVERY", "NUCLEAR", "ORDERED", "cut_weight", "lasso", "ordered_dropout", "rank_pruning"]

Beside = Callable[[int, int], None]

EVERY = 20
"""Steps between two cuts of the weights to their rank, or two steps against their norms (assumed)."""
NUCLEAR, ORDERED = 3e-4, 5e-3
"""Weights of the nuclear norm and of the hierarchical group lasso (assumed)."""


def rank_pruning(model: nn.Module, spec: TrainSpec, kept: float) -> Beside:
    """Trained rank pruning (Xu et al., arXiv 2004.14566): every `EVERY` steps all weights become the nearest of the
    rank that keeps a share ``kept`` of their squares. The nuclear norm, whose sub-gradient the abstract has, is one
    proximal step at the same time: singular values fall by what these steps would take."""
    layers = list(weighted_layers(model).values())

    def after(step: int, steps: int) -> None:
        if step % EVERY and step < steps:
            return
        lost = NUCLEAR * spec.rate(step - 1, steps) * (step % EVERY or EVERY)
        for layer in layers:
            with torch.no_grad():
                layer.weight.copy_(cut_weight(matrix_of(layer), lost, kept).reshape(layer.weight.shape))

    return after


def cut_weight(weight: Tensor, lost: float, kept: float) -> Tensor:
    """``weight``, of any dtype [m, n], with singular values less by ``lost``, at the rank that keeps a share ``kept``
    of its own squares."""
    rank = rank_of(weight, kept)
    u, s, v = torch.linalg.svd(weight.double(), full_matrices=False)
    found: Tensor = (u[:, :rank] * (s[:rank] - lost).clamp_min(0)) @ v[:rank]
    return found.to(weight)


def ordered_dropout(model: nn.Module, spec: TrainSpec) -> Beside:
    """Maestro (Horvath et al., arXiv 2308.14929): in every step one pair, at random, passes on its first columns alone,
    as many as are drawn, so that they come to be in the order of what they carry; and a hierarchical group lasso, which
    takes last columns away for good, here as a proximal step."""
    pairs = list(pairs_of(model).values())

    def draw(step: int) -> None:
        generator = generator_of(spec, PATH, step)
        for pair in pairs:
            pair.width = None
        chosen = pairs[int(torch.randint(len(pairs), (1,), generator=generator))]
        chosen.width = 1 + int(torch.randint(matrix_of(chosen.first).shape[0], (1,), generator=generator))

    def after(step: int, steps: int) -> None:
        if step % EVERY == 0 or step == steps:
            lost = ORDERED * spec.rate(step - 1, steps) * (step % EVERY or EVERY)
            for pair in pairs:
                _take_away(pair, lost)
        if step < steps:
            return draw(step)
        for pair in pairs:
            pair.width = None

    draw(0)
    return after


@torch.no_grad()
def _take_away(pair: FactorPair, lost: float) -> None:
    left, right = matrix_of(pair.second), matrix_of(pair.first)
    pair.second.weight.mul_(lasso(left.norm(dim=0), lost).reshape(1, -1, *(1,) * (pair.second.weight.dim() - 2)))
    pair.first.weight.mul_(lasso(right.norm(dim=1), lost).reshape(-1, *(1,) * (pair.first.weight.dim() - 1)))


def lasso(norms: Tensor, lost: float) -> Tensor:
    """What columns of these ``norms`` are multiplied by, of any dtype [columns], in the proximal step of ``lost`` times
    the sum of the norms of all groups {b, b + 1, ..}: the step of every group in turn, from the smallest, which for
    groups inside each other is exact (Jenatton et al., arXiv 1009.2139)."""
    squares, factors, behind = norms.double().square().tolist(), [1.0] * len(norms), 0.0
    for b in range(len(norms) - 1, -1, -1):
        behind += squares[b]
        factors[b] = max(1.0 - lost / behind**0.5, 0.0) if behind > 0 else 0.0
        behind *= factors[b] ** 2
    # Groups around a column shrink it too: those that begin before it.
    return torch.tensor(factors, dtype=torch.float64).cumprod(0).to(norms)
