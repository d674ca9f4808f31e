"""A network that a small board holds: `weft compile examples/small_net.py:small --arch tiny-ecp5 --batch 8`."""

from torch import nn


def small(classes: int = 10) -> nn.Module:
    """A perceptron of 64, 16 and 10, for 8 x 8 digits."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, classes))
