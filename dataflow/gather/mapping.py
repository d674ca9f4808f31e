"""How the gather engine runs a product: everything but the macro-tiles is the machine's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from ...workloads.errors import InputError, require_int
from ...workloads.operand import Gathered
from ...workloads.step import MatrixOp
from ..accelerator import AcceleratorSpec
from .spec import GatherSpec

__all__ = ["GatherMapping", "require_gather"]


def require_gather(spec: AcceleratorSpec) -> GatherSpec:
    """The gather engine of a machine that has one."""
    if spec.gather is None:
        raise InputError(f"{spec.name!r} has no gather engine: give it a table [gather] with lanes and width")
    return spec.gather


@dataclass(frozen=True, slots=True, kw_only=True)
class GatherMapping:
    """The lines of the operand without a pattern flow N2S, those of the dense one W2E; a lane holds ``interleave``."""

    kind: ClassVar[Literal["gather"]] = "gather"
    dataflow: ClassVar[None] = None
    pattern: ClassVar[None] = None
    interleave: int

    def check(self, spec: AcceleratorSpec) -> None:
        """Refuse a machine without such an engine, or whose lanes do not hold so many lines."""
        most = require_gather(spec).interleave
        require_int(f"interleave on the gather engine of {spec.name!r}", self.interleave, 1, most)

    def check_op(self, op: MatrixOp, n2s: str) -> None:
        """Refuse to run ``op`` with operand ``n2s`` flowing N2S."""
        if not isinstance(op.sparse, Gathered):
            raise InputError(f"{op.name!r} is {op.sparse or 'dense'}; the gather engine takes masks without a pattern")
        if n2s != op.sparse.operand:
            raise InputError(f"operand {op.sparse.operand} of {op.name!r} is gathered and flows N2S, not {n2s}")
