"""The way of a load through SORE: elements come as they lie in memory, pairs leave as they will lie on chip.

A round is a group for every lane of SORE, or across lines a group of every column. While one round is taken in, the one
before is sorted and the pairs of the one before that leave, and all three go on together when the slowest has ended.
So the last element of a round enters SORE only when nothing is left of what its pairs will replace: SORE, which cannot
be held, never needs to be.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from amaranth import Array, Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for, exact_log2

from ...dataflow.engine_time import reduction_step
from ...dataflow.operand import FP16
from ...dataflow.program.spaces import Target
from ...workloads.sparsity import MAX_GROUP
from ..blocks.sorter import index_bits, network_latency, sore_client
from .queue import Queue

__all__ = ["INDEX", "Reduction", "elements_layout"]

INDEX = bits_for(MAX_GROUP - 1)
"""Bits of an index in any group."""


def elements_layout(lanes: int, bits: int = FP16.bits) -> data.StructLayout:
    """``words`` elements of one group, or across lines of one line, from lane ``start`` of a beat on, ``bits`` each.

    ``position``: of the first, in its group. ``closes``: the group ends with the last of them.
    """
    return data.StructLayout(
        {
            "lanes": data.ArrayLayout(bits, lanes),
            "start": exact_log2(lanes),
            "words": bits_for(lanes),
            "position": INDEX,
            "closes": 1,
            "line_end": 1,
            "last": 1,
        }
    )


@dataclass(frozen=True)
class _Round:
    """What is known of a round: of every lane the length of its group and whether a line ends with it; the last lane
    in use; whether the transfer ends."""

    lengths: list[Signal]
    ends: list[Signal]
    used: Signal
    last: Signal

    @classmethod
    def named(cls, name: str, lanes: int, group: int) -> _Round:
        return cls(
            [Signal(range(group + 1), name=f"{name}_length_{j}") for j in range(lanes)],
            [Signal(name=f"{name}_ends_line_{j}") for j in range(lanes)],
            Signal(range(max(2, lanes)), name=f"{name}_used"),
            Signal(name=f"{name}_last"),
        )

    def of(self, other: _Round) -> list[Any]:
        """Assignments of another's."""
        pairs = zip((*self.lengths, *self.ends), (*other.lengths, *other.ends), strict=True)
        return [self.used.eq(other.used), self.last.eq(other.last), *(own.eq(its) for own, its in pairs)]


class Reduction(wiring.Component):
    """Makes pairs of ``elements`` by the SORE at ``sore`` while ``runs``; without it, it is as after a reset.

    Along a line pairs leave one by one, group by group; ``across`` lines of ``columns`` words the first pairs of all
    columns leave first, up to ``left`` of them at once. While ``valid``, ``values`` and ``indices`` have them from lane
    ``start`` on, and ``take`` says how many of them go. With the last of ``left`` a line on chip ends where
    ``ends_line``, and the transfer where ``ends``.
    """

    def __init__(self, target: Target, lanes: int) -> None:
        assert target.pattern is not None, "SORE is built for a pattern"
        self.pattern, self.lanes, self.sore_spec = target.pattern, lanes, target.spec.sore
        self.bits = target.spec.pe.operand.bits
        self.step = reduction_step(target.pattern, target.spec)
        most = self.sore_spec.lanes
        super().__init__(
            {
                "runs": In(1),
                "across": In(1),
                "columns": In(range(most + 1)),
                "elements": In(stream.Signature(elements_layout(lanes, self.bits))),
                "sore": Out(sore_client(target.spec, target.pattern)),
                "valid": Out(1),
                "values": Out(self.bits).array(lanes),
                "indices": Out(INDEX).array(lanes),
                "start": Out(exact_log2(lanes)),
                "left": Out(range(most + 1)),
                "ends_line": Out(1),
                "ends": Out(1),
                "take": In(range(most + 1)),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        lanes, group = self.sore_spec.lanes, self.pattern.group
        m.submodules.waiting = waiting = Queue(elements_layout(self.lanes, self.bits), 2)
        wiring.connect(m, wiring.flipped(self.elements), waiting.into)
        filling, sorting, leaving = (_Round.named(name, lanes, group) for name in ("filling", "sorting", "leaving"))
        advance, filled, sorts, drained = (Signal(name=name) for name in ("advance", "filled", "sorts", "drained"))
        ended, at = Signal(name="ended"), Signal(range(max(2, self.step)), name="at")
        m.d.comb += advance.eq((filled | ended) & (~sorts | (at == self.step - 1)) & drained)
        cells = self._fill(m, waiting.out, filled, advance, ended, filling)
        words = self._sort(m, cells, filling, sorting, advance, filled, sorts, at)
        self._drain(m, words, leaving, drained, advance)
        with m.If(advance):
            m.d.sync += [sorts.eq(filled), self.valid.eq(sorts), at.eq(0), *sorting.of(filling), *leaving.of(sorting)]
        with m.Else():
            m.d.sync += [at.eq(at + (sorts & (at != self.step - 1))), self.valid.eq(self.valid & ~drained)]
        with m.If(~self.runs):
            m.d.sync += [x.eq(0) for x in (ended, sorts, self.valid, at)]
        return m

    def _fill(
        self, m: Module, waiting: Any, filled: Any, advance: Any, ended: Any, filling: _Round
    ) -> list[list[Signal]]:
        """The elements of the round that is taken in, [lane][place in its group], and ``filling``, as they are with
        those of this cycle."""
        lanes, group, shift = self.sore_spec.lanes, self.pattern.group, exact_log2(self.lanes)
        of = waiting.payload
        lane, column = (Signal(range(max(2, lanes)), name=name) for name in ("lane", "column"))
        takes = Signal()
        turn = Signal(shift)
        m.d.comb += [
            filled.eq(waiting.valid & of.closes & (self.across | (lane == lanes - 1) | of.last)),
            # the last of a round waits until all go on
            waiting.ready.eq(~filled | advance),
            takes.eq(waiting.valid & waiting.ready),
            turn.eq(of.start - Mux(self.across, column, of.position)),
        ]
        turned = [Signal(self.bits, name=f"turned_{x}") for x in range(self.lanes)]
        m.d.comb += [word.eq(Array(of.lanes)[(turn + x)[:shift]]) for x, word in enumerate(turned)]
        # what lies behind a group or a line is below it again, and further behind than its words
        in_group, in_line = Signal(group, name="in_group"), Signal(lanes, name="in_line")
        for count, first, inside in ((group, of.position, in_group), (lanes, column, in_line)):
            for i in range(count):
                behind = Signal(range(max(2, count)), name=f"behind_{count}_{i}_{inside.name}")
                m.d.comb += [behind.eq(i - first), inside[i].eq(behind < of.words)]
        kept = _Round.named("kept", lanes, group)
        cells = []
        for j in range(lanes):
            here = Signal(name=f"here_{j}")
            m.d.comb += [
                here.eq(takes & (self.across | (lane == j))),
                filling.lengths[j].eq(Mux(here, of.position + Mux(self.across, 1, of.words), kept.lengths[j])),
                filling.ends[j].eq(Mux(here, of.line_end, kept.ends[j])),
            ]
            row = []
            for e in range(group):
                cell, following = Signal(self.bits, name=f"cell_{j}_{e}"), Signal(self.bits, name=f"filled_{j}_{e}")
                chosen = here & Mux(self.across, in_line[j] & (of.position == e), in_group[e])
                value = Mux(self.across, turned[j % self.lanes], turned[e % self.lanes])
                m.d.comb += following.eq(Mux(chosen, value, cell))
                m.d.sync += cell.eq(following)
                row.append(following)
            cells.append(row)
        m.d.comb += [filling.used.eq(lane), filling.last.eq(of.last)]
        m.d.sync += kept.of(filling)
        with m.If(takes):
            m.d.sync += [
                lane.eq(Mux(advance, 0, lane + (of.closes & ~self.across))),
                column.eq(Mux(of.line_end, 0, column + of.words)),
                ended.eq(of.last),
            ]
        with m.If(~self.runs):
            m.d.sync += [lane.eq(0), column.eq(0)]
        return cells

    def _sort(
        self,
        m: Module,
        cells: list[list[Signal]],
        filling: _Round,
        sorting: _Round,
        advance: Any,
        filled: Any,
        sorts: Any,
        at: Any,
    ) -> list[list[Any]]:
        """A round through SORE; the pairs of the round that leaves, [lane][pair]."""
        serial, pattern, sore = self.sore_spec.kind == "serial", self.pattern, self.sore
        width = self.bits + index_bits(pattern)
        words = []
        if serial:
            # pairs leave one by one, from the cycle on in which those of their round are asked for
            leaves = [Signal(name=f"leaves_{p}") for p in range(pattern.keep)]
            m.d.comb += [sore.step.eq(sorts & ((at != self.step - 1) | advance)), leaves[0].eq(sore.leaving)]
            m.d.sync += [later.eq(before) for before, later in pairwise(leaves)]
        else:
            m.d.comb += sore.step.eq(advance & filled)
        for j, row in enumerate(cells):
            if serial:
                queued = [Signal(self.bits, name=f"queued_{j}_{e}") for e in range(pattern.group)]
                m.d.comb += [sore.value[j][0].eq(queued[0]), sore.valid[j].eq(at < sorting.lengths[j])]
                with m.If(advance):
                    m.d.sync += [own.eq(word) for own, word in zip(queued, row, strict=True)]
                with m.Elif(sore.step):
                    m.d.sync += [own.eq(word) for own, word in pairwise(queued)]
            else:
                m.d.comb += [sore.value[j][e].eq(word) for e, word in enumerate(row)]
                m.d.comb += [sore.valid[j][e].eq(e < filling.lengths[j]) for e in range(pattern.group)]
            made = []
            for p in range(pattern.keep):
                pair = sore.pair[j][0 if serial else p]
                held, word = (Signal(width, name=f"{name}_{j}_{p}") for name in ("held", "pair"))
                if serial:
                    m.d.comb += word.eq(Mux(leaves[p], Cat(pair.value, pair.index), held))
                    m.d.sync += held.eq(word)
                    made.append(word)
                else:
                    caught = Signal(width, name=f"caught_{j}_{p}")
                    m.d.comb += word.eq(Mux(sore.leaving, Cat(pair.value, pair.index), caught))
                    m.d.sync += caught.eq(word)
                    with m.If(advance):
                        # a network without stages answers in the cycle in which the round before goes on
                        m.d.sync += held.eq(word if network_latency(pattern) else caught)
                    made.append(held)
            words.append(made)
        return words

    def _drain(self, m: Module, words: list[list[Any]], leaving: _Round, drained: Any, advance: Any) -> None:
        """Pairs in their order: of one lane after another, or of all lanes the first."""
        lanes, keep, shift = self.sore_spec.lanes, self.pattern.keep, exact_log2(self.lanes)
        lane, pair = Signal(range(max(2, lanes)), name="leaving_lane"), Signal(range(max(2, keep)), name="leaving_pair")
        length = Signal(range(self.pattern.group + 1))
        pair_ends, whole, round_ends = (Signal(name=name) for name in ("pair_ends", "whole", "round_ends"))
        m.d.comb += [
            length.eq(Array(leaving.lengths)[lane]),
            pair_ends.eq((pair == keep - 1) | (pair + 1 == length)),
            self.start.eq(lane),
            self.left.eq(Mux(self.across, self.columns - lane, 1)),
            whole.eq(self.take == self.left),
            round_ends.eq(pair_ends & (self.across | (lane == leaving.used))),
            self.ends_line.eq(self.across | (pair_ends & Array(leaving.ends)[lane])),
            self.ends.eq(round_ends & leaving.last),
            drained.eq(~self.valid | (whole & round_ends)),
        ]
        for x in range(self.lanes):
            mine = [Array(of)[pair] for of in words[x :: self.lanes]]
            turn = Signal(range(max(2, len(mine) + 1)), name=f"nth_{x}")
            shown = Signal(self.bits + index_bits(self.pattern), name=f"shown_{x}")
            m.d.comb += [
                turn.eq((lane >> shift) + (self.start > x)),
                shown.eq(Array(mine)[turn] if mine else 0),
                self.values[x].eq(shown[: self.bits]),
                self.indices[x].eq(shown[self.bits :]),
            ]
        with m.If(self.valid & (self.take != 0)):
            with m.If(self.across):
                m.d.sync += [lane.eq(Mux(whole, 0, lane + self.take)), pair.eq(pair + whole)]
            with m.Else():
                m.d.sync += [lane.eq(lane + pair_ends), pair.eq(Mux(pair_ends, 0, pair + 1))]
        with m.If(advance | ~self.runs):
            m.d.sync += [lane.eq(0), pair.eq(0)]
