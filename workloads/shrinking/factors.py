"""Two factors in the place of a weight: by its SVD, or trained as such, in the order of what they carry."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ..errors import InputError

__all__ = ["FactorPair", "factored", "matrix_of", "pairs_of", "paired", "parameter_count", "rank_of", "weighted_layers"]

Weighted = nn.Linear | nn.Conv2d


def weighted_layers(model: nn.Module) -> dict[str, Weighted]:
    """By path, the layers that may become two: linear ones, and convolutions without groups; not the last one, which
    gives the scores, nor what `nn.MultiheadAttention` reads without calling it."""
    held = [name for name, m in model.named_modules() if isinstance(m, nn.MultiheadAttention)]
    found = {
        name: m
        for name, m in model.named_modules()
        if (isinstance(m, nn.Linear) or (isinstance(m, nn.Conv2d) and m.groups == 1))
        and not any(name.startswith(f"{outer}.") for outer in held)
    }
    if len(found) < 2:
        raise InputError(f"{type(model).__name__} has no layer with a weight before its last, so nothing to factor")
    found.pop(list(found)[-1])
    return found


def matrix_of(layer: Weighted) -> Tensor:
    """Its weight as [outputs, all that an output sums over], of its own dtype."""
    return layer.weight.detach().flatten(1)


def rank_of(weight: Tensor, kept: float) -> int:
    """The least rank whose squares of singular values add up to a share ``kept`` of those of ``weight``, float of any
    dtype [m, n]."""
    squares = torch.linalg.svdvals(weight.double()).square()
    return int((squares.cumsum(0) < kept * squares.sum()).sum()) + 1


def parameter_count(model: nn.Module) -> int:
    """Of all that training would change."""
    return sum(parameter.numel() for parameter in model.parameters())


def worth(rank: int, weight: Tensor) -> bool:
    """Whether two factors of that ``rank`` hold less than ``weight``."""
    outputs, inputs = weight.shape
    return rank * (outputs + inputs) < outputs * inputs


class FactorPair(nn.Module):
    """``layer`` as two: ``first`` to as many values as its rank, over the layer's own kernel; ``second`` of them alone.

    Reads and gives what the layer does, of its dtype, any shape of tokens or images.

    ``width``: how many of these values are passed on, None for all.
    """

    def __init__(self, layer: Weighted, left: Tensor, right: Tensor) -> None:
        """``left`` [outputs, rank], ``right`` [rank, inputs]: their product stands for the weight."""
        super().__init__()
        rank = left.shape[1]
        bias = layer.bias is not None
        self.width: int | None = None
        if isinstance(layer, nn.Linear):
            self.first: Weighted = nn.Linear(layer.in_features, rank, bias=False)
            self.second: Weighted = nn.Linear(rank, layer.out_features, bias=bias)
        else:
            self.first = _like(layer, rank, bias=False)
            self.second = nn.Conv2d(rank, layer.out_channels, 1, bias=bias)
        self.to(layer.weight)
        with torch.no_grad():
            self.first.weight.copy_(right.reshape(self.first.weight.shape))
            self.second.weight.copy_(left.reshape(self.second.weight.shape))
            if layer.bias is not None and self.second.bias is not None:
                self.second.bias.copy_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        inner: Tensor = self.first(x)
        if self.width is not None:
            axis = -1 if isinstance(self.first, nn.Linear) else 1
            size = inner.shape[axis]
            keep = (torch.arange(size, device=x.device) < self.width).to(inner.dtype)
            inner = inner * (keep if axis == -1 else keep[:, None, None])
        found: Tensor = self.second(inner)
        return found

    @property
    def product(self) -> Tensor:
        """What stands for the weight, [outputs, inputs], of its dtype."""
        return matrix_of(self.second) @ matrix_of(self.first)

    def cut(self, rank: int) -> FactorPair:
        """The first ``rank`` columns alone."""
        return FactorPair(self._outline(), matrix_of(self.second)[:, :rank], matrix_of(self.first)[:rank])

    def merged(self) -> Weighted:
        """One layer again."""
        layer = self._outline()
        with torch.no_grad():
            layer.weight.copy_(self.product.reshape(layer.weight.shape))
        return layer

    def _outline(self) -> Weighted:
        """A layer of the shape of both, with the bias."""
        bias = self.second.bias
        layer: Weighted
        if isinstance(self.first, nn.Linear) and isinstance(self.second, nn.Linear):
            layer = nn.Linear(self.first.in_features, self.second.out_features, bias=bias is not None)
        else:
            assert isinstance(self.first, nn.Conv2d) and isinstance(self.second, nn.Conv2d), "made as a pair"
            layer = _like(self.first, self.second.out_channels, bias=bias is not None)
        layer.to(self.second.weight)
        if bias is not None and layer.bias is not None:
            with torch.no_grad():
                layer.bias.copy_(bias)
        return layer


def _like(layer: nn.Conv2d, outputs: int, *, bias: bool) -> nn.Conv2d:
    """A convolution over the same windows."""
    return nn.Conv2d(
        layer.in_channels,
        outputs,
        layer.kernel_size,  # type: ignore[arg-type]
        layer.stride,  # type: ignore[arg-type]
        layer.padding,  # type: ignore[arg-type]
        layer.dilation,  # type: ignore[arg-type]
        bias=bias,
        padding_mode=layer.padding_mode,
    )


def by_svd(layer: Weighted, rank: int) -> FactorPair:
    """The pair of that ``rank`` nearest to the weight of ``layer``; both factors get the root of a singular value."""
    u, s, v = torch.linalg.svd(matrix_of(layer).double(), full_matrices=False)
    root = s[:rank].sqrt()
    return FactorPair(layer, (u[:, :rank] * root).to(layer.weight), (root[:, None] * v[:rank]).to(layer.weight))


def factored(model: nn.Module, kept: float) -> nn.Module:
    """A copy of ``model`` with two factors in the place of every weight that is larger than both, at the least rank
    that keeps a share ``kept`` of its squares."""
    small = copy.deepcopy(model)
    for name, layer in weighted_layers(small).items():
        rank = rank_of(matrix_of(layer), kept)
        if worth(rank, matrix_of(layer)):
            _put(small, name, by_svd(layer, rank))
    return small


def paired(model: nn.Module) -> nn.Module:
    """A copy with every weight as two factors of full rank, which give what it gave."""
    whole = copy.deepcopy(model)
    for name, layer in weighted_layers(whole).items():
        _put(whole, name, by_svd(layer, min(matrix_of(layer).shape)))
    return whole


def pairs_of(model: nn.Module) -> dict[str, FactorPair]:
    """By path."""
    return {name: m for name, m in model.named_modules() if isinstance(m, FactorPair)}


def cut_pairs(model: nn.Module, kept: float) -> nn.Module:
    """A copy of a ``model`` of pairs, each with as many of its first columns as keep a share ``kept`` of the squares of
    their product; one that holds no less than its weight is one layer again."""
    small = copy.deepcopy(model)
    for name, pair in pairs_of(small).items():
        rank = next(r for r in _ranks(pair) if _share(pair, r) >= kept)
        _put(small, name, pair.cut(rank) if worth(rank, pair.product) else pair.merged())
    return small


def _ranks(pair: FactorPair) -> Iterator[int]:
    return iter(range(1, matrix_of(pair.first).shape[0] + 1))


def _share(pair: FactorPair, rank: int) -> float:
    """Of the squares of the product, what its first ``rank`` columns leave: 1 less what they miss."""
    missed = (matrix_of(pair.second)[:, rank:] @ matrix_of(pair.first)[rank:]).square().sum()
    whole = pair.product.square().sum()
    return 1.0 if whole == 0 else 1.0 - float(missed / whole)


def _put(model: nn.Module, name: str, layer: nn.Module) -> None:
    outer, _, own = name.rpartition(".")
    setattr(model.get_submodule(outer), own, layer)
