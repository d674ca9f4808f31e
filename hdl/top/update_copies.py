"""Compact copies behind an update: beats of weights to tiles, through SORE, to PAIRS (docs/design/machine.md)."""

from __future__ import annotations

from typing import Any

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ...dataflow.pregenerate import tile_plan
from ...dataflow.program.spaces import VECTOR_DEPTH, Space, Target
from ..blocks.pregenerate import TileBuffer
from ..blocks.sorter import sore_client
from .banks import READ
from .unit_banks import PairBanks

__all__ = ["Copies"]


class Copies(wiring.Component):
    """Of beats that come with ``write``, tiles as far apart as `TilePlan` says, the pairs of one copy or of ``both``.

    Pairs go to PAIRS by the SORE at ``sore`` while ``runs``: copy ``x``, round by round, pair by pair, a lane a bank.
    ``beyond``: one that the half does not hold, which is not written. ``lanes_read`` answers a store.
    """

    def __init__(self, target: Target, store_lanes: int) -> None:
        spec, pattern = target.spec, target.pattern
        assert pattern is not None, "copies are of a pattern"
        self.target, self.pattern, self.store_lanes = target, pattern, store_lanes
        self.plans = tuple(tile_plan(spec, target.rule, pattern, copies) for copies in (1, 2))
        self.serial = spec.sore.kind == "serial"
        super().__init__(
            {
                "runs": In(1),
                "both": In(1),
                "half": In(1),
                "write": In(1),
                "value": In(spec.pe.operand.bits).array(spec.wuve.lanes),
                "sore": Out(sore_client(spec, pattern)),
                "beyond": Out(1),
                "read": In(READ),
                "lanes_read": Out(32).array(store_lanes),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        target, pattern, sore = self.target, self.pattern, self.sore
        lanes, keep = target.spec.sore.lanes, pattern.keep
        m.submodules.buffer = buffer = TileBuffer(target.spec, pattern, self.plans[0])
        m.submodules.pairs = pairs = PairBanks(target, 1 if self.serial else keep, self.store_lanes)
        m.d.comb += [
            buffer.both.eq(self.both),
            buffer.write.eq(self.write),
            *(own.eq(word) for own, word in zip(buffer.value, self.value, strict=True)),
            *(valid.eq(1) for valid in buffer.valid),
            sore.step.eq(buffer.step),
        ]
        for i in range(lanes):
            m.d.comb += sore.valid[i].eq(buffer.group_valid[i])
            m.d.comb += [to.eq(word) for to, word in zip(sore.value[i], buffer.group_value[i], strict=True)]
        comes, second = self._count(m)
        size, at = target.size(Space.PAIRS), [Signal(range(VECTOR_DEPTH + keep), name=f"at_{x}") for x in range(2)]
        step = 1 if self.serial else keep
        now = Signal.like(at[0], name="now")
        writes = Signal()
        m.d.comb += [
            now.eq(Mux(second, at[1], at[0])),
            self.beyond.eq(self.runs & comes & (now + step > size.depth)),
            writes.eq(self.runs & comes & ~self.beyond),
            pairs.half.eq(self.half),
            pairs.address.eq(now),
            pairs.enables.eq(Cat((writes & ~second).replicate(lanes), (writes & second).replicate(lanes))),
            pairs.read.eq(self.read),
            *(out.eq(word) for out, word in zip(self.lanes_read, pairs.lanes_read, strict=True)),
        ]
        for b, words in enumerate(pairs.words):
            m.d.comb += [
                word.eq(Cat(pair.value, pair.index)) for word, pair in zip(words, sore.pair[b % lanes], strict=True)
            ]
        for x, counter in enumerate(at):
            m.d.sync += counter.eq(Mux(self.runs, counter + Mux(writes & (second == x), step, 0), 0))
        return m

    def _count(self, m: Module) -> tuple[Any, Any]:
        """Whether pairs leave SORE in this cycle, and whether they are of the second copy."""
        keep, rounds = self.pattern.keep, self.plans[0].rounds
        comes, last, second = Signal(), Signal(), Signal()
        turn = Signal(range(max(2, rounds)))
        if self.serial:
            later = Signal(keep)
            flight = Cat(self.sore.leaving, later)[:keep]
            m.d.sync += later.eq(flight)
            m.d.comb += [comes.eq(flight.any()), last.eq(flight[-1])]
        else:
            m.d.comb += [comes.eq(self.sore.leaving), last.eq(comes)]
        ends = Signal()
        m.d.comb += ends.eq(last & (turn == rounds - 1))
        with m.If(~self.runs):
            m.d.sync += [turn.eq(0), second.eq(0)]
        with m.Elif(last):
            m.d.sync += [turn.eq(Mux(ends, 0, turn + 1)), second.eq(second ^ (ends & self.both))]
        return comes, second
