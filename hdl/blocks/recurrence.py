"""FP32 quotient and square root by digit recurrence: free-running pipelines like those of `weft.hdl.blocks.fp`.

A unit shows in cycle ``t + latency`` the result of the operands it was given in cycle ``t``, rounded to nearest even,
subnormals included; a NaN is canonical. The first cycle unpacks the operands, the last one rounds the result, and those
between make the digits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from amaranth import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ...workloads.errors import require_int

__all__ = ["Fp32Divide", "Fp32SquareRoot"]

_DIGITS = 26
"""Of the significand, of its rounding, and one more because a quotient may lie below 1."""
_State = dict[str, Any]


class _Number:
    """An FP32 number in its parts; ``significand`` has its leading one at bit 23, subnormals too, unless it is 0."""

    def __init__(self, m: Module, name: str, bits: Any) -> None:
        field, fraction = bits[23:31], bits[:23]
        self.sign = bits[31]
        self.nan = field.all() & fraction.any()
        self.infinite = field.all() & ~fraction.any()
        self.zero = ~field.any() & ~fraction.any()
        significand = Cat(fraction, field.any())
        exponent = Cat(Mux(field.any(), field, 1), Const(0, 2)).as_signed()
        for shift in (16, 8, 4, 2, 1):
            low = ~significand[24 - shift :].any()
            significand = _wire(m, f"{name}_significand_{shift}", Mux(low, significand << shift, significand)[:24])
            exponent = _wire(m, f"{name}_exponent_{shift}", Mux(low, exponent - shift, exponent), signed(10))
        self.significand, self.exponent = significand, exponent


class Fp32Divide(wiring.Component):
    """``quotient`` is ``a / b`` of ``latency`` cycles ago."""

    def __init__(self, latency: int) -> None:
        require_int("Fp32Divide.latency", latency, 3, 2 + _DIGITS)
        self.latency = latency
        super().__init__({"a": In(32), "b": In(32), "quotient": Out(32)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        a, b = _Number(m, "a", self.a), _Number(m, "b", self.b)
        nan = a.nan | b.nan | (a.zero & b.zero) | (a.infinite & b.infinite)
        state = {
            "rest": Cat(a.significand, Const(0, 1)),
            "divisor": b.significand,
            "exponent": (a.exponent - b.exponent + 127)[:10].as_signed(),
            "sign": (a.sign ^ b.sign) & ~nan,
            "nan": nan,
            "infinite": a.infinite | b.zero,
            "zero": a.zero | b.infinite,
        }
        m.d.sync += self.quotient.eq(_rounded(m, _iterate(m, state, self.latency, self._digit)))
        return m

    @staticmethod
    def _digit(m: Module, name: str, s: _State) -> _State:
        fits = _wire(m, f"{name}_fits", s["rest"] >= s["divisor"])
        rest = Mux(fits, s["rest"] - s["divisor"], s["rest"])
        return {"rest": _wire(m, f"{name}_rest", (rest << 1)[:25]), "digits": Cat(fits, s["digits"])}


class Fp32SquareRoot(wiring.Component):
    """``root`` is the square root of the ``value`` of ``latency`` cycles ago, NaN below -0."""

    def __init__(self, latency: int) -> None:
        require_int("Fp32SquareRoot.latency", latency, 3, 2 + _DIGITS)
        self.latency = latency
        super().__init__({"value": In(32), "root": Out(32)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        v = _Number(m, "value", self.value)
        nan = v.nan | (v.sign & ~v.zero)
        # of an even exponent, the biased one odd, the radicand lies in [1, 2), else in [2, 4)
        even = v.exponent[0]
        state = {
            "rest": Const(0, 29),
            "radicand": Mux(even, Cat(Const(0, 1), v.significand, Const(0, 1)), Cat(Const(0, 2), v.significand)),
            "exponent": ((v.exponent + 127) >> 1)[:10].as_signed(),
            "sign": v.sign & ~nan,
            "nan": nan,
            "infinite": v.infinite,
            "zero": v.zero,
        }
        m.d.sync += self.root.eq(_rounded(m, _iterate(m, state, self.latency, self._digit)))
        return m

    @staticmethod
    def _digit(m: Module, name: str, s: _State) -> _State:
        """Two more bits of the radicand for one more of the root."""
        rest = _wire(m, f"{name}_rest", Cat(s["radicand"][-2:], s["rest"])[:29])
        trial = Cat(Const(1, 2), s["digits"])
        fits = _wire(m, f"{name}_fits", rest >= trial)
        radicand = _wire(m, f"{name}_radicand", (s["radicand"] << 2)[:26])
        left = _wire(m, f"{name}_left", Mux(fits, rest - trial, rest)[:29])
        return {"rest": left, "radicand": radicand, "digits": Cat(fits, s["digits"])}


def _iterate(m: Module, state: _State, latency: int, digit: Callable[[Module, str, _State], _State]) -> _State:
    """All digits of a recurrence, registered but for the last cycle."""
    state = _registered(m, "unpacked", state | {"digits": Const(0, 0)})
    stages = latency - 2
    for stage in range(stages):
        for i in range(stage * _DIGITS // stages, (stage + 1) * _DIGITS // stages):
            state |= digit(m, f"digit_{i}", state)
        state = _registered(m, f"stage_{stage}", state)
    return state


def _rounded(m: Module, s: _State) -> Any:
    """The number whose significand is ``digits``, the first or the second of them its leading one, and a rest."""
    high = s["digits"][-1]
    digits = Cat(s["rest"].any(), Mux(high, s["digits"], s["digits"] << 1)[:_DIGITS])
    below = _wire(m, "field", s["exponent"] - 2 + high, signed(11))
    shift = Mux(below < 0, -below, 0)
    moved = _wire(m, "moved", Mux(shift > _DIGITS, 0, digits >> shift[:5])[: _DIGITS + 1])
    lost = (moved << shift[:5])[: _DIGITS + 1] != digits
    up = moved[2] & (moved[3] | moved[:2].any() | lost)
    magnitude = _wire(m, "magnitude", (Cat(Const(0, 23), Mux(below < 0, 0, below)[:9]) + moved[3:] + up)[:32])
    result = Signal(31)
    with m.If(s["nan"]):
        m.d.comb += result.eq(0x7FC00000)
    with m.Elif(s["zero"]):
        m.d.comb += result.eq(0)
    with m.Elif(s["infinite"] | (magnitude[23:] >= 255)):
        m.d.comb += result.eq(0x7F800000)
    with m.Else():
        m.d.comb += result.eq(magnitude)
    return Cat(result, s["sign"])


def _registered(m: Module, name: str, state: _State) -> _State:
    crossed = {}
    for key, value in state.items():
        crossed[key] = Signal(value.shape(), name=f"{name}_{key}", reset_less=True)
        m.d.sync += crossed[key].eq(value)
    return crossed


def _wire(m: Module, name: str, value: Any, shape: Any = None) -> Any:
    wire = Signal(value.shape() if shape is None else shape, name=name)
    m.d.comb += wire.eq(value)
    return wire
