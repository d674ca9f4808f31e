"""The lines of a transfer: where in memory each begins (docs/design/accelerator.md, A transfer)."""

from __future__ import annotations

from typing import Any

from amaranth import Array, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ...dataflow.operand import FP16, FP32
from ...dataflow.program.isa import COUNTS

__all__ = ["OFFSET_BITS", "WORD", "Lines", "line_layout", "transfer_layout", "words_bits"]

OFFSET_BITS = 32
"""Of a byte offset in the window."""
COUNT_BITS, STEP_BITS = 16, 32
WORD = FP16.bytes
"""Of the smallest word that transfers move, an operand, where nothing else is said."""


def words_bits(word: int) -> int:
    """Of the words of a line, ``word`` bytes each; registers say up to 2^24 - 1 of 32 bits."""
    return 24 + (FP32.bytes // word).bit_length() - 1


def transfer_layout(word: int) -> data.StructLayout:
    """A byte offset, words of ``word`` bytes a line, and counts, each from 1, with signed byte steps, the last
    fastest."""
    return data.StructLayout(
        {
            "address": OFFSET_BITS,
            "words": words_bits(word),
            "counts": data.ArrayLayout(COUNT_BITS, COUNTS),
            "steps": data.ArrayLayout(STEP_BITS, COUNTS),
        }
    )


def line_layout(word: int) -> data.StructLayout:
    """A byte offset, and words of ``word`` bytes; ``last``: of the transfer."""
    return data.StructLayout({"address": OFFSET_BITS, "words": words_bits(word), "last": 1})


class Lines(wiring.Component):
    """Lists the lines of a transfer, one a cycle; the first of a transfer in the cycle after it is taken.

    The next transfer is taken in the cycle in which the last line of the one before is.
    """

    def __init__(self, word: int = WORD) -> None:
        self.word = word
        transfer, line = transfer_layout(word), line_layout(word)
        super().__init__({"transfer": In(stream.Signature(transfer)), "lines": Out(stream.Signature(line))})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        active = Signal()
        taken = Signal(transfer_layout(self.word), reset_less=True)
        starts = [Signal(OFFSET_BITS, name=f"start_{d}", reset_less=True) for d in range(COUNTS)]
        left = [Signal(COUNT_BITS, name=f"left_{d}", reset_less=True) for d in range(COUNTS)]
        more = [Signal(name=f"more_{d}") for d in range(COUNTS)]
        following = Signal(OFFSET_BITS)
        ends = Signal()
        m.d.comb += [more[d].eq(left[d] != 0) for d in range(COUNTS)]
        level: Any = 0
        for d in range(COUNTS):
            level = Mux(more[d], d, level)  # the innermost that has not ended goes on
        step, start = (Array(x) for x in ([taken.steps[d].as_signed() for d in range(COUNTS)], starts))
        m.d.comb += [
            following.eq(start[level] + step[level]),
            ends.eq(~(more[0] | more[1] | more[2] | more[3])),
            self.lines.valid.eq(active),
            self.lines.payload.address.eq(starts[-1]),
            self.lines.payload.words.eq(taken.words),
            self.lines.payload.last.eq(ends),
            self.transfer.ready.eq(~active | (self.lines.ready & ends)),
        ]
        with m.If(self.lines.valid & self.lines.ready):
            for d in range(COUNTS):
                inner = Signal(name=f"inner_{d}")
                m.d.comb += inner.eq(level <= d)
                with m.If(inner):
                    m.d.sync += starts[d].eq(following)
                with m.If(more[d] & (level == d)):
                    m.d.sync += left[d].eq(left[d] - 1)
                with m.Elif(inner):
                    m.d.sync += left[d].eq(taken.counts[d] - 1)
            m.d.sync += active.eq(~ends)
        with m.If(self.transfer.valid & self.transfer.ready):
            m.d.sync += [active.eq(1), taken.eq(self.transfer.payload)]
            m.d.sync += [starts[d].eq(self.transfer.payload.address) for d in range(COUNTS)]
            m.d.sync += [left[d].eq(self.transfer.payload.counts[d] - 1) for d in range(COUNTS)]
        return m
