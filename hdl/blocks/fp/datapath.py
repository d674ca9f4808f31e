"""What floating-point datapaths are made of: registers at named boundaries, unpacked numbers, shifts, counted zeros."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from amaranth import Cat, Const, Module, Mux, Signal, Value

__all__ = [
    "Pipeline",
    "Unpacked",
    "leading_zeros",
    "multiply_left",
    "multiply_right_sticky",
    "shift_left",
    "shift_right_sticky",
    "wire",
]


class Pipeline:
    """Registers at the named boundaries of a datapath: the first in ``order`` are the first to get one."""

    def __init__(self, m: Module, latency: int, order: Sequence[str]) -> None:
        self._m = m
        self._depth = Counter(order[i % len(order)] for i in range(latency))

    def cut(self, boundary: str, before: Any = None, carry: str = "", **values: Any) -> SimpleNamespace:
        """All that crosses ``boundary``, as named signals on its far side: ``carry`` of ``before``, and ``values``."""
        crossed = {}
        for name, value in ({name: getattr(before, name) for name in carry.split()} | values).items():
            signal = wire(self._m, f"{boundary}_{name}", value)
            for i in range(self._depth[boundary]):
                register = Signal(len(signal), name=f"{boundary}_{name}_{i + 1}", reset_less=True)
                self._m.d.sync += register.eq(signal)
                signal = register
            crossed[name] = signal
        return SimpleNamespace(**crossed)


class Unpacked:
    """Fields and class of an encoded number; ``exponent`` is that of its scale, so at least 1."""

    def __init__(
        self, m: Module, name: str, bits: Any, exponent: int, fraction: int, *, subnormals: bool = True
    ) -> None:
        field = bits[fraction : fraction + exponent]
        self.sign = bits[fraction + exponent]
        self.fraction = bits[:fraction]
        self.normal = wire(m, f"{name}_normal", field.any())
        self.special = wire(m, f"{name}_special", field.all())
        nonzero = wire(m, f"{name}_nonzero", self.fraction.any())
        self.exponent = Cat(field[0] | ~self.normal, field[1:]) if subnormals else field
        self.mantissa = Cat(self.fraction, self.normal)
        self.nan = self.special & nonzero
        self.infinite = self.special & ~nonzero
        self.zero = ~self.normal & ~nonzero if subnormals else ~self.normal


def wire(m: Module, name: str, value: Any) -> Any:
    """A named signal for ``value``: Amaranth emits an expression once for each place it is used in."""
    value = Value.cast(value)
    signal = Signal(len(value), name=name)
    m.d.comb += signal.eq(value)
    return signal


def leading_zeros(m: Module, name: str, value: Any) -> Any:
    """How many zeros stand above the highest one of ``value``; unspecified when there is no one."""
    width = 1 << (len(value) - 1).bit_length()
    padded = Cat(Const(0, width - len(value)), value)
    counts: list[tuple[Any, Any]] = [(bit, None) for bit in padded]
    level = 0
    while len(counts) > 1:
        merged: list[tuple[Any, Any]] = []
        for i in range(0, len(counts), 2):
            (low_any, low), (high_any, high) = counts[i], counts[i + 1]
            some = wire(m, f"{name}_any_{level}_{i // 2}", low_any | high_any)
            count = ~high_any if low is None else Cat(Mux(high_any, high, low), ~high_any)
            merged.append((some, wire(m, f"{name}_count_{level}_{i // 2}", count)))
        counts = merged
        level += 1
    return counts[0][1]


def shift_left(m: Module, name: str, value: Any, amount: Any) -> Any:
    """``value << amount`` in the width of ``value``, one multiplexer a bit of ``amount``, the coarsest first."""
    for i in reversed(range(len(amount))):
        moved = Cat(Const(0, min(1 << i, len(value))), value)[: len(value)]
        value = wire(m, f"{name}_{i}", Mux(amount[i], moved, value))
    return value


def shift_right_sticky(m: Module, name: str, value: Any, amount: Any) -> tuple[Any, Any]:
    """``value >> amount`` and whether a one was lost on the way."""
    lost = []
    for i in reversed(range(len(amount))):
        step = min(1 << i, len(value))
        lost.append(amount[i] & value[:step].any())
        value = wire(m, f"{name}_{i}", Mux(amount[i], value[step:], value))
    return value, wire(m, f"{name}_sticky", Cat(lost).any())


def multiply_left(m: Module, name: str, value: Any, amount: Any) -> Any:
    """`shift_left` of a ``value`` whose highest one ends on top, by one multiplier."""
    power = wire(m, f"{name}_power", Cat(amount == i for i in range(1 << len(amount))))
    # the bits below the top are the same of signed numbers, and 27 signed bits are what one multiplier takes
    below = wire(m, f"{name}_product", value[:-1].as_signed() * Cat(power, Const(0, 1)).as_signed())
    return wire(m, f"{name}_multiplied", Cat(below[: len(value) - 1], Const(1, 1)))


def multiply_right_sticky(m: Module, name: str, value: Any, amount: Any) -> tuple[Any, Any]:
    """`shift_right_sticky` by one multiplier."""
    most = (1 << len(amount)) - 1
    power = wire(m, f"{name}_power", Cat(amount == most - i for i in range(most + 1)))
    moved = wire(m, f"{name}_product", value * power)
    return moved[most : most + len(value)], wire(m, f"{name}_lost", moved[:most].any())
