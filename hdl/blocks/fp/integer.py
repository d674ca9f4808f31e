"""Products and sums of integers in two's complement, which wrap around."""

from __future__ import annotations

from typing import Any

from amaranth import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ....dataflow.operand import INT8, INT32
from ....workloads.errors import require_int
from .datapath import Pipeline

__all__ = ["Int8Multiply", "Int32Add"]


class Int8Multiply(wiring.Component):
    """``product`` is the INT32 product of the INT8 ``a`` and ``b`` of ``latency`` cycles ago."""

    def __init__(self, latency: int) -> None:
        require_int("Int8Multiply.latency", latency, 1, 32)
        self.latency = latency
        super().__init__({"a": In(INT8.bits), "b": In(INT8.bits), "product": Out(INT32.bits)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        pipeline = Pipeline(m, self.latency, ("output", "entered"))
        e = pipeline.cut("entered", a=self.a, b=self.b)
        o = pipeline.cut("output", product=(e.a.as_signed() * e.b.as_signed())[: 2 * INT8.bits])
        m.d.comb += self.product.eq(o.product.as_signed())
        return m


class Int32Add(wiring.Component):
    """``sum`` is the INT32 sum of the INT32 ``a`` and ``b`` of ``latency`` cycles ago; it wraps around."""

    def __init__(self, latency: int) -> None:
        require_int("Int32Add.latency", latency, 1, 32)
        self.latency = latency
        super().__init__({"a": In(INT32.bits), "b": In(INT32.bits), "sum": Out(INT32.bits)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        pipeline = Pipeline(m, self.latency, ("output", "entered"))
        e = pipeline.cut("entered", a=self.a, b=self.b)
        m.d.comb += self.sum.eq(pipeline.cut("output", sum=(e.a + e.b)[: INT32.bits]).sum)
        return m
