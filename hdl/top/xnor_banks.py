"""Memories around the XNOR engine: words of bits before it, levels beside it, strips behind it."""

from __future__ import annotations

from typing import Any

from amaranth import Array, Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for, exact_log2

from ...dataflow.operand import FP32
from ...dataflow.program.spaces import BIT_WORD, HALVES, PLACE_ADDRESS_BITS, Space, Target
from .banks import READ, show
from .load import write_layout
from .unit_banks import loads

__all__ = ["LevelBanks", "SignBanks", "WordBanks"]


class WordBanks(wiring.Component):
    """XNOR_W2E or XNOR_N2S: a bank for each row or column, of 32 bits an address, read a word of the engine at once.

    A bank is as many memories as a word has addresses, or as a load writes at once, by the low bits of the address.
    What is asked for in a cycle, a word by its number, stands in the next. ``half`` is what the engine reads.
    """

    def __init__(self, target: Target, space: Space, lanes: int) -> None:
        assert space in (Space.XNOR_W2E, Space.XNOR_N2S), space
        self.space, self.lanes, self.size, self.parts = space, lanes, target.size(space), target.bit_words
        self.operand = target.spec.pe.operand.bytes
        super().__init__(
            {
                "write": In(write_layout(lanes)),
                "writes": In(1),
                "half": In(1),
                "ask": In(PLACE_ADDRESS_BITS).array(self.size.banks),
                "words_read": Out(BIT_WORD * self.parts).array(self.size.banks),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        w, lanes = self.write, self.lanes
        width = max(self.parts, lanes * self.operand // FP32.bytes)
        shift, deep = exact_log2(width), -(-self.size.depth // width)
        bank, address, ours = Signal(32 - PLACE_ADDRESS_BITS), Signal(PLACE_ADDRESS_BITS), Signal()
        enabled, across = Signal(width), Signal(width)
        index = [Signal(range(HALVES * deep), name=f"index_{s}") for s in range(width)]
        along = [Signal(BIT_WORD, name=f"along_{s}") for s in range(width)]
        m.d.comb += [
            bank.eq(w.place[PLACE_ADDRESS_BITS:]),
            address.eq(w.place),
            ours.eq(self.writes & (w.space == self.space)),
        ]
        for s in range(width):
            place = Signal(PLACE_ADDRESS_BITS, name=f"place_{s}")
            behind = Signal(shift or 1, name=f"behind_{s}")
            m.d.comb += [
                behind.eq((s - address)[:shift] if shift else 0),
                place.eq(address + behind),
                enabled[s].eq(behind < w.words),
                across[s].eq(behind == 0),
                index[s].eq(Mux(w.half, deep, 0) + (Mux(w.across, address, place) >> shift)),
                along[s].eq(Array([w.values[x] for x in range(lanes)])[place[: exact_log2(lanes)]]),
            ]
        for b in range(self.size.banks):
            over, chosen = Signal.like(bank, name=f"over_{b}"), Signal(name=f"chosen_{b}")
            m.d.comb += [over.eq(b - bank), chosen.eq(ours & Mux(w.across, over < w.words, over == 0))]
            read = []
            for s in range(width):
                m.submodules[f"bank_{b}_{s}"] = memory = Memory(shape=BIT_WORD, depth=HALVES * deep, init=[])
                to, out = memory.write_port(), memory.read_port()
                m.d.comb += [
                    to.en.eq(chosen & Mux(w.across, across[s], enabled[s])),
                    to.addr.eq(index[s]),
                    to.data.eq(Mux(w.across, w.values[b % lanes], along[s])),
                    out.addr.eq(Mux(self.half, deep, 0) + (self.ask[b] >> exact_log2(width // self.parts))),
                ]
                read.append(out.data)
            self._shown(m, b, read)
        return m

    def _shown(self, m: Module, b: int, read: list[Any]) -> None:
        """Of the words that lie side by side the one that was asked for."""
        beside = len(read) // self.parts
        words = [Cat(*read[i * self.parts :][: self.parts]) for i in range(beside)]
        if beside == 1:
            m.d.comb += self.words_read[b].eq(words[0])
            return
        which = Signal(range(beside), name=f"which_{b}")
        m.d.sync += which.eq(self.ask[b])
        m.d.comb += self.words_read[b].eq(Array(words)[which])


class LevelBanks(wiring.Component):
    """LEVELS: of each bank what was asked for in a cycle stands in the next."""

    def __init__(self, target: Target, lanes: int) -> None:
        self.size = target.size(Space.LEVELS)
        super().__init__(
            {
                "write": In(write_layout(lanes)),
                "writes": In(1),
                "half": In(1),
                "ask": In(range(self.size.depth)).array(self.size.banks),
                "words": Out(BIT_WORD).array(self.size.banks),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        depth = self.size.depth
        for b, (chosen, value) in enumerate(loads(m, self.write, self.writes, Space.LEVELS, self.size.banks)):
            m.submodules[f"bank_{b}"] = memory = Memory(shape=BIT_WORD, depth=HALVES * depth, init=[])
            to, out = memory.write_port(), memory.read_port()
            m.d.comb += [
                to.en.eq(chosen),
                to.addr.eq(Mux(self.write.half, depth, 0) + self.write.place[:PLACE_ADDRESS_BITS]),
                to.data.eq(value),
                out.addr.eq(Mux(self.half, depth, 0) + self.ask[b]),
                self.words[b].eq(out.data),
            ]
        return m


class SignBanks(wiring.Component):
    """SIGNS: bits of all columns become strips, ``contexts`` after each other one, which are written from address 0 on.

    With ``made.valid`` a bit of each column comes; ``start`` begins a product. With ``combine`` a strip is its AND with
    what lies there. A strip is written in the cycle after that of its last bits. ``beyond``: one that the half does not
    hold. A store reads the half that is not written.
    """

    def __init__(self, target: Target, cols: int, accumulators: int, lanes: int) -> None:
        self.size, self.cols, self.accumulators = target.size(Space.SIGNS), cols, accumulators
        super().__init__(
            {
                "start": In(1),
                "half": In(1),
                "combine": In(1),
                "contexts": In(bits_for(accumulators)),
                "made": In(data.StructLayout({"valid": 1, "bits": cols})),
                "read": In(READ),
                "lanes_read": Out(32).array(lanes),
                "beyond": Out(1),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        depth, banks, cols = self.size.depth, self.size.banks, self.cols
        strip = Signal(banks * BIT_WORD)
        turn, ends, written = Signal(range(self.accumulators)), Signal(), Signal()
        coming, place = Signal(range(depth + 1)), Signal(range(depth + 1))
        m.d.comb += ends.eq(self.made.valid & (turn + 1 == self.contexts))
        m.d.sync += [written.eq(ends), place.eq(coming)]
        with m.If(self.made.valid):
            m.d.sync += turn.eq(Mux(ends, 0, turn + 1))
            with m.If(turn == 0):
                m.d.sync += strip.eq(self.made.bits)
            for i in range(1, self.accumulators):
                with m.If(turn == i):
                    m.d.sync += strip[i * cols : (i + 1) * cols].eq(self.made.bits)
        with m.If(ends & (coming != depth)):
            m.d.sync += coming.eq(coming + 1)
        with m.If(self.start):
            m.d.sync += [turn.eq(0), coming.eq(0)]
        m.d.comb += self.beyond.eq(written & (place == depth))
        bank, half, across = Signal(range(banks)), Signal(), Signal()
        m.d.sync += [
            bank.eq(self.read.place[PLACE_ADDRESS_BITS:]),
            half.eq(self.read.half),
            across.eq(self.read.across),
        ]
        shown = []
        for b in range(banks):
            halves = []
            for h in range(HALVES):
                m.submodules[f"bank_{b}_{h}"] = memory = Memory(shape=BIT_WORD, depth=depth, init=[])
                to, out = memory.write_port(), memory.read_port()
                own = Signal(name=f"own_{b}_{h}")
                m.d.comb += [
                    own.eq(self.half == h),
                    out.addr.eq(Mux(own & ends, coming, self.read.place[:PLACE_ADDRESS_BITS])),
                    to.en.eq(own & written & (place != depth)),
                    to.addr.eq(place),
                    to.data.eq(strip.word_select(b, BIT_WORD) & (out.data | (~self.combine).replicate(BIT_WORD))),
                ]
                halves.append(out.data)
            word = Signal(BIT_WORD, name=f"shown_{b}")
            m.d.comb += word.eq(Mux(half, halves[1], halves[0]))
            shown.append(word)
        show(m, self.lanes_read, shown, bank, across)
        return m
