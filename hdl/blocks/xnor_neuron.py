"""The XNOR engine with leaky integrate-and-fire neurons behind its columns (docs/design/xnor.md, "Neurons")."""

from __future__ import annotations

from typing import Any

from amaranth import Module, Mux, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from .control_format import ADDRESS_BITS
from .grid import ASK as ASK_PORT
from .skid import SouthSkid
from .xnor import Xnor
from .xnor_edge import XnorTurns

__all__ = ["MembraneTurns", "SpikingXnor", "XnorNeuron"]


class XnorNeuron(wiring.Component):
    """One time step of a neuron, in the same cycle, of integers of ``width`` bits, two's complement.

    ``membrane`` loses ``membrane >> leak`` and gains ``value``. ``spikes`` where that is at least ``threshold``, which
    is then subtracted: ``next`` is what it leaves. With ``fresh`` the membrane is 0, whatever was read.
    """

    def __init__(self, width: int = 32) -> None:
        self.width = width
        numbers = {name: In(width) for name in ("value", "membrane", "threshold")}
        more = {"leak": In(ceil_log2(width)), "fresh": In(1)}
        super().__init__({**numbers, **more, "next": Out(width), "spikes": Out(1)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        held, left, charged = (Signal(signed(self.width), name=name) for name in ("held", "left", "charged"))
        threshold = self.threshold.as_signed()
        m.d.comb += [
            held.eq(Mux(self.fresh, 0, self.membrane)),
            left.eq(held - (held >> self.leak)),
            charged.eq(left + self.value.as_signed()),
            self.spikes.eq(charged >= threshold),
            self.next.eq(charged - Mux(self.spikes, threshold, 0)),
        ]
        return m


class MembraneTurns(XnorTurns):
    """The same, and ``number``: how many final words have left a column, for the one that leaves next.

    In WS every tile along k sends all words of C, of which those of the last one are final: each counts anew.
    """

    def __init__(self, run: Any, accumulators: int) -> None:
        super().__init__(run, accumulators, number=Out(ADDRESS_BITS))

    def _more(self, m: Module, block_ends: Any) -> None:
        run = self.run
        before, block = Signal(ADDRESS_BITS, name="numbered"), Signal(len(run.down))
        # From 0 again behind the last word of a run too, so that what is asked does not depend on the run before.
        again = Signal()
        m.d.comb += [again.eq(block_ends & (run.weight_stationary | (block + 1 == run.down))), self.number.eq(before)]
        with m.If(self.leaves):
            m.d.comb += self.number.eq(Mux(again, 0, before + 1))
            with m.If(block_ends):
                m.d.sync += block.eq(Mux(again, 0, block + 1))
        m.d.sync += before.eq(self.number)
        with m.If(self.start):
            m.d.sync += [before.eq(0), block.eq(0)]


class SpikingXnor(Xnor):
    """The engine `Xnor` with a neuron a column.

    Besides its ports there are ``leak`` and ``fresh``, constant while the results of a run leave, and

    - ``membranes[c]``: the membrane of the word that leaves column ``c`` next, by the number of final words before it.
    - ``neurons[c]``: beside ``made[c]``, whether the neuron of that word spikes, and the membrane that it leaves, which
      is written back to the place that it came from. Its threshold is the level of its column, its current the value
      that is made of the word. In WS both mean something in the last tile along k only.
    """

    turns = MembraneTurns

    def more_ports(self) -> dict[str, Any]:
        neuron = wiring.Signature({"next": Out(32), "spikes": Out(1)})
        cols = self.spec.cols
        return super().more_ports() | {
            "leak": In(5),
            "fresh": In(1),
            "membranes_ask": Out(ASK_PORT).array(cols),
            "membranes": In(32).array(cols),
            "neurons": Out(neuron).array(cols),
        }

    def _behind(self, m: Module, run: Any, skid: SouthSkid) -> None:
        super()._behind(m, run, skid)
        ask = self._first_ask(m, "membranes", m.submodules.turns.number)
        for c, port in enumerate(self.membranes_ask):
            ask = self._ask_and_pass_on(m, f"membranes_after_{c}", port, ask)

    def _edge(self, m: Module, run: Any, c: int) -> Any:
        level = super()._edge(m, run, c)
        now, kept = Signal(32, name=f"membrane_{c}"), Signal(32, name=f"membrane_{c}_kept", reset_less=True)
        m.submodules[f"neuron_{c}"] = neuron = XnorNeuron()
        m.d.comb += [
            now.eq(Mux(self.advance, self.membranes[c], Value.cast(kept))),
            neuron.value.eq(self.made[c].value),
            neuron.membrane.eq(now),
            neuron.threshold.eq(level),
            neuron.leak.eq(self.leak),
            neuron.fresh.eq(self.fresh),
            self.neurons[c].next.eq(neuron.next),
            self.neurons[c].spikes.eq(neuron.spikes),
        ]
        m.d.sync += kept.eq(now)
        return level
