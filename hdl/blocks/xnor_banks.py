"""A product of operands with levels in the terms of the XNOR engine: its run registers, and what its banks hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ...dataflow.stce.mapping import Dataflow
from ...dataflow.xnor.spec import XnorSpec
from ...dataflow.xnor.words import beats_of, plane_weights, require_exact, signed, words_of
from ...workloads.errors import InputError, require_choice, require_int
from ...workloads.gemm import Gemm
from ...workloads.levels import Levels
from ...workloads.sparsity import NMPattern
from .banks import IN_RTL, pair_order, registers_of, require_address, west_order
from .frame import frame_of

__all__ = ["Planes", "XnorBanks", "XnorWork", "planes_of", "xnor_banks", "xnor_registers"]

Bits = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class XnorWork:
    """A product and how the engine runs it: A of ``levels[0]`` from the west, B of ``levels[1]`` from the north.

    ``group``: words that a PE holds in WS, 1 in OS.
    """

    dataflow: Dataflow
    interleave: int
    group: int = 1
    gemm: Gemm
    levels: tuple[Levels, Levels]

    @property
    def pattern(self) -> NMPattern:
        """Of slots, as the array executes it."""
        return NMPattern(keep=self.group, group=self.group)

    def check(self, spec: XnorSpec) -> None:
        """Refuse what a PE cannot hold, and sums that an accumulator cannot."""
        require_choice("dataflow", self.dataflow, IN_RTL)
        require_int("interleave", self.interleave, 1, spec.accumulators)
        stationary = self.dataflow is Dataflow.WS
        require_int("group", self.group, 1, spec.weight_words if stationary else 1)
        if stationary:
            require_int("interleave x group", self.interleave * self.group, 1, spec.dense_words)
        require_exact(self.gemm.k, *self.levels)

    def slots(self, spec: XnorSpec) -> Gemm:
        """The product whose contraction is the slots of a PE. In OS a word is a run of them, so that the loops of the
        controller reach further; in WS the groups of a PE go on from word to word."""
        words = words_of(self.gemm, *self.levels, spec.word_bits)
        run = words.beats if self.dataflow is Dataflow.OS else words.slots
        return Gemm(m=self.gemm.m, k=words.slots, n=self.gemm.n, groups=self.gemm.groups, run=run)


def xnor_registers(spec: XnorSpec, work: XnorWork) -> dict[str, int]:
    """The ``run`` ports of `Xnor` for one product."""
    work.check(spec)
    slots = work.slots(spec)
    registers = registers_of(frame_of(spec), work, slots)
    a, b = work.levels
    planes_a, planes_b = len(plane_weights(a)), len(plane_weights(b))
    ways = (
        slots.run // (planes_a * planes_b)
        if work.dataflow is Dataflow.OS
        else len(beats_of(a, b)) // (planes_a * planes_b)
    )
    both_binary = a is b is Levels.BINARY
    stationary = work.dataflow is Dataflow.WS
    row, tile = (work.group * n if stationary else 0 for n in (1, spec.rows))
    return registers | {
        "last_a": planes_a - 1,
        "last_b": planes_b - 1,
        "ways": ways - 1,
        "signed_a": int(plane_weights(a)[-1] < 0),
        "signed_b": int(plane_weights(b)[-1] < 0),
        "beat_row": _beat(row, ways, planes_b, planes_a),
        "beat_tile": _beat(tile, ways, planes_b, planes_a),
        "twice": int(both_binary),
        "length": work.gemm.k if both_binary else 0,
        "edge_contexts": 1 if stationary else work.interleave,
        "edge_words": registers["parts"] * work.interleave if stationary else registers["drain_words"],
    }


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
    [cols, pairs].
    """

    west: Bits
    sign: Bits
    mask: Bits
    valid: Bits


def xnor_banks(spec: XnorSpec, work: XnorWork, a: npt.NDArray[Any], b: npt.NDArray[Any]) -> XnorBanks:
    """Lay out ``a`` [m, k] and ``b`` [k, n], integers of any dtype that are values of their levels."""
    frame, slots, gemm = frame_of(spec), work.slots(spec), work.gemm
    for name, given, shape in (("a", a, (gemm.m, gemm.k)), ("b", b, (gemm.k, gemm.n))):
        if given.shape != shape:
            raise InputError(f"{name} must be {shape[0]} x {shape[1]}, not {' x '.join(map(str, given.shape))}")
    beats = beats_of(*work.levels)
    west, north = (
        _slots(planes_of(values, levels, spec.word_bits, gemm.run), [beat[side] for beat in beats])
        for side, (values, levels) in enumerate(zip((a, b.T), work.levels, strict=True))
    )
    # of the west by line and slot; beyond its edges stands what would be counted if anything looked at it
    lines = np.arange(gemm.m * slots.k).reshape(gemm.m, slots.k)
    order = west_order(frame, work, slots, lines, -1)
    slot, column = pair_order(frame, work, slots, slots.k)
    require_address(gemm, order.shape[1], slot.shape[1])
    valid = (slot >= 0) & (column < gemm.n)
    flat = [
        np.concatenate([plane.reshape(-1, spec.word_bits), np.ones((1, spec.word_bits), np.bool_)]) for plane in west
    ]
    place = np.where(valid, column * slots.k + slot, -1)
    pairs = [
        np.concatenate([plane.reshape(-1, spec.word_bits), np.ones((1, spec.word_bits), np.bool_)]) for plane in north
    ]
    return XnorBanks(
        west=np.concatenate([plane[order] for plane in flat], axis=-1),
        sign=pairs[0][place],
        mask=pairs[1][place],
        valid=valid,
    )


def _slots(planes: Planes, chosen: list[Any]) -> tuple[Bits, Bits]:
    """Signs and masks by line and slot, [lines, slots, word_bits]: of every word the plane of each beat."""
    sign, mask = (plane[chosen].transpose(1, 2, 0, 3) for plane in (planes.sign, planes.mask))
    return tuple(plane.reshape(len(plane), -1, plane.shape[-1]) for plane in (sign, mask))  # type: ignore[return-value]
