"""The gather engine between what it reads: a queue of elements a lane, and the ports of the dense operand."""

from __future__ import annotations

from typing import Any

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for

from ...dataflow.accelerator import AcceleratorSpec
from ...dataflow.gather.dense import port_words
from .gather import Gather
from .gather_pe import GatherFormat

__all__ = ["GatherBanks", "queue_elements"]


def queue_elements(spec: AcceleratorSpec) -> int:
    """Elements that the queue of a lane holds in its share of half the N2S buffer."""
    f = GatherFormat(spec)
    element: int = f.element.size
    return max(2, spec.buffers.n2s_bytes // 2 * 8 // (f.lanes * element))


class GatherBanks(wiring.Component):
    """``fill_elements`` and ``fill_words`` write queues and ports while the engine is not busy; a run begins with the
    first element of every queue. What else there is, is the engine's."""

    def __init__(self, spec: AcceleratorSpec, *, blackbox: bool = False) -> None:
        self.spec = spec
        self.engine = Gather(spec, blackbox=blackbox)
        self.format = f = self.engine.format
        self.depth = queue_elements(spec)
        engine = self.engine.signature.members
        self._runs = ("start", "row_words", *f.interleave)
        passed = {name: engine[name] for name in (*self._runs, "issuing", "busy", "sums", "ended")}

        def fill(many: int, address: int, word: int) -> Any:
            members = {"en": Out(1), "at": Out(bits_for(many - 1)), "address": Out(address), "data": Out(word)}
            return In(wiring.Signature(members))

        super().__init__(
            {
                **passed,
                **{name: In(1) for name in f.encodings},
                "fill_elements": fill(f.lanes, bits_for(self.depth - 1), f.element.size),
                "fill_words": fill(f.ports, f.address, f.width * f.raw),
            }
        )

    @property
    def parts(self) -> dict[str, Any]:
        """The modules that ``blackbox`` leaves out, by name."""
        return self.engine.parts

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        f = self.format
        m.submodules.engine = engine = self.engine
        for name in (*self._runs, *f.encodings):
            m.d.comb += getattr(engine, name).eq(getattr(self, name))
        m.d.comb += [self.issuing.eq(engine.issuing), self.busy.eq(engine.busy)]
        for i in range(f.lanes):
            m.d.comb += [
                self.sums[i].valid.eq(engine.sums[i].valid),
                self.sums[i].part.eq(engine.sums[i].part),
                self.ended[i].eq(engine.ended[i]),
                *(self.sums[i].words[w].eq(engine.sums[i].words[w]) for w in range(f.width)),
            ]
            self._queue(m, i, engine)
        for b in range(f.ports):
            read = self._memory(m, f"port_{b}", f.width * f.raw, port_words(self.spec), self.fill_words, b)
            m.d.comb += [read.addr.eq(engine.asks[b].address), Cat(engine.words[b]).eq(read.data)]
        return m

    def _queue(self, m: Module, i: int, engine: Gather) -> None:
        """The element behind one that is taken is there in the next cycle; before a run, the first."""
        lane = engine.elements[i]
        at = Signal(range(self.depth), name=f"at_{i}")
        following = Signal(range(self.depth), name=f"following_{i}")
        read = self._memory(m, f"queue_{i}", self.format.element.size, self.depth, self.fill_elements, i)
        m.d.comb += [
            following.eq(Mux(engine.busy, at + lane.take, 0)),
            read.addr.eq(following),
            lane.valid.eq(1),
            lane.element.eq(read.data),
        ]
        m.d.sync += at.eq(following)

    def _memory(self, m: Module, name: str, width: int, depth: int, fill: Any, number: int) -> Any:
        m.submodules[name] = memory = Memory(shape=width, depth=depth, init=[])
        write = memory.write_port()
        m.d.comb += [write.en.eq(fill.en & (fill.at == number)), write.addr.eq(fill.address), write.data.eq(fill.data)]
        return memory.read_port()
