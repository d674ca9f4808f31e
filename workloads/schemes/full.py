"""Training with all three GEMMs N:M."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from ..errors import InputError
from ..gemm import Pass
from .layer import SparseLayer
from .nm import Bdwp, BdwpOptions, require_share, sampled
from .sampling import systematic
from .technique import Options

__all__ = ["BdwpX"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BdwpXOptions(BdwpOptions):
    """``dense_head``, ``dense_tail``: first and last share of the steps with a dense WU (trials: docs/schemes.md)."""

    dense_head: float = 0.0
    dense_tail: float = 0.0

    def __post_init__(self) -> None:
        BdwpOptions.__post_init__(self)
        for name in ("dense_head", "dense_tail"):
            require_share(name, getattr(self, name), 0.0, 1.0)
        if self.dense_head + self.dense_tail > 1.0:
            raise InputError("options 'dense_head' and 'dense_tail' must not add up to more than 1")

    def schedule(self) -> dict[str, Any]:
        return {"dense_head": self.dense_head, "dense_tail": self.dense_tail}


class BdwpX(Bdwp):
    """BDWP in FF and BP, and in WU an unbiased N:M sample of dY along batch and positions.

    dW = s(dY)^T X with E[s(dY)] = dY (:func:`.sampling.systematic`), so dW is an unbiased estimate of the dense one
    that BDWP computes.
    """

    options_type: ClassVar[type[Options]] = BdwpXOptions
    scales = frozenset((Pass.WU,))

    def update_gradient(self, layer: SparseLayer, dy: Tensor) -> Tensor:
        return sampled(self, layer, dy, systematic)
