"""Beats of a word: which plane of either operand meets which, and whether agreeing or differing bits are counted.

A beat is a number of three digits, ``way`` the least: they count up to ``last_a``, ``last_b`` and ``ways`` of the run.
"""

from __future__ import annotations

from typing import Any

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data

__all__ = ["BEAT", "BEAT_RUN", "SHIFT_BITS", "added", "differs", "negated", "shifted"]

_PLANE = 3
"""Bits of the number of a plane, of eight at most."""
SHIFT_BITS = 4

BEAT = data.StructLayout({"way": 1, "b": _PLANE, "a": _PLANE})
BEAT_RUN = {
    "last_a": _PLANE,
    "last_b": _PLANE,
    "ways": 1,
    "signed_a": 1,
    "signed_b": 1,
    "beat_row": BEAT,
    "beat_tile": BEAT,
}
"""Registers of a run: planes of either operand, less one; whether differing bits are counted besides; whether the last
plane is worth less than nothing; the beat of the first slot of row 1, and of the second tile along k (0 in OS)."""


def added(m: Module, name: str, run: Any, beat: Any, more: Any, one: Any = 0) -> Any:
    """``beat`` and ``more``, and ``one`` more, of the beats of a word; what is beyond the last begins again."""
    total, carry = Signal(BEAT, name=name), one
    for digit, last in (("way", run.ways), ("b", run.last_b), ("a", run.last_a)):
        both, over = Signal(_PLANE + 1, name=f"{digit}_of_{name}"), Signal(name=f"over_{digit}_of_{name}")
        m.d.comb += [
            both.eq(beat[digit] + more[digit] + carry),
            over.eq(both > last),
            total[digit].eq(Mux(over, both - last - 1, both)),
        ]
        carry = over
    return total


def differs(beat: Any) -> Any:
    """Whether differing bits are counted, or those that agree."""
    return beat.way


def shifted(beat: Any) -> Any:
    """The power of two that a count is worth."""
    return beat.a + beat.b


def negated(run: Any, beat: Any) -> Any:
    """Whether a count is taken away."""
    last_a, last_b = run.signed_a & (beat.a == run.last_a), run.signed_b & (beat.b == run.last_b)
    return Cat(beat.way, last_a, last_b).xor()
