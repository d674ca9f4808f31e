"""USPE: one multiplier, one adder, and the registers around them (docs/design/machine.md, OS and WS)."""

from __future__ import annotations

from typing import Any

from amaranth import Cat, Const, EnableInserter, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from ...dataflow.accelerator import AcceleratorSpec
from .enabled import enabled
from .fp.units import OPERAND_UNITS

__all__ = ["MINUS_ZERO_16", "MINUS_ZERO_32", "Uspe", "UspeFormat"]

MINUS_ZERO_16 = 0x8000
MINUS_ZERO_32 = 0x80000000


class UspeFormat:
    """Layouts of what moves from PE to PE, sized for a machine.

    ``control`` is made at the western edge of a row and moves one PE a cycle eastwards. Its parts belong to different
    issues: ``load`` and ``issue`` to what enters the multiplier now, ``add`` to the product that leaves it now,
    ``finish`` to the sum that leaves the adder now, ``drain`` to the results of the last tile.
    """

    def __init__(self, spec: AcceleratorSpec) -> None:
        pe = spec.pe
        self.lanes = spec.array.w2e_words
        self.chunk = _bits(-(-pe.dense_words // self.lanes))
        self.position = _bits(pe.dense_words)
        self.context = _bits(pe.accumulators)
        self.held = _bits(pe.weight_pairs)
        self.word = OPERAND_UNITS[pe.format].word
        self.words = data.ArrayLayout(self.word, self.lanes)
        self.pair = data.StructLayout({"value": self.word, "index": _bits(pe.max_group), "valid": 1})
        self.control = data.StructLayout(
            {
                "load": data.StructLayout({"valid": 1, "bank": 1, "chunk": self.chunk}),
                "issue": data.StructLayout({"bank": 1, "offset": self.position, "pair": self.held, "takeover": 1}),
                "add": data.StructLayout({"first": 1, "context": self.context}),
                "finish": data.StructLayout({"valid": 1, "last": 1, "context": self.context}),
                "drain": data.StructLayout({"valid": 1, "context": self.context}),
            }
        )


def _bits(count: int) -> int:
    """Bits that tell ``count`` things apart, at least one."""
    bits: int = ceil_log2(count)
    return max(1, bits)


class Uspe(wiring.Component):
    """One PE.

    Operands issued in cycle ``t`` meet their sum in ``t + Lm`` and make a new one in ``t + Lm + La``, when it can be
    added to again, drained, and read at ``sum_south``. ``control_east``, ``words_east`` and, in OS, ``pair_south``
    repeat their inputs a cycle later; ``chain_south`` shows in a cycle what ``chain`` was in the one before, or a word
    of this PE's own. The part that is loaded and the part in use lie in two banks of one memory; ``control`` names
    them. An issue meets word ``offset + index`` of its part.

    WS: ``shift`` moves the shadow pairs one register on; ``tap`` is the number of pairs held, less one. The pairs in
    use change, and are first used, in the cycle in which ``control.issue.takeover`` is set. OS: ``shift`` 1, ``tap`` 0.
    In a cycle without ``en`` everything holds.
    """

    def __init__(self, spec: AcceleratorSpec) -> None:
        self.spec = spec
        self.format = UspeFormat(spec)
        self.units = OPERAND_UNITS[spec.pe.format]
        super().__init__(self.ports(spec))

    @staticmethod
    def ports(spec: AcceleratorSpec) -> dict[str, Any]:
        """Members of the signature, for whoever instantiates the emitted module."""
        f = UspeFormat(spec)
        return {
            "en": In(1),
            "weight_stationary": In(1),
            "tap": In(f.held),
            "shift": In(1),
            "control": In(f.control),
            "control_east": Out(f.control),
            "words": In(f.words),
            "words_east": Out(f.words),
            "pair": In(f.pair),
            "pair_south": Out(f.pair),
            "sum_north": In(32),
            "sum_south": Out(32),
            "chain_valid": In(1),
            "chain": In(32),
            "chain_valid_south": Out(1),
            "chain_south": Out(32),
        }

    def elaborate(self, platform: Any) -> Any:
        m = Module()
        words_east = Signal(self.format.words, reset_less=True)
        m.d.sync += [self.control_east.eq(self.control), words_east.eq(self.words)]
        m.d.comb += self.words_east.eq(words_east)
        product = self._multiply(m, self._pair(m))
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

    def _multiply(self, m: Module, pair: Any) -> Any:
        """The pair and its partner in the part in use; a bubble meets +0.0, so that its -0.0 is its product."""
        f, load, issue = self.format, self.control.load, self.control.issue
        m.submodules.dense = dense = Memory(shape=f.word * f.lanes, depth=2 << f.chunk, init=[])
        write, read = dense.write_port(), dense.read_port(domain="comb")
        position = Signal(f.position)
        m.d.comb += position.eq(issue.offset + pair.index)
        chunk, lane = _split(position, f.lanes)
        m.d.comb += [
            write.en.eq(load.valid),
            write.addr.eq(_banked(load.chunk, f.chunk, load.bank)),
            write.data.eq(self.words),
            read.addr.eq(_banked(chunk, f.chunk, issue.bank)),
        ]
        m.submodules.multiply = multiply = enabled(self.units.multiply(self.spec.pe.multiply_latency))
        partner = read.data.word_select(lane, f.word) if f.lanes > 1 else read.data
        # whatever its fraction, a number of exponent 0 makes a zero of -0.0
        fraction = self.spec.pe.operand.fraction
        met = Cat(partner[:fraction], Mux(pair.valid, partner[fraction:], 0))
        m.d.comb += [multiply.en.eq(self.en), multiply.a.eq(met), multiply.b.eq(pair.value)]
        return multiply.product

    def _accumulate(self, m: Module, product: Any) -> Any:
        """A product meets its sum, which may be leaving the adder in this very cycle; the adder's output."""
        add, finish = self.control.add, self.control.finish
        m.submodules.adder = adder = enabled(self.units.add(self.spec.pe.add_latency))
        total = self._context_memory(m, "sums", finish.valid, adder.sum, add.context)
        start = Mux(self.weight_stationary, self.sum_north, Const(MINUS_ZERO_32, 32))
        m.d.comb += [
            adder.en.eq(self.en),
            adder.a.eq(Mux(add.first, start, total)),
            adder.b.eq(product),
            self.sum_south.eq(adder.sum),
        ]
        return adder.sum

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
