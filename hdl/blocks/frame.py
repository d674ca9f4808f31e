"""What an array's edges and its controller are sized by, whatever its PEs do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never

from amaranth.utils import ceil_log2

from ...dataflow.accelerator import AcceleratorSpec
from ...dataflow.xnor.spec import ADD_LATENCY, XnorSpec

__all__ = ["Frame", "Gridded", "frame_of"]

Gridded = AcceleratorSpec | XnorSpec
"""What describes an array: a machine, by its STCE, or an XNOR engine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """``rows`` x ``cols`` PEs with ``accumulators`` contexts; each row takes ``lanes`` words a cycle. A PE holds a part
    of up to ``dense_words`` words and in WS up to ``held`` pairs; in OS up to ``longest`` pairs use a part."""

    rows: int
    cols: int
    lanes: int
    accumulators: int
    dense_words: int
    held: int
    longest: int
    multiply_latency: int
    add_latency: int
    read_latency: int
    """Array cycles from an ask to its answer."""

    @property
    def latency(self) -> int:
        """Cycles from an issue to its sum."""
        return self.multiply_latency + self.add_latency

    @property
    def lead(self) -> int:
        """Array cycles from that of ``start`` to cycle 0 of the run: a decision, its register, and the answer."""
        return 2 + self.read_latency

    @property
    def chunk_bits(self) -> int:
        """Of the place of what enters a row in a cycle, in its part."""
        return _bits(-(-self.dense_words // self.lanes))

    @property
    def position_bits(self) -> int:
        """Of the place of a word in its part."""
        return _bits(self.dense_words)

    @property
    def context_bits(self) -> int:
        """Of the number of a context."""
        return _bits(self.accumulators)

    @property
    def held_bits(self) -> int:
        """Of the place of a pair among those held."""
        return _bits(self.held)


def _bits(count: int) -> int:
    """Bits that tell ``count`` things apart, at least one."""
    bits: int = ceil_log2(count)
    return max(1, bits)


def frame_of(spec: Gridded) -> Frame:
    """The frame of a machine's STCE, or of an XNOR engine."""
    match spec:
        case AcceleratorSpec():
            array, pe = spec.array, spec.pe
            return Frame(
                rows=array.rows,
                cols=array.cols,
                lanes=array.w2e_words,
                accumulators=pe.accumulators,
                dense_words=pe.dense_words,
                held=pe.weight_pairs,
                longest=pe.max_group,
                multiply_latency=pe.multiply_latency,
                add_latency=pe.add_latency,
                read_latency=array.read_latency,
            )
        case XnorSpec():
            return Frame(
                rows=spec.rows,
                cols=spec.cols,
                lanes=1,
                accumulators=spec.accumulators,
                dense_words=spec.dense_words,
                held=spec.weight_words,
                longest=spec.weight_words,
                multiply_latency=spec.popcount_latency,
                add_latency=ADD_LATENCY,
                read_latency=1,
            )
        case _:
            assert_never(spec)
