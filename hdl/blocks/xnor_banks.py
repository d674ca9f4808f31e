"""A product of operands with levels in the terms of the XNOR engine: its run registers, and what its banks hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ...dataflow.stce.mapping import Dataflow
from ...dataflow.xnor.mapping import XnorMapping
from ...dataflow.xnor.spec import XnorSpec
from ...dataflow.xnor.words import beats_of, plane_weights, require_exact, signed, words_of
from ...workloads.errors import InputError
from ...workloads.gemm import Gemm
from ...workloads.levels import Levels
from .banks import Bits32, pair_order, registers_of, require_address, west_order
from .frame import frame_of
from .xnor_skipped import Occupied, require_skipping, skipped_order

__all__ = [
    "Planes",
    "Sides",
    "XnorBanks",
    "edge_levels",
    "level_banks",
    "planes_of",
    "slots_of",
    "xnor_banks",
    "xnor_registers",
]

Bits = npt.NDArray[np.bool_]
_ZEROS, _ONES = -2, -1
"""Words of one bit alone, behind those of an operand."""
Sides = tuple[Levels, Levels]
"""Of the operand from the west, and of the one from the north."""


def slots_of(own: XnorSpec, mapping: XnorMapping, gemm: Gemm, levels: Sides, *, skip: bool = False) -> Gemm:
    """``gemm`` as the array sees it, its contraction in slots.

    In OS a word is a run of them, so that the controller's loops reach further; in WS the words that a PE holds may
    belong to two. With ``skip`` the loops see one, since every tile has its own.
    """
    if skip:
        return Gemm(m=gemm.m, k=1, n=gemm.n, groups=gemm.groups, run=1)
    words = words_of(gemm, *levels, own.word_bits)
    run = words.beats if mapping.dataflow is Dataflow.OS else words.slots
    return Gemm(m=gemm.m, k=words.slots, n=gemm.n, groups=gemm.groups, run=run)


def xnor_registers(
    own: XnorSpec, mapping: XnorMapping, gemm: Gemm, levels: Sides, *, skip: bool = False
) -> dict[str, int]:
    """The ``run`` ports of `Xnor` for one product, which its PEs can hold and whose sums are exact.

    With ``skip`` (OS) words that are zero in all rows or all columns of a tile are left out.
    """
    require_exact(gemm.k, *levels)
    if skip:
        require_skipping(mapping)
    registers = registers_of(frame_of(own), mapping, slots_of(own, mapping, gemm, levels, skip=skip))
    planes = [plane_weights(side) for side in levels]
    ways = len(beats_of(*levels)) // (len(planes[0]) * len(planes[1]))
    both_binary = levels == (Levels.BINARY, Levels.BINARY)
    stationary = mapping.dataflow is Dataflow.WS
    held = mapping.group if stationary else 0
    return registers | {
        "last_a": len(planes[0]) - 1,
        "last_b": len(planes[1]) - 1,
        "ways": ways - 1,
        "signed_a": int(planes[0][-1] < 0),
        "signed_b": int(planes[1][-1] < 0),
        "beat_row": _beat(held, ways, len(planes[1]), len(planes[0])),
        "beat_tile": _beat(held * own.rows, ways, len(planes[1]), len(planes[0])),
        "twice": int(both_binary),
        "length": gemm.k if both_binary else 0,
        "edge_contexts": 1 if stationary else mapping.interleave,
        "edge_words": registers["parts"] * mapping.interleave if stationary else registers["drain_words"],
        "skips": int(skip),
        "rows_used": min(own.rows, gemm.m),
    }


def edge_levels(registers: dict[str, int], at: npt.NDArray[np.int32], flip: Bits) -> tuple[npt.NDArray[np.int32], Bits]:
    """What sums are compared with so that values are with thresholds: int32 ``at`` and bool ``flip``, both [n].

    A value is at least ``at``, with ``flip`` at most. The edge asks whether a sum is at least its level, with flip
    whether it is below. Of integers either is the other, exactly.
    """
    least = at.astype(np.int64) + flip
    level = -(-(least + registers["length"]) // 2) if registers["twice"] else least
    # no sum of 32 bits is 2^31, below which all are
    always = flip & (level > np.iinfo(np.int32).max)
    return np.where(always, np.iinfo(np.int32).min, level).astype(np.int32), flip & ~always


def level_banks(
    own: XnorSpec, registers: dict[str, int], at: npt.NDArray[np.int32], flip: Bits
) -> tuple[Bits32, Bits32]:
    """Banks of levels and of flips for thresholds ``at`` and ``flip``, both [n]: uint32 [cols, columns of C that each
    makes], to the end of the last tile."""
    at, flip = edge_levels(registers, at, flip)
    rows = -(-len(at) // own.cols) + own.accumulators
    level, flipped = (np.pad(x, (0, rows * own.cols - len(x))).reshape(-1, own.cols).T for x in (at, flip))
    return level.astype(np.int32).view(np.uint32), flipped.astype(np.uint32)


def _beat(slot: int, ways: int, planes_b: int, planes_a: int) -> int:
    """The digits of the beat of a slot, as `beats.BEAT` lays them out."""
    way, rest = slot % ways, slot // ways
    return way | rest % planes_b << 1 | rest // planes_b % planes_a << 4


@dataclass(frozen=True, slots=True, eq=False)
class Planes:
    """Plane pairs of the words of an operand's lines: bool [planes, lines, words, word_bits], both."""

    sign: Bits
    mask: Bits


def planes_of(values: npt.NDArray[Any], levels: Levels, word_bits: int, run: int) -> Planes:
    """``values``, integers [lines, k] of any dtype, cut into runs of ``run`` and each padded to whole words."""
    lines, k = values.shape
    padding = ((0, 0), (0, 0), (0, -run % word_bits))
    cut = np.pad(values.astype(np.int64).reshape(lines, k // run, run), padding)
    real = np.pad(np.ones((lines, k // run, run), np.bool_), padding)
    if signed(levels):
        mask = (real if levels is Levels.BINARY else cut != 0)[None]
        sign = (cut < 0)[None]
    else:
        mask = np.stack([(cut >> i & 1).astype(np.bool_) for i in range(len(plane_weights(levels)))])
        sign = np.zeros_like(mask)
    return Planes(*(plane.reshape(len(plane), lines, -1, word_bits) for plane in (sign, mask)))


@dataclass(frozen=True, slots=True, eq=False)
class XnorBanks:
    """Contents of the operand buffers as the array's addresses count them, a word a slot, bool.

    ``west`` [rows, words, 2 word_bits], signs and then masks; ``sign`` and ``mask`` [cols, pairs, word_bits], ``valid``
    [cols, pairs]. ``tiles``, uint32: the slots of each tile and of one behind them, where words are left out, or none.
    """

    west: Bits
    sign: Bits
    mask: Bits
    valid: Bits
    tiles: Bits32


def xnor_banks(
    own: XnorSpec,
    mapping: XnorMapping,
    gemm: Gemm,
    levels: Sides,
    a: npt.NDArray[Any],
    b: npt.NDArray[Any],
    *,
    skip: bool = False,
) -> XnorBanks:
    """Lay out ``a`` [m, k] and ``b`` [k, n], integers of any dtype that are values of their levels.

    Beyond the edges of either stands what would be counted if anything looked at it. With ``skip`` every tile has the
    words that it does not leave out; one of none has a slot of masks that are 0.
    """
    for name, given, shape in (("a", a, (gemm.m, gemm.k)), ("b", b, (gemm.k, gemm.n))):
        if given.shape != shape:
            raise InputError(f"{name} must be {shape[0]} x {shape[1]}, not {' x '.join(map(str, given.shape))}")
    frame, slots, beats = frame_of(own), slots_of(own, mapping, gemm, levels), beats_of(*levels)
    planes = [planes_of(x, side, own.word_bits, gemm.run) for x, side in zip((a, b.T), levels, strict=True)]
    west = _by_slot(planes[0], [beat.plane_a for beat in beats])
    north = _by_slot(planes[1], [beat.plane_b for beat in beats])
    tiles = np.zeros(0, np.uint32)
    if skip:
        require_skipping(mapping)
        occupied = Occupied(*(np.asarray(side.mask.any(axis=(0, 3))) for side in planes))
        taken, line, slot, column, tiles = skipped_order(own, mapping, len(beats), occupied)
        order = np.where(line < gemm.m, np.where(taken >= 0, line * slots.k + taken, _ZEROS), _ONES)
        valid = column < gemm.n
        place = np.where(valid, np.where(slot >= 0, column * slots.k + slot, _ZEROS), _ONES)
    else:
        order = west_order(frame, mapping, slots, np.arange(gemm.m * slots.k).reshape(gemm.m, slots.k), _ONES)
        slot, column = pair_order(frame, mapping, slots, slots.k, northernmost_first=True)
        valid = (slot >= 0) & (column < gemm.n)
        place = np.where(valid, column * slots.k + slot, _ONES)
    require_address(gemm, order.shape[1], slot.shape[1])
    return XnorBanks(
        west=np.concatenate([plane[order] for plane in west], axis=-1),
        sign=north[0][place],
        mask=north[1][place],
        valid=valid,
        tiles=tiles,
    )


def _by_slot(planes: Planes, chosen: list[int]) -> list[Bits]:
    """Signs and masks, [lines x slots + 2, word_bits]: of every word the plane of each beat; zeros and ones behind."""
    bits = planes.sign.shape[-1]
    rows = (plane[chosen].transpose(1, 2, 0, 3).reshape(-1, bits) for plane in (planes.sign, planes.mask))
    behind = np.repeat([[False], [True]], bits, axis=1)
    return [np.concatenate([row, behind]) for row in rows]
