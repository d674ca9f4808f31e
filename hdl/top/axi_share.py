"""Two managers before one memory: each has it for as long as it asks and is answered (Arm IHI 0022H)."""

from __future__ import annotations

from typing import Any

from amaranth import Array, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .axi import Axi4

__all__ = ["AxiShare"]

_FLYING = 256
"""More bursts than any memory behind it takes before it answers."""


class AxiShare(wiring.Component):
    """``first`` and ``second`` on ``memory``, which sees one identifier: who has it keeps it until all is answered.

    Reads and writes are shared by themselves. ``first`` is not a cycle later than on its own while ``second`` is quiet;
    when both ask they take turns, burst by burst.
    """

    def __init__(self, beat_bytes: int) -> None:
        bus = Axi4(beat_bytes)
        super().__init__({"first": In(bus), "second": In(bus), "memory": Out(bus)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        owner, _ = self._turns(m, "read", "ar", "r", lambda r: r.payload.last)
        self._answers(m, "r", owner)
        owner, fires = self._turns(m, "write", "aw", "b", lambda _: 1)
        self._answers(m, "b", owner)
        out = self.memory.w
        unsent = Signal(range(_FLYING))
        has = [self.first.w, self.second.w]
        valid = Array([w.valid for w in has])[owner]
        m.d.comb += [
            # data of a burst that is not asked for yet would be withdrawn when the other one gets its turn
            out.valid.eq(valid & (unsent != 0)),
            out.payload.eq(Mux(owner, has[1].payload, has[0].payload)),
            *(w.ready.eq(out.ready & out.valid & (owner == i)) for i, w in enumerate(has)),
        ]
        m.d.sync += unsent.eq(unsent + fires - (out.valid & out.ready & out.payload.last))
        return m

    def _turns(self, m: Module, name: str, ask: str, answer: str, ends: Any) -> tuple[Any, Any]:
        """Whose the memory is, and whether a burst is asked for in this cycle."""
        out, back = getattr(self.memory, ask), getattr(self.memory, answer)
        has = [getattr(bus, ask) for bus in (self.first, self.second)]
        owner, fresh, stands = Signal(name=f"{name}_owner"), Signal(name=f"{name}_fresh"), Signal(name=f"{name}_stands")
        flying = Signal(range(_FLYING), name=f"{name}_flying")
        own, other = Signal(name=f"{name}_own"), Signal(name=f"{name}_other")
        fires = Signal(name=f"{name}_fires")
        m.d.comb += [
            own.eq(Mux(owner, has[1].valid, has[0].valid)),
            other.eq(Mux(owner, has[0].valid, has[1].valid)),
            out.valid.eq(own & (stands | fresh | ~other)),
            out.payload.eq(Mux(owner, has[1].payload, has[0].payload)),
            fires.eq(out.valid & out.ready),
            *(channel.ready.eq(fires & (owner == i)) for i, channel in enumerate(has)),
        ]
        m.d.sync += [
            stands.eq(out.valid & ~out.ready),
            flying.eq(flying + fires - (back.valid & back.ready & ends(back))),
        ]
        with m.If(fires):
            m.d.sync += fresh.eq(0)
        with m.If(~out.valid & (flying == 0) & (other | owner)):
            m.d.sync += [owner.eq(~owner), fresh.eq(other)]
        return owner, fires

    def _answers(self, m: Module, name: str, owner: Any) -> None:
        back = getattr(self.memory, name)
        has = [getattr(bus, name) for bus in (self.first, self.second)]
        m.d.comb += back.ready.eq(Mux(owner, has[1].ready, has[0].ready))
        for i, channel in enumerate(has):
            m.d.comb += [channel.valid.eq(back.valid & (owner == i)), channel.payload.eq(back.payload)]
