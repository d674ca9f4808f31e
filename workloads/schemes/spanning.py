"""Binary channels pulled together while they are trained, so that a spanning tree of them compares few bits.

The term is this project's own: that of MST-compression (Vo et al., ICCV 2023, arXiv 2308.13735), which pulls channels
towards fixed centres, is not public in its exact form.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError, require_int
from ..spanning_tree import ROOT, spanning_tree
from .binary import BinaryOptions, BiReal
from .estimator import sign
from .layer import SparseLayer
from .nm import require_share
from .technique import Options

__all__ = ["Mst", "MstOptions", "nearest_centres", "parents", "pull_gradient"]

_MOST_CENTRES = 2**16


@dataclass(frozen=True, slots=True, kw_only=True)
class MstOptions(BinaryOptions):
    """``pull``: lambda, what a weight that is not of its target's sign has in its gradient; it is 0 for the share
    ``begin`` of the steps and rises linearly until the share ``full``.

    ``centres``: how many random channels of signs each layer is pulled to; 0 for the parents of its tree.
    """

    pull: float = 1e-3
    begin: float = 0.0
    full: float = 0.5
    centres: int = 4

    def __post_init__(self) -> None:
        BinaryOptions.__post_init__(self)
        require_share("pull", self.pull, 0.0, 1e3)
        require_share("begin", self.begin, 0.0, 1.0)
        require_share("full", self.full, self.begin, 1.0)
        if isinstance(self.centres, bool):
            raise InputError(f"option 'centres' must be an integer, not {self.centres}")
        require_int("option 'centres'", self.centres, 0, _MOST_CENTRES)


class Mst(BiReal):
    """Bi-Real Net whose loss has, for every layer, lambda sum max(0, -t w) of its weights w; dW gets -lambda t where
    sign(w) is not t.

    t is the sign that the channel's parent has there, in the spanning tree of the signs of this very step (its root is
    pulled nowhere), or that of the nearest of the fixed ``centres``, drawn from the seed. Trees do not cross the groups
    of a convolution. Ours, not the paper's.
    """

    options_type: ClassVar[type[Options]] = MstOptions
    options: MstOptions

    @property
    def pull(self) -> float:
        """lambda of the current step."""
        o, done = self.options, self.step / self.steps
        if done < o.begin:
            return 0.0
        return o.pull * (1.0 if done >= o.full else (done - o.begin) / (o.full - o.begin))

    def adjust_gradients(self, step: int) -> None:
        if not self.pull:
            return
        for number, layer in enumerate(self.own_layers()):
            weight = layer.weight
            if weight.grad is not None:
                own = layer.canonical(weight.detach())
                made = layer.stored(pull_gradient(own, self._targets(layer, own, number)))
                weight.grad.add_(made, alpha=self.pull)

    def _targets(self, layer: SparseLayer, weight: Tensor, number: int) -> Tensor:
        if not self.options.centres:
            return parents(weight)
        groups, _, inputs, taps = layer.shape
        draw = np.random.default_rng([self.seed, number])
        drawn = draw.integers(0, 2, (groups, self.options.centres, inputs, taps)) * 2 - 1
        return nearest_centres(weight, torch.from_numpy(drawn).to(weight))


def pull_gradient(weight: Tensor, target: Tensor) -> Tensor:
    """The derivative of sum max(0, -t w), at 0 by its sign +1: -t where sign(w) is not ``target``, t of -1 and +1.

    Both and the result: any shape, the same, of one float dtype.
    """
    return torch.where(sign(weight) == target, 0.0, -target)


def parents(weight: Tensor) -> Tensor:
    """The signs of every channel's parent in the spanning tree of its group's signs; the root's are its own.

    Both [groups, out, in, taps], of one float dtype.
    """
    signs = sign(weight)
    found = []
    for group in signs:
        tree = spanning_tree((group > 0).flatten(1).cpu().numpy())
        own = np.arange(len(tree.parent))
        above = np.where(tree.parent == ROOT, own, tree.parent)
        found.append(group[torch.from_numpy(above).to(group.device)])
    return torch.stack(found)


def nearest_centres(weight: Tensor, centres: Tensor) -> Tensor:
    """The one of ``centres``, -1 and +1 [groups, centres, in, taps], that most signs of each channel agree with; the
    first of equals.

    ``weight`` and the result [groups, out, in, taps], all of one float dtype.
    """
    agree = sign(weight).flatten(2) @ centres.flatten(2).transpose(1, 2)
    groups = torch.arange(len(weight), device=weight.device)[:, None]
    return centres[groups, agree.argmax(2)]
