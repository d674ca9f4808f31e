"""The matrix product every layer of a training step is made of, and the pass it belongs to."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from .errors import InputError, require_int

__all__ = ["GEMM_PASSES", "MAX_DIM", "MAX_MACS", "Gemm", "Pass"]

MAX_DIM = 2**40
MAX_MACS = 2**53
"""Bounds of one op, so that every count and every cycle of it stays exact in 64-bit integers."""


class Pass(StrEnum):
    """Part of a training step: the three GEMMs of training and the optimizer."""

    FF = "FF"
    """Forward: Y = X W."""
    BP = "BP"
    """Gradient of the input: dX = dY W^T."""
    WU = "WU"
    """Gradient of the weight: dW = X^T dY."""
    OPT = "OPT"
    """Optimizer step; element-wise, never a GEMM."""


GEMM_PASSES = (Pass.FF, Pass.BP, Pass.WU)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gemm:
    """``groups`` independent products C[m,n] += A[m,k] B[k,n]; ``k`` is always the contraction.

    ``run`` is the number of contraction elements that lie side by side along channels; it divides ``k``.
    A convolution's forward contraction is kernel taps x input channels with the channels innermost, so its run
    is the input channels of one convolution group; N:M groups never cross a run. 0 stands for ``k``.
    """

    __pydantic_config__ = {"extra": "forbid"}

    m: int
    k: int
    n: int
    groups: int = 1
    run: int = 0

    def __post_init__(self) -> None:
        for name in ("m", "k", "n", "groups"):
            require_int(f"{name} of a GEMM", getattr(self, name), 1, MAX_DIM)
        if self.run == 0:
            object.__setattr__(self, "run", self.k)
        require_int("run of a GEMM", self.run, 1, self.k)
        if self.k % self.run:
            raise InputError(f"run of a GEMM must divide k, but k = {self.k} and run = {self.run}")
        if self.macs > MAX_MACS:
            raise InputError(f"a GEMM of {self.macs} multiply-accumulates is above the limit of 2^53")

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the dense product over all groups."""
        return self.groups * self.m * self.k * self.n

    @property
    def transposed(self) -> Gemm:
        """The same product with the operands exchanged: C^T = B^T A^T."""
        return Gemm(m=self.n, k=self.k, n=self.m, groups=self.groups, run=self.run)

    def __str__(self) -> str:
        head = f"{self.groups} x " if self.groups > 1 else ""
        return f"{head}{self.m} x {self.k} x {self.n}"
