"""Spiking neurons to train with: what one fires, and what stands for the derivative of that.

The neuron is that of IIR-SNN (Chowdhury, Rathi and Roy, arXiv 2110.05929; repository SayeedChowdhury/IIR-SNN,
vgg_spiking_mem_new.py): u' = l u + s, z = u' / v - 1, a spike where z is above 0, reset by subtraction of v at once.
Different here: z = 0 fires too, as a threshold does at the edge of the XNOR engine; the leak is a power of two and not
learned, l = 1 - 2^-leak; a channel has a threshold of its own.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .errors import require_int
from .gemm import MAX_DIM

__all__ = ["DAMPING", "LIF", "MOST_LEAK", "fired", "surrogate"]

DAMPING = 0.3
"""IIR-SNN's, of its surrogate."""
MOST_LEAK = 31
"""An arithmetic shift by more does nothing else to a membrane of 32 bits."""


def surrogate(z: Tensor) -> Tensor:
    """What stands for the derivative of a spike by ``z`` = u / v - 1: `DAMPING` max(0, 1 - abs z); both
    of any shape and one float dtype."""
    return DAMPING * (1 - z.abs()).clamp_min(0)


class _Fired(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor) -> Tensor:
        ctx.save_for_backward(z)
        return (z >= 0).to(z.dtype)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        (z,) = ctx.saved_tensors
        return g * surrogate(z)


def fired(z: Tensor) -> Tensor:
    """1 where ``z`` is at least 0, else 0, with the gradient of :func:`surrogate`; any shape, of a float dtype."""
    found: Tensor = _Fired.apply(z)  # type: ignore[no-untyped-call]
    return found


class LIF(nn.Module):
    """Leaky integrate-and-fire neurons, one a channel and position, which begin with a membrane of 0.

    ``leak``: a step leaves 1 - 2^-leak of a membrane, 0 nothing. Thresholds are learned, by their logarithm, as they
    must stay above 0. No gradient goes through whether a reset takes place, as in the repository.
    """

    def __init__(self, channels: int, leak: int = 1) -> None:
        super().__init__()
        require_int("channels of LIF neurons", channels, 1, MAX_DIM)
        require_int("leak of LIF neurons", leak, 0, MOST_LEAK)
        self.channels, self.leak = channels, leak
        self.log_threshold = nn.Parameter(torch.zeros(channels))

    @property
    def threshold(self) -> Tensor:
        """Of every channel, float32 [channels], above 0."""
        return self.log_threshold.exp()

    def forward(self, currents: Tensor) -> Tensor:
        """Spikes, 0 or 1, of ``currents`` [steps, batch, channels, *positions], both of one float dtype."""
        steps = currents.unbind()
        threshold = self.threshold.to(currents.dtype).reshape(-1, *[1] * (currents.dim() - 3))
        membrane, spikes = None, []
        for step, current in enumerate(steps):
            membrane = current if membrane is None else (1 - 2.0**-self.leak) * membrane + current
            spikes.append(fired(membrane / threshold - 1))
            if step + 1 < len(steps):
                membrane = membrane - threshold * spikes[-1].detach()
        return torch.stack(spikes)
