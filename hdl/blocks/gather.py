"""The gather engine: lanes of PEs, the ports of the dense operand, and who asks which in a slot (docs/gather.md)."""

from __future__ import annotations

from itertools import combinations
from typing import Any

from amaranth import Array, Cat, Const, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for

from ...dataflow.accelerator import AcceleratorSpec
from ...dataflow.gather.spec import READ_LATENCY
from .fp.datapath import wire
from .gather_lane import GatherLane
from .gather_pe import GatherFormat, GatherPe
from .place import place

__all__ = ["Gather"]


class Gather(wiring.Component):
    """Lines of kept elements times a macro-tile of the dense operand, as it lies in its ports.

    ``start`` begins a run over ``row_words`` words a row unless it is ``busy``; it is ``issuing`` from the next cycle
    on, whole slots of max(row_words, La) cycles, until the element of every lane is ``over``, and ``busy`` until all
    sums are made. ``elements[i]`` is the next of lane ``i``, which has no share in a slot that begins without a
    ``valid`` one; it is taken at the end of a cycle with ``take``. Lines come in the order in which lanes take them; of
    a lane that has ``interleave`` of them an element of each in turn, in slots of max(row_words, La / interleave).

    ``asks[b]`` of port ``b``, a bank, or without banks the copy of lane ``b``, is answered by ``words[b]`` in the next
    cycle. In slot s, lane s mod lanes is the first to ask, then the others in their order; of those that want one bank
    all wait for the next slot but the first and who wants the same row.

    ``sums[i]`` are those of a line, a word of them a cycle, nobody may stop them, ``part`` counts those of all lines
    that the lane holds; ``ended[i]``: no more of it follow.
    """

    lane = "gather_lane"
    pe = "gather_pe"
    """The modules of a lane's control and of a PE, given to whoever emits or counts the parts once."""

    def __init__(self, spec: AcceleratorSpec, *, blackbox: bool = False) -> None:
        self.spec = spec
        self.format = f = GatherFormat(spec)
        self._blackbox = blackbox
        element = wiring.Signature({"valid": Out(1), "element": Out(f.element), "take": In(1)})
        ask = wiring.Signature({"en": Out(1), "address": Out(f.address)})
        made = wiring.Signature({"valid": Out(1), "part": Out(f.context), "words": Out(32).array(f.width)})
        super().__init__(
            {
                "start": In(1),
                "row_words": In(f.row_words),
                **{name: In(bits) for name, bits in f.interleave.items()},
                **{name: In(1) for name in f.encodings},
                "issuing": Out(1),
                "busy": Out(1),
                "elements": In(element).array(f.lanes),
                "asks": Out(ask).array(f.ports),
                "words": In(f.raw).array(f.ports, f.width),
                "sums": Out(made).array(f.lanes),
                "ended": Out(1).array(f.lanes),
            }
        )

    @property
    def parts(self) -> dict[str, Any]:
        """The modules that ``blackbox`` leaves out, by name."""
        return {self.lane: GatherLane(self.spec), self.pe: GatherPe(self.spec)} if self._blackbox else {}

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        f = self.format
        part, opens, ends = self._slots(m)
        works = [
            wire(m, f"works_{i}", self.issuing & lane.valid & ~lane.element.over)
            for i, lane in enumerate(self.elements)
        ]
        granted = self._granted(m, works, ends) if f.banked else works
        served = []
        for i, grant in enumerate(granted):
            held = Signal(name=f"held_{i}")
            served.append(wire(m, f"served_{i}", Mux(opens, grant, held)))
            m.d.sync += held.eq(served[i])
            m.d.comb += self.elements[i].take.eq(served[i] & ends)
        issues = wire(m, "issues", part < self.row_words)
        self._ask(m, served, issues, part)
        rows = self._rows(m)
        for i in range(f.lanes):
            self._lane(m, i, served[i], issues, ends, part, rows)
        return m

    def _slots(self, m: Module) -> tuple[Any, Any, Any]:
        """The cycle of a slot, and whether it is its first and its last one."""
        f, latency = self.format, self.spec.pe.add_latency
        part = Signal(range(max(latency, self.spec.pe.accumulators)), name="part")
        running, opens, ends = (Signal(name=name) for name in ("running", "opens", "ends"))
        over = wire(m, "over", Cat(lane.valid & lane.element.over for lane in self.elements).all())
        least: Any = latency
        if f.interleave:
            by_lines = [-(-latency // max(lines, 1)) for lines in range(f.held + 1)]
            least = wire(m, "least", Array(Const(cycles, bits_for(latency)) for cycles in by_lines)[self.interleave])
        pace = wire(m, "pace", Mux(self.row_words > least, self.row_words, least))
        m.d.comb += [
            opens.eq(part == 0),
            self.issuing.eq(running & ~(opens & over)),
            ends.eq(self.issuing & (part + 1 == pace)),
        ]
        flying = Signal(READ_LATENCY + self.spec.mac_latency)
        m.d.comb += self.busy.eq(running | flying.any())
        m.d.sync += [flying.eq(Cat(self.issuing, flying)), part.eq(Mux(self.issuing & ~ends, part + 1, 0))]
        with m.If(self.start & ~self.busy):
            m.d.sync += running.eq(1)
        with m.Elif(running & ~self.issuing):
            m.d.sync += running.eq(0)
        return part, opens, ends

    def _granted(self, m: Module, works: list[Any], ends: Any) -> list[Any]:
        """Lanes of whose bank no lane before them wants another row; ``passed[x]``: the slot's first lane comes after
        lane ``x``."""
        f = self.format
        passed = Signal(f.lanes, name="passed")
        with m.If(self.start & ~self.busy):
            m.d.sync += passed.eq(0)
        with m.Elif(ends):
            m.d.sync += passed.eq(Mux(passed[: f.lanes - 1].all(), 0, Cat(Const(1, 1), passed)[: f.lanes]))
        wanted = [lane.element for lane in self.elements]
        wants = [wire(m, f"wants_{i}", work & ~wanted[i].empty) for i, work in enumerate(works)]
        same, other = dict[tuple[int, int], Any](), dict[tuple[int, int], Any]()
        for i, j in combinations(range(f.lanes), 2):
            bank = wire(m, f"bank_{i}_{j}", wanted[i].port == wanted[j].port if f.port else Const(1, 1))
            row = wire(m, f"row_{i}_{j}", bank & (wanted[i].address != wanted[j].address))
            same[i, j] = same[j, i] = bank
            other[i, j] = other[j, i] = row
        firsts = []
        for i in range(f.lanes):
            before = []
            for j in range(f.lanes):
                if j != i:
                    between = passed[min(i, j)] & ~passed[max(i, j)]
                    before.append(wants[j] & same[i, j] & (~between if j < i else between))
            firsts.append(wire(m, f"first_{i}", wants[i] & ~Cat(before).any()))
        granted = []
        for i, work in enumerate(works):
            by = [firsts[j] & other[i, j] for j in range(f.lanes) if j != i]
            waits = wire(m, f"waits_{i}", wants[i] & Cat(by).any())
            granted.append(wire(m, f"granted_{i}", work & ~waits))
        return granted

    def _ask(self, m: Module, served: list[Any], issues: Any, part: Any) -> None:
        f = self.format
        wanted = []
        for i, lane in enumerate(self.elements):
            wanted.append(wire(m, f"address_{i}", (lane.element.address + part)[: f.address]))
        for b, ask in enumerate(self.asks):
            by = [(i, lane) for i, lane in enumerate(self.elements) if f.banked or i == b]
            asking = []
            for i, lane in by:
                same = lane.element.port == b if f.port else Const(1, 1)
                asking.append(wire(m, f"asks_{b}_{i}", served[i] & issues & ~lane.element.empty & same))
            address = Const(0, f.address)
            for asks, (i, _) in zip(asking, by, strict=True):
                address |= Mux(asks, wanted[i], 0)
            m.d.sync += [ask.en.eq(Cat(asking).any()), ask.address.eq(address)]

    def _rows(self, m: Module) -> list[list[Any]]:
        """The words of every port, as the PEs multiply them."""
        gradient = self.dense_gradient if self.format.encodings else 0
        return [
            [self.format.units.enter(m, f"row_{b}_{w}", word, gradient) for w, word in enumerate(words)]
            for b, words in enumerate(self.words)
        ]

    def _lane(self, m: Module, i: int, served: Any, issues: Any, ends: Any, part: Any, rows: list[list[Any]]) -> None:
        f = self.format
        lane = place(m, f"lane_{i}", GatherLane, self.spec, module=self.lane if self._blackbox else None)
        m.d.comb += [
            lane.start.eq(self.start),
            lane.served.eq(served),
            lane.issues.eq(issues),
            lane.ends.eq(ends),
            lane.part.eq(part[: f.context]),
            lane.element.eq(self.elements[i].element),
            self.sums[i].valid.eq(lane.made),
            self.sums[i].part.eq(lane.made_part),
            self.ended[i].eq(lane.ended),
        ]
        if f.interleave:
            m.d.comb += [lane.row_words.eq(self.row_words), lane.interleave.eq(self.interleave)]
        if f.encodings:
            m.d.comb += lane.kept_gradient.eq(self.kept_gradient)
        fraction = self.spec.pe.operand.fraction
        for w in range(f.width):
            word = Array(row[w] for row in rows)[lane.port] if f.port else rows[i if not f.banked else 0][w]
            read = wire(m, f"read_{i}_{w}", word)
            pe = place(m, f"pe_{i}_{w}", GatherPe, self.spec, module=self.pe if self._blackbox else None)
            m.d.comb += [
                pe.value.eq(lane.value),
                # whatever its fraction, a number of exponent 0 makes a zero of a bubble
                pe.dense.eq(Cat(read[:fraction], Mux(lane.some, read[fraction:], 0))),
                pe.control.eq(lane.control),
                self.sums[i].words[w].eq(pe.sum),
            ]
