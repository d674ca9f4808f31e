"""One op on an engine: the engine's own mapping, which operand flows where, and the macro-tiles in the buffers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from ..workloads.errors import InputError, require_choice, require_int
from ..workloads.gemm import Gemm
from ..workloads.step import MatrixOp
from .gather.mapping import GatherMapping
from .macro_tiles import Tile
from .outside import OutsideMapping
from .problem import NORTH, OUT, WEST
from .stce.mapping import ArrayMapping
from .xnor.mapping import XnorMapping

__all__ = ["COMPACT", "SIDES", "Compact", "EngineMapping", "Mapping", "Side"]

EngineMapping = ArrayMapping | XnorMapping | GatherMapping | OutsideMapping
"""How an engine runs a product, by the ``kind`` of the engine."""

Compact = Literal["remade", "buffer", "memory"]
Side = Literal["a", "b", "c"]
SIDES: tuple[Side, ...] = get_args(Side)
COMPACT: tuple[Compact, ...] = get_args(Compact)
"""In the order of `macro_tiles.REMADE`, `BUFFER`, `MEMORY`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mapping:
    """Placement of one op: how its engine runs it, the operand that flows N2S, and the macro-tiles in the buffers.

    With ``n2s = "a"`` the machine computes the transposed product, so the rows of a tile are columns of C. ``gemm`` is
    the product as the array sees it. ``tile_rows`` x ``tile_cols`` outputs make a macro-tile; ``resident`` says that it
    holds its operands for the whole contraction. ``order`` names the slow macro loop first: rows (``mn``) or columns
    (``nm``). ``compact`` says how columns that SORE reduces are had when they are used again: reduced once more
    (``remade``), or kept compact in the N2S ``buffer`` (streamed, ``nm``) or in ``memory``. ``on_chip``: of A, B and C,
    those that stay on chip between ops, so that DRAM moves none of their bytes (`residency.py`).
    """

    array: EngineMapping
    gemm: Gemm
    n2s: Literal["a", "b"]
    tile_rows: int
    tile_cols: int
    resident: bool
    order: Literal["mn", "nm"]
    compact: Compact = "remade"
    on_chip: tuple[Side, ...] = ()

    def __post_init__(self) -> None:
        require_int("tile_rows of a mapping", self.tile_rows, 1, self.gemm.m)
        require_int("tile_cols of a mapping", self.tile_cols, 1, self.gemm.n)
        require_choice("n2s of a mapping", self.n2s, ("a", "b"))
        require_choice("order of a mapping", self.order, ("mn", "nm"))
        require_choice("compact of a mapping", self.compact, COMPACT)
        for side in self.on_chip:
            require_choice("on_chip of a mapping", side, SIDES)
        if not isinstance(self.resident, bool):
            raise InputError(f"resident of a mapping must be True or False, not {self.resident!r}")
        if self.compact == "buffer" and (self.resident or self.order != "nm"):
            raise InputError(
                "a compact copy stays in the N2S buffer while the other operand streams past it: "
                "compact = 'buffer' needs resident = False and order = 'nm'"
            )

    def check(self, op: MatrixOp, online: bool) -> None:
        """Refuse a mapping that is not one of ``op``; ``online``: SORE reduces its sparse operand on the way in."""
        gemm = op.gemm if self.n2s == "b" else op.gemm.transposed
        if self.gemm != gemm:
            raise InputError(f"the mapping is of {self.gemm}, but {op.name!r} is {gemm} with operand {self.n2s} N2S")
        self.array.check_op(op, self.n2s)
        if self.compact != "remade" and not online:
            raise InputError(
                f"SORE reduces no operand of {op.name!r}, so compact must be 'remade', not {self.compact!r}"
            )

    @property
    def held(self) -> int:
        """``on_chip`` as `Problem` has it."""
        west, north = ("b", "a") if self.n2s == "a" else ("a", "b")
        return sum(bit for side, bit in ((west, WEST), (north, NORTH), ("c", OUT)) if side in self.on_chip)

    @property
    def tile(self) -> Tile:
        """The macro-tiles as numbers."""
        return Tile(
            self.tile_rows, self.tile_cols, int(self.resident), int(self.order == "mn"), COMPACT.index(self.compact)
        )
