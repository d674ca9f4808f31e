"""How an engine of others runs a product; `engines.register_engine` takes one, `docs/extending.md` makes one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from ..workloads.errors import InputError
from ..workloads.step import MatrixOp
from .accelerator import AcceleratorSpec

__all__ = ["OutsideMapping"]


@dataclass(frozen=True, slots=True, kw_only=True)
class OutsideMapping:
    """How the engine called ``engine`` runs a product; one with choices of its own makes a class below this.

    It has no dataflow, pattern or interleave as arrays do, so records leave these empty.
    """

    kind: ClassVar[Literal["outside"]] = "outside"
    dataflow: ClassVar[None] = None
    pattern: ClassVar[None] = None
    interleave: ClassVar[None] = None
    engine: str

    def check(self, spec: AcceleratorSpec) -> None:
        """Refuse what the engine cannot hold; as it stands nothing."""

    def check_op(self, op: MatrixOp, n2s: str) -> None:
        """Refuse an op that the engine cannot run; as it stands, one with an N:M operand."""
        if op.sparse is not None:
            raise InputError(f"operand {op.sparse.operand} of {op.name!r} is {op.sparse}; {self.engine!r} is dense")
