"""The statistical top-k of Spark in the place of a ReLU."""

from __future__ import annotations

from statistics import NormalDist

from torch import Tensor, nn
from torch.nn import functional

from ..rows import Alike

__all__ = ["StatisticalTopK", "replace_relu", "statistical_top_k"]


class StatisticalTopK(nn.Module):
    """max(x - threshold, 0) with :func:`statistical_top_k` of every token, in the place of a ReLU."""

    def __init__(self, density: float) -> None:
        super().__init__()
        self.density = density

    def forward(self, x: Tensor) -> Tensor:
        """Of ``x``, float32 [..., neurons], the same shape."""
        return functional.relu(x - statistical_top_k(x, self.density))


def statistical_top_k(x: Tensor, density: float) -> Tensor:
    """The threshold above which a share ``density`` of normally distributed ``x``, float32 [..., neurons], lies:
    mean + deviation times a quantile, of that dtype, [..., 1] (Spark Transformer, arXiv 2506.06644, from memory)."""
    quantile = NormalDist().inv_cdf(1 - density)
    return x.mean(-1, keepdim=True) + quantile * x.std(-1, keepdim=True)


def replace_relu(model: nn.Module, density: float) -> None:
    Alike(density=density)  # refuses what is none
    for module in list(model.modules()):
        if isinstance(getattr(module, "activation_fn", None), nn.ReLU):
            module.activation_fn = StatisticalTopK(density)
