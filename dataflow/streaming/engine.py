"""A layer as an engine of its own: what its folding takes in cycles, LUTs and block RAM.

Formulas of resources are the estimates of the public FINN compiler (its matrix-vector unit and its RTL sliding-window
generator), which it takes from FINN-R; they are for LUTs of six inputs and RAMB18. Mark: published.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Literal, get_args

from ...workloads.errors import InputError, require_choice, require_int
from ...workloads.gemm import MAX_DIM
from ...workloads.im2col import Window

__all__ = [
    "MAX_BITS",
    "MOST_BRAM",
    "MOST_LUT",
    "Cost",
    "Fabric",
    "Folding",
    "Ram",
    "StreamingLayer",
    "divisors",
    "legal_foldings",
]

Ram = Literal["block", "distributed"]
"""Where weights lie: RAMB18, or LUTs as memory."""
MAX_BITS = 16
MOST_LUT, MOST_BRAM = 2**24, 2**16
"""More than any FPGA has."""
_BASE_LUT = 300
"""LUTs of an engine besides its PEs, and of a sliding-window unit besides its buffer: FINN's c0."""
_LUT_TENTHS = 11
"""FINN's c1, 1.1, in tenths: what a PE takes is rounded down with it."""
_LUTRAM, _SHIFTED = 64, 38
"""Words of one bit that a LUT holds, of weights and of a sliding window: both FINN's."""
_RAMB18 = ((1, 16384), (2, 8192), (4, 4096), (9, 2048), (18, 1024), (36, 512))
"""Width and depth of the shapes of a RAMB18 with one port to read and one to write (Xilinx UG573, table 1-10)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """LUTs of six inputs and RAMB18, of which two are a BRAM36."""

    lut: int = 0
    bram: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(lut=self.lut + other.lut, bram=self.bram + other.bram)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fabric:
    """What the engines may take of an FPGA; how much of it a cost is makes LUTs and RAMB18 one number."""

    name: str
    has: Cost

    def __post_init__(self) -> None:
        require_int(f"LUTs of {self.name}", self.has.lut, 1, MOST_LUT)
        require_int(f"RAMB18 of {self.name}", self.has.bram, 1, MOST_BRAM)

    def share(self, cost: Cost) -> int:
        """The shares of LUTs and RAMB18, added, in units of 1 / (LUTs x RAMB18)."""
        return cost.lut * self.has.bram + cost.bram * self.has.lut

    def holds(self, cost: Cost) -> bool:
        return cost.lut <= self.has.lut and cost.bram <= self.has.bram


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Folding:
    """PEs, each of an output channel at a time, and SIMD lanes, of the contraction; ``ram`` holds the weights."""

    pe: int
    simd: int
    ram: Ram = "block"

    def __post_init__(self) -> None:
        require_choice("ram of a folding", self.ram, get_args(Ram))


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamingLayer:
    """The product of a layer as a matrix-vector unit sees it.

    ``mw``: the contraction, taps x input channels. ``mh``: output channels, over all groups. ``vectors``: rows of the
    product in one frame. ``window``: the sliding window in front of a convolution, with its ``channels``; None in
    front of a linear layer, or where it is not known (``unknown_window``). An operand of one bit is -1 or +1.
    """

    name: str
    mw: int
    mh: int
    vectors: int
    weight_bits: int = 1
    input_bits: int = 1
    window: Window | None = None
    channels: int = 0
    unknown_window: bool = False

    def __post_init__(self) -> None:
        for name in ("mw", "mh", "vectors"):
            require_int(f"{name} of streaming layer {self.name!r}", getattr(self, name), 1, MAX_DIM)
        for name in ("weight_bits", "input_bits"):
            require_int(f"{name} of streaming layer {self.name!r}", getattr(self, name), 1, MAX_BITS)
        if self.window is not None and self.window.taps * self.channels != self.mw:
            raise InputError(
                f"streaming layer {self.name!r}: {self.window.taps} taps of {self.channels} channels are not {self.mw}"
            )

    def require_legal(self, folding: Folding, where: str = "") -> None:
        """Refuse a folding that leaves a rest; ``where`` names what asks for it."""
        for side, value, size, of in (("PE", folding.pe, self.mh, "MH"), ("SIMD", folding.simd, self.mw, "MW")):
            if not 1 <= value <= size or size % value:
                near = " or ".join(map(str, _near(size, value)))
                raise InputError(
                    f"{where}layer {self.name!r}: {side} {value} does not divide {of} {size}; the nearest legal {side} "
                    f"is {near}"
                )

    def cycles(self, folding: Folding) -> int:
        """Of the engine, a frame: a cycle for each vector, SIMD lanes of the contraction and PEs of the outputs."""
        return self.vectors * (self.mw // folding.simd) * (self.mh // folding.pe)

    def window_cycles(self, folding: Folding) -> int:
        """Of the sliding-window unit, a frame, as FINN's RTL generator; 0 where there is none, or none is known.

        It writes SIMD lanes a cycle while it reads the next row, or the next element of one dimension; where SIMD does
        not divide the channels, and under a kernel of one tap, whole windows, a pixel read a cycle.
        """
        w = self.window
        if w is None:
            return 0
        whole = self.channels % folding.simd != 0
        lanes = self.channels if whole else folding.simd
        folds = self.channels // lanes
        if whole or w.taps == 1:
            return prod(w.padded) * folds + 2
        if len(w.padded) == 1:
            return prod(w.positions) * w.taps * folds + 2
        (_, wide), (down, across) = w.padded, w.positions
        (high, broad), step = w.kernel, w.stride[1]
        first = ((high - 1) * w.dilation[0] * wide + (broad - 1) * w.dilation[1] + 1) * folds
        return first + down * max(across * w.taps * folds, step * wide * folds)

    def interval(self, folding: Folding) -> int:
        """Cycles between two frames that the engine and what feeds it windows allow."""
        return max(self.cycles(folding), self.window_cycles(folding))

    @property
    def accumulator_bits(self) -> int:
        """Of the largest sum that the formats allow, with its sign (A2Q, arXiv 2301.13376); real weights need less."""
        signed = self.input_bits == 1
        return (self.mw << self.weight_bits + self.input_bits - 1 - signed).bit_length() + 1

    def memory(self, folding: Folding) -> tuple[int, int]:
        """Words of weights, and the bits of one: what all PEs take in a cycle."""
        return (self.mw // folding.simd) * (self.mh // folding.pe), folding.pe * folding.simd * self.weight_bits

    def cost(self, folding: Folding) -> Cost:
        """Of engine, weights and sliding window; thresholds, pools, FIFOs and what converts widths are left out."""
        bits, words = self.weight_bits + self.input_bits, self.memory(folding)
        multiply = folding.simd * (2 * -(-bits // 6) - 1) * bits
        add = bits * (2 * folding.simd - 1)
        lut = _BASE_LUT + _LUT_TENTHS * folding.pe * (multiply + add + self.accumulator_bits) // 10
        if folding.ram == "block":
            return Cost(lut=lut, bram=_blocks(*words)) + self._window_cost(folding)
        return Cost(lut=lut + words[1] * -(-words[0] // _LUTRAM)) + self._window_cost(folding)

    def _window_cost(self, folding: Folding) -> Cost:
        """Its buffer in LUTs as memory, as FINN estimates its distributed style; strides keep early rows."""
        w = self.window
        if w is None:
            return Cost()
        lanes = self.channels if self.channels % folding.simd else folding.simd
        folds = self.channels // lanes
        *above, beside = ((k - 1) * d for k, d in zip(w.kernel, w.dilation, strict=True))
        rows = sum(above) * w.padded[-1]
        early = (w.stride[0] - 1) * w.padded[-1] - w.taps if above else 0
        words = (rows + beside + 1 + max(early, 0)) * folds
        return Cost(lut=_BASE_LUT + lanes * self.input_bits * -(-words // _SHIFTED))


def _blocks(depth: int, width: int) -> int:
    """RAMB18 of ``depth`` words of ``width`` bits, in the shape that FINN takes: the narrowest that a word fits in, and
    of 36 bits only for up to 512 words."""
    bits, words = next(
        (bits, words) for bits, words in _RAMB18 if width <= bits or bits == 36 or (bits == 18 and depth > 512)
    )
    return -(-depth // words) * -(-width // bits)


def divisors(value: int) -> tuple[int, ...]:
    """All of them, rising."""
    low = [i for i in range(1, int(value**0.5) + 2) if i * i <= value and value % i == 0]
    return (*low, *(value // i for i in reversed(low) if i * i != value))


def _near(size: int, value: int) -> tuple[int, ...]:
    """The divisors of ``size`` on both sides of ``value``."""
    below = [d for d in divisors(size) if d < value]
    above = [d for d in divisors(size) if d > value]
    return (*below[-1:], *above[:1])


def legal_foldings(layer: StreamingLayer) -> Iterator[Folding]:
    """Every one: PE divides the output channels, SIMD the contraction; with either memory for the weights."""
    for pe in divisors(layer.mh):
        for simd in divisors(layer.mw):
            for ram in get_args(Ram):
                yield Folding(pe=pe, simd=simd, ram=ram)
