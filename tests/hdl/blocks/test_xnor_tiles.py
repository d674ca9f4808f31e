"""The slots of a tile of the XNOR engine, where words are left out: proved for any lists and any times."""

from __future__ import annotations

from typing import Any

import pytest
from amaranth.hdl import Assert, Assume, Cat, Elaboratable, Fragment, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from weft.dataflow.xnor.spec import XnorSpec
from weft.hdl.blocks.control_format import ControlFormat
from weft.hdl.blocks.xnor_tiles import XnorTiles

from ..proof import bounded, mutant, proved

SPEC = XnorSpec(rows=3, cols=1, word_bits=8, accumulators=3)
COUNT = 3
"""Bits of the slots of a tile."""


class _Made(Elaboratable):
    def __init__(self, fragment: Any) -> None:
        self.fragment = fragment

    def elaborate(self, platform: object) -> Any:
        return self.fragment


class Counts(wiring.Component):
    """Any number of slots for every tile, any interleave and rows, a slot taken at any time at which it may be.

    The drain chain is counted here as the page has it: ``D`` words from the last slot of a tile on, and a tile may
    begin when no more of them are left than cycles to its own last slot, ``(slots - 1) I``, a product.
    """

    def __init__(self, tiles: Any = XnorTiles) -> None:
        self.tiles = tiles(ControlFormat(SPEC).run, count_bits=COUNT)
        super().__init__(
            {"go": In(1), "wants": In(1), "stops": In(1), "slots": In(COUNT), "run": In(self.tiles.run.shape())}
        )

    def elaborate(self, platform: object) -> Module:
        m, tiles = Module(), self.tiles
        fragment = Fragment.get(tiles, None)
        m.submodules.tiles = _Made(fragment)
        driven = [s for domain in ("comb", "sync") for s in fragment.statements[domain]._lhs_signals()]
        inside = {signal.name: signal for signal in driven}
        held = Signal(tiles.run.shape(), init={"skips": 1, "interleave": 1, "rows_used": 1})
        active, opened, before, number, now, done = (
            Signal(width, name=name)
            for name, width in (
                ("active", 1), ("opened", 1), ("start_before", 1), ("tile", 24), ("its_slots", COUNT), ("done", COUNT),
            )
        )  # fmt: skip
        issuing, chain = Signal(2), Signal(range(-1, 10), name="chain")
        interleave, rows, loads = held.interleave, held.rows_used, before | inside["tile_ends"]
        free_chain = chain <= (now - 1) * interleave
        legal = (self.run.interleave >= 1) & (self.run.interleave <= 3) & (self.run.rows_used >= 1) & self.run.skips
        m.d.comb += [
            tiles.start.eq(self.go & ~active & ~before),
            tiles.takes.eq(self.wants & opened & (issuing == 0) & (~tiles.first | tiles.free)),
            tiles.ends_run.eq(self.stops & tiles.takes & tiles.last),
            tiles.issues.eq(tiles.takes | (issuing != 0)),
            tiles.run.eq(Mux(tiles.start, self.run.as_value(), held.as_value())),
            tiles.slots.eq(self.slots),
            Assume(~tiles.start | legal),
            Assume((self.slots != 0) | ~loads),
        ]
        self.moves(m, loads, (held, active, opened, before, number, now, done, issuing, chain))
        ready = opened & (issuing == 0)
        m.d.comb += [
            # every tile has as many slots as it was said to have
            Assert(~opened | ((done < now) & (tiles.first == (done == 0)) & (tiles.last == (done + 1 == now)))),
            # and begins at the first cycle that the chain lets it
            Assert(~(ready & tiles.first) | (tiles.free == free_chain)),
        ]
        self.known(m, inside, Cat(opened, tiles.first).all(), held, now, chain, issuing)
        m.d.comb += [
            Assert(~before | (active & ~opened)),
            Assert(~active | before | opened),
            Assert(~opened | active),
            Assert(~opened | (inside["slots_left"] == now - done - 1)),
            Assert(inside["tile_started"] == before),
            Assert(~active | before | (inside["number"] == number)),
            Assert(~before | ((number == 0) & (inside["number"] == 0) & (inside["pause"] == 0) & (chain == 0))),
            Assert((held.interleave >= 1) & (held.interleave <= 3) & (held.rows_used >= 1) & held.skips),
            Assert((issuing == 0) | (issuing < held.interleave)),
            Assert((chain >= 0) & (chain < rows * interleave + (chain == 0))),
            Assert(~before | (issuing == 0)),
        ]
        return m

    def moves(self, m: Module, loads: Any, state: tuple[Any, ...]) -> None:
        """What is counted here; which tile is asked for: the one behind the tile whose slots are counted."""
        tiles, (held, active, opened, before, number, now, done, issuing, chain) = self.tiles, state
        interleave, rows = held.interleave, held.rows_used
        m.d.sync += before.eq(tiles.start)
        with m.If(loads):
            m.d.sync += [now.eq(self.slots), done.eq(0), opened.eq(1)]
        with m.Elif(tiles.takes):
            m.d.sync += done.eq(done + 1)
        with m.If(tiles.takes):
            m.d.sync += issuing.eq(interleave - 1)
        with m.Elif(issuing != 0):
            m.d.sync += issuing.eq(issuing - 1)
        with m.If(tiles.takes & tiles.last):
            m.d.sync += chain.eq(rows * interleave - 1)
        with m.Elif(chain != 0):
            m.d.sync += chain.eq(chain - 1)
        with m.If(tiles.ends_run):
            m.d.sync += [active.eq(0), opened.eq(0)]
        with m.If(active):
            m.d.comb += Assert(tiles.ask.valid & (tiles.ask.address == (number + loads)[:24]))
            m.d.sync += number.eq(number + loads)
        with m.If(tiles.start):
            m.d.comb += Assert(tiles.ask.address == 0)
            m.d.sync += [held.eq(self.run), number.eq(0), chain.eq(0), issuing.eq(0), active.eq(1), opened.eq(0)]

    def known(self, m: Module, inside: Any, waits: Any, run: Any, slots: Any, chain: Any, issuing: Any) -> None:
        """What the pause is worth while a tile waits, for the induction."""
        pause, turn = inside["pause"], inside["pause_turn"]
        over = chain - (slots - 1) * run.interleave
        m.d.comb += [
            Assert((turn == 0) | ((turn < run.interleave) & (pause != 0))),
            Assert(~waits | (pause == 0) | (over == pause * run.interleave - turn + issuing)),
            Assert(~waits | (pause != 0) | (over <= issuing)),
            Assert(waits | (pause == 0)),
        ]


def test_every_tile_has_its_slots_and_begins_when_the_chain_lets_it(tmp_path):
    assert proved(Counts(), tmp_path, 3)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("last.eq(left == 1)", "last.eq(left == 2)"),
        ("last.eq(self.slots == 1)", "last.eq(0)"),
        ("self.takes & last & ~self.ends_run", "self.takes & last"),
        ("run.rows_used > self.slots, run.rows_used - self.slots, 0", "run.rows_used > 1, run.rows_used - 1, 0"),
        ("~self.issues & ~self.free", "~self.free"),
        ("turn + 1 == run.interleave", "1"),
    ],
)
def test_a_broken_count_is_refuted(old, new, tmp_path):
    assert not bounded(Counts(mutant(XnorTiles, old, new)), tmp_path, 12)
