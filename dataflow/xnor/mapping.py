"""How the XNOR engine runs a product: which dataflow, which interleave, and how many words an element keeps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from ...workloads.errors import InputError, require_choice, require_int
from ...workloads.sparsity import MAX_GROUP, NMPattern
from ...workloads.step import MatrixOp
from ..accelerator import AcceleratorSpec
from ..stce.mapping import REGISTERS, Dataflow, holds_pairs
from ..stce.spec import MAX_ACCUMULATORS
from .spec import XnorSpec

__all__ = ["XNOR_DATAFLOWS", "XnorMapping", "require_xnor"]

XNOR_DATAFLOWS = (Dataflow.OS, Dataflow.WS)
"""OS1 saves the drain register of a sum, which here is as wide as its accumulator: nobody asked for it yet."""


def require_xnor(spec: AcceleratorSpec) -> XnorSpec:
    """The XNOR engine of a machine that has one."""
    if spec.xnor is None:
        raise InputError(f"{spec.name!r} has no XNOR engine: give it a table [xnor] with rows and cols")
    return spec.xnor


@dataclass(frozen=True, slots=True, kw_only=True)
class XnorMapping:
    """How the engine runs C = A B with A flowing W2E and B N2S; ``group``: the words that an element keeps in WS."""

    kind: ClassVar[Literal["xnor"]] = "xnor"
    dataflow: Dataflow
    interleave: int
    group: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "dataflow", Dataflow(require_choice("dataflow", self.dataflow, XNOR_DATAFLOWS)))
        require_int("interleave", self.interleave, 1, MAX_ACCUMULATORS)
        require_int("group", self.group, 1, MAX_GROUP if holds_pairs(self.dataflow) else 1)

    @property
    def pattern(self) -> NMPattern:
        """Of words, as the array executes it: dense."""
        return NMPattern(keep=self.group, group=self.group)

    def check(self, spec: AcceleratorSpec) -> None:
        """Refuse what the registers of an element cannot hold."""
        own = require_xnor(spec)
        require_int("interleave", self.interleave, 1, own.accumulators)
        if holds_pairs(self.dataflow):
            require_int("group", self.group, 1, own.weight_words)
        held = REGISTERS[self.dataflow](self.group, self.group, self.interleave).dense_words
        if held > own.dense_words:
            raise InputError(
                f"{self.dataflow} with {self.group} words kept and interleave {self.interleave} holds {held} words of "
                f"the other operand, but xnor.dense_words is {own.dense_words}; use an interleave of at most "
                f"{max(own.dense_words // self.group, 1)}"
            )

    def check_op(self, op: MatrixOp, n2s: str) -> None:
        """Refuse to run ``op`` with operand ``n2s`` flowing N2S: words go either way, N:M forms not at all."""
        if op.sparse is not None:
            raise InputError(f"operand {op.sparse.operand} of {op.name!r} is {op.sparse}; words are dense")
