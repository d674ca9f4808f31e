"""One-shot training of a super-network, and what becomes of its sub-networks.

Every step trains one sub-network, drawn uniformly (single path: Guo et al., ECCV 2020, arXiv 1904.00420), or the
largest, the smallest and some that are drawn, all but the largest by its outputs in place of labels (sandwich rule and
in-place distillation: Yu and Huang, ICCV 2019, arXiv 1903.05134); all share their weights. A sub-network is then
measured with the weights that it inherits and batch-norm statistics of its own, which are estimated anew: those of a
mixture of paths are nobody's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from ..data import ImageData, normalised
from ..errors import InputError
from ..models.subnetwork import CHANNELS, DEPTHS, LARGEST, SMALLEST, WIDTHS, Subnetwork
from ..models.supernet import SuperNet
from ..schemes.technique import Technique
from .seeds import PATH, generator_of
from .spec import TrainSpec

__all__ = ["ESTIMATED_BATCH", "ESTIMATED_BATCHES", "estimated", "on_path", "paths_of", "require_stateless"]

ESTIMATED_BATCHES, ESTIMATED_BATCH = 4, 256
"""Training images that batch norms are estimated from: the first 1,024 at most, not augmented. Assumed: nearly all of
the digits, a third of the 3,000 of mnist5k."""

_BETWEEN_STEPS = ("prepare", "refresh", "before_step", "after_step")
"""What a technique overrides that keeps something of a weight from one step to the next."""


def paths_of(spec: TrainSpec, step: int, sides: Sequence[int]) -> list[tuple[Subnetwork, int]]:
    """The sub-networks that ``step`` trains, each with an image side of ``sides``, which ascend.

    One is drawn; of several the first is the largest at the largest side, the second the smallest at the smallest, and
    the others are drawn. Of those that are drawn each is as likely as any other.
    """
    generator, stages = generator_of(spec, PATH, step), len(CHANNELS)

    def drawn(choices: int, count: int) -> list[int]:
        return torch.randint(choices, (count,), generator=generator).tolist()

    ends = [(LARGEST, sides[-1]), (SMALLEST, sides[0])] if spec.paths > 1 else []
    return ends + [
        (
            Subnetwork(
                widths=tuple(WIDTHS[i] for i in drawn(len(WIDTHS), stages)),
                depths=tuple(DEPTHS[i] for i in drawn(len(DEPTHS), stages)),
            ),
            sides[drawn(len(sides), 1)[0]],
        )
        for _ in range(spec.paths - len(ends))
    ]


@contextmanager
def on_path(model: SuperNet, technique: Technique, path: Subnetwork, side: int) -> Iterator[None]:
    """Be the sub-network ``path``, its operands made of the slices: groups and masks are those of the narrow layers.

    What is watched for flips are the masks of the whole weights, whose shape stays.
    """
    for layer in technique.layers.values():
        if layer.watched is not None:
            layer.operand(layer.watched)
    try:
        with model.on(path, side):
            _made_anew(technique)
            yield
    finally:
        _made_anew(technique)


def _made_anew(technique: Technique) -> None:
    """Other passes and operands, as weights have other shapes."""
    technique.enter_phase()
    for layer in technique.layers.values():
        layer.forget()


def estimated(model: nn.Module, data: ImageData, device: torch.device) -> None:
    """Give the batch norms of ``model`` the mean of the statistics of a few batches of training images."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean of all batches
    model.train()
    try:
        most = min(ESTIMATED_BATCHES * ESTIMATED_BATCH, len(data.train.labels))
        for index in torch.split(torch.arange(most), ESTIMATED_BATCH):
            model(normalised(data, data.train.fetch(index)).to(device))
    finally:
        model.eval()
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum


def require_stateless(technique: Technique) -> None:
    """Refuse a technique that remembers anything of a weight, whose shape changes from step to step."""
    kept = [name for name in _BETWEEN_STEPS if getattr(type(technique), name) is not getattr(Technique, name)]
    if kept:
        raise InputError(
            f"scheme {technique.scheme.name!r} keeps something of every weight between steps, but a step of a "
            "super-network has slices of its own; choose one that makes its operands anew, as dense, srste or bdwp"
        )
