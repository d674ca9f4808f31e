"""Spaces of the vector unit and of WUVE: banks of FP32 words that a load fills, or that a store empties."""

from __future__ import annotations

from typing import Any

from amaranth import Array, Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from ...dataflow.program.spaces import COLUMN_BEATS, HALVES, PLACE_ADDRESS_BITS, Space, Target
from ...dataflow.program.vector_operations import Slot
from .banks import READ, show
from .load import write_layout

__all__ = ["ColumnBanks", "LoadedBanks", "PairBanks", "StoredBanks", "loads"]


def loads(m: Module, write: Any, writes: Any, space: Space, banks: int) -> list[tuple[Any, Any]]:
    """Of each bank whether a load writes it in this cycle, at the address of the write, and what."""
    lanes, values = len(write.values), write.values
    bank, ours = write.place[PLACE_ADDRESS_BITS:], Signal(name=f"loads_{space.name.lower()}")
    single = Signal(32, name=f"loaded_{space.name.lower()}")
    m.d.comb += [
        ours.eq(writes & (write.space == space)),
        single.eq(Array([values[x] for x in range(lanes)])[write.place[: exact_log2(lanes)]]),
    ]
    found = []
    for b in range(banks):
        behind = Signal(32 - PLACE_ADDRESS_BITS, name=f"{space.name.lower()}_behind_{b}")
        m.d.comb += behind.eq(b - bank)
        chosen = ours & Mux(write.across, behind < write.words, behind == 0)
        found.append((chosen, Mux(write.across, values[b % lanes], single)))
    return found


class LoadedBanks(wiring.Component):
    """OPERANDS or WEIGHTS: of all banks the word at ``address`` of ``half`` shows in the next cycle."""

    def __init__(self, target: Target, space: Space, lanes: int) -> None:
        self.space, self.size = space, target.size(space)
        super().__init__(
            {
                "write": In(write_layout(lanes)),
                "writes": In(1),
                "half": In(1),
                "address": In(range(self.size.depth)),
                "words": Out(32).array(self.size.banks),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        depth = self.size.depth
        for b, (chosen, value) in enumerate(loads(m, self.write, self.writes, self.space, self.size.banks)):
            m.submodules[f"bank_{b}"] = memory = Memory(shape=32, depth=HALVES * depth, init=[])
            to, out = memory.write_port(), memory.read_port()
            m.d.comb += [
                to.en.eq(chosen),
                to.addr.eq(Mux(self.write.half, depth, 0) + self.write.place[:PLACE_ADDRESS_BITS]),
                to.data.eq(value),
                out.addr.eq(Mux(self.half, depth, 0) + self.address),
                self.words[b].eq(out.data),
            ]
        return m


class StoredBanks(wiring.Component):
    """RESULTS or UPDATED: the banks of ``enables`` are written at ``address`` of ``half``; a store reads them as it
    does `OutputBanks`."""

    def __init__(self, target: Target, space: Space, lanes: int) -> None:
        self.size = target.size(space)
        super().__init__(
            {
                "half": In(1),
                "address": In(range(self.size.depth)),
                "enables": In(self.size.banks),
                "words": In(32).array(self.size.banks),
                "read": In(READ),
                "lanes_read": Out(32).array(lanes),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        depth, shown = self.size.depth, []
        bank, across = Signal(range(self.size.banks)), Signal()
        m.d.sync += [bank.eq(self.read.place[PLACE_ADDRESS_BITS:]), across.eq(self.read.across)]
        for b in range(self.size.banks):
            m.submodules[f"bank_{b}"] = memory = Memory(shape=32, depth=HALVES * depth, init=[])
            to, out = memory.write_port(), memory.read_port()
            m.d.comb += [
                to.en.eq(self.enables[b]),
                to.addr.eq(Mux(self.half, depth, 0) + self.address),
                to.data.eq(self.words[b]),
                out.addr.eq(Mux(self.read.half, depth, 0) + self.read.place[:PLACE_ADDRESS_BITS]),
            ]
            shown.append(out.data)
        show(m, self.lanes_read, shown, bank, across)
        return m


class PairBanks(wiring.Component):
    """PAIRS: the banks of ``enables`` are written, ``at_once`` words each from ``address`` on, a multiple of that. A
    store reads them as it does `OutputBanks`: value below, index above."""

    def __init__(self, target: Target, at_once: int, lanes: int) -> None:
        assert target.pattern is not None, "pairs are of a pattern"
        self.size, self.at_once = target.size(Space.PAIRS), at_once
        self.bits = target.spec.pe.operand.bits + target.pattern.index_bits
        super().__init__(
            {
                "half": In(1),
                "address": In(range(self.size.depth)),
                "enables": In(self.size.banks),
                "words": In(self.bits).array(self.size.banks, at_once),
                "read": In(READ),
                "lanes_read": Out(32).array(lanes),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        n, shown = self.at_once, []
        deep = -(-self.size.depth // n)
        bank, across, part = Signal(range(self.size.banks)), Signal(), Signal(range(max(2, n)))
        place = self.read.place[:PLACE_ADDRESS_BITS]
        at = place[: (self.size.depth - 1).bit_length()]
        m.d.sync += [bank.eq(self.read.place[PLACE_ADDRESS_BITS:]), across.eq(self.read.across), part.eq(at % n)]
        for b in range(self.size.banks):
            parts = []
            for i in range(n):
                m.submodules[f"bank_{b}_{i}"] = memory = Memory(shape=self.bits, depth=HALVES * deep, init=[])
                to, out = memory.write_port(), memory.read_port()
                m.d.comb += [
                    to.en.eq(self.enables[b]),
                    to.addr.eq(Mux(self.half, deep, 0) + self.address // n),
                    to.data.eq(self.words[b][i]),
                    out.addr.eq(Mux(self.read.half, deep, 0) + at // n),
                ]
                parts.append(out.data)
            word = Signal(32, name=f"shown_{b}")
            m.d.comb += word.eq(Array(parts)[part])
            shown.append(word)
        show(m, self.lanes_read, shown, bank, across)
        return m


class ColumnBanks(wiring.Component):
    """COLUMNS, each slot by itself: load, store and vector unit may meet in a half as long as they do not in a slot,
    but for reading. Of each slot the beat ``beats[slot]`` of ``half`` shows in the next cycle; with ``enables[slot]``
    the beat ``into[slot]`` is written."""

    def __init__(self, target: Target, lanes: int) -> None:
        self.banks = target.size(Space.COLUMNS).banks
        slots = len(Slot)
        super().__init__(
            {
                "write": In(write_layout(lanes)),
                "writes": In(1),
                "half": In(1),
                "beats": In(range(COLUMN_BEATS)).array(slots),
                "words": Out(32).array(slots, self.banks),
                "enables": In(slots),
                "into": In(range(COLUMN_BEATS)).array(slots),
                "made": In(32).array(slots, self.banks),
                "read": In(READ),
                "lanes_read": Out(32).array(lanes),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        low = (COLUMN_BEATS - 1).bit_length()
        at, read = self.write.place[:PLACE_ADDRESS_BITS], self.read
        bank, across, slot = Signal(range(self.banks)), Signal(), Signal(range(len(Slot)))
        m.d.sync += [
            bank.eq(read.place[PLACE_ADDRESS_BITS:]),
            across.eq(read.across),
            slot.eq(read.place[low:PLACE_ADDRESS_BITS]),
        ]
        shown = []
        for b, (chosen, value) in enumerate(loads(m, self.write, self.writes, Space.COLUMNS, self.banks)):
            read_back = []
            for s in Slot:
                m.submodules[f"bank_{b}_{s.name.lower()}"] = memory = Memory(
                    shape=32, depth=HALVES * COLUMN_BEATS, init=[]
                )
                to, out, back = memory.write_port(), memory.read_port(), memory.read_port()
                own = self.enables[s]
                m.d.comb += [
                    to.en.eq(own | (chosen & (at[low:] == s))),
                    to.addr.eq(Mux(own, Cat(self.into[s], self.half), Cat(at[:low], self.write.half))),
                    to.data.eq(Mux(own, self.made[s][b], value)),
                    out.addr.eq(Cat(self.beats[s], self.half)),
                    self.words[s][b].eq(out.data),
                    back.addr.eq(Cat(read.place[:low], read.half)),
                ]
                read_back.append(back.data)
            word = Signal(32, name=f"shown_{b}")
            m.d.comb += word.eq(Array(read_back)[slot])
            shown.append(word)
        show(m, self.lanes_read, shown, bank, across)
        return m
