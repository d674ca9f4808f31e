"""How long DRAM takes for the transfers of a step: all at one rate, or each by its shape in the memory of the machine.

Where a matrix lies in memory decides its shapes. As PyTorch keeps them channels-last: a row of A, a weight's row of
output channel, a row of C lie in one piece; docs/design/machine.md, "The system", has the table.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from typing import Literal, NamedTuple, assert_never

import numpy as np
import numpy.typing as npt

from ..dataflow.accelerator import AcceleratorSpec
from ..dataflow.gather.mapping import GatherMapping
from ..dataflow.integers import whole_bytes
from ..dataflow.mapping import Mapping
from ..dataflow.operand import BYTE
from ..dataflow.outside import OutsideMapping
from ..dataflow.problem import LONGEST, RATE, Problem, memory_machine
from ..dataflow.stce.mapping import ArrayMapping
from ..dataflow.xnor.mapping import XnorMapping
from ..workloads.errors import InputError
from ..workloads.gemm import Pass
from ..workloads.operand import Role
from ..workloads.rows import Rows
from ..workloads.step import MatrixOp
from .dram import gaps, memory_of, transfer_efficiency
from .dram_spec import MemorySpec
from .kernels.phases import MacroTiles

__all__ = [
    "ONE_PIECE",
    "ByShape",
    "Layout",
    "OneRate",
    "Shapes",
    "Stored",
    "Transfers",
    "by_shape",
    "layout_of",
    "shapes_of",
    "timed",
]

Int64 = npt.NDArray[np.int64]


class Stored(NamedTuple):
    """Part of a matrix in memory: pieces of ``piece_bytes``, ``pitch_bytes`` apart."""

    piece_bytes: int
    pitch_bytes: int


ONE_PIECE = Stored(1, 1)
"""Bytes that lie side by side, however many they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OneRate:
    """``dram.efficiency_percent`` of the peak for whatever comes: the memory of the step level."""

    @property
    def turn(self) -> int:
        """In the rate: a change from reading to writing and back costs nothing more."""
        return 0

    def time(self, size: int, stored: Stored, *, write: bool) -> int:
        """``size`` at the rate."""
        return size * RATE


@dataclass(frozen=True, slots=True, kw_only=True)
class ByShape:
    """The share of the peak that the memory reaches for the shape (`dram.transfer_efficiency`), behind the machine's
    port of ``dram.bytes_per_second``, which may be narrower.

    ``unit``: 1/rate cycles in a second.
    """

    memory: MemorySpec
    port_bytes_per_second: int
    unit: int
    order: str = "channel-hashed"

    @property
    def turn(self) -> int:
        """The gaps of JEDEC timing around a write burst among reads."""
        t = gaps(self.memory)
        burst = self.memory.organization.burst_cycles
        cycles = t.read_write + t.write_read_rank - 2 * burst
        return ceil(Fraction(cycles * self.unit, self.memory.organization.clock_hz))

    def time(self, size: int, stored: Stored, *, write: bool) -> int:
        """``size`` as a part of a long transfer of that shape."""
        if size == 0:
            return 0
        share = transfer_efficiency(self.memory, *stored, write, self.order)
        reached = min(share * self.memory.organization.bytes_per_second, Fraction(self.port_bytes_per_second))
        units = ceil(size * self.unit / reached)
        if units >= LONGEST:
            raise InputError(f"a transfer of {size:,} bytes takes too long on {self.memory.name!r} to be timed exactly")
        return units


Transfers = OneRate | ByShape
"""Times of DRAM in 1/rate cycles (`dataflow/problem.py`); ``turn`` for each change to writing and back."""


def by_shape(spec: AcceleratorSpec) -> ByShape:
    """The memory that ``dram.kind`` of ``spec`` names."""
    try:
        memory = memory_of(spec.dram)
    except InputError as error:
        raise InputError(f"dram.kind of {spec.name!r}: {error}") from None
    unit = spec.clock_hz * memory_machine(spec).rate
    return ByShape(memory=memory, port_bytes_per_second=spec.dram.bytes_per_second, unit=unit)


class Layout(NamedTuple):
    """How the matrices of an op lie in memory, as the array sees them: whether the contraction of the W2E and of the
    N2S operand lies in one piece, and whether a column of results does (else a row).

    ``*_in_order``: whether the operand lies in the order in which it is read. ``*_apart``: lines of an operand there
    are for each that is read; those that are lie apart."""

    west_along_k: bool
    north_along_k: bool
    out_down: bool
    west_in_order: bool = False
    north_in_order: bool = False
    west_apart: Fraction = Fraction(1)
    north_apart: Fraction = Fraction(1)


def layout_of(op: MatrixOp, mapping: Mapping, *, in_order: bool = False) -> Layout:
    """A row of A [m, k] lies in one piece, and of C [m, n]; of B [k, n] too, but a weight of FF is kept as [n, k], or
    ``in_order`` of its reading (`reading_order.py`).

    A weight of which rows are left out is kept so that a row lies in one piece, whatever it is along, and in no order.

    In WU the contraction runs over positions, and A is a transposed view: both operands lie across it. Words of levels
    are packed along it, in every pass.
    """
    found = _as_pytorch(op, mapping)
    if not in_order or op.rows is not None:
        return found
    north = mapping.n2s == ("a" if op.a.role is Role.WEIGHT else "b")
    return found._replace(west_in_order=not north, north_in_order=north)


def _as_pytorch(op: MatrixOp, mapping: Mapping) -> Layout:
    n2s = mapping.n2s
    match mapping.array:
        case XnorMapping():
            return Layout(True, True, n2s == "a")
        case GatherMapping():
            # What is kept of a line, and a column of the dense operand, lie in one piece.
            return Layout(True, True, n2s == "a")
        case ArrayMapping() | OutsideMapping():
            pass
        case _:
            assert_never(mapping.array)
    a = op.pass_ is not Pass.WU
    b = op.pass_ is Pass.FF and op.b.role is Role.WEIGHT
    if op.rows is not None:
        return _of_rows(op, op.rows, n2s)
    return Layout(b, a, True) if n2s == "a" else Layout(a, b, False)


def _of_rows(op: MatrixOp, rows: Rows, n2s: str) -> Layout:
    """Which rows are read is not known here: they are taken to lie evenly apart."""
    weight: Literal["a", "b"] = "b" if op.b.role is Role.WEIGHT else "a"
    apart = Fraction(rows.of, rows.kept(op.gemm, weight))
    along_k = rows.along == "outputs"
    if n2s == weight:
        return Layout(True, along_k, n2s == "a", north_apart=apart)
    return Layout(along_k, True, n2s == "a", west_apart=apart)


class Shapes(NamedTuple):
    """How the transfers of an op lie in memory, indexed as the bytes of `MacroTiles`."""

    west: tuple[Stored, ...]
    north: tuple[tuple[Stored, ...], ...]
    store: tuple[tuple[Stored, ...], ...]


def shapes_of(tiles: MacroTiles, p: Problem, mapping: Mapping, layout: Layout, half: int) -> Shapes:
    """The shapes of the transfers of ``tiles``; ``half`` is one half of the W2E buffer in bytes."""
    rows = mapping.tile_rows, p.rows - (tiles.row_tiles - 1) * mapping.tile_rows
    cols = mapping.tile_cols, p.cols - (tiles.col_tiles - 1) * mapping.tile_cols

    def along(lines: int, bits: int, apart: Fraction) -> Stored:
        """A streamed operand comes in as long pieces of its contraction as half the buffer holds."""
        whole = whole_bytes(p.k // p.beats * bits)
        piece = whole if tiles.resident else max(min(whole, half // lines), whole_bytes(bits))
        return ONE_PIECE if piece == whole and apart == 1 else Stored(piece, ceil(whole * apart))

    def load(lines: int, of: int, along_k: bool, bits: int, share: Fraction, apart: Fraction) -> Stored:
        return along(lines, bits, apart) if along_k else _across(lines, of, bits, share, apart)

    def load_west(lines: int) -> Stored:
        if layout.west_in_order:
            return ONE_PIECE
        share = Fraction(p.west_tensor, p.west_expanded)
        return load(lines, p.rows, layout.west_along_k, p.west_bits, share, layout.west_apart)

    def load_north(lines: int, again: int) -> Stored:
        if layout.north_in_order or (p.keep and (not p.online or (again and mapping.compact == "memory"))):
            # Compact copies are laid down in the order in which the array reads them, too.
            return ONE_PIECE
        share = Fraction(p.north_tensor, p.north_expanded)
        return load(lines, p.cols, layout.north_along_k, p.north_bits, share, layout.north_apart)

    def store(i: int, j: int) -> Stored:
        wide, of = (rows[i], p.rows) if layout.out_down else (cols[j], p.cols)
        added_up = int(tiles.store[i, j]) < whole_bytes(rows[i] * cols[j] * p.out_bits)
        return ONE_PIECE if added_up else _across(wide, of, p.out_bits, Fraction(1))

    return Shapes(
        west=tuple(load_west(lines) for lines in rows),
        north=tuple(tuple(load_north(lines, again) for lines in cols) for again in (0, 1)),
        store=tuple(tuple(store(i, j) for j in (0, 1)) for i in (0, 1)),
    )


def timed(
    tiles: MacroTiles, p: Problem, mapping: Mapping, layout: Layout, half: int, transfers: Transfers
) -> MacroTiles:
    """``tiles`` with their transfers by shape; ``half`` is one half of the W2E buffer in bytes."""
    shapes = shapes_of(tiles, p, mapping, layout, half)

    def load(size: int, stored: Stored) -> int:
        return transfers.time(int(size), stored, write=False)

    def store(size: int, stored: Stored) -> int:
        return (load(size, stored) if tiles.added else 0) + transfers.time(int(size), stored, write=True)

    return tiles._replace(
        west_time=np.array([load(*each) for each in zip(tiles.west, shapes.west, strict=True)]),
        north_time=np.array(
            [[load(*each) for each in zip(tiles.north[again], shapes.north[again], strict=True)] for again in (0, 1)]
        ),
        store_time=np.array(
            [[store(*each) for each in zip(tiles.store[i], shapes.store[i], strict=True)] for i in (0, 1)]
        ),
        copy_time=np.array([transfers.time(int(size), ONE_PIECE, write=True) for size in tiles.copy]),
        turn=transfers.turn,
    )


def _across(lines: int, of: int, bits: int, share: Fraction, apart: Fraction = Fraction(1)) -> Stored:
    """``lines`` of ``of`` elements of ``bits`` that lie side by side; ``share``: what im2col finds of what it makes;
    ``apart``: rows of all ``of`` there are for each that is read."""
    if lines == of and apart == 1:
        return ONE_PIECE
    pitch = ceil(of * bits * share / BYTE)
    return Stored(min(whole_bytes(lines * bits), pitch), ceil(pitch * apart))
