"""DRAM bytes of a placed product by operand; `macro_tiles.op_totals` has their sum."""

from __future__ import annotations

from typing import NamedTuple

from .accelerator import AcceleratorSpec
from .macro_tiles import MEMORY, Tiled, moves, passes, stored
from .problem import memory_machine, share

__all__ = ["OperandBytes", "operand_bytes"]


class OperandBytes(NamedTuple):
    """Bytes over all groups. ``north``: as N2S columns come from memory, compact where memory has them so.

    ``copy_read``, ``copy_write``: the compact form that SORE writes behind an online operand, and that is read back.
    ``sum_read``: results that are added up in memory, where col2im sees no whole lines.
    """

    west: int
    north: int
    copy_read: int
    copy_write: int
    sum_read: int
    results: int


def operand_bytes(product: Tiled, spec: AcceleratorSpec) -> OperandBytes:
    """What each operand of ``product`` moves on ``spec``."""
    p, r, c, tile, _, demand = product
    m = moves(p, memory_machine(spec), demand, share(p), r, c, tile)
    west, north = passes(r, c, tile)
    results = sum(
        n_rows * n_cols * stored(p, m, rows, cols)
        for n_rows, rows in ((r.tiles - 1, r.full), (1, r.last))
        for n_cols, cols in ((c.tiles - 1, c.full), (1, c.last))
    )
    in_memory = tile.compact == MEMORY
    g = p.groups
    return OperandBytes(
        west=g * west * m.row * p.rows,
        north=g * (1 if in_memory else north) * m.col * p.cols,
        copy_read=g * (north - 1) * m.again * p.cols if in_memory else 0,
        copy_write=g * m.again * p.cols if in_memory else 0,
        sum_read=g * m.added * results,
        results=g * results,
    )
