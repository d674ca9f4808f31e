"""A small spiking network: convolutions between leaky integrate-and-fire neurons, over one time step or several."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

from torch import Tensor, nn

from ..errors import require_int
from ..spiking import LIF
from .source import ModelSource
from .vision import image_source
from .zoo import ZooModel

__all__ = ["STEPS", "SpikingNet", "classifier", "zoo_source"]

STEPS = {"snn": 1, "snn_t4": 4}
"""Time steps of the models of this file."""
_MOST_STEPS = 64
_GAIN = (1.5, 7.0)
"""Variance of a current, over that of what makes it, of the first convolution and of others: with a threshold of 1
about a sixth of all neurons fire at first, in every layer (tried on the digits). As PyTorch has it none do."""


class SpikingNet(nn.Module):
    """Three 3 x 3 convolutions without bias, the last two with stride 2, LIF neurons behind each, and a linear layer
    whose scores are summed over the time steps.

    Pixels are the current of the first neurons in every step, so their convolution is made once (direct encoding, as in
    IIR-SNN); all later layers see spikes.
    """

    def __init__(
        self, size: int, classes: int = 10, channels: int = 1, *, width: int = 64, steps: int = 1, leak: int = 1
    ) -> None:
        super().__init__()
        require_int("time steps", steps, 1, _MOST_STEPS)
        self.steps = steps
        widths = (channels, width, width, 2 * width)
        convs = [
            nn.Conv2d(inner, outer, 3, stride=1 + bool(i), padding=1, bias=False)
            for i, (inner, outer) in enumerate(pairwise(widths))
        ]
        for i, conv in enumerate(convs):
            nn.init.normal_(conv.weight, std=(_GAIN[bool(i)] / conv.weight[0].numel()) ** 0.5)
        self.convs = nn.ModuleList(convs)
        self.neurons = nn.ModuleList(LIF(w, leak) for w in widths[1:])
        side = (size + 3) // 4
        self.head = nn.Linear(2 * width * side * side, classes, bias=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Scores [batch, classes] of ``pixels`` [batch, channels, height, width], both of one float dtype."""
        first, *others = self.convs
        current = first(pixels)
        spikes: Tensor = self.neurons[0](current.expand(self.steps, *current.shape))
        for conv, neurons in zip(others, self.neurons[1:], strict=True):
            made = conv(spikes.flatten(0, 1))
            spikes = neurons(made.unflatten(0, (self.steps, -1)))
        scores: Tensor = self.head(spikes.flatten(2)).sum(0)
        return scores


def classifier(model: ZooModel, size: int, classes: int, channels: int) -> nn.Module:
    """A model of this file for images of other sizes and classes."""
    return SpikingNet(size, classes, channels, steps=STEPS[model.name])


def zoo_source(model: ZooModel, size: int) -> ModelSource:
    """The source of a model of this file at an image side of ``size``."""
    return image_source(model, partial(classifier, model, size, 10, model.channels), size)
