"""Pairs as they lie in memory: side by side, value and index each, across the edges of beats."""

from __future__ import annotations

from typing import Any

from amaranth import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for, exact_log2

from ...workloads.sparsity import NMPattern
from .reader import read_layout
from .reduction import INDEX

__all__ = ["Unpack"]


class Unpack(wiring.Component):
    """Pairs of lines of ``words`` out of a buffer of bits, one a cycle, while ``runs``; a beat is taken in in a cycle
    without one. ``ready`` of ``beats`` depends on nothing of the same cycle but ``runs``. ``operand``: bits of one."""

    def __init__(self, pattern: NMPattern, beat_bytes: int, operand: int) -> None:
        self.bits, self.beat_bytes, self.operand = operand + pattern.index_bits, beat_bytes, operand
        super().__init__(
            {
                "runs": In(1),
                "words": In(24),
                "beats": In(stream.Signature(read_layout(beat_bytes, operand // 8))),
                "valid": Out(1),
                "value": Out(operand),
                "index": Out(INDEX),
                "line_end": Out(1),
                "last": Out(1),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        of, bits, width, operand = self.beats.payload.of, self.bits, 8 * self.beat_bytes, self.operand
        shift = exact_log2(operand)
        room = width + bits - 1
        held = Signal(room)
        fill = Signal(range(room + 1))
        ends = Signal()
        last = Signal()
        left = Signal(24)
        fresh = Signal(width)
        mask = Signal(width)
        count = Signal(range(width // operand + 1))
        m.d.comb += [
            self.valid.eq(self.runs & (fill >= bits)),
            self.value.eq(held[:operand]),
            self.index.eq(held[operand:bits]),
            self.line_end.eq(left == 1),
            self.last.eq(last & self.line_end),
            # what a line leaves over is dropped with its last pair, so the next line waits for that
            self.beats.ready.eq(self.runs & (fill < bits) & ~ends),
            count.eq(of.end - of.first + 1),
            fresh.eq(self.beats.payload.data >> (of.first << shift)),
            mask.eq((1 << (count << shift)) - 1),
        ]
        with m.If(self.valid):
            m.d.sync += [held.eq(held >> bits), fill.eq(fill - bits), left.eq(left - 1)]
            with m.If(self.line_end):
                m.d.sync += [held.eq(0), fill.eq(0), left.eq(self.words), ends.eq(0)]
        with m.Elif(self.beats.valid & self.beats.ready):
            m.d.sync += [
                held.eq(held | ((fresh & mask) << fill[: bits_for(bits - 1)])),
                fill.eq(fill + (count << shift)),
                ends.eq(of.line_end),
                last.eq(of.last),
            ]
        with m.If(~self.runs):
            m.d.sync += [held.eq(0), fill.eq(0), ends.eq(0), left.eq(self.words)]
        return m
