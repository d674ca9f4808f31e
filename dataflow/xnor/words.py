"""An operand with levels as words, planes and beats (docs/design/xnor.md), and the products that make of it a sum."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from ...workloads.errors import InputError
from ...workloads.gemm import Gemm
from ...workloads.levels import Levels
from .spec import SUM_BITS

__all__ = [
    "Beat",
    "Words",
    "beats_of",
    "largest_sum",
    "plane_weights",
    "planes_read",
    "require_exact",
    "signed",
    "words_of",
]


class Beat(NamedTuple):
    """The control word of one: which plane of either operand, and what their count is worth."""

    plane_a: int
    plane_b: int
    differ: bool
    """Whether bits of different sign are counted, or those that agree."""
    shift: int
    negate: bool

    @property
    def weight(self) -> int:
        """Of its count."""
        return -(1 << self.shift) if self.negate else 1 << self.shift


class Words(NamedTuple):
    """The contraction of a product as the array sees it."""

    words: int
    """Pairs of words of one output."""
    beats: int
    """Of each of them."""
    run: int
    """Words of a run of the contraction, of which the last may be padded."""

    @property
    def slots(self) -> int:
        """How long the contraction is to the array."""
        return self.words * self.beats


def signed(levels: Levels) -> bool:
    """Whether the sign plane of its one plane pair is in use."""
    return levels in (Levels.BINARY, Levels.TERNARY)


def plane_weights(levels: Levels) -> tuple[int, ...]:
    """What a bit of each mask plane is worth: one plane, or those of two's complement."""
    if signed(levels) or levels is Levels.SPIKE:
        return (1,)
    top = levels.bits - 1
    return (*(1 << i for i in range(top)), -(1 << top))


def planes_read(levels: Levels) -> int:
    """Planes that a beat reads of an operand: the mask of a binary one is made at the edge, unsigned ones have no
    sign."""
    return 2 if levels is Levels.TERNARY else 1


@cache
def beats_of(a: Levels, b: Levels) -> tuple[Beat, ...]:
    """The beats of a word, in their order: operand a's planes outermost, then b's, agree before differ."""
    both_binary = a is Levels.BINARY and b is Levels.BINARY
    # Without a sign on either side all bits agree; of two binary ones, agree alone tells the sum.
    ways = (False, True) if (signed(a) or signed(b)) and not both_binary else (False,)
    return tuple(
        Beat(i, j, differ, (abs(x) * abs(y)).bit_length() - 1, (x * y < 0) != differ)
        for i, x in enumerate(plane_weights(a))
        for j, y in enumerate(plane_weights(b))
        for differ in ways
    )


def words_of(gemm: Gemm, a: Levels, b: Levels, word_bits: int) -> Words:
    """Words of the contraction of ``gemm``, each run of it padded to whole words, and their beats."""
    run = -(-gemm.run // word_bits)  # no kernel: the RTL reads this file, and has no Numba
    return Words(gemm.k // gemm.run * run, len(beats_of(a, b)), run)


def largest_sum(k: int, a: Levels, b: Levels) -> int:
    """The most that a sum of ``k`` products can be, either way."""
    return k * max(map(abs, a.values)) * max(map(abs, b.values))


def require_exact(k: int, a: Levels, b: Levels) -> None:
    """Refuse a product whose sums an accumulator may not hold."""
    if largest_sum(k, a, b) >= 1 << SUM_BITS - 1:
        most = ((1 << SUM_BITS - 1) - 1) // largest_sum(1, a, b)
        raise InputError(
            f"sums of {k} products of {a} by {b} may reach 2^{SUM_BITS - 1}, which an accumulator of {SUM_BITS} bits "
            f"does not hold; the longest contraction is {most}"
        )
