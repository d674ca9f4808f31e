"""The FP32 sum, its operands ordered by magnitude first."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from amaranth import Cat, Const, Module, Mux
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ....workloads.errors import require_int
from .datapath import (
    Pipeline,
    Unpacked,
    leading_zeros,
    multiply_left,
    multiply_right_sticky,
    shift_left,
    shift_right_sticky,
    wire,
)

__all__ = ["Fp32Add"]


class Fp32Add(wiring.Component):
    """``sum`` is the FP32 sum of the FP32 ``a`` and ``b`` of ``latency`` cycles ago.

    Without ``subnormals`` neither operand nor result may be one: sums of FP16 products never are, being multiples of
    2^-48 (docs/design/machine.md, Numbers); a NaN operand is then canonical, as those that units make are. What any
    other would give is unspecified. ``multipliers``, of such an adder: two more multipliers take the place of most of
    the multiplexers that shift.
    """

    def __init__(self, latency: int, subnormals: bool = False, multipliers: bool = False) -> None:
        require_int("Fp32Add.latency", latency, 1, 32)
        assert not (subnormals and multipliers), "a result that may be subnormal is not shifted by its leading one"
        self.latency = latency
        self.subnormals = subnormals
        self.multipliers = multipliers
        super().__init__({"a": In(32), "b": In(32), "sum": Out(32)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        pipeline = Pipeline(m, self.latency, ("output", "aligned", "counted", "ordered", "normalized", "added"))
        total = self._add(m, pipeline, self._align(m, pipeline, self._order(m, pipeline)))
        result = self._round(m, self._normalize(m, pipeline, total))
        m.d.comb += self.sum.eq(pipeline.cut("output", sum=result).sum)
        return m

    def _order(self, m: Module, pipeline: Pipeline) -> SimpleNamespace:
        operands = (("a", self.a), ("b", self.b))
        a, b = (Unpacked(m, n, v, 8, 23, subnormals=self.subnormals) for n, v in operands)
        nans = [x.nan if self.subnormals else x.special & x.fraction[22] for x in (a, b)]
        # the order comes last: whatever does not need it is made beside it
        swap = wire(m, "swap", self.a[:31] < self.b[:31])
        subtract = wire(m, "subtract", a.sign ^ b.sign)
        above, below = wire(m, "above", a.exponent - b.exponent), wire(m, "below", b.exponent - a.exponent)
        return pipeline.cut(
            "ordered",
            exponent=Mux(swap, b.exponent, a.exponent),
            sign=Mux(swap, b.sign, a.sign),
            large=Mux(swap, b.mantissa, a.mantissa),
            small=Mux(swap, a.mantissa, b.mantissa),
            distance=Mux(swap, below, above)[:8],
            subtract=subtract,
            special=a.special | b.special,
            nan=nans[0] | nans[1] | (a.special & b.special & subtract),
        )

    def _align(self, m: Module, pipeline: Pipeline, o: SimpleNamespace) -> SimpleNamespace:
        """``small`` in the scale of ``large``, with a guard, a round and a sticky bit below, inverted to subtract."""
        near, coarse, lost = Cat(Const(0, 2), o.small), o.distance[:5], Const(0, 1)
        if self.multipliers:
            near, lost = multiply_right_sticky(m, "small_fine", near, o.distance[:4])
            coarse = Cat(Const(0, 4), o.distance[4])
        moved, lost_then = shift_right_sticky(m, "small_moved", near, coarse)
        # what is 32 or more places below changes no rounding to nearest: it may as well be zero
        moved = wire(m, "small_aligned", Mux(o.distance[5:].any(), 0, Cat(lost | lost_then, moved))[:27])
        small = Mux(o.subtract, ~moved, moved)[:27]
        return pipeline.cut("aligned", o, "large exponent sign subtract special nan", small=small)

    def _add(self, m: Module, pipeline: Pipeline, a: SimpleNamespace) -> SimpleNamespace:
        # the carry into the lowest bit comes from one bit below it
        total = wire(m, "carried", Cat(Const(1, 1), Const(0, 3), a.large) + Cat(a.subtract, a.small))
        total = wire(m, "total", Cat(total[1:28], total[28] & ~a.subtract))
        return pipeline.cut("added", a, "exponent sign subtract special nan", total=total)

    def _normalize(self, m: Module, pipeline: Pipeline, s: SimpleNamespace) -> SimpleNamespace:
        """The total with its leading one on top; ``exponent`` is the exponent field less one."""
        zero = wire(m, "total_zero", ~s.total.any())
        sign = s.sign & ~(zero & s.subtract) & ~s.nan
        if self.subnormals:
            zeros = leading_zeros(m, "zeros", s.total)
            zeros = Mux(s.exponent < zeros, s.exponent, zeros)
            c = pipeline.cut("counted", s, "total exponent special nan", zeros=zeros, sign=sign, zero=zero)
            total, zeros = shift_left(m, "total", c.total, c.zeros), c.zeros
        else:
            # by whole bytes first: then the leading one is in the highest, and a byte is all that is counted
            empty = [wire(m, f"empty_{i}", ~s.total[i : i + 8].any()) for i in (20, 12, 4)]
            by_16 = wire(m, "by_16", empty[0] & empty[1])
            bytes_ = Cat(wire(m, "by_8", Mux(by_16, empty[2], empty[0])), by_16)
            total = shift_left(m, "coarse", s.total, Cat(Const(0, 3), bytes_))
            c = pipeline.cut("counted", s, "exponent special nan", total=total, bytes=bytes_, sign=sign, zero=zero)
            fine = leading_zeros(m, "fine", c.total[20:])
            total = (multiply_left if self.multipliers else shift_left)(m, "total", c.total, fine)
            zeros = Cat(fine, c.bytes)
        return pipeline.cut("normalized", c, "sign zero special nan", total=total, exponent=(c.exponent - zeros)[:8])

    def _round(self, m: Module, n: SimpleNamespace) -> Any:
        up = n.total[3] & (n.total[4] | n.total[:3].any())
        # the leading one of a normal result adds the one that its exponent field lacks
        rounded = wire(m, "rounded", (Cat(n.total[4:28], Const(0, 8)) + Cat(Const(0, 23), n.exponent) + up)[:31])
        exponent = Mux(n.zero, 0, rounded[23:]) | n.special.replicate(8)
        # an overflow by rounding has no ones to clear in its fraction; any other is known before
        infinite = wire(m, "infinite", n.special | (n.exponent == 254))
        fraction = Mux(infinite, Cat(Const(0, 22), n.nan), rounded[:23])
        return Cat(fraction, exponent, n.sign)
