"""Memories on chip: operands between load and the array, results between the array and store."""

from __future__ import annotations

from typing import Any

from amaranth import Array, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for, exact_log2

from ...dataflow.program.spaces import BIAS_WORDS, HALVES, PLACE_ADDRESS_BITS, Space, Target
from .load import write_layout

__all__ = ["READ", "BiasBank", "OperandBanks", "OutputBanks", "pair_layout", "show"]


def pair_layout(target: Target) -> data.StructLayout:
    """A word of N2S: an operand, its index in its group, and whether it is none."""
    return data.StructLayout(
        {"value": target.spec.pe.operand.bits, "index": bits_for(target.spec.pe.max_group - 1), "bubble": 1}
    )


READ = data.StructLayout({"half": 1, "place": 32, "across": 1})
"""Words that a store reads at once, from a place on from address to address or across the banks."""


def show(m: Module, lanes_read: Any, words: list[Any], bank: Any, across: Any) -> None:
    """Words of all banks to the lanes of a store: ``across``, in lane ``x`` that of the next bank from ``bank`` on that
    is ``x`` modulo the lanes; else in every lane that of ``bank``."""
    lanes = len(lanes_read)
    shift = exact_log2(lanes)
    single = Array(words)[bank]
    for x in range(lanes):
        mine = words[x::lanes]
        turn = Signal(range(max(2, len(mine) + 1)), name=f"turn_{x}")
        m.d.comb += turn.eq((bank >> shift) + (bank[:shift] > x))
        m.d.comb += lanes_read[x].eq(Mux(across, Array(mine)[turn] if mine else 0, single))


class OperandBanks(wiring.Component):
    """W2E or N2S: a bank for each row or column, written ``lanes`` words at once, read from any address on.

    A bank is as many memories as there are lanes, by the low bits of the address, so that neighbours are read and
    written together wherever they begin. The answer to an ask of a cycle with ``en`` stands ``read_latency`` such
    cycles later, until the next one. ``half`` is what the array reads.
    """

    def __init__(self, target: Target, space: Space, lanes: int) -> None:
        assert space in (Space.W2E, Space.N2S), space
        self.space, self.lanes = space, lanes
        self.size, self.latency = target.size(space), target.spec.array.read_latency
        self.pairs = space == Space.N2S
        self.words = 1 if self.pairs else target.spec.array.w2e_words
        self.word = pair_layout(target) if self.pairs else data.StructLayout({"value": target.spec.pe.operand.bits})
        assert self.words <= lanes, f"{self.words} words are read at once, but {lanes} lanes hold neighbours"
        ask = data.StructLayout({"valid": 1, "address": PLACE_ADDRESS_BITS})
        super().__init__(
            {
                "write": In(write_layout(lanes)),
                "writes": In(1),
                "en": In(1),
                "half": In(1),
                "ask": In(ask).array(self.size.banks),
                "words_read": Out(self.word).array(self.size.banks, self.words),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        lanes, shift = self.lanes, exact_log2(self.lanes)
        deep = -(-self.size.depth // lanes)
        w = self.write
        bank = Signal(32 - PLACE_ADDRESS_BITS)
        address = Signal(PLACE_ADDRESS_BITS)
        enabled = Signal(lanes)
        ours = Signal()
        index = [Signal(range(HALVES * deep), name=f"index_{s}") for s in range(lanes)]
        m.d.comb += [
            bank.eq(w.place[PLACE_ADDRESS_BITS:]),
            address.eq(w.place),
            ours.eq(self.writes & (w.space == self.space)),
        ]
        for s in range(lanes):
            behind = Signal(shift, name=f"behind_{s}")
            m.d.comb += [
                behind.eq(s - address[:shift]),
                enabled[s].eq(Mux(w.across, behind == 0, behind < w.words)),
                index[s].eq(Mux(w.half, deep, 0) + (address >> shift) + (~w.across & (s < address[:shift]))),
            ]
        for b in range(self.size.banks):
            chosen, over = Signal(name=f"chosen_{b}"), Signal.like(bank, name=f"over_{b}")
            m.d.comb += [over.eq(b - bank), chosen.eq(ours & Mux(w.across, over < w.words, bank == b))]
            self._bank(m, b, chosen, over, enabled, index, deep)
        return m

    def _bank(self, m: Module, b: int, chosen: Any, over: Any, enabled: Any, index: list[Any], deep: int) -> None:
        w, lanes, shift = self.write, self.lanes, exact_log2(self.lanes)
        ask, low = self.ask[b], Signal(shift, name=f"low_{b}")
        read = []
        with m.If(self.en):
            m.d.sync += low.eq(ask.address)
        for s in range(lanes):
            memory = Memory(shape=self.word, depth=HALVES * deep, init=[])
            m.submodules[f"bank_{b}_{s}"] = memory
            to = memory.write_port()
            out = memory.read_port()
            values = w.values.as_value()
            own = values.word_select(s, 32)
            m.d.comb += [
                to.en.eq(chosen & enabled[s]),
                to.addr.eq(index[s]),
                to.data.value.eq(Mux(w.across, values.word_select(b % lanes, 32), own)[: len(to.data.value)]),
                out.en.eq(self.en),
                out.addr.eq(Mux(self.half, deep, 0) + (ask.address >> shift) + (s < ask.address[:shift])),
            ]
            if self.pairs:
                m.d.comb += [
                    to.data.index.eq(Mux(w.across, w.indices[b % lanes], w.indices[s])),
                    to.data.bubble.eq(w.bubble),
                ]
            read.append(out.data.as_value())
        for i in range(self.words):
            word: Any = Array(read)[(low + i)[:shift]]
            for n in range(self.latency - 1):
                word = _later(m, f"later_{b}_{i}_{n}", word, len(Value.cast(self.words_read[b][i])), self.en)
            m.d.comb += self.words_read[b][i].eq(word)


class OutputBanks(wiring.Component):
    """OUTPUT or SUMS: a bank for each column and half. The array has its own half, a store reads the other one.

    ``start`` begins a product, whose words go to address 0 on, column by column, and to 0 again after ``turn`` words
    (0: never); ``beyond``: one that the half does not hold. A partial sum that is asked for in a cycle with ``en``
    stands from the next one on; a word that leaves in that cycle is in it. What a store asks for in a cycle stands in
    the next: in lane ``x`` the word whose bank, ``across``, or address is ``x`` modulo the lanes.
    """

    def __init__(self, target: Target, lanes: int, space: Space = Space.OUTPUT) -> None:
        self.size, self.lanes = target.size(space), lanes
        self.latency = target.spec.array.read_latency
        ask = data.StructLayout({"valid": 1, "address": PLACE_ADDRESS_BITS})
        leaving = data.StructLayout({"valid": 1, "word": 32})
        super().__init__(
            {
                "start": In(1),
                "half": In(1),
                "turn": In(PLACE_ADDRESS_BITS + 1),
                "en": In(1),
                "south": In(leaving).array(self.size.banks),
                "sums_ask": In(ask).array(self.size.banks),
                "sums": Out(32).array(self.size.banks),
                "read": In(READ),
                "lanes_read": Out(32).array(lanes),
                "beyond": Out(1),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        banks, depth = self.size.banks, self.size.depth
        bank, address = self.read.place[PLACE_ADDRESS_BITS:], self.read.place[:PLACE_ADDRESS_BITS]
        base = Signal(range(banks))
        half = Signal()
        across = Signal()
        m.d.sync += [base.eq(bank), half.eq(self.read.half), across.eq(self.read.across)]
        shown = []
        overrun = Signal(banks)
        for c in range(banks):
            place, asked = Signal(PLACE_ADDRESS_BITS + 1, name=f"place_{c}"), Signal(name=f"asked_{c}")
            leaving, ask = self.south[c], self.sums_ask[c]
            with m.If(leaving.valid):
                m.d.sync += place.eq(Mux(place + 1 == self.turn, 0, place + 1))
            with m.If(self.start):
                m.d.sync += place.eq(0)
            m.d.comb += overrun[c].eq(leaving.valid & (place >= depth))
            halves = []
            for h in range(HALVES):
                memory = Memory(shape=32, depth=depth, init=[])
                m.submodules[f"bank_{c}_{h}"] = memory
                to = memory.write_port()
                out = memory.read_port(transparent_for=[to])
                own = Signal(name=f"own_{c}_{h}")
                m.d.comb += [
                    own.eq(self.half == h),
                    to.en.eq(own & leaving.valid & ~overrun[c]),
                    to.addr.eq(place),
                    to.data.eq(leaving.word),
                    out.addr.eq(Mux(own & asked, ask.address, address)),
                    out.en.eq(Mux(own & asked, self.en, 1)),
                ]
                halves.append(out.data)
            total: Any = Mux(self.half, halves[1], halves[0])
            for n in range(self.latency - 1):
                total = _later(m, f"sum_{c}_{n}", total, 32, self.en)
            m.d.comb += [asked.eq(ask.valid), self.sums[c].eq(total)]
            word = Signal(32, name=f"shown_{c}")
            m.d.comb += word.eq(Mux(half, halves[1], halves[0]))
            shown.append(word)
        m.d.comb += self.beyond.eq(overrun.any())
        show(m, self.lanes_read, shown, base, across)
        return m


def _later(m: Module, name: str, value: Any, width: int, en: Any) -> Any:
    """``value`` of the last cycle with ``en``: the output register of a memory."""
    register = Signal(width, name=name, reset_less=True)
    with m.If(en):
        m.d.sync += register.eq(value)
    return register


class BiasBank(wiring.Component):
    """BIAS: written a word at a time; the ``lanes`` words from ``place`` on of a cycle stand in the next."""

    def __init__(self, lanes: int) -> None:
        self.lanes = lanes
        super().__init__(
            {
                "write": In(write_layout(lanes)),
                "writes": In(1),
                "half": In(1),
                "place": In(bits_for(BIAS_WORDS)),
                "words_read": Out(32).array(lanes),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        lanes, shift, deep = self.lanes, exact_log2(self.lanes), BIAS_WORDS // self.lanes
        address, low = self.write.place[:PLACE_ADDRESS_BITS], Signal(shift, name="low")
        m.d.sync += low.eq(self.place)
        shown = []
        for s in range(lanes):
            memory = Memory(shape=32, depth=HALVES * deep, init=[])
            m.submodules[f"bank_{s}"] = memory
            to, out = memory.write_port(), memory.read_port()
            m.d.comb += [
                to.en.eq(self.writes & (self.write.space == Space.BIAS) & (address[:shift] == s)),
                to.addr.eq(Mux(self.write.half, deep, 0) + (address >> shift)),
                to.data.eq(self.write.values.as_value().word_select(s, 32)),
                out.addr.eq(Mux(self.half, deep, 0) + (self.place >> shift) + (s < self.place[:shift])),
            ]
            shown.append(out.data)
        m.d.comb += [self.words_read[i].eq(Array(shown)[(low + i)[:shift]]) for i in range(lanes)]
        return m
