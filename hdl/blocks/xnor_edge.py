"""The southern edge of the XNOR engine: what becomes of a sum, and whose threshold it meets (docs/design/xnor.md)."""

from __future__ import annotations

from typing import Any

from amaranth import EnableInserter, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for

from .control_format import ADDRESS_BITS
from .xnor_pe import LENGTH_BITS

__all__ = ["XnorEdge", "XnorTurns"]


class XnorTurns(wiring.Component):
    """Whose results leave a column: ``address`` counts the columns of C that it makes, for the word that leaves next.

    ``edge_contexts`` of the run take turns, each row again, until ``edge_words`` have left of a tile; then those of the
    next tile across. In a cycle without ``en`` everything holds.
    """

    def __init__(self, run: Any, accumulators: int, **more: Any) -> None:
        self._contexts = bits_for(accumulators)
        ports = {"en": In(1), "start": In(1), "run": In(run), "leaves": In(1), "address": Out(ADDRESS_BITS)}
        super().__init__({**ports, **more})

    def _more(self, m: Module, block_ends: Any) -> None:
        """What else is counted; ``block_ends`` with the last word of the last tile across, where ``leaves``."""

    def elaborate(self, platform: Any) -> Any:
        m, run = Module(), self.run
        turn = Signal(self._contexts)
        word = Signal(ADDRESS_BITS)
        tile = Signal(len(run.across))
        first = Signal(ADDRESS_BITS)
        here = Signal(ADDRESS_BITS)
        round_ends, tile_ends, block_ends = (Signal(name=name) for name in ("round_ends", "tile_ends", "block_ends"))
        following = Signal(ADDRESS_BITS)
        m.d.comb += [
            round_ends.eq(turn + 1 == run.edge_contexts),
            tile_ends.eq(word + 1 == run.edge_words),
            block_ends.eq(tile_ends & (tile + 1 == run.across)),
            following.eq(here + 1),
            self.address.eq(here),
        ]
        with m.If(self.leaves):
            m.d.comb += self.address.eq(Mux(block_ends, 0, Mux(round_ends & ~tile_ends, first, following)))
            m.d.sync += [turn.eq(Mux(round_ends, 0, turn + 1)), word.eq(Mux(tile_ends, 0, word + 1))]
            with m.If(tile_ends):
                m.d.sync += [first.eq(self.address), tile.eq(Mux(block_ends, 0, tile + 1))]
        m.d.sync += here.eq(self.address)
        self._more(m, block_ends)
        with m.If(self.start):
            m.d.sync += [signal.eq(0) for signal in (turn, word, tile, first, here)]
        return EnableInserter(self.en)(m)


class XnorEdge(wiring.Component):
    """What becomes of a sum ``word`` behind the southern edge, in the same cycle.

    ``value``: ``2 word - length`` with ``twice``, else ``word``, of two's complement. ``passes``: whether ``word`` is
    at least ``level``, with ``flip`` whether it is below.
    """

    def __init__(self) -> None:
        inputs = {"twice": In(1), "length": In(LENGTH_BITS), "word": In(32), "level": In(32), "flip": In(1)}
        super().__init__({**inputs, "value": Out(32), "passes": Out(1)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.d.comb += [
            self.value.eq(Mux(self.twice, self.word << 1, self.word) - Mux(self.twice, self.length, 0)),
            self.passes.eq((self.word.as_signed() >= self.level.as_signed()) ^ self.flip),
        ]
        return m
