"""What is known of the ops and tensors of a step before anything is joined."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import cached_property

from ...workloads.gemm import Pass
from ...workloads.step import MatrixOp, Op, VectorOp
from ...workloads.tensors import StepTensor
from .rules import CONSTANTS, MAPS

__all__ = ["Facts", "when"]


class Facts:
    """The step by numbers, before it is fused: ops by their place, tensors by theirs in ``Workload.tensors``. Each is
    found out once, when it is asked for: of a step that is not fused nothing is."""

    def __init__(self, ops: Sequence[Op], tensors: Sequence[StepTensor]) -> None:
        self.ops, self.tensors = ops, tensors

    @cached_property
    def elements(self) -> list[int]:
        """Of tensors."""
        return [t.elements for t in self.tensors]

    @cached_property
    def bytes(self) -> list[int]:
        """Of tensors."""
        return [t.bytes for t in self.tensors]

    @cached_property
    def names(self) -> list[str]:
        """Of vector work, as the rules have them."""
        return [_name(op) for op in self.ops]

    @cached_property
    def read(self) -> dict[int, list[int]]:
        """Tensors by the op that reads them."""
        found = defaultdict[int, list[int]](list)
        for number, tensor in enumerate(self.tensors):
            for i in tensor.read:
                found[i].append(number)
        return found

    @cached_property
    def made(self) -> dict[int, list[int]]:
        """Tensors by the op that makes them."""
        found = defaultdict[int, list[int]](list)
        for number, tensor in enumerate(self.tensors):
            if tensor.made >= 0:
                found[tensor.made].append(number)
        return found

    @cached_property
    def reads_whole(self) -> list[bool]:
        """Whether vector work reads all of every tensor that it reads."""
        return [isinstance(op, VectorOp) and self._reads_whole(i, op) for i, op in enumerate(self.ops)]

    @cached_property
    def writes_whole(self) -> list[bool]:
        """Whether vector work writes all of every tensor that it makes."""
        return [isinstance(op, VectorOp) and self._writes_whole(i, op) for i, op in enumerate(self.ops)]

    @cached_property
    def maps(self) -> list[bool]:
        """Whether an op makes one tensor, element by element."""
        return [isinstance(op, VectorOp) and self._maps(i, op) for i, op in enumerate(self.ops)]

    @cached_property
    def constants(self) -> frozenset[int]:
        """Tensors that are one number everywhere."""
        return frozenset(t for t in range(len(self.tensors)) if self._is_constant(t))

    def gives_whole(self, i: int, op: MatrixOp) -> bool:
        """Whether a product gives every result once and whole: a gradient of a convolution with windows is added up in
        memory where the mapping cuts them, and gradients of shared weights are added up where they lie."""
        made, g = self.made.get(i, ()), op.gemm
        whole = op.c.elements == g.groups * g.m * g.n
        return whole and op.pass_ is not Pass.WU and len(made) == 1 and self.bytes[made[0]] == op.c.bytes

    def floats(self, tensor: int) -> bool:
        """Whether it is of a floating format."""
        return "float" in self.tensors[tensor].dtype

    def _reads_whole(self, i: int, op: VectorOp) -> bool:
        return not op.wide_read and sum(self.bytes[t] for t in self.read.get(i, ())) == op.read_bytes

    def _writes_whole(self, i: int, op: VectorOp) -> bool:
        made = self.made.get(i, ())
        return bool(made) and not op.wide_write and sum(self.bytes[t] for t in made) == op.write_bytes

    def _maps(self, i: int, op: VectorOp) -> bool:
        made = self.made.get(i, ())
        if self.names[i] not in MAPS or len(made) != 1 or not self.reads_whole[i] or not self.writes_whole[i]:
            return False
        size = self.elements[made[0]]
        return size == op.elements and all(self.elements[t] <= size for t in self.read.get(i, ()))

    def _is_constant(self, tensor: int) -> bool:
        made, read = self.tensors[tensor].made, self.tensors[tensor].read
        if made < 0 or self.names[made] not in CONSTANTS or not read or not self.writes_whole[made]:
            return False
        return all(self.maps[i] for i in read)


def _name(op: Op) -> str:
    return op.op.removeprefix("aten.").removesuffix("_") if isinstance(op, VectorOp) else ""


def when(op: Op) -> tuple[bool, bool]:
    """Forward or backward, and whether it is done again: what one needs the other must not keep."""
    return op.pass_ is Pass.FF, isinstance(op, MatrixOp | VectorOp) and op.recompute
