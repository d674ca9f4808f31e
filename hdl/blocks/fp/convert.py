"""FP32 to a format of 16 or 8 bits, to nearest even, and back, exactly."""

from __future__ import annotations

from typing import Any

from amaranth import Cat, Const, Module, Mux, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for

from ....dataflow.operand import BF16, E5M2, FP8, FP16, NumberFormat
from ....workloads.errors import require_int
from .datapath import Pipeline, Unpacked, leading_zeros, shift_left, shift_right_sticky, wire

__all__ = [
    "Bf16ToFp32",
    "E5m2ToFp32",
    "Fp8ToFp32",
    "Fp16ToFp32",
    "Fp32ToBf16",
    "Fp32ToE4m3",
    "Fp32ToE5m2",
    "Fp32ToFp8",
    "Fp32ToFp16",
]


def _at_its_place(m: Module, pipeline: Pipeline, value: Any, to: NumberFormat) -> tuple[Any, Any]:
    """An FP32 ``value`` shifted to where the fraction of ``to`` ends, and whether that is rounded up, to nearest even;
    ``special``: it is beyond what rounding can bring back."""
    v = Unpacked(m, "value", value, 8, 23)
    least, bits = 2**7 - 2 ** (to.exponent - 1) + 1, bits_for(to.fraction + 2)
    # the exponent field of a normal result, less one, and how far below it a subnormal one is
    field = wire(m, "field", (v.exponent - least)[:9])
    below = wire(m, "below", (least - v.exponent)[:8])
    shift = wire(m, "shift", Mux(field[8], Mux(below[bits:].any(), 2**bits - 1, below[:bits]), 0)[:bits])
    moved, lost = shift_right_sticky(m, "significand", v.mantissa, shift)
    cut = 22 - to.fraction
    s = pipeline.cut(
        "shifted",
        kept=moved[cut:],
        lost=lost | moved[:cut].any(),
        field=Mux(field[8], 0, field)[: to.exponent],
        sign=v.sign & ~v.nan,
        nan=v.nan,
        special=~field[8] & (field[:8] >= 2**to.exponent - 2 + to.finite),
    )
    return s, s.kept[0] & (s.kept[1] | s.lost)


class _Fp32ToOverflowing(wiring.Component):
    """To a format ``to`` in which what is too large is infinity."""

    def __init__(self, latency: int, to: NumberFormat) -> None:
        require_int(f"{type(self).__name__}.latency", latency, 1, 32)
        self.latency, self.to = latency, to
        super().__init__({"value": In(32), "half": Out(to.bits)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        exponent, fraction = self.to.exponent, self.to.fraction
        pipeline = Pipeline(m, self.latency, ("output", "shifted"))
        s, up = _at_its_place(m, pipeline, self.value, self.to)
        kept = Cat(s.kept[1:], Const(0, exponent - 1))
        rounded = wire(m, "rounded", (kept + Cat(Const(0, fraction), s.field) + up)[: exponent + fraction])
        magnitude = Mux(s.special, Cat(Const(0, fraction - 1), s.nan, Const(2**exponent - 1, exponent)), rounded)
        m.d.comb += self.half.eq(pipeline.cut("output", half=Cat(magnitude, s.sign)).half)
        return m


class Fp32ToFp16(_Fp32ToOverflowing):
    """``half`` is the FP16 nearest to the FP32 ``value`` of ``latency`` cycles ago, a subnormal one included."""

    def __init__(self, latency: int) -> None:
        super().__init__(latency, FP16)


class Fp32ToE5m2(_Fp32ToOverflowing):
    """``half`` is the E5M2 nearest to the FP32 ``value`` of ``latency`` cycles ago, a subnormal one included."""

    def __init__(self, latency: int) -> None:
        super().__init__(latency, E5M2)


class Fp16ToFp32(wiring.Component):
    """``value`` is the FP16 ``half`` of ``latency`` cycles ago as FP32, exactly."""

    def __init__(self, latency: int) -> None:
        require_int("Fp16ToFp32.latency", latency, 1, 32)
        self.latency = latency
        super().__init__({"half": In(16), "value": Out(32)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.d.comb += self.value.eq(_fp16_as_fp32(m, self.latency, self.half))
        return m


def _fp16_as_fp32(m: Module, latency: int, half: Value) -> Value:
    pipeline = Pipeline(m, latency, ("output", "counted"))
    h = Unpacked(m, "half", half, 5, 10)
    empty = leading_zeros(m, "half", h.mantissa)
    c = pipeline.cut("counted", h, "mantissa exponent nan special zero", empty=empty, sign=h.sign & ~h.nan)
    fraction = shift_left(m, "significand", c.mantissa, c.empty)[:10]
    exponent = Mux(c.zero, 0, (c.exponent + 112 - c.empty)[:8])
    magnitude = Mux(c.special, Cat(Const(0, 9), c.nan, Const(255, 8)), Cat(fraction, exponent))
    o = pipeline.cut("output", value=Cat(magnitude, c.sign))
    return Cat(Const(0, 13), o.value)


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


class Fp32ToE4m3(wiring.Component):
    """``half`` is the E4M3 nearest to the FP32 ``value`` of ``latency`` cycles ago, subnormal ones included; what is
    beyond the largest is the largest of its sign."""

    def __init__(self, latency: int) -> None:
        require_int("Fp32ToE4m3.latency", latency, 1, 32)
        self.latency = latency
        super().__init__({"value": In(32), "half": Out(FP8.bits)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        pipeline = Pipeline(m, self.latency, ("output", "shifted"))
        s, up = _at_its_place(m, pipeline, self.value, FP8)
        rounded = wire(m, "rounded", (s.kept[1:] + Cat(Const(0, 3), s.field) + up)[:8])
        magnitude = Mux(s.special | (rounded > FP8.largest), FP8.largest, rounded)[:7]
        half = pipeline.cut("output", half=Cat(Mux(s.nan, FP8.nan, magnitude)[:7], s.sign)).half
        m.d.comb += self.half.eq(half)
        return m


class E5m2ToFp32(wiring.Component):
    """``value`` is the E5M2 ``half`` of ``latency`` cycles ago as FP32, exactly: it is the upper half of an FP16."""

    def __init__(self, latency: int) -> None:
        require_int("E5m2ToFp32.latency", latency, 1, 32)
        self.latency = latency
        super().__init__({"half": In(E5M2.bits), "value": Out(32)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.d.comb += self.value.eq(_fp16_as_fp32(m, self.latency, Cat(Const(0, 16 - E5M2.bits), self.half)))
        return m


class Fp32ToFp8(wiring.Component):
    """``half`` is the FP8 nearest to the FP32 ``value`` ``latency`` cycles ago: E5M2 of a ``gradient``, else E4M3."""

    def __init__(self, latency: int) -> None:
        require_int("Fp32ToFp8.latency", latency, 1, 32)
        self.latency = latency
        super().__init__({"value": In(32), "gradient": In(1), "half": Out(FP8.bits)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.e4m3, m.submodules.e5m2 = e4m3, e5m2 = Fp32ToE4m3(self.latency), Fp32ToE5m2(self.latency)
        m.d.comb += [
            *(unit.value.eq(self.value) for unit in (e4m3, e5m2)),
            self.half.eq(Mux(self.gradient, e5m2.half, e4m3.half)),
        ]
        return m


class Fp8ToFp32(wiring.Component):
    """``value`` is the FP8 ``half`` of ``latency`` cycles ago as FP32, exactly: E5M2 while ``gradient``, else E4M3.

    E5M2 is the upper half of an FP16. E4M3 has the fields of one that is 2^8 smaller, as its bias is 8 less, and no
    infinity.
    """

    def __init__(self, latency: int) -> None:
        require_int("Fp8ToFp32.latency", latency, 1, 32)
        self.latency = latency
        super().__init__({"half": In(FP8.bits), "gradient": In(1), "value": Out(32)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.widen = widen = Fp16ToFp32(self.latency)
        nan = wire(m, "nan", ~self.gradient & self.half[:7].all())
        small = Cat(Const(0, 7), self.half[:7], Const(0, 1), self.half[7])
        wide = Mux(self.gradient, Cat(Const(0, 16 - E5M2.bits), self.half), small)
        exponent = wire(m, "exponent", (widen.value[23:31] + Mux(self.gradient | (widen.value[:31] == 0), 0, 8))[:8])
        m.d.comb += [
            widen.half.eq(Mux(nan, FP16.nan, wide)),
            self.value.eq(Cat(widen.value[:23], Mux(widen.value[23:31].all(), 255, exponent), widen.value[31])),
        ]
        return m
