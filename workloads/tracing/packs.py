"""The packed forms of what a model itself makes of few values (`own_levels.py`), and the op of the step that packs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import torch
from torch import Tensor

from ..levels import Levels
from ..operand import Operand, Role
from ..step import MatrixOp, VectorOp
from .passes import Record, Roles
from .products import Product
from .provenance import Ledger, Provenance

__all__ = ["Packs", "own_levels", "with_levels"]

OwnLevels = tuple[Levels | None, Levels | None]
_NONE: Final[OwnLevels] = (None, None)
_Part = tuple[int, int]
"""Where in its storage a tensor begins, and how many elements of it are stored."""


def own_levels(product: Product, parts: Roles, ledger: Ledger) -> OwnLevels:
    """The levels that the model gave operands a and b, those that are activations: a weight has its scheme's."""
    a, b = (
        ledger.of(tensor).levels if role is Role.ACTIVATION and tensor.is_floating_point() else None
        for tensor, role in zip((product.a, product.b), parts, strict=False)
    )
    return _NONE if product.partial else (a, b)


class Packs:
    """What packed each tensor of own levels: an op that goes over it once, in front of the first product that reads it,
    and writes the forms that all of them read."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._made: dict[Provenance, dict[_Part, tuple[Record, Provenance]]] = {}

    def declare(self, tensor: Tensor, levels: Levels) -> None:
        """From now on, what is in the storage of ``tensor`` has these levels, and no op has packed it."""
        storage = self._ledger.of(tensor)
        storage.levels = levels
        self._made.pop(storage, None)

    def before(self, op: MatrixOp, product: Product, records: list[Record], node: int) -> list[Provenance]:
        """The packed tensors that ``op`` reads; who packs them is added to ``records`` if nobody did so far."""
        sides = ((op.a, product.a), (op.b, product.b))
        return [self._packed(op, x, tensor, records, node) for x, tensor in sides if x.levels is not None]

    def _packed(self, op: MatrixOp, operand: Operand, tensor: Tensor, records: list[Record], node: int) -> Provenance:
        storage, copy = self._ledger.of(tensor), op.packed_as(operand)
        made = self._made.setdefault(storage, {})
        part = int(tensor.storage_offset()), operand.elements
        if part not in made:
            work = VectorOp(
                name=op.name,
                op="pack",
                pass_=op.pass_,
                dtype=operand.dtype,
                elements=operand.elements,
                read_bytes=operand.bytes,
                write_bytes=0,
                recompute=op.recompute,
                packs=(copy,),
            )
            written = Provenance(dtype=torch.uint8)
            made[part] = Record(work, [storage], [written], node, False), written
            records.append(made[part][0])
        record, packed = made[part]
        assert isinstance(record.op, VectorOp), "it packs"
        if copy not in record.op.packs:
            record.op = replace(record.op, packs=(*record.op.packs, copy))
        packed.shape = (sum(one.bytes for one in record.op.packs),)
        return packed


def with_levels(operands: Sequence[Operand], levels: OwnLevels) -> tuple[Operand, Operand, Operand]:
    """Operands a, b and c of a product, the first two with their levels."""
    a, b, c = operands
    return replace(a, levels=levels[0]), replace(b, levels=levels[1]), c
