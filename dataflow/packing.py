"""In which form packed tensors are written: that which the engine reads on which each product was placed.

An XNOR engine reads words along the contraction of its pass, the STCE a tensor without padding, as it lies, in every
pass (`simulator/transfers.py:layout_of`). So a tensor that both read, or that an XNOR engine reads along two axes, is
written in both forms, and one that only the STCE reads is written once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import assert_never

from ..workloads.copies import PackedCopy, WeightCopy, as_read
from ..workloads.operand import Role
from ..workloads.step import MatrixOp, Op, UpdateOp, VectorOp, Workload
from .accelerator import AcceleratorSpec
from .gather.mapping import GatherMapping
from .outside import OutsideMapping
from .placement import Placement
from .stce.mapping import ArrayMapping
from .xnor.mapping import XnorMapping, require_xnor

__all__ = ["packed_operand", "read_as", "with_forms", "word_bits"]

Readers = dict[tuple[str, WeightCopy], dict[int, None]]
"""Bits of the words that a copy is read in, each once, in the order of its readers."""


def word_bits(placement: Placement, spec: AcceleratorSpec) -> int:
    """Bits of the words that the engine of a placement reads packed operands in; 0: without padding."""
    match placement.mapping.array:
        case XnorMapping():
            return require_xnor(spec).word_bits
        case ArrayMapping() | GatherMapping() | OutsideMapping():
            return 0
        case _:
            assert_never(placement.mapping.array)


def packed_operand(op: MatrixOp, role: Role, placement: Placement, spec: AcceleratorSpec) -> PackedCopy | None:
    """The packed operand of ``role`` that ``op`` reads where it was placed; None where it has no levels."""
    copy = op.packed(role)
    return None if copy is None else replace(copy, word_bits=word_bits(placement, spec))


def with_forms(workload: Workload, placements: Sequence[Placement | None], spec: AcceleratorSpec) -> Workload:
    """``workload`` with packed copies in the forms that its products read, and without what their engines do at their
    edge."""
    readers: Readers = {}
    for op, placement in zip(workload.ops, placements, strict=True):
        if isinstance(op, MatrixOp) and placement is not None:
            for key in read_as(op):
                readers.setdefault(key, {})[word_bits(placement, spec)] = None

    def made(i: int, op: Op) -> Op:
        match op:
            case MatrixOp():
                return op
            case VectorOp():
                packed = replace(op, packs=tuple(_forms(op.parameter or "", op.packs, readers))) if op.packs else op
                return _at_edge(packed, placements[i - 1], spec) if packed.edge else packed
            case UpdateOp():
                if not any(isinstance(copy, PackedCopy) for copy in op.copies):
                    return op
                packed_copies = _forms(op.name, [c for c in op.copies if isinstance(c, PackedCopy)], readers)
                others: list[WeightCopy] = [copy for copy in op.copies if not isinstance(copy, PackedCopy)]
                return replace(op, copies=(*others, *packed_copies))
            case _:
                assert_never(op)

    ops = tuple(made(i, op) for i, op in enumerate(workload.ops))
    return workload if ops == workload.ops else replace(workload, ops=ops)


def read_as(op: MatrixOp) -> Iterator[tuple[str, WeightCopy]]:
    """The copies that ``op`` reads, by whom they may be written for: its parameter, "" for nobody's."""
    for copy in op.packed_operands:
        # What a model packs by itself (no parameter) is for whoever reads the like of it.
        yield from ((of, copy) for of in (op.parameter or op.name, ""))


def _forms(parameter: str, copies: Iterable[PackedCopy], readers: Readers) -> Iterable[PackedCopy]:
    """``copies`` as their readers want them, those that are the same bits once."""
    found: dict[tuple[object, ...], PackedCopy] = {}
    for copy in copies:
        for bits in readers.get((parameter, as_read(copy)), (copy.word_bits,)):
            asked = replace(copy, word_bits=bits)
            found.setdefault(asked.form, asked)
    return found.values()


def _at_edge(op: VectorOp, product: Placement | None, spec: AcceleratorSpec) -> VectorOp:
    """An op that scales results, of which an XNOR engine leaves the reading of the scales."""
    assert product is not None, "results are scaled right behind their product"
    if not word_bits(product, spec):
        return op
    return replace(op, elements=0, read_bytes=0, write_bytes=0)
