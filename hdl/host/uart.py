"""A serial line: eight bits, no parity, one stop bit, ``divisor`` cycles a bit."""

from __future__ import annotations

from typing import Any

from amaranth import Cat, Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["LEAST_DIVISOR", "Receiver", "Transmitter"]

LEAST_DIVISOR = 4
"""Cycles a bit, below which the middle of a bit is not between its edges by a cycle."""
_BITS = 10
"""Start, eight of data, stop."""


class Receiver(wiring.Component):
    """``octet`` and ``valid`` for a cycle when one has come; ``broken`` instead, when its stop bit was none."""

    def __init__(self, divisor: int) -> None:
        assert divisor >= LEAST_DIVISOR, f"{divisor} cycles a bit"
        self.divisor = divisor
        super().__init__({"rx": In(1, init=1), "octet": Out(8), "valid": Out(1), "broken": Out(1)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        line, once, held = Signal(init=1, reset_less=True), Signal(init=1, reset_less=True), Signal(_BITS - 1)
        left, bits = Signal(range(2 * self.divisor)), Signal(range(_BITS + 1))
        # the line has another clock: two registers, so that one that hesitates has a cycle to decide
        m.d.sync += [once.eq(self.rx), line.eq(once), self.valid.eq(0), self.broken.eq(0)]
        with m.If(bits == 0), m.If(~line):  # the first data bit's middle is a bit and a half away
            m.d.sync += [bits.eq(_BITS - 1), left.eq(self.divisor + self.divisor // 2 - 2)]
        with m.Elif(left != 0):
            m.d.sync += left.eq(left - 1)
        with m.Else():
            m.d.sync += [bits.eq(bits - 1), left.eq(self.divisor - 1), held.eq(Cat(held[1:], line))]
            with m.If(bits == 1):
                m.d.sync += [self.octet.eq(held[1:]), self.valid.eq(line), self.broken.eq(~line)]
        return m


class Transmitter(wiring.Component):
    """Sends ``octets`` one after the other on ``tx``."""

    def __init__(self, divisor: int) -> None:
        assert divisor >= LEAST_DIVISOR, f"{divisor} cycles a bit"
        self.divisor = divisor
        super().__init__({"octets": In(stream.Signature(8)), "tx": Out(1, init=1)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        held, bits = Signal(_BITS, init=-1), Signal(range(_BITS + 1))
        left = Signal(range(self.divisor))
        m.d.comb += [self.tx.eq(held[0]), self.octets.ready.eq(bits == 0)]
        with m.If(bits == 0), m.If(self.octets.valid):
            m.d.sync += [held.eq(Cat(0, self.octets.payload, 1)), bits.eq(_BITS), left.eq(self.divisor - 1)]
        with m.Elif(left != 0):
            m.d.sync += left.eq(left - 1)
        with m.Else():
            m.d.sync += [bits.eq(bits - 1), left.eq(self.divisor - 1), held.eq(Cat(held[1:], 1))]
        return m
