"""Values that an operand of a product may take besides those of a number format: two, three, or those of a few bits."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["INTEGERS", "Levels", "needs_no_multiplier"]


class Levels(StrEnum):
    """The values of an operand, and by them how many bits one takes where it is packed."""

    BINARY = "binary"
    """-1 and +1: the sign."""
    SPIKE = "spike"
    """0 and 1: whether there is an event."""
    TERNARY = "ternary"
    """-1, 0 and +1: the sign, and whether it counts."""
    INT2 = "int2"
    """-2 to 1, two's complement, as those below."""
    INT3 = "int3"
    INT4 = "int4"
    INT5 = "int5"
    INT6 = "int6"
    INT7 = "int7"
    INT8 = "int8"
    """-128 to 127."""

    @property
    def bits(self) -> int:
        """Of one value."""
        match self:
            case Levels.BINARY | Levels.SPIKE:
                return 1
            case Levels.TERNARY:
                return 2
            case _:
                return int(self.value.removeprefix("int"))

    @property
    def values(self) -> range | tuple[int, int]:
        """All of them, rising."""
        match self:
            case Levels.BINARY:
                return (-1, 1)
            case Levels.SPIKE:
                return (0, 1)
            case Levels.TERNARY:
                return range(-1, 2)
            case _:
                return range(-(1 << self.bits - 1), 1 << self.bits - 1)


INTEGERS = {levels.value: levels for levels in Levels if levels.value.startswith("int")}
"""Those of two's complement, by name, in the order of their bits."""


def needs_no_multiplier(levels: Levels | None) -> bool:
    """Whether a product by such an operand is the other operand, with its sign or the other one, or nothing."""
    return levels in (Levels.BINARY, Levels.SPIKE, Levels.TERNARY)
