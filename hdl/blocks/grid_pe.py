"""A PE of a grid, whatever it does with a pair: its words, pairs, sums and results, and the ways between."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from amaranth import Cat, EnableInserter, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from .frame import Frame

__all__ = ["GridPe", "PeFormat"]

_NOTHING: Mapping[str, Any] = MappingProxyType({})


class PeFormat:
    """Layouts of what moves from PE to PE: words of ``word`` bits eastwards, a ``pair`` southwards.

    ``control`` is made at the western edge of a row and moves one PE a cycle eastwards. Its parts belong to different
    issues: ``load`` and ``issue`` to what enters the multiplier now, ``add`` to the product that leaves it now,
    ``finish`` to the sum that leaves the adder now, ``drain`` to the results of the last tile. A PE may be told more of
    an ``issue``, and in parts of its own, ``more``: what they are made of moves with the issue, ``token``, and is made
    by registers of the run, ``run``.
    """

    def __init__(
        self,
        frame: Frame,
        word: int,
        pair: data.StructLayout,
        *,
        issue: Mapping[str, Any] = _NOTHING,
        more: Mapping[str, Any] = _NOTHING,
        token: Mapping[str, Any] = _NOTHING,
        run: Mapping[str, Any] = _NOTHING,
    ) -> None:
        self.frame = frame
        self.lanes = frame.lanes
        self.chunk = frame.chunk_bits
        self.position = frame.position_bits
        self.context = frame.context_bits
        self.held = frame.held_bits
        self.word = word
        self.words = data.ArrayLayout(self.word, self.lanes)
        self.pair = pair
        self.token = token
        self.run = run
        self.control = data.StructLayout(
            {
                "load": data.StructLayout({"valid": 1, "bank": 1, "chunk": self.chunk}),
                "issue": data.StructLayout(
                    {"bank": 1, "offset": self.position, "pair": self.held, "takeover": 1, **issue}
                ),
                "add": data.StructLayout({"first": 1, "context": self.context}),
                "finish": data.StructLayout({"valid": 1, "last": 1, "context": self.context}),
                "drain": data.StructLayout({"valid": 1, "context": self.context}),
                **more,
            }
        )

    @property
    def ports(self) -> dict[str, Any]:
        """Members of the signature of a PE."""
        return {
            "en": In(1),
            "weight_stationary": In(1),
            "tap": In(self.held),
            "shift": In(1),
            "control": In(self.control),
            "control_east": Out(self.control),
            "words": In(self.words),
            "words_east": Out(self.words),
            "pair": In(self.pair),
            "pair_south": Out(self.pair),
            "sum_north": In(32),
            "sum_south": Out(32),
            "chain_valid": In(1),
            "chain": In(32),
            "chain_valid_south": Out(1),
            "chain_south": Out(32),
        }


class GridPe(wiring.Component):
    """What every PE does, in the cycles that `Uspe` tells; what a product is, and a sum, is the PE's own."""

    def __init__(self, pe_format: PeFormat) -> None:
        self.format = pe_format
        super().__init__(pe_format.ports)

    def _product(self, m: Module, pair: Any) -> Any:
        """The product of ``pair``, which is issued now, as it leaves the multiplier."""
        raise NotImplementedError

    def _accumulate(self, m: Module, product: Any) -> Any:
        """The sum that leaves the adder now."""
        raise NotImplementedError

    def elaborate(self, platform: Any) -> Any:
        m = Module()
        words_east = Signal(self.format.words, reset_less=True)
        m.d.sync += [self.control_east.eq(self.control), words_east.eq(self.words)]
        m.d.comb += self.words_east.eq(words_east)
        product = self._product(m, self._pair(m))
        self._drain(m, self._accumulate(m, product))
        return EnableInserter(self.en)(m)

    def _pair(self, m: Module) -> Any:
        """The pair to issue: the one that arrives, or one of those held; also the way of the pairs to the south.

        The shadow pairs are a ring in one half of a memory, those in use lie in the other; a takeover swaps the halves.
        A load comes round the ring once a row and so ends at place 0, with the pair that is used first. Where a pair
        goes lies the one of ``tap + 1`` shifts ago, which is due in the south.
        """
        f, issue = self.format, self.control.issue
        half = Signal()
        filling = Signal()
        place = Signal(f.held)
        goes = Signal(f.held)
        m.submodules.pairs = pairs = Memory(shape=f.pair, depth=2 << f.held, init=[])
        write, south, held = pairs.write_port(), pairs.read_port(domain="comb"), pairs.read_port(domain="comb")
        m.d.comb += [
            filling.eq(half ^ issue.takeover),
            goes.eq(Mux(place == 0, self.tap, place - 1)),
            write.en.eq(self.shift),
            write.addr.eq(Cat(goes, filling)),
            write.data.eq(self.pair),
            south.addr.eq(Cat(goes, half)),
            self.pair_south.eq(south.data),
            held.addr.eq(Cat(issue.pair, ~filling)),
        ]
        m.d.sync += half.eq(filling)
        with m.If(self.shift):
            m.d.sync += place.eq(goes)
        chosen = Signal(f.pair)
        m.d.comb += chosen.eq(Mux(self.weight_stationary, held.data, self.pair))
        return chosen

    def _word(self, m: Module, position: Any) -> Any:
        """The word at ``position`` of the part in use; also the memory that the words of a part are loaded into."""
        f, load, issue = self.format, self.control.load, self.control.issue
        m.submodules.dense = dense = Memory(shape=f.word * f.lanes, depth=2 << f.chunk, init=[])
        write, read = dense.write_port(), dense.read_port(domain="comb")
        chunk, lane = _split(position, f.lanes)
        m.d.comb += [
            write.en.eq(load.valid),
            write.addr.eq(_banked(load.chunk, f.chunk, load.bank)),
            write.data.eq(self.words),
            read.addr.eq(_banked(chunk, f.chunk, issue.bank)),
        ]
        return read.data.word_select(lane, f.word) if f.lanes > 1 else read.data

    def _drain(self, m: Module, leaving: Any) -> None:
        """Results wait in a memory of their own for their turn on the chain."""
        finish, drain = self.control.finish, self.control.drain
        complete = Signal()
        m.d.comb += complete.eq(finish.valid & finish.last)
        result = self._context_memory(m, "results", complete, leaving, drain.context)
        valid = Signal()
        word = Signal(32, reset_less=True)
        m.d.sync += [valid.eq(self.chain_valid), word.eq(self.chain)]
        m.d.comb += [
            self.chain_valid_south.eq(drain.valid | valid),
            self.chain_south.eq(Mux(drain.valid, result, word)),
        ]

    def _context_memory(self, m: Module, name: str, enable: Any, written: Any, context: Any) -> Any:
        """A word a context; read through, as a word is wanted in the very cycle in which it is written."""
        f = self.format
        m.submodules[name] = memory = Memory(shape=32, depth=1 << f.context, init=[])
        write, read = memory.write_port(), memory.read_port(domain="comb")
        m.d.comb += [
            write.en.eq(enable),
            write.addr.eq(self.control.finish.context),
            write.data.eq(written),
            read.addr.eq(context),
        ]
        held = Signal(32, name=f"{name}_held")
        m.d.comb += held.eq(read.data)
        return Mux(enable & (self.control.finish.context == context), written, held)


def _banked(chunk: Any, bits: int, bank: Any) -> Any:
    """Address of a chunk in its bank."""
    return Value.cast(chunk)[:bits] | (bank << bits)


def _split(position: Any, lanes: int) -> tuple[Any, Any]:
    """Chunk and lane of a word; cheap where ``lanes`` is a power of two."""
    if lanes & (lanes - 1) == 0:
        bits = lanes.bit_length() - 1
        return position[bits:], position[:bits]
    return position // lanes, position % lanes
