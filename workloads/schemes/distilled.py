"""Images made of what a network's batch norms remember of those that it was trained on (ZeroQ, arXiv 2001.00281).

They begin as noise. Adam brings the mean and the standard deviation of the batch, as each batch norm sees it, to the
stored ones, and those of the images to 0 and 1. The paper's sums are over a batch; its code (repository
amirgholami/ZeroQ) takes each image by itself, for which the 4 x 4 positions of small networks are too few. Adam, and a
rate of 0.5 at first, are the code's; a rate that falls along a cosine instead of at plateaus needs fewer steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..errors import InputError, require_int

__all__ = ["DISTILLING_STEPS", "distilled", "distilling_loss", "has_statistics"]

DISTILLING_STEPS = 100
"""For each batch. Measured on the digits: the loss falls to a five-hundredth, and layers are ranked as by 200."""

_RATE = 0.5
_MOST = 128
_EPSILON = 1e-5
"""Of the input, as batch norms have it unless told; the root of a variance of 0 has no gradient without one."""


def distilled(
    model: nn.Module,
    images: int,
    shape: tuple[int, ...],
    *,
    seed: int = 0,
    steps: int = DISTILLING_STEPS,
    progress: Callable[[int, int], None] | None = None,
) -> list[Tensor]:
    """``images`` in batches [at most 128, *shape] float32, each with the statistics that the batch norms of ``model``
    keep.

    ``shape`` begins with the channels. ``model`` is read in evaluation mode and stays as it is. The same seed gives the
    same images. A model without such batch norms is an `InputError`. ``progress`` is told the steps done, of all.
    """
    require_int("images", images, 1, 2**20)
    require_int("steps", steps, 0, 2**20)
    device = next(model.parameters()).device
    drawn = torch.randn((images, *shape), generator=torch.Generator().manual_seed(seed))
    batches = [part.clone().to(device).requires_grad_() for part in drawn.chunk(-(-images // _MOST))]
    with _listening(model) as heard:
        for number, batch in enumerate(batches):
            optimizer = torch.optim.Adam([batch], lr=_RATE)
            for step in range(steps):
                optimizer.param_groups[0]["lr"] = _RATE * 0.5 * (1 + math.cos(math.pi * step / steps))
                (batch.grad,) = torch.autograd.grad(_loss(model, batch, heard), [batch])
                optimizer.step()
                if progress is not None:
                    progress(number * steps + step + 1, len(batches) * steps)
    return [batch.detach() for batch in batches]


def distilling_loss(model: nn.Module, batch: Tensor) -> float:
    """What `distilled` makes small, of a ``batch`` [images, channels, ...] of the dtype of ``model``.

    The sum, over channels of the input and of all batch norms, of squared differences of means and of deviations.
    """
    with _listening(model) as heard, torch.no_grad():
        return float(_loss(model, batch, heard))


def has_statistics(model: nn.Module) -> bool:
    """Whether images can be distilled from ``model``."""
    return bool(_norms(model))


def _norms(model: nn.Module) -> list[_BatchNorm]:
    return [m for m in model.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]


@contextmanager
def _listening(model: nn.Module) -> Iterator[list[Tensor]]:
    """Evaluation mode, with the loss of each batch norm that is passed added to the list."""
    norms = _norms(model)
    if not norms:
        raise InputError(
            "zeroq-distilled: the model has no batch norm that keeps mean and variance, of which images are made; the "
            "nearest method is zeroq, which looks at images of the training set"
        )
    heard: list[Tensor] = []

    def hear(norm: nn.Module, given: tuple[Tensor, ...]) -> None:
        assert isinstance(norm, _BatchNorm) and norm.running_mean is not None and norm.running_var is not None
        heard.append(_apart(given[0], norm.running_mean, norm.running_var, norm.eps))

    hooks = [norm.register_forward_pre_hook(hear) for norm in norms]
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield heard
    finally:
        for hook in hooks:
            hook.remove()
        for module in training:
            module.training = True


def _loss(model: nn.Module, batch: Tensor, heard: list[Tensor]) -> Tensor:
    heard.clear()
    model(batch)
    zero = batch.new_zeros(batch.shape[1])
    return torch.stack([_apart(batch, zero, zero + 1, _EPSILON), *heard]).sum()


def _apart(x: Tensor, mean: Tensor, variance: Tensor, epsilon: float) -> Tensor:
    """Squared differences of means and of deviations of ``x`` [batch, channels, ...], summed over channels."""
    over = [d for d in range(x.dim()) if d != 1]
    found = x.var(over, correction=0)
    deviations = (found + epsilon).sqrt() - (variance + epsilon).sqrt()
    return (x.mean(over) - mean).square().sum() + deviations.square().sum()
