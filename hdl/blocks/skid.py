"""What lets a block go on: a word that its receiver does not take waits here, and the block with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from amaranth import Cat, Module, Mux, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["SouthSkid", "StreamSkid", "south_signature"]


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
            waits.append(_keep(m, str(c), self.advance, leaving, "word", south))
        m.d.sync += self.advance.eq(~(Cat(waits).any() | self.hold))
        return m


class StreamSkid(wiring.Component):
    """The same of streams of any payload, ``payloads`` by name, of a block that holds still for all of them.

    A block that makes one stream wait for another must not be asked to: with one beat of each out, what leaves later
    in any of them waits until both have been taken.
    """

    def __init__(self, payloads: Mapping[str, Any]) -> None:
        self.names = tuple(payloads)
        leaving = {
            f"{name}_leaving": In(wiring.Signature({"valid": Out(1), "payload": Out(shape)}))
            for name, shape in payloads.items()
        }
        out = {name: Out(stream.Signature(shape)) for name, shape in payloads.items()}
        super().__init__({**leaving, "advance": Out(1, init=1), **out})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        waits = [
            _keep(m, name, self.advance, getattr(self, f"{name}_leaving"), "payload", getattr(self, name))
            for name in self.names
        ]
        m.d.sync += self.advance.eq(~Cat(waits).any())
        return m


def _keep(m: Module, name: str, advance: Value, leaving: Any, word: str, out: Any) -> Value:
    """Show what leaves at ``out``, and what waited there while ``advance`` is 0; whether it waits now."""
    full, came, shown = Signal(name=f"full_{name}"), Value.cast(getattr(leaving, word)), Value.cast(getattr(out, word))
    kept = Signal(len(came), name=f"kept_{name}", reset_less=True)
    m.d.comb += [out.valid.eq(Mux(advance, leaving.valid, full)), shown.eq(Mux(advance, came, kept))]
    waits = out.valid & ~out.ready
    m.d.sync += [full.eq(waits), kept.eq(shown)]
    return waits
