"""Floating-point units: free-running pipelines whose latency is an exact contract.

A unit shows in cycle ``t + latency`` the result of the operands it was given in cycle ``t``. It has no enable and its
registers have no reset, so its output means nothing before ``latency`` cycles have passed. Every operation rounds to
nearest even; a NaN result is canonical (0x7fc00000 in FP32, 0x7e00 in FP16, 0x7fc0 in BF16) whatever the payload of its
operand.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any

from amaranth import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..dataflow.operand import BF16, FormatName
from ..workloads.errors import require_int

__all__ = [
    "OPERAND_UNITS", "Bf16Multiply", "Bf16ToFp32", "Fp16Multiply", "Fp16ToFp32", "Fp32Add", "Fp32Multiply",
    "Fp32ToBf16", "Fp32ToFp16", "OperandUnits",
]  # fmt: skip


class _Pipeline:
    """Registers at the named boundaries of a datapath: the first in ``order`` are the first to get one."""

    def __init__(self, m: Module, latency: int, order: Sequence[str]) -> None:
        self._m = m
        self._depth = Counter(order[i % len(order)] for i in range(latency))

    def cut(self, boundary: str, before: Any = None, carry: str = "", **values: Any) -> SimpleNamespace:
        """All that crosses ``boundary``, as named signals on its far side: ``carry`` of ``before``, and ``values``."""
        crossed = {}
        for name, value in ({name: getattr(before, name) for name in carry.split()} | values).items():
            signal = _wire(self._m, f"{boundary}_{name}", value)
            for i in range(self._depth[boundary]):
                register = Signal(len(signal), name=f"{boundary}_{name}_{i + 1}", reset_less=True)
                self._m.d.sync += register.eq(signal)
                signal = register
            crossed[name] = signal
        return SimpleNamespace(**crossed)


class _Unpacked:
    """Fields and class of an encoded number; ``exponent`` is that of its scale, so at least 1."""

    def __init__(
        self, m: Module, name: str, bits: Any, exponent: int, fraction: int, *, subnormals: bool = True
    ) -> None:
        field = bits[fraction : fraction + exponent]
        self.sign = bits[fraction + exponent]
        self.fraction = bits[:fraction]
        self.normal = _wire(m, f"{name}_normal", field.any())
        self.special = _wire(m, f"{name}_special", field.all())
        nonzero = _wire(m, f"{name}_nonzero", self.fraction.any())
        self.exponent = Cat(field[0] | ~self.normal, field[1:]) if subnormals else field
        self.mantissa = Cat(self.fraction, self.normal)
        self.nan = self.special & nonzero
        self.infinite = self.special & ~nonzero
        self.zero = ~self.normal & ~nonzero if subnormals else ~self.normal


def _wire(m: Module, name: str, value: Any) -> Any:
    """A named signal for ``value``: Amaranth emits an expression once for each place it is used in."""
    value = Value.cast(value)
    signal = Signal(len(value), name=name)
    m.d.comb += signal.eq(value)
    return signal


def _leading_zeros(m: Module, name: str, value: Any) -> Any:
    """How many zeros stand above the highest one of ``value``; unspecified when there is no one."""
    width = 1 << (len(value) - 1).bit_length()
    padded = Cat(Const(0, width - len(value)), value)
    counts: list[tuple[Any, Any]] = [(bit, None) for bit in padded]
    level = 0
    while len(counts) > 1:
        merged: list[tuple[Any, Any]] = []
        for i in range(0, len(counts), 2):
            (low_any, low), (high_any, high) = counts[i], counts[i + 1]
            some = _wire(m, f"{name}_any_{level}_{i // 2}", low_any | high_any)
            count = ~high_any if low is None else Cat(Mux(high_any, high, low), ~high_any)
            merged.append((some, _wire(m, f"{name}_count_{level}_{i // 2}", count)))
        counts = merged
        level += 1
    return counts[0][1]


def _shift_left(m: Module, name: str, value: Any, amount: Any) -> Any:
    """``value << amount`` in the width of ``value``, one multiplexer a bit of ``amount``, the coarsest first."""
    for i in reversed(range(len(amount))):
        moved = Cat(Const(0, min(1 << i, len(value))), value)[: len(value)]
        value = _wire(m, f"{name}_{i}", Mux(amount[i], moved, value))
    return value


def _shift_right_sticky(m: Module, name: str, value: Any, amount: Any) -> tuple[Any, Any]:
    """``value >> amount`` and whether a one was lost on the way."""
    lost = []
    for i in reversed(range(len(amount))):
        step = min(1 << i, len(value))
        lost.append(amount[i] & value[:step].any())
        value = _wire(m, f"{name}_{i}", Mux(amount[i], value[step:], value))
    return value, _wire(m, f"{name}_sticky", Cat(lost).any())


RECODED_FP16 = 17
"""Bits of a recoded FP16 number."""


def recode_fp16(m: Module, name: str, half: Any) -> Any:
    """An FP16 number as the PEs multiply it: a sign, a 6-bit exponent, and the 10 bits below a leading one.

    Subnormals are normalised, which is why the exponent has a bit more. The field of FP16 plus 17 leaves 0..7 to zero,
    48..55 to infinity and 56..63 to NaN, so that its top bits tell the class (the recoded format of J. Hauser's
    HardFloat). Recoding once at the edge of an array keeps two counters of zeros and a shifter out of every PE.
    """
    h = _Unpacked(m, name, half, 5, 10)
    empty = _leading_zeros(m, name, h.mantissa)
    fraction = _shift_left(m, f"{name}_fraction", h.mantissa, empty)[:10]
    exponent = Mux(h.zero, 0, (h.exponent + 17 - empty)[:6])
    exponent = Mux(h.special, Cat(Const(0, 3), h.nan, Const(3, 2)), exponent)
    return Cat(fraction, _wire(m, f"{name}_exponent", exponent), h.sign)


class RecodedMultiply(wiring.Component):
    """``product`` is the exact FP32 product of the recoded FP16 ``a`` and ``b`` of ``latency`` cycles ago.

    22 significant bits fit FP32, so nothing is rounded.
    """

    def __init__(self, latency: int) -> None:
        require_int("RecodedMultiply.latency", latency, 1, 32)
        self.latency = latency
        super().__init__({"a": In(RECODED_FP16), "b": In(RECODED_FP16), "product": Out(32)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        # what picks the operands takes as long as their multiplication: the second register stands between the two
        pipeline = _Pipeline(m, self.latency, ("output", "entered", "multiplied"))
        e = pipeline.cut("entered", a=self.a, b=self.b)
        kinds = e.a[13:16], e.b[13:16]
        zero = [kind == 0 for kind in kinds]
        infinite, nan = ([kind == code for kind in kinds] for code in (6, 7))
        wrong = nan[0] | nan[1] | (infinite[0] & zero[1]) | (zero[0] & infinite[1])
        wrong = _wire(m, "wrong", wrong)
        p = pipeline.cut(
            "multiplied",
            significand=Cat(e.a[:10], Const(1, 1)) * Cat(e.b[:10], Const(1, 1)),
            # both are 32 above their exponent, the field of FP32 is 127
            exponent=(e.a[10:16] + e.b[10:16] + 63)[:8],
            following=(e.a[10:16] + e.b[10:16] + 64)[:8],
            sign=(e.a[16] ^ e.b[16]) & ~wrong,
            nan=wrong,
            special=Cat(*infinite, *nan).any(),
            zero=zero[0] | zero[1],
        )
        high = p.significand[21]
        fraction = Mux(high, p.significand[:21], Cat(Const(0, 1), p.significand[:20]))
        finite = _wire(m, "finite", Mux(p.zero, 0, Cat(fraction, Mux(high, p.following, p.exponent))))
        magnitude = Mux(p.special, Cat(Const(0, 20), p.nan, Const(255, 8)), finite)
        o = pipeline.cut("output", product=Cat(magnitude[:29], p.sign))
        m.d.comb += self.product.eq(Cat(Const(0, 2), o.product))
        return m


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


class Fp32Add(wiring.Component):
    """``sum`` is the FP32 sum of the FP32 ``a`` and ``b`` of ``latency`` cycles ago.

    Without ``subnormals`` neither operand nor result may be one: sums of FP16 products never are, being multiples of
    2^-48 (docs/design/machine.md, Numbers); what a subnormal would give is then unspecified.
    """

    def __init__(self, latency: int, subnormals: bool = False) -> None:
        require_int("Fp32Add.latency", latency, 1, 32)
        self.latency = latency
        self.subnormals = subnormals
        super().__init__({"a": In(32), "b": In(32), "sum": Out(32)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        pipeline = _Pipeline(m, self.latency, ("output", "aligned", "counted", "ordered", "normalized", "added"))
        total = self._add(m, pipeline, self._align(m, pipeline, self._order(m, pipeline)))
        result = self._round(m, self._normalize(m, pipeline, total))
        m.d.comb += self.sum.eq(pipeline.cut("output", sum=result).sum)
        return m

    def _order(self, m: Module, pipeline: _Pipeline) -> SimpleNamespace:
        operands = (("a", self.a), ("b", self.b))
        a, b = (_Unpacked(m, n, v, 8, 23, subnormals=self.subnormals) for n, v in operands)
        # the order comes last: whatever does not need it is made beside it
        swap = _wire(m, "swap", self.a[:31] < self.b[:31])
        subtract = _wire(m, "subtract", a.sign ^ b.sign)
        above, below = _wire(m, "above", a.exponent - b.exponent), _wire(m, "below", b.exponent - a.exponent)
        return pipeline.cut(
            "ordered",
            exponent=Mux(swap, b.exponent, a.exponent),
            sign=Mux(swap, b.sign, a.sign),
            large=Mux(swap, b.mantissa, a.mantissa),
            small=Mux(swap, a.mantissa, b.mantissa),
            distance=Mux(swap, below, above)[:8],
            subtract=subtract,
            special=a.special | b.special,
            nan=a.nan | b.nan | (a.special & b.special & subtract),
        )

    def _align(self, m: Module, pipeline: _Pipeline, o: SimpleNamespace) -> SimpleNamespace:
        """``small`` in the scale of ``large``, with a guard, a round and a sticky bit below, inverted to subtract."""
        # what is 32 or more places below changes no rounding to nearest: it may as well be zero
        far = _wire(m, "far", o.distance[5:].any())
        near = Cat(Const(0, 2), _wire(m, "near", Mux(far, 0, o.small)[:24]))
        moved, lost = _shift_right_sticky(m, "small_moved", near, o.distance[:5])
        moved = _wire(m, "small_aligned", Cat(lost, moved))
        small = Mux(o.subtract, ~moved, moved)[:27]
        return pipeline.cut("aligned", o, "large exponent sign subtract special nan", small=small)

    def _add(self, m: Module, pipeline: _Pipeline, a: SimpleNamespace) -> SimpleNamespace:
        # the carry into the lowest bit comes from one bit below it
        total = _wire(m, "carried", Cat(Const(1, 1), Const(0, 3), a.large) + Cat(a.subtract, a.small))
        total = _wire(m, "total", Cat(total[1:28], total[28] & ~a.subtract))
        return pipeline.cut("added", a, "exponent sign subtract special nan", total=total)

    def _normalize(self, m: Module, pipeline: _Pipeline, s: SimpleNamespace) -> SimpleNamespace:
        """The total with its leading one on top; ``exponent`` is the exponent field less one."""
        zeros = _leading_zeros(m, "zeros", s.total)
        if self.subnormals:
            zeros = Mux(s.exponent < zeros, s.exponent, zeros)
        zero = _wire(m, "total_zero", ~s.total.any())
        sign = s.sign & ~(zero & s.subtract) & ~s.nan
        c = pipeline.cut("counted", s, "total exponent special nan", zeros=zeros, sign=sign, zero=zero)
        total = _shift_left(m, "total", c.total, c.zeros)
        return pipeline.cut("normalized", c, "sign zero special nan", total=total, exponent=(c.exponent - c.zeros)[:8])

    def _round(self, m: Module, n: SimpleNamespace) -> Any:
        up = n.total[3] & (n.total[4] | n.total[:3].any())
        # the leading one of a normal result adds the one that its exponent field lacks
        rounded = _wire(m, "rounded", (Cat(n.total[4:28], Const(0, 8)) + Cat(Const(0, 23), n.exponent) + up)[:31])
        exponent = Mux(n.zero, 0, rounded[23:]) | n.special.replicate(8)
        # an overflow by rounding has no ones to clear in its fraction; any other is known before
        infinite = _wire(m, "infinite", n.special | (n.exponent == 254))
        fraction = Mux(infinite, Cat(Const(0, 22), n.nan), rounded[:23])
        return Cat(fraction, exponent, n.sign)


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
        pipeline = _Pipeline(m, self.latency, ("output", "multiplied", "shifted"))
        operands = (("a", self.a), ("b", self.b))
        a, b = (_Unpacked(m, n, v, 8, self.fraction, subnormals=self.subnormals) for n, v in operands)
        nan = a.nan | b.nan | (a.infinite & b.zero) | (a.zero & b.infinite)
        # the exponent field of a result whose leading one is the lower of its two places, less one; it may be negative
        field = _wire(m, "field", (a.exponent + b.exponent - 128)[:10])
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
        mirrored = _wire(m, "mirrored", Mux(p.left, significand[::-1], significand))
        moved, lost = _shift_right_sticky(m, "significand", mirrored, p.shift)
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
        kept = _wire(m, "kept", Mux(high, s.significand[below:], s.significand[below - 1 : -1]))
        up = kept[1] & (kept[2] | kept[0] | s.significand[:below].any() | s.lost)
        rounded = (Cat(kept[2:], Const(0, 9)) + Cat(Const(0, 23), s.field) + (high << 23) + up)[:33]
        rounded = _wire(m, "rounded", rounded)
        field = rounded[23:]
        overflow = ~field[9] & (field[8] | field[:8].all())
        zero = s.zero if self.subnormals else s.zero | field[9] | ~field.any()
        magnitude = Mux(s.special | overflow, Cat(Const(0, 22), s.nan, Const(255, 8)), Mux(zero, 0, rounded[:31]))
        return Cat(magnitude[:31], s.sign)

    def _shift(self, m: Module, a: _Unpacked, b: _Unpacked, field: Any) -> tuple[Any, Any]:
        """Whether the product moves left, and how far it moves either way, to stand where it is rounded."""
        # of two subnormals the product rounds to zero wherever it stands
        empty = _wire(m, "empty", _leading_zeros(m, "a", a.mantissa) | _leading_zeros(m, "b", b.mantissa))
        left = ~field[9]
        below = _wire(m, "below", (-field)[:10])
        right = Mux(below[5:].any(), 31, below[:5])
        return left, _wire(m, "shift", Mux(left, Mux(field < empty, field, empty), right)[:5])


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


class Fp32ToFp16(wiring.Component):
    """``half`` is the FP16 nearest to the FP32 ``value`` of ``latency`` cycles ago, a subnormal one included."""

    def __init__(self, latency: int) -> None:
        require_int("Fp32ToFp16.latency", latency, 1, 32)
        self.latency = latency
        super().__init__({"value": In(32), "half": Out(16)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        pipeline = _Pipeline(m, self.latency, ("output", "shifted"))
        v = _Unpacked(m, "value", self.value, 8, 23)
        # the exponent field of a normal result, less one, and how far below it a subnormal one is
        field = _wire(m, "field", (v.exponent - 113)[:9])
        below = _wire(m, "below", (113 - v.exponent)[:8])
        shift = _wire(m, "shift", Mux(field[8], Mux(below[4:].any(), 15, below[:4]), 0)[:4])
        moved, lost = _shift_right_sticky(m, "significand", v.mantissa, shift)
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
        rounded = _wire(m, "rounded", (Cat(s.kept[1:], Const(0, 4)) + Cat(Const(0, 10), s.field) + up)[:15])
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
        pipeline = _Pipeline(m, self.latency, ("output", "counted"))
        h = _Unpacked(m, "half", self.half, 5, 10)
        empty = _leading_zeros(m, "half", h.mantissa)
        c = pipeline.cut("counted", h, "mantissa exponent nan special zero", empty=empty, sign=h.sign & ~h.nan)
        fraction = _shift_left(m, "significand", c.mantissa, c.empty)[:10]
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
        pipeline = _Pipeline(m, self.latency, ("output",))
        nan = _wire(m, "nan", self.value[23:31].all() & self.value[:23].any())
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
        pipeline = _Pipeline(m, self.latency, ("output",))
        nan = _wire(m, "nan", self.half[:15] > BF16.infinity)
        half = pipeline.cut("output", half=Mux(nan, BF16.nan, self.half)).half
        m.d.comb += self.value.eq(Cat(Const(0, 16), half))
        return m


@dataclass(frozen=True, slots=True, kw_only=True)
class OperandUnits:
    """What an operand format takes, each by its latency: ``multiply`` two operands, ``add`` their products, ``widen``
    one to FP32, ``narrow`` FP32 to one. What is multiplied has entered an array, as a word of ``word`` bits, by way of
    ``enter`` of a module, a name and 16 bits."""

    word: int
    enter: Callable[[Module, str, Any], Any]
    multiply: Callable[[int], Any]
    add: Callable[[int], Fp32Add]
    widen: Callable[[int], Any]
    narrow: Callable[[int], Any]


OPERAND_UNITS: dict[FormatName, OperandUnits] = {
    "fp16": OperandUnits(
        word=RECODED_FP16, enter=recode_fp16, multiply=RecodedMultiply, add=Fp32Add, widen=Fp16ToFp32, narrow=Fp32ToFp16
    ),
    "bf16": OperandUnits(
        word=16,
        enter=_wire,
        multiply=Bf16Multiply,
        add=partial(Fp32Add, subnormals=True),
        widen=Bf16ToFp32,
        narrow=Fp32ToBf16,
    ),
}
