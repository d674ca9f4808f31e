"""Ternary weights under activations of 8 bits: BitNet b1.58 and BitNet b1.58 Reloaded."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .estimated import EPSILON, Estimated
from .estimator import Estimator, Few

__all__ = ["BitNet", "BitNetMedian", "Bytes", "Ternary"]

_MOST = 128


@dataclass(frozen=True, slots=True)
class Ternary(Estimator):
    """gamma clip(round(W / gamma), -1, 1), gamma the mean or the ``median`` of |W| of the layer; straight through."""

    median: bool

    def few(self, x: Tensor) -> Few:
        size = x.abs()
        gamma = (size.median() if self.median else size.mean()).clamp_min(EPSILON)
        return Few(values=(x / gamma).round().clamp(-1, 1), scale=gamma.reshape(1, 1, 1, 1))


class Bytes(Estimator):
    """s / 128 clip(round(128 x / s), -128, 127), s the largest |x| of each row; straight through."""

    def few(self, x: Tensor) -> Few:
        most = x.abs().amax(tuple(range(1, x.dim())), keepdim=True)
        most = most.to(torch.promote_types(x.dtype, torch.float32)).clamp_min(EPSILON)
        values = (x * (_MOST / most)).round().clamp(-_MOST, _MOST - 1)
        return Few(values=values.to(x.dtype), scale=most / _MOST)


class BitNet(Estimated):
    """BitNet b1.58 (Ma et al., arXiv 2402.17764): ternary weights by their mean |W|, activations of 8 bits a token."""

    def weight_estimator(self) -> Estimator:
        return Ternary(median=False)

    def activation_estimator(self) -> Estimator:
        return Bytes()


class BitNetMedian(BitNet):
    """BitNet b1.58 Reloaded (Nielsen and Schneider-Kamp, arXiv 2407.09527; repository schneiderkamplab/bitlinear): by
    their median."""

    def weight_estimator(self) -> Estimator:
        return Ternary(median=True)
