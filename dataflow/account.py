"""Where the cycles and the actions of an op are booked: integers only, so that re-costing never re-simulates."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import TypeVar

__all__ = ["Counts", "Cycles", "total"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cycles:
    """Clock cycles by what they were spent on or waited for; the causes add up to ``total``."""

    compute: int = 0
    """The array issues multiplies."""
    fill_drain: int = 0
    """Skew, pipeline latency, first operands, last results, partial-sum turn-around."""
    interleave_stall: int = 0
    """An accumulator is waited for, because the interleave is shorter than the adder."""
    port_stall: int = 0
    """The array waits for its own edges: W2E words, drain chain, weights shifting in."""
    dram_stall: int = 0
    """The array waits for off-chip memory."""
    sore: int = 0
    """Somebody waits for N:M compression."""
    wuve: int = 0
    """Weight update, as long as its lanes or its memory traffic take."""
    vector: int = 0
    """Element-wise, normalisation and softmax work, as long as its lanes or its memory traffic take."""

    @property
    def total(self) -> int:
        """All cycles."""
        return sum(getattr(self, f.name) for f in fields(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """How often each action happened."""

    macs: int = 0
    """Multiplies of operands with their FP32 adds that change a result."""
    selects: int = 0
    """Partners picked by index from a dense group."""
    w2e_words: int = 0
    """Operands read from the W2E buffer."""
    n2s_pairs: int = 0
    """Operands, with their index where sparse, read from the N2S buffer."""
    output_words: int = 0
    """FP32 partial sums and results read from or written to the output buffer by the array."""
    buffer_bytes: int = 0
    """Bytes written into or read out of the buffers by the DMA."""
    dram_read_bytes: int = 0
    dram_write_bytes: int = 0
    sore_compares: int = 0
    """Magnitude comparisons of the reduction engine."""
    updates: int = 0
    """Parameters updated."""
    vector_elements: int = 0
    """Elements through the vector unit."""

    @property
    def dram_bytes(self) -> int:
        """Off-chip traffic in both directions."""
        return self.dram_read_bytes + self.dram_write_bytes


Account = TypeVar("Account", Cycles, Counts)


def total(kind: type[Account], parts: Iterable[Account]) -> Account:
    """Sum of accounts, field by field."""
    names = [f.name for f in fields(kind)]
    sums = dict.fromkeys(names, 0)
    for part in parts:
        for name in names:
            sums[name] += getattr(part, name)
    return kind(**sums)
