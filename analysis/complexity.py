"""What a network is on paper: bit operations of an image, bits of its parameters.

A multiply-accumulate of an a-bit by a b-bit operand counts as a x b bit operations (BOPs; Baskin et al., UNIQ, arXiv
1804.10969, as recalled, without its term for the accumulator). Pruned products of an N:M operand do not count.
"""

from __future__ import annotations

from typing import assert_never

from ..dataflow.operand import OperandFormat
from ..dataflow.problem import element_bits
from ..workloads.copies import CompactCopy, PackedCopy
from ..workloads.gemm import Pass
from ..workloads.operand import Role
from ..workloads.step import MatrixOp, UpdateOp, Workload

__all__ = ["bit_operations", "parameter_bits"]


def bit_operations(step: Workload, word: OperandFormat) -> float:
    """BOPs of the forward pass of one sample; ``word``: the format of operands that have no levels."""
    forward = [op for op in step.matrix_ops if op.pass_ is Pass.FF and not op.recompute]
    return sum(op.macs * element_bits(op.a, word) * element_bits(op.b, word) for op in forward) / step.batch


def parameter_bits(step: Workload, word: OperandFormat) -> int:
    """Bits of the trained parameters as the forward pass reads them, N:M indices included, scales of few values not.

    A weight that some product reads whole is stored whole. Master weights and the optimizer's state are no part of it.
    """
    readers: dict[str, list[MatrixOp]] = {}
    for op in step.matrix_ops:
        if op.pass_ is Pass.FF and op.parameter is not None:
            readers.setdefault(op.parameter, []).append(op)
    updates = [op for op in step.ops if isinstance(op, UpdateOp)]
    return sum(_stored(update, word, readers.get(update.name, [])) for update in updates)


def _stored(update: UpdateOp, word: OperandFormat, readers: list[MatrixOp]) -> int:
    """Bits of a parameter, of all its planes; as numbers of the machine where no product reads it."""
    planes: dict[int, int] = {}
    for op in readers:
        planes[op.plane] = max(planes.get(op.plane, 0), _read_by(op, update.elements, word))
    return sum(planes.values()) or update.elements * word.bits


def _read_by(op: MatrixOp, elements: int, word: OperandFormat) -> int:
    match op.copy:
        case CompactCopy() as copy:
            return copy.kept * (word.bits + copy.pattern.index_bits)
        case PackedCopy() | None:
            weight = next((x for x in (op.a, op.b) if x.role is Role.WEIGHT), None)
            return elements * (word.bits if weight is None else element_bits(weight, word))
        case _:
            assert_never(op.copy)
