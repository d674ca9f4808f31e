"""FP32 to a 16-bit format, to nearest even, and back, exactly."""

from __future__ import annotations

from typing import Any

from amaranth import Cat, Const, Module, Mux
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ....dataflow.operand import BF16
from ....workloads.errors import require_int
from .datapath import Pipeline, Unpacked, leading_zeros, shift_left, shift_right_sticky, wire

__all__ = ["Bf16ToFp32", "Fp16ToFp32", "Fp32ToBf16", "Fp32ToFp16"]


class Fp32ToFp16(wiring.Component):
    """``half`` is the FP16 nearest to the FP32 ``value`` of ``latency`` cycles ago, a subnormal one included."""

    def __init__(self, latency: int) -> None:
        require_int("Fp32ToFp16.latency", latency, 1, 32)
        self.latency = latency
        super().__init__({"value": In(32), "half": Out(16)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        pipeline = Pipeline(m, self.latency, ("output", "shifted"))
        v = Unpacked(m, "value", self.value, 8, 23)
        # the exponent field of a normal result, less one, and how far below it a subnormal one is
        field = wire(m, "field", (v.exponent - 113)[:9])
        below = wire(m, "below", (113 - v.exponent)[:8])
        shift = wire(m, "shift", Mux(field[8], Mux(below[4:].any(), 15, below[:4]), 0)[:4])
        moved, lost = shift_right_sticky(m, "significand", v.mantissa, shift)
        s = pipeline.cut(
            "shifted",
            kept=moved[12:],
            lost=lost | moved[:12].any(),
            field=Mux(field[8], 0, field)[:5],
            sign=v.sign & ~v.nan,
            nan=v.nan,
            special=~field[8] & (field[:8] >= 30),
        )
        up = s.kept[0] & (s.kept[1] | s.lost)
        rounded = wire(m, "rounded", (Cat(s.kept[1:], Const(0, 4)) + Cat(Const(0, 10), s.field) + up)[:15])
        magnitude = Mux(s.special, Cat(Const(0, 9), s.nan, Const(31, 5)), rounded)
        m.d.comb += self.half.eq(pipeline.cut("output", half=Cat(magnitude, s.sign)).half)
        return m


class Fp16ToFp32(wiring.Component):
    """``value`` is the FP16 ``half`` of ``latency`` cycles ago as FP32, exactly."""

    def __init__(self, latency: int) -> None:
        require_int("Fp16ToFp32.latency", latency, 1, 32)
        self.latency = latency
        super().__init__({"half": In(16), "value": Out(32)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        pipeline = Pipeline(m, self.latency, ("output", "counted"))
        h = Unpacked(m, "half", self.half, 5, 10)
        empty = leading_zeros(m, "half", h.mantissa)
        c = pipeline.cut("counted", h, "mantissa exponent nan special zero", empty=empty, sign=h.sign & ~h.nan)
        fraction = shift_left(m, "significand", c.mantissa, c.empty)[:10]
        exponent = Mux(c.zero, 0, (c.exponent + 112 - c.empty)[:8])
        magnitude = Mux(c.special, Cat(Const(0, 9), c.nan, Const(255, 8)), Cat(fraction, exponent))
        o = pipeline.cut("output", value=Cat(magnitude, c.sign))
        m.d.comb += self.value.eq(Cat(Const(0, 13), o.value))
        return m


class Fp32ToBf16(wiring.Component):
    """``half`` is the BF16 nearest to the FP32 ``value`` of ``latency`` cycles ago, a subnormal one included."""

    def __init__(self, latency: int) -> None:
        require_int("Fp32ToBf16.latency", latency, 1, 32)
        self.latency = latency
        super().__init__({"value": In(32), "half": Out(16)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        pipeline = Pipeline(m, self.latency, ("output",))
        nan = wire(m, "nan", self.value[23:31].all() & self.value[:23].any())
        # a carry out of the fraction makes the next exponent, and of the largest number infinity
        up = self.value[15] & (self.value[16] | self.value[:15].any())
        rounded = Cat((self.value[16:31] + up)[:15], self.value[31])
        m.d.comb += self.half.eq(pipeline.cut("output", half=Mux(nan, BF16.nan, rounded)).half)
        return m


class Bf16ToFp32(wiring.Component):
    """``value`` is the BF16 ``half`` of ``latency`` cycles ago as FP32, exactly."""

    def __init__(self, latency: int) -> None:
        require_int("Bf16ToFp32.latency", latency, 1, 32)
        self.latency = latency
        super().__init__({"half": In(16), "value": Out(32)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        pipeline = Pipeline(m, self.latency, ("output",))
        nan = wire(m, "nan", self.half[:15] > BF16.infinity)
        half = pipeline.cut("output", half=Mux(nan, BF16.nan, self.half)).half
        m.d.comb += self.value.eq(Cat(Const(0, 16), half))
        return m
