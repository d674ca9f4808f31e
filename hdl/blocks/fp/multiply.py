"""Products: of recoded FP16 and FP8, exact in FP32; of FP32 and of BF16, rounded."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from amaranth import Cat, Const, Module, Mux
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ....dataflow.operand import BF16, FP8, FP16
from ....workloads.errors import require_int
from .datapath import Pipeline, Unpacked, leading_zeros, shift_left, shift_right_sticky, wire

__all__ = [
    "RECODED_FP16",
    "RECODED_FP8",
    "Bf16Multiply",
    "Fp16Multiply",
    "Fp32Multiply",
    "RecodedFp8Multiply",
    "RecodedMultiply",
    "recode_fp16",
    "recode_fp8",
]

_RECODED_EXPONENT = 6
RECODED_FP16 = 17
"""Bits of a recoded FP16 number."""
RECODED_FP8 = 10
"""Bits of a recoded FP8 number."""


def recode_fp16(m: Module, name: str, half: Any) -> Any:
    """An FP16 number as the PEs multiply it: a sign, a 6-bit exponent, and the 10 bits below a leading one.

    Subnormals are normalised, which is why the exponent has a bit more. The field of FP16 plus 17 leaves 0..7 to zero,
    48..55 to infinity and 56..63 to NaN, so that its top bits tell the class (the recoded format of J. Hauser's
    HardFloat). Recoding once at the edge of an array keeps two counters of zeros and a shifter out of every PE.
    """
    h = Unpacked(m, name, half, 5, 10)
    empty = leading_zeros(m, name, h.mantissa)
    fraction = shift_left(m, f"{name}_fraction", h.mantissa, empty)[:10]
    exponent = Mux(h.zero, 0, (h.exponent + 17 - empty)[:6])
    exponent = Mux(h.special, Cat(Const(0, 3), h.nan, Const(3, 2)), exponent)
    return Cat(fraction, wire(m, f"{name}_exponent", exponent), h.sign)


def recode_fp8(m: Module, name: str, word: Any, gradient: Any) -> Any:
    """An FP8 number, E5M2 where it is a ``gradient`` and E4M3 elsewhere, as the PEs multiply it: a sign, the 6-bit
    exponent of a recoded FP16 number, and the 3 bits below a leading one."""
    e4m3 = Unpacked(m, f"{name}_e4m3", word, 4, 3)
    e5m2 = Unpacked(m, f"{name}_e5m2", word, 5, 2)
    mantissa = wire(m, f"{name}_mantissa", Mux(gradient, Cat(Const(0, 1), e5m2.mantissa), e4m3.mantissa))
    # the bias of E4M3 is 8 less than that of E5M2 and FP16
    scale = wire(m, f"{name}_scale", Mux(gradient, e5m2.exponent, e4m3.exponent + 8)[:5])
    nan = Mux(gradient, e5m2.nan, word[:7].all())
    empty = leading_zeros(m, name, mantissa)
    fraction = shift_left(m, f"{name}_fraction", mantissa, empty)[:3]
    # the highest field of E5M2, 31, comes to 48 as it is: infinity
    exponent = Mux(nan, 56, Mux(mantissa.any(), (scale + 17 - empty)[:6], 0))
    return Cat(fraction, wire(m, f"{name}_exponent", exponent), word[7])


class _RecodedMultiply(wiring.Component):
    """The exact FP32 product of recoded numbers with ``fraction`` bits below their leading one."""

    def __init__(self, latency: int, fraction: int) -> None:
        require_int(f"{type(self).__name__}.latency", latency, 1, 32)
        self.latency = latency
        self.fraction = fraction
        width = 1 + _RECODED_EXPONENT + fraction
        super().__init__({"a": In(width), "b": In(width), "product": Out(32)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        # what picks the operands takes as long as their multiplication: the second register stands between the two
        pipeline = Pipeline(m, self.latency, ("output", "entered", "multiplied"))
        e = pipeline.cut("entered", a=self.a, b=self.b)
        f, top = self.fraction, self.fraction + _RECODED_EXPONENT
        kinds = e.a[top - 3 : top], e.b[top - 3 : top]
        zero = [kind == 0 for kind in kinds]
        infinite, nan = ([kind == code for kind in kinds] for code in (6, 7))
        wrong = nan[0] | nan[1] | (infinite[0] & zero[1]) | (zero[0] & infinite[1])
        wrong = wire(m, "wrong", wrong)
        p = pipeline.cut(
            "multiplied",
            significand=Cat(e.a[:f], Const(1, 1)) * Cat(e.b[:f], Const(1, 1)),
            # both are 32 above their exponent, the field of FP32 is 127
            exponent=(e.a[f:top] + e.b[f:top] + 63)[:8],
            following=(e.a[f:top] + e.b[f:top] + 64)[:8],
            sign=(e.a[top] ^ e.b[top]) & ~wrong,
            nan=wrong,
            special=Cat(*infinite, *nan).any(),
            zero=zero[0] | zero[1],
        )
        below = 2 * f + 1
        high = p.significand[below]
        fraction = Mux(high, p.significand[:below], Cat(Const(0, 1), p.significand[: below - 1]))
        finite = wire(m, "finite", Mux(p.zero, 0, Cat(fraction, Mux(high, p.following, p.exponent))))
        magnitude = Mux(p.special, Cat(Const(0, below - 1), p.nan, Const(255, 8)), finite)
        o = pipeline.cut("output", product=Cat(magnitude[: below + 8], p.sign))
        m.d.comb += self.product.eq(Cat(Const(0, 23 - below), o.product))
        return m


class RecodedMultiply(_RecodedMultiply):
    """``product`` is the exact FP32 product of the recoded FP16 ``a`` and ``b`` of ``latency`` cycles ago.

    22 significant bits fit FP32, so nothing is rounded.
    """

    def __init__(self, latency: int) -> None:
        super().__init__(latency, FP16.fraction)


class RecodedFp8Multiply(_RecodedMultiply):
    """``product`` is the exact FP32 product of the recoded FP8 ``a`` and ``b`` of ``latency`` cycles ago.

    8 significant bits fit FP32, so nothing is rounded.
    """

    def __init__(self, latency: int) -> None:
        super().__init__(latency, FP8.fraction)


class Fp16Multiply(wiring.Component):
    """``product`` is the exact FP32 product of the FP16 ``a`` and ``b`` of ``latency`` cycles ago."""

    def __init__(self, latency: int) -> None:
        require_int("Fp16Multiply.latency", latency, 1, 32)
        self.latency = latency
        super().__init__({"a": In(16), "b": In(16), "product": Out(32)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.multiply = multiply = RecodedMultiply(self.latency)
        m.d.comb += [
            multiply.a.eq(recode_fp16(m, "a", self.a)),
            multiply.b.eq(recode_fp16(m, "b", self.b)),
            self.product.eq(multiply.product),
        ]
        return m


class _RoundedMultiply(wiring.Component):
    """FP32 product of operands with the exponent of FP32 and ``fraction`` bits; it has bits to round away."""

    def __init__(self, latency: int, fraction: int, subnormals: bool = True) -> None:
        require_int(f"{type(self).__name__}.latency", latency, 1, 32)
        self.latency = latency
        self.fraction = fraction
        self.subnormals = subnormals
        width = fraction + 9
        super().__init__({"a": In(width), "b": In(width), "product": Out(32)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        pipeline = Pipeline(m, self.latency, ("output", "multiplied", "shifted"))
        operands = (("a", self.a), ("b", self.b))
        a, b = (Unpacked(m, n, v, 8, self.fraction, subnormals=self.subnormals) for n, v in operands)
        nan = a.nan | b.nan | (a.infinite & b.zero) | (a.zero & b.infinite)
        # the exponent field of a result whose leading one is the lower of its two places, less one; it may be negative
        field = wire(m, "field", (a.exponent + b.exponent - 128)[:10])
        left, shift = self._shift(m, a, b, field) if self.subnormals else (Const(0, 1), Const(0, 0))
        p = pipeline.cut(
            "multiplied",
            significand=a.mantissa * b.mantissa,
            field=Mux(left, field - shift, field)[:10],
            left=left,
            shift=shift,
            sign=(a.sign ^ b.sign) & ~nan,
            nan=nan,
            special=a.special | b.special,
            zero=a.zero | b.zero,
        )
        # rounding looks at 24 bits and two below, from either place of the leading one
        significand = Cat(Const(0, max(0, 27 - len(p.significand))), p.significand)
        # a left shift is a right shift of the mirror image and loses only zeros
        mirrored = wire(m, "mirrored", Mux(p.left, significand[::-1], significand))
        moved, lost = shift_right_sticky(m, "significand", mirrored, p.shift)
        s = pipeline.cut(
            "shifted",
            p,
            "sign nan special zero",
            significand=Mux(p.left, moved[::-1], moved),
            lost=lost,
            field=Mux(p.field[9], 0, p.field)[:10] if self.subnormals else p.field,
        )
        m.d.comb += self.product.eq(pipeline.cut("output", product=self._round(m, s)).product)
        return m

    def _round(self, m: Module, s: SimpleNamespace) -> Any:
        high, below = s.significand[-1], len(s.significand) - 26
        kept = wire(m, "kept", Mux(high, s.significand[below:], s.significand[below - 1 : -1]))
        up = kept[1] & (kept[2] | kept[0] | s.significand[:below].any() | s.lost)
        rounded = (Cat(kept[2:], Const(0, 9)) + Cat(Const(0, 23), s.field) + (high << 23) + up)[:33]
        rounded = wire(m, "rounded", rounded)
        field = rounded[23:]
        overflow = ~field[9] & (field[8] | field[:8].all())
        zero = s.zero if self.subnormals else s.zero | field[9] | ~field.any()
        magnitude = Mux(s.special | overflow, Cat(Const(0, 22), s.nan, Const(255, 8)), Mux(zero, 0, rounded[:31]))
        return Cat(magnitude[:31], s.sign)

    def _shift(self, m: Module, a: Unpacked, b: Unpacked, field: Any) -> tuple[Any, Any]:
        """Whether the product moves left, and how far it moves either way, to stand where it is rounded."""
        # of two subnormals the product rounds to zero wherever it stands
        empty = wire(m, "empty", leading_zeros(m, "a", a.mantissa) | leading_zeros(m, "b", b.mantissa))
        left = ~field[9]
        below = wire(m, "below", (-field)[:10])
        right = Mux(below[5:].any(), 31, below[:5])
        return left, wire(m, "shift", Mux(left, Mux(field < empty, field, empty), right)[:5])


class Fp32Multiply(_RoundedMultiply):
    """``product`` is the FP32 product of the FP32 ``a`` and ``b`` of ``latency`` cycles ago.

    Without ``subnormals`` a subnormal operand counts as a zero of its sign, and so does a result that is below the
    normal range after rounding.
    """

    def __init__(self, latency: int, subnormals: bool = True) -> None:
        super().__init__(latency, 23, subnormals)


class Bf16Multiply(_RoundedMultiply):
    """``product`` is the FP32 product of the BF16 ``a`` and ``b`` of ``latency`` cycles ago.

    16 significant bits fit FP32, so only a product below its normal range is rounded.
    """

    def __init__(self, latency: int) -> None:
        super().__init__(latency, BF16.fraction)
