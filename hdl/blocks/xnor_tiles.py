"""How many slots each tile of the XNOR engine has, where words are left out (docs/design/xnor.md, "Skipping")."""

from __future__ import annotations

from typing import Any

from amaranth import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .control_format import ADDRESS_BITS, ASK, COUNT_BITS

__all__ = ["XnorTiles"]


class XnorTiles(wiring.Component):
    """The slots of a tile of OS, and when it may begin, in a run that ``skips``; in others it says nothing.

    ``ask`` is for the tile that comes next to be issued, ``slots`` the answer in the next cycle: how many it has, one
    at least. ``takes``: a slot begins to be issued; ``first`` and ``last`` say which of its tile the next one is. A
    tile may begin where ``free``: its first result then finds the drain chain free, ``run.rows_used`` results of each
    context after that of the tile before. ``ends_run``: the slot that is taken is the last of the run; ``issues``: a
    slot is issued in this cycle.
    """

    def __init__(self, run: Any, *, count_bits: int = COUNT_BITS) -> None:
        ports = {name: In(1) for name in ("start", "takes", "ends_run", "issues")}
        outs = {name: Out(1) for name in ("first", "last", "free")}
        super().__init__({"run": In(run), "slots": In(count_bits), "ask": Out(ASK), **ports, **outs})

    def elaborate(self, platform: Any) -> Module:
        m, run = Module(), self.run
        number = Signal(ADDRESS_BITS)
        started, first, last, ends, loads = (
            Signal(name=f"tile_{x}") for x in ("started", "first", "last", "ends", "loads")
        )
        left = Signal.like(self.slots, name="slots_left")
        m.d.comb += [
            ends.eq(self.takes & last & ~self.ends_run),
            loads.eq(started | ends),
            self.ask.valid.eq(run.skips),
            self.ask.address.eq(Mux(self.start, 0, number + loads)),
            self.first.eq(first | ~run.skips),
            self.last.eq(last | ~run.skips),
        ]
        m.d.sync += [number.eq(self.ask.address), started.eq(self.start)]
        with m.If(loads):
            m.d.sync += [first.eq(1), last.eq(self.slots == 1), left.eq(self.slots - 1)]
        with m.Elif(self.takes):
            m.d.sync += [first.eq(0), last.eq(left == 1), left.eq(left - 1)]
        self._pause(m, ends)
        return m

    def _pause(self, m: Module, ends: Any) -> None:
        """A tile that has fewer slots than rows drain waits for the difference behind the last slot before it.

        With ``L = slots I`` and ``D = rows I`` that is ``max(0, D - L)`` cycles, without a product.
        """
        run = self.run
        pause, turn, whole = (
            Signal.like(run.rows_used, name="pause"),
            Signal.like(run.interleave, name="pause_turn"),
            Signal(),
        )
        m.d.comb += [whole.eq(turn + 1 == run.interleave), self.free.eq(pause == 0)]
        with m.If(self.start):
            m.d.sync += [pause.eq(0), turn.eq(0)]
        with m.Elif(ends):
            m.d.sync += [pause.eq(Mux(run.rows_used > self.slots, run.rows_used - self.slots, 0)), turn.eq(0)]
        with m.Elif(~self.issues & ~self.free):
            m.d.sync += [pause.eq(pause - whole), turn.eq(Mux(whole, 0, turn + 1))]
