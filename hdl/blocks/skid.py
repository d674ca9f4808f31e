"""What lets the array go on: a word that its receiver does not take waits here, and the array with it, and ``hold``."""

from __future__ import annotations

from typing import Any

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

__all__ = ["SouthSkid", "south_signature"]


def south_signature(width: int = 32) -> wiring.Signature:
    """A column's results: a word stays until it is taken, in the cycle in which ``valid`` and ``ready`` meet."""
    return wiring.Signature({"valid": Out(1), "word": Out(width), "ready": In(1)})


class SouthSkid(wiring.Component):
    """A skid buffer of one word, with bypass, for each of ``columns``.

    While ``advance`` holds, ``leaving`` shows in the same cycle at ``south``, and what is not taken there is kept; the
    array stands still until all that is kept has been taken. It also does in the cycle after each in which ``hold``
    stands. ``advance`` is a register: no path leads from ``ready`` or ``hold`` to whatever it enables. ``leaving`` may
    be anything while ``advance`` is 0.
    """

    def __init__(self, columns: int, width: int = 32) -> None:
        self.columns = columns
        leaving = wiring.Signature({"valid": Out(1), "word": Out(width)})
        super().__init__(
            {
                "leaving": In(leaving).array(columns),
                "hold": In(1),
                "advance": Out(1, init=1),
                "south": Out(south_signature(width)).array(columns),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        waits = []
        for c, (leaving, south) in enumerate(zip(self.leaving, self.south, strict=True)):
            full, kept = Signal(name=f"full_{c}"), Signal.like(leaving.word, name=f"kept_{c}", reset_less=True)
            m.d.comb += [
                south.valid.eq(Mux(self.advance, leaving.valid, full)),
                south.word.eq(Mux(self.advance, leaving.word, kept)),
            ]
            waits.append(south.valid & ~south.ready)
            m.d.sync += [full.eq(waits[-1]), kept.eq(south.word)]
        m.d.sync += self.advance.eq(~(Cat(waits).any() | self.hold))
        return m
