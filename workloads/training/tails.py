"""How few neurons of the model of characters are needed: the largest tail that may be left out under a bound on loss.

A neuron's output is what it adds to its layer's: its activation times its column of the second weight. Of a token, the
neurons whose output is not longer than a threshold of the layer are its tail. The cumulative error of tail truncation
(CETT) is the length of the tail's sum over that of all neurons' sum, mean over tokens. One CETT for all layers gives
each its threshold; the largest CETT under which perplexity rises by at most p % gives the PPL-p% sparsity (Luo et al.,
arXiv 2411.02335; how it is computed is read in thunlp/SparsingLaw).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..data.text import TextData
from ..errors import InputError
from ..rows import Alike, alike_of
from .characters import above, bits, pieces, weighed
from .recording import hearing, linear_layers

__all__ = ["Activation", "activation", "tail_error", "tail_threshold"]

_CALIBRATED = 16
"""Pieces of the training text that a CETT's thresholds are of."""
_HALVINGS_CETT = 10
"""Of 1: to a thousandth, as the paper's repository has it."""
_HALVINGS = 24
"""Of twice the longest output of a neuron."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Activation:
    """What is left of a model's neurons. ``bits`` a character of the test text: of the whole model, and with the tails
    left out; ``ratios``: share of the neurons that are kept, by layer; ``nonzero``: share of all that are not exactly
    zero; ``alike``: density and correlation of all layers together."""

    cett: float
    bits: tuple[float, float]
    ratios: tuple[float, ...]
    nonzero: float
    alike: Alike

    @property
    def ratio(self) -> float:
        """Of all layers, which are as wide."""
        return sum(self.ratios) / len(self.ratios)


def tail_error(x: Tensor, weight: Tensor, threshold: float) -> float:
    """CETT of a ``threshold``, of activations ``x``, float32 [tokens, neurons], before ``weight``, float32 [outputs,
    neurons]. A token whose neurons give nothing has no error."""
    left_out = x * ~above(weight.norm(dim=0), threshold, x)
    tail, whole = ((part @ weight.T).norm(dim=-1) for part in (left_out, x))
    return float(torch.where(whole > 0, tail / whole, torch.zeros(())).mean())


def tail_threshold(x: Tensor, weight: Tensor, cett: float) -> float:
    """By bisection, a threshold whose `tail_error` is at most ``cett``, and above which the next is not; of ``x`` and
    ``weight``, float32 [tokens, neurons] and [outputs, neurons]."""
    # Twice the longest, so that all may go.
    low, high = 0.0, 2 * float(weighed(x, weight.norm(dim=0)).max())
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        fits = tail_error(x, weight, middle) <= cett
        low, high = (middle, high) if fits else (low, middle)
    return low


@torch.no_grad()
def activation(model: nn.Module, text: TextData, rise: float = 0.01) -> Activation:
    """Of a trained ``model`` with the largest tails under which its perplexity on the test text rises by at most
    ``rise``. Thresholds are of the training text."""
    if not 0 < rise <= 1:
        raise InputError(f"the rise of perplexity must be above 0, 1 at most, not {rise!r}: 0.01 is 1 %")
    layers = [(name, layer) for name, layer in linear_layers(model) if name.endswith("fc2")]
    seen: dict[str, Tensor] = {}

    def note(name: str, _: nn.Module, args: tuple[Any, ...]) -> None:
        seen[name] = args[0].flatten(0, -2)

    with hearing(layers, note):
        model.eval()(input_ids=pieces(text.train, _CALIBRATED)[:, :-1])

    def cuts(cett: float) -> dict[str, Callable[[Tensor], Tensor]]:
        return {
            name: partial(above, layer.weight.norm(dim=0), tail_threshold(seen[name], layer.weight, cett))
            for name, layer in layers
        }

    whole = bits(model, text)
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS_CETT):
        middle = (low + high) / 2
        fits = bits(model, text, cuts(middle)) <= whole + math.log2(1 + rise)
        low, high = (middle, high) if fits else (low, middle)
    return _kept_under(model, text, cuts(low), whole, low)


def _kept_under(
    model: nn.Module, text: TextData, cuts: dict[str, Callable[[Tensor], Tensor]], whole: float, cett: float
) -> Activation:
    masks: dict[str, Tensor] = {}
    nonzero: list[float] = []

    def kept(name: str, x: Tensor) -> Tensor:
        masks[name] = cuts[name](x)
        nonzero.append(float((x != 0).float().mean()))
        return masks[name]

    found = bits(model, text, {name: partial(kept, name) for name in cuts})
    together = np.concatenate([mask.flatten(0, -2).numpy() for mask in masks.values()], axis=1)
    return Activation(
        cett=cett,
        bits=(whole, found),
        ratios=tuple(float(mask.float().mean()) for mask in masks.values()),
        nonzero=sum(nonzero) / len(nonzero),
        alike=alike_of(together),
    )
