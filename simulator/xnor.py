"""The XNOR engine on real operands: exact sums and exact cycles of one product (docs/design/xnor.md)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, assert_never

import numpy as np
import numpy.typing as npt

from ..dataflow.accelerator import AcceleratorSpec
from ..dataflow.account import Cycles
from ..dataflow.stce.mapping import Dataflow
from ..dataflow.xnor.mapping import XnorMapping, require_xnor
from ..dataflow.xnor.spec import XnorSpec
from ..dataflow.xnor.time import rounds, slots_of_tiles
from ..dataflow.xnor.words import beats_of, plane_weights, require_exact, signed
from ..workloads.errors import InputError, require_int
from ..workloads.levels import Levels
from ..workloads.one_line import OneLine
from .kernels.xnor import Elements, Side, Spent, Times, agreeing, counted, run_os, run_ws
from .stalls import Bools, clocked, require_stalls

__all__ = ["Packed", "XnorRun", "occupied_words", "pack", "run_xnor", "xnor_product"]

Integers = npt.NDArray[np.integer]
Int64 = npt.NDArray[np.int64]
_UNIT = 64
"""Bits of the machine words of the host."""


class Packed(NamedTuple):
    """Lines of an operand along their contraction, in planes of uint64 [lines, units], and which of their words hold a
    value besides 0."""

    levels: Levels
    side: Side
    occupied: Bools
    """bool [lines, words]."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False, eq=False)
class XnorRun(OneLine):
    """Result and time of one product on the engine; cycles by cause as of `array.ArrayRun`."""

    result: npt.NDArray[np.int32]
    """int32 [m, n]: the sums, before what the edge makes of them."""
    left: Int64
    """Cycle in which each result leaves the south edge; int64 [m, n]."""
    cycles: Cycles
    """Array cycles."""
    stalled: int
    """Cycles in which the array stood still, because a word that had left it was not taken or it was held."""

    @property
    def length(self) -> int:
        """Clock cycles of the run."""
        return self.cycles.total + self.stalled


def pack(values: Integers, levels: Levels, word_bits: int, run: int = 0, *, name: str = "values") -> Packed:
    """Planes of ``values`` [lines, k], of any integer dtype; each ``run`` (0: ``k``) is padded with mask 0.

    InputError for a value that is none of ``levels``.
    """
    lines, k = values.shape
    run = run or k
    _require_levels(name, values, levels)
    padding = -run % word_bits
    cut = np.ascontiguousarray(values).reshape(lines, k // run, run)
    flat = (np.pad(cut, ((0, 0), (0, 0), (0, padding))) if padding else cut).reshape(lines, -1)
    if levels is Levels.BINARY:
        real = np.pad(np.ones((1, k // run, run), np.bool_), ((0, 0), (0, 0), (0, padding)))
        masks = real.reshape(1, 1, -1)
    elif signed(levels) or levels is Levels.SPIKE:
        masks = (flat != 0)[None]
    else:
        masks = np.stack([flat >> i & 1 for i in range(len(plane_weights(levels)))]).astype(np.bool_)
    # A line of zeros where there is no sign stands for all lines.
    sign = _units(flat < 0) if signed(levels) else _units(np.zeros((1, flat.shape[1]), np.bool_))
    words = flat.reshape(lines, -1, word_bits)
    # A word of a run holds a value, and binary ones have no 0.
    occupied = np.ones(words.shape[:2], np.bool_) if levels is Levels.BINARY else np.asarray(words.any(axis=2))
    return Packed(levels, Side(np.stack([_units(mask) for mask in masks]), sign), occupied)


def _units(bits: Bools) -> npt.NDArray[np.uint64]:
    """Bits [lines, any] as uint64 [lines, units], the first bit lowest; what is left of a unit is 0."""
    packed = np.packbits(bits, axis=1, bitorder="little")
    whole = np.pad(packed, ((0, 0), (0, -packed.shape[1] % (_UNIT // 8))))
    return np.ascontiguousarray(whole).view("<u8").astype(np.uint64, copy=False)


def _require_levels(name: str, values: Integers, levels: Levels) -> None:
    allowed = levels.values
    low, high = allowed[0], allowed[-1]
    outside = (values < low) | (values > high)
    if levels is Levels.BINARY:
        outside |= values == 0
    if outside.any():
        row, column = np.argwhere(outside)[0]
        found = int(values[row, column])
        raise InputError(
            f"{name} holds {found} at [{row}, {column}], which is no value of {levels}; the nearest is "
            f"{min(allowed, key=lambda level: abs(level - found))}"
        )


def xnor_product(a: Packed, b: Packed, k: int) -> npt.NDArray[np.int32]:
    """The sums of lines of ``a`` against lines of ``b``, int32 [m, n]; contractions of ``k`` in words of one size."""
    out = np.zeros((len(a.occupied), len(b.occupied)), np.int32)
    if (a.levels, b.levels) == (Levels.BINARY, Levels.BINARY):
        agreeing(a.side.sign, b.side.sign, a.side.mask[0, 0], out)
        out *= 2
        out -= np.int32(k)
        return out
    for beat in beats_of(a.levels, b.levels):
        counted(a.side, b.side, beat.plane_a, beat.plane_b, beat.differ, beat.weight, out)
    return out


def occupied_words(own: XnorSpec, mapping: XnorMapping, a: Packed, b: Packed) -> Int64:
    """Words that are not zero in all rows or in all columns, int64 [tiles].

    Of each tile in their order (OS), or of each of the tiles across, whose rows are all there are (WS).
    """
    wide = own.cols * (mapping.interleave if mapping.dataflow is Dataflow.OS else 1)
    high = own.rows if mapping.dataflow is Dataflow.OS else len(a.occupied)
    rows, cols = (
        np.logical_or.reduceat(side.occupied, np.arange(0, len(side.occupied), step), axis=0).astype(np.int64)
        for side, step in ((a, high), (b, wide))
    )
    found: Int64 = (rows @ cols.T).reshape(-1)
    return found


def run_xnor(
    spec: AcceleratorSpec,
    mapping: XnorMapping,
    a: Integers,
    b: Integers,
    levels: tuple[Levels, Levels],
    *,
    run: int = 0,
    skip: bool = False,
    ready: Bools | None = None,
    hold: Bools | None = None,
) -> XnorRun:
    """Step C[m, n] = A[m, k] B[k, n] through the engine of ``spec``.

    ``a`` flows W2E, ``b`` N2S, of any integer dtype, values of their ``levels``. ``run`` is the length of the
    contraction runs that words do not cross, 0 for ``k``. ``skip``: words that are zero in all rows or all columns of
    a tile are left out. ``ready`` and ``hold`` as of `run_array`.
    """
    own = require_xnor(spec)
    mapping.check(spec)
    run = _check(own, a, b, levels, run)
    require_stalls(own.cols, ready, hold)
    west, north = pack(a, levels[0], own.word_bits, run, name="a"), pack(b.T, levels[1], own.word_bits, run, name="b")
    occupied = occupied_words(own, mapping, west, north)
    if not skip:
        occupied[:] = west.occupied.shape[1]
    m, n = a.shape[0], b.shape[1]
    left, beats = np.empty((m, n), np.int64), len(beats_of(*levels))
    leaves, spent = _stepped(own, mapping, left, occupied, beats)
    total, compute, port = (int(count) for count in spent)
    stalled = clocked(left, leaves, total, own.cols, ready, hold)
    return XnorRun(
        result=xnor_product(west, north, a.shape[1]),
        left=left,
        cycles=Cycles(compute=compute, port_stall=port, fill_drain=total - compute - port),
        stalled=stalled,
    )


def _stepped(own: XnorSpec, mapping: XnorMapping, left: Int64, occupied: Int64, beats: int) -> tuple[Int64, Spent]:
    """The run of the mapping's dataflow, which fills ``left``; when each word of column 0 leaves."""
    x = Elements(own.rows, own.cols, mapping.interleave, own.popcount_latency, mapping.group)
    slots, m = slots_of_tiles(occupied, beats), len(left)
    match mapping.dataflow:
        case Dataflow.OS:
            leaves = np.empty(len(slots) * min(own.rows, m) * mapping.interleave, np.int64)
            return leaves, run_os(x, slots, Times(left, leaves))
        case Dataflow.WS:
            n_tile, last = rounds(slots, own.rows * mapping.group)
            leaves = np.empty(len(n_tile) * -(-m // mapping.interleave) * mapping.interleave, np.int64)
            return leaves, run_ws(x, n_tile, last, Times(left, leaves))
        case Dataflow.OS1:
            raise AssertionError("a mapping refuses it")
        case _:
            assert_never(mapping.dataflow)


def _check(own: XnorSpec, a: Integers, b: Integers, levels: tuple[Levels, Levels], run: int) -> int:
    for name, matrix in (("a", a), ("b", b)):
        if matrix.ndim != 2 or not np.issubdtype(matrix.dtype, np.integer) or 0 in matrix.shape:
            raise InputError(f"{name} must be a matrix of integers, not {matrix.dtype} {list(matrix.shape)}")
    k = a.shape[1]
    if b.shape[0] != k:
        raise InputError(f"a is {a.shape[0]} x {k}, but b is {b.shape[0]} x {b.shape[1]}; their k must be equal")
    run = run or k
    require_int("run", run, 1, k)
    if k % run:
        raise InputError(f"run must divide k, but k = {k} and run = {run}")
    require_exact(k, *levels)
    return run
