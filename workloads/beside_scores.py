"""Ops that attention by a pattern has beside its products: of the same layer and dtype, named by what they are for."""

from __future__ import annotations

from dataclasses import dataclass, replace

from .gemm import Gemm
from .operand import DTYPE_BYTES, Role
from .resized import resized
from .step import MatrixOp, VectorOp

__all__ = ["Beside"]


@dataclass(frozen=True, slots=True)
class Beside:
    """Makes ops of the layer of ``scores``, a product of queries and keys; ``purpose`` stands before each name."""

    scores: MatrixOp
    purpose: str

    def product(self, m: int, k: int, n: int, groups: int) -> MatrixOp:
        """Of activations."""
        made = resized(self.scores, Gemm(m=m, k=k, n=n, groups=groups))
        return replace(made, op=f"{self.purpose}.product", b=replace(made.b, role=Role.ACTIVATION))

    def vector(
        self,
        what: str,
        elements: int,
        read: int,
        write: int,
        more: tuple[int, int] = (0, 0),
        wide: tuple[int, int] = (0, 0),
    ) -> VectorOp:
        """``read`` and ``write`` are elements; ``more``: bytes of the step's formats beside them, ``wide``: of FP32."""
        op = self.scores
        size = DTYPE_BYTES[op.a.dtype]
        return VectorOp(
            name=op.name,
            op=f"{self.purpose}.{what}",
            pass_=op.pass_,
            dtype=op.a.dtype,
            elements=elements,
            read_bytes=read * size + more[0],
            write_bytes=write * size + more[1],
            wide_read=wide[0],
            wide_write=wide[1],
        )
