"""The layers of BiPFT: binary weights around their mean, binary activations whose scale begins at twice their mean."""

from __future__ import annotations

from torch import Tensor

from .estimated import Estimated
from .estimator import Estimator, Few, sign

__all__ = ["BiPft", "Centred", "Elastic"]


class Centred(Estimator):
    """m sign(W - e), m the mean |W| and e the mean W of the layer; straight through."""

    def few(self, x: Tensor) -> Few:
        return Few(values=sign(x - x.mean()), scale=x.abs().mean().reshape(1, 1, 1, 1))


class Elastic(Estimator):
    """a sign(X), a = 2 mean |X| of every row; the gradient is that of X clipped to [-a, a]."""

    @staticmethod
    def _scale(x: Tensor) -> Tensor:
        return 2 * x.abs().mean(tuple(range(1, x.dim())), keepdim=True)

    def few(self, x: Tensor) -> Few:
        return Few(values=sign(x), scale=self._scale(x))

    def gradient(self, g: Tensor, x: Tensor) -> Tensor:
        return g * (x.abs() <= self._scale(x))


class BiPft(Estimated):
    """BiPFT (Xing et al., AAAI 2024, arXiv 2312.08937; repository Xingrun-Xing/BiPFT), its layers.

    There the scale of activations is learned for a layer, from where it is here at every step, and a learned bias
    stands in front of the sign. The low-rank estimators of the residue are parameters of self-attention, so they are
    the model's: ``examples/bipft.py``.
    """

    def weight_estimator(self) -> Estimator:
        return Centred()

    def activation_estimator(self) -> Estimator:
        return Elastic()
