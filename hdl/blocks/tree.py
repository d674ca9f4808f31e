"""The unit for spanning trees: lanes side by side, and the level of the tree that they are on (docs/binary.md)."""

from __future__ import annotations

from typing import Any

from amaranth import Array, Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ...dataflow.tree_spec import TreeSpec
from .place import place
from .tree_lane import TreeFormat, TreeLane

__all__ = ["TreeUnit"]


class TreeUnit(wiring.Component):
    """All channels of a layer at some positions, level by level.

    ``start`` begins a run of ``levels`` levels unless it is ``busy``; from the next cycle on it is ``issuing``: every
    level until no lane has any of its tasks left, and in the cycle that finds that, so that the last counts are written
    when the next level reads them. It is ``busy`` until all counts are made. ``ask`` names a count; ``result`` is, a
    cycle later, the sum of products of -1 and +1 that it stands for among ``length`` of them, in two's complement, or
    its negative if ``ask.inverted`` was set.

    Tables are filled while it is not busy, tasks and words of one lane at a time, inputs for all lanes at once. The
    task behind a lane's last one has a level that no run reaches.
    """

    lane = "tree_lane"
    """The module of a lane, given to whoever emits or counts the parts once."""

    def __init__(self, spec: TreeSpec, *, blackbox: bool = False) -> None:
        self.spec = spec
        self.format = f = TreeFormat(spec)
        self._module = self.lane if blackbox else None
        self._lanes = (spec.lanes - 1).bit_length()
        one_of = max(1, self._lanes)
        ask = wiring.Signature({"lane": Out(one_of), "slot": Out(f.slot), "inverted": Out(1)})
        super().__init__(
            {
                "start": In(1),
                "levels": In(f.level),
                "length": In(f.count),
                "issuing": Out(1),
                "busy": Out(1),
                "ask": In(ask),
                "result": Out(f.count + 1),
                "made": Out(f.made).array(spec.lanes),
                **f.fills(lane=one_of),
            }
        )

    @property
    def parts(self) -> dict[str, Any]:
        """The modules that ``blackbox`` leaves out, by name."""
        return {} if self._module is None else {self.lane: TreeLane(self.spec)}

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        level = Signal(self.format.level)
        lanes = [place(m, f"lane_{i}", TreeLane, self.spec, module=self._module) for i in range(self.spec.lanes)]
        working = Signal()
        m.d.comb += working.eq(Cat(lane.active for lane in lanes).any())
        self._control(m, level, working)
        for i, lane in enumerate(lanes):
            m.d.comb += [
                lane.clear.eq(self.start & ~self.busy),
                lane.issuing.eq(self.issuing),
                lane.level.eq(level),
                lane.ask.eq(self.ask.slot),
            ]
            for name in ("valid", "slot", "count"):
                m.d.comb += getattr(self.made[i], name).eq(getattr(lane.made, name))
                if not self.spec.local:
                    m.d.comb += [getattr(lane.others[j], name).eq(getattr(of.made, name)) for j, of in enumerate(lanes)]
            self._fill(m, i, lane)
        self._answer(m, lanes)
        return m

    def _control(self, m: Module, level: Any, working: Any) -> None:
        """A cycle without work ends a level; what is on its way keeps the unit busy."""
        flying = Signal(self.spec.latency)
        m.d.sync += flying.eq(Cat(working, flying))
        m.d.comb += self.busy.eq(self.issuing | flying.any())
        with m.If(self.start & ~self.busy):
            m.d.sync += [level.eq(0), self.issuing.eq(self.levels != 0)]
        with m.Elif(self.issuing & ~working):
            m.d.sync += [level.eq(level + 1), self.issuing.eq(level + 1 != self.levels)]

    def _fill(self, m: Module, i: int, lane: Any) -> None:
        for name in ("fill_tasks", "fill_words", "fill_inputs"):
            given, own = getattr(self, name), getattr(lane, name)
            chosen = given.lane == i if name != "fill_inputs" else 1
            m.d.comb += [own.en.eq(given.en & chosen), own.address.eq(given.address), own.data.eq(given.data)]

    def _answer(self, m: Module, lanes: list[Any]) -> None:
        asked = Signal(max(1, self._lanes))
        inverted = Signal()
        m.d.sync += [asked.eq(self.ask.lane), inverted.eq(self.ask.inverted)]
        count = Array(lane.answer for lane in lanes)[asked]
        total = Signal(len(self.result))
        m.d.comb += total.eq((count << 1) - self.length)
        m.d.comb += self.result.eq(Mux(inverted, -total, total))
