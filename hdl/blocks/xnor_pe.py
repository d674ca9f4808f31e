"""The PE of the XNOR engine: one popcount tree, one integer adder (docs/design/xnor.md)."""

from __future__ import annotations

from typing import Any

from amaranth import Cat, Module, Mux, Signal, Value
from amaranth.lib import data
from amaranth.lib.memory import Memory
from amaranth.utils import bits_for

from ...dataflow.xnor.spec import XnorSpec
from .beats import BEAT, BEAT_RUN, SHIFT_BITS
from .enabled import enabled
from .frame import frame_of
from .grid_pe import GridPe, PeFormat
from .popcount import Popcount, Tree

__all__ = ["LENGTH_BITS", "XnorFormat", "XnorPe"]

LENGTH_BITS = 31
"""Of a contraction: a longer one has sums that an accumulator does not hold."""
_EDGE_WORDS = 24
"""Bits of the number of words that a tile sends to a column."""
_LARGEST_SHIFT = 14
"""Of the highest planes of two operands of eight bits."""


class XnorFormat(PeFormat):
    """Layouts of what moves from PE to PE: a word is two planes of bits; on its way south ``valid`` says in WS that no
    PE has kept it yet.

    ``issue.differ`` chooses the bits that are counted, ``half`` the half of the memory of held words that is filled,
    which a takeover changes; ``weigh`` belongs to the count that is made in this cycle.
    """

    def __init__(self, spec: XnorSpec) -> None:
        frame = frame_of(spec)
        super().__init__(
            frame,
            2 * spec.word_bits,
            data.StructLayout({"sign": spec.word_bits, "mask": spec.word_bits, "valid": 1}),
            issue={"differ": 1, "half": 1},
            more={"weigh": data.StructLayout({"shift": SHIFT_BITS, "negate": 1})},
            token={"beat": BEAT},
            run={
                **BEAT_RUN,
                "twice": 1,
                "length": LENGTH_BITS,
                "edge_contexts": bits_for(spec.accumulators),
                "edge_words": _EDGE_WORDS,
                "skips": 1,
                "rows_used": bits_for(spec.rows),
            },
        )


class XnorPe(GridPe):
    """One PE.

    The words of an issue in cycle ``t`` have their count, times what ``control.weigh`` of ``t + Lm - 1`` says, in
    ``t + Lm``, when it meets its sum; the new sum is there a cycle later. All else is as in a USPE: ``control_east``,
    ``words_east`` and, in OS, ``pair_south`` repeat their inputs a cycle later; ``chain_south`` shows in a cycle what
    ``chain`` was in the one before, or a word of this PE's own. The part that is loaded and the part in use lie in two
    banks of one memory; an issue meets word ``offset`` of its part.

    WS: the first ``tap + 1`` words that come after a takeover stay, in their order, those behind them pass. The words
    in use change, and are first used, in the cycle in which ``control.issue.takeover`` is set, and a word that comes in
    it is the first of the next ones. OS: all pass. In a cycle without ``en`` everything holds.
    """

    def __init__(self, spec: XnorSpec, tree: Tree = Tree.ADDERS) -> None:
        self.spec = spec
        self.tree = tree
        super().__init__(XnorFormat(spec))

    @staticmethod
    def ports(spec: XnorSpec) -> dict[str, Any]:
        """Members of the signature, for whoever instantiates the emitted module."""
        return XnorFormat(spec).ports

    def _pair(self, m: Module) -> Any:
        """The words to issue: those that arrive, or of those held; also the way of the words to the south.

        The words that are to be used next lie in one half of a memory, those in use in the other; a takeover swaps
        them. A ring as in a USPE would take a second way out of the memory, which is most of a PE.
        """
        f, issue = self.format, self.control.issue
        full = Signal()
        keeps = Signal()
        place = Signal(f.held)
        place_now = Signal(f.held)
        m.submodules.pairs = pairs = Memory(shape=f.word, depth=2 << f.held, init=[])
        write, held = pairs.write_port(), pairs.read_port(domain="comb")
        m.d.comb += [
            place_now.eq(Mux(issue.takeover, 0, place)),
            keeps.eq(self.weight_stationary & self.pair.valid & (issue.takeover | ~full)),
            write.en.eq(keeps),
            write.addr.eq(Cat(place_now, issue.half)),
            write.data.eq(Value.cast(self.pair)[: f.word]),
            held.addr.eq(Cat(issue.pair, ~issue.half)),
        ]
        m.d.sync += [
            place.eq(place_now + keeps),
            full.eq(Mux(keeps, place_now == self.tap, full & ~issue.takeover)),
            self.pair_south.eq(self.pair),
            self.pair_south.valid.eq(self.pair.valid & ~keeps),
        ]
        chosen = Signal(f.pair)
        m.d.comb += Value.cast(chosen)[: f.word].eq(
            Mux(self.weight_stationary, held.data, Value.cast(self.pair)[: f.word])
        )
        return chosen

    def _product(self, m: Module, pair: Any) -> Any:
        """What is added of the bits that count, and whether it is taken away: then all its bits are inverted."""
        issue, weigh = self.control.issue, self.control.weigh
        met = data.View(
            data.StructLayout({"sign": self.spec.word_bits, "mask": self.spec.word_bits}), self._word(m, issue.offset)
        )
        pipeline = self.spec.popcount_latency - 1
        m.submodules.popcount = popcount = enabled(
            Popcount(self.spec.word_bits, latency=pipeline, behind=1, tree=self.tree)
        )
        apart = met.sign ^ pair.sign ^ ~issue.differ.replicate(self.spec.word_bits)
        m.d.comb += [popcount.en.eq(self.en), popcount.bits.eq(met.mask & pair.mask & apart)]
        largest = len(popcount.count) + _LARGEST_SHIFT
        product = Signal(data.StructLayout({"value": largest, "negate": 1}))
        worth = Signal(largest)
        m.d.comb += worth.eq(popcount.count << weigh.shift)
        m.d.sync += [product.value.eq(worth ^ weigh.negate.replicate(largest)), product.negate.eq(weigh.negate)]
        return product

    def _accumulate(self, m: Module, product: Any) -> Any:
        """A product meets its sum, which may be the one of the cycle before; the adder's register."""
        add, finish = self.control.add, self.control.finish
        made = Signal(32)
        total = self._context_memory(m, "sums", finish.valid, made, add.context)
        begun = Mux(add.first, Mux(self.weight_stationary, self.sum_north, 0), total)
        inverted = Cat(product.value, product.negate.replicate(32 - len(product.value)))
        # the carry of the lowest bits completes the negation in the one adder
        both = Cat(product.negate, begun) + Cat(product.negate, inverted)
        m.d.sync += made.eq(both[1:])
        m.d.comb += self.sum_south.eq(made)
        return made
