"""The XNOR engine: the grid of its PEs, its edges and its controller (docs/design/xnor.md)."""

from __future__ import annotations

from typing import Any

from amaranth import C, Cat, EnableInserter, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for

from ...dataflow.xnor.spec import XnorSpec
from .beats import BEAT, added, differs, negated, shifted
from .control import Decision, StceControl
from .control_format import ADDRESS_BITS, ASK
from .grid import ASK as ASK_PORT
from .grid import Grid
from .row import StceRow
from .skid import SouthSkid
from .xnor_pe import LENGTH_BITS, XnorPe

__all__ = ["Xnor", "XnorControl", "XnorEdge", "XnorRow", "XnorTurns"]


class XnorControl(StceControl):
    """The schedule of a run, as the STCE's, and the beat of every issue of row 0.

    In OS a tile begins with the first beat of a word, and each slot has the next one. In WS the first slot that row 0
    holds of a tile has the beat in which the last one of the rows of the tile before, along k, was followed.
    """

    def _more(self, m: Module, now: Decision) -> None:
        run, stationary = self.run, self.run.weight_stationary
        beat, base = Signal(BEAT, name="beat"), Signal(BEAT, name="beat_base")
        base_now, beat_now = Signal(BEAT, name="beat_base_now"), Signal(BEAT, name="beat_now")
        further = added(m, "beat_further", run, base, run.beat_tile)
        follows = added(m, "beat_follows", run, beat_now, data.View(BEAT, C(0, BEAT.size)), 1)
        m.d.comb += [Value.cast(base_now).eq(base), Value.cast(beat_now).eq(beat)]
        with m.If(now.takes & now.block_begin):
            m.d.comb += Value.cast(base_now).eq(Mux(now.first_round, 0, Value.cast(further)))
        with m.If(now.takes & stationary):
            m.d.comb += beat_now.eq(base_now)
        with m.If(now.takes & ~stationary & now.tile_begin):
            m.d.comb += Value.cast(beat_now).eq(0)
        m.d.sync += [
            base.eq(base_now),
            Value.cast(beat).eq(Mux(now.wraps, Value.cast(follows), Value.cast(beat_now))),
            self.step.token.beat.eq(beat_now),
        ]


class XnorRow(StceRow):
    """The western edge of a row: what row 0 did ``row_delay`` cycles a row ago, in a beat ``run.beat_row`` further.

    ``step`` goes out as the row's ask in the same cycle, to its first PE as ``control`` a cycle later, and to the next
    row as ``step_south`` after ``run.row_delay`` cycles. ``now`` counts cycles; ``due`` says that the step of
    ``row_delay`` cycles before the next belongs to the run. ``drain`` is the number of words that this row and those
    below it drain, 0 for an unused row; the row waits for those below and then drains its own.
    """

    def _place(self, issue: Any) -> Any:
        return issue.offset + issue.pair

    def _more(self, m: Module, tokens: list[Any]) -> None:
        weighed = tokens[self.frame.multiply_latency - 1].beat
        m.d.comb += [
            self.control.issue.differ.eq(differs(tokens[0].beat)),
            self.control.weigh.shift.eq(shifted(weighed)),
            self.control.weigh.negate.eq(negated(self.run, weighed)),
        ]

    def _passed_on(self, m: Module, coming: Any) -> Any:
        passed, before = Signal(self.format.step, name="passed"), Signal(self.format.step, name="coming")
        m.d.comb += [Value.cast(before).eq(coming), passed.eq(before)]
        m.d.comb += passed.token.beat.eq(added(m, "passed_beat", self.run, before.token.beat, self.run.beat_row))
        return Value.cast(passed)


class XnorTurns(wiring.Component):
    """Whose results leave a column: ``address`` counts the columns of C that it makes, for the word that leaves next.

    ``edge_contexts`` of the run take turns, each row again, until ``edge_words`` have left of a tile; then those of the
    next tile across. In a cycle without ``en`` everything holds.
    """

    def __init__(self, run: Any, accumulators: int) -> None:
        self._contexts = bits_for(accumulators)
        super().__init__({"en": In(1), "start": In(1), "run": In(run), "leaves": In(1), "address": Out(ADDRESS_BITS)})

    def elaborate(self, platform: Any) -> Any:
        m, run = Module(), self.run
        context, word, tile = Signal(self._contexts), Signal(ADDRESS_BITS), Signal(len(run.across))
        first, here = Signal(ADDRESS_BITS), Signal(ADDRESS_BITS)
        round_ends, tile_ends, block_ends = (Signal(name=name) for name in ("round_ends", "tile_ends", "block_ends"))
        following = Signal(ADDRESS_BITS)
        m.d.comb += [
            round_ends.eq(context + 1 == run.edge_contexts),
            tile_ends.eq(word + 1 == run.edge_words),
            block_ends.eq(tile_ends & (tile + 1 == run.across)),
            following.eq(here + 1),
            self.address.eq(here),
        ]
        with m.If(self.leaves):
            m.d.comb += self.address.eq(Mux(block_ends, 0, Mux(round_ends & ~tile_ends, first, following)))
            m.d.sync += [context.eq(Mux(round_ends, 0, context + 1)), word.eq(Mux(tile_ends, 0, word + 1))]
            with m.If(tile_ends):
                m.d.sync += [first.eq(self.address), tile.eq(Mux(block_ends, 0, tile + 1))]
        m.d.sync += here.eq(self.address)
        with m.If(self.start):
            m.d.sync += [signal.eq(0) for signal in (context, word, tile, first, here)]
        return EnableInserter(self.en)(m)


class XnorEdge(wiring.Component):
    """What becomes of a sum ``word`` behind the southern edge, in the same cycle.

    ``value``: ``2 word - length`` with ``twice``, else ``word``, of two's complement. ``bit``: whether it is at least
    ``level``, with ``flip`` whether it is at most that.
    """

    def __init__(self) -> None:
        inputs = {"twice": In(1), "length": In(LENGTH_BITS), "word": In(32), "level": In(32), "flip": In(1)}
        super().__init__({**inputs, "value": Out(32), "bit": Out(1)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        beyond = Signal(33)
        m.d.comb += [
            self.value.eq(Mux(self.twice, self.word << 1, self.word) - Mux(self.twice, self.length, 0)),
            beyond.eq(self.value.as_signed() - self.level.as_signed()),
            self.bit.eq(Mux(self.flip, beyond[-1] | (beyond == 0), ~beyond[-1])),
        ]
        return m


class Xnor(Grid):
    """The systolic array of an XNOR engine; sizes, latencies and registers are those of its spec, the rest in ``run``.

    `weft.hdl.blocks.xnor_banks` computes ``run`` and the layout of the banks. With ``blackbox`` the PEs and row edges
    are instances of the modules ``parts``, each emitted once.

    Cycles, ``start``, ``busy``, ``advance`` and asks are those of the STCE: the array stands still in every cycle in
    which ``advance`` is 0, the others are *array cycles*, cycle 0 of a run is the third after that of ``start``, and
    every bank answers an ask of an array cycle in the next one.

    - ``west[r]``: a word of row ``r``, a plane of signs in the low half and one of masks in the high.
    - ``north[c]``: a word of column ``c``. Where ``valid`` is 0 it is a bubble, whatever the other bits.
    - ``sums[c]`` (WS, from the second k-tile on): a partial sum of column ``c``, of those that left before.
    - ``levels[c]``: the threshold of the word that leaves column ``c`` next, by the columns of C that it makes.
    - ``south[c]``: the sums of column ``c``, from the cycle in which they leave until they are taken; beside them
      ``made[c]``, what becomes of each: its value, and whether it passes its threshold.
    """

    control = XnorControl
    row = "xnor_row"
    pe = "xnor_pe"
    kinds = {"xnor_pe": XnorPe, "xnor_row": XnorRow}
    zero = 0

    def __init__(self, spec: XnorSpec, *, blackbox: bool = False) -> None:
        self.spec = spec
        bits = spec.word_bits
        pair = wiring.Signature({"sign": Out(bits), "mask": Out(bits), "valid": Out(1)})
        super().__init__(spec, 2 * bits, pair, blackbox=blackbox)

    def more_ports(self) -> dict[str, Any]:
        level = wiring.Signature({"level": Out(32), "flip": Out(1)})
        made = wiring.Signature({"value": Out(32), "bit": Out(1)})
        cols = self.spec.cols
        return {"levels_ask": Out(ASK_PORT).array(cols), "levels": In(level).array(cols), "made": Out(made).array(cols)}

    def _entering_word(self, m: Module, name: str, word: Any) -> Any:
        return word

    def _entering_pair(self, m: Module, c: int) -> Any:
        pair, north = Signal(self.format.pe.pair, name=f"pair_{c}"), self.north[c]
        m.d.comb += [pair.sign.eq(north.sign), pair.mask.eq(Mux(north.valid, north.mask, 0))]
        return pair

    def _behind(self, m: Module, run: Any, skid: SouthSkid) -> None:
        """Thresholds are asked for a column after the other, as results leave; one stays while its word waits."""
        m.submodules.turns = turns = XnorTurns(self.format.run, self.frame.accumulators)
        m.d.comb += [
            turns.en.eq(self.advance),
            turns.start.eq(self.start),
            turns.run.eq(run),
            turns.leaves.eq(skid.leaving[0].valid),
        ]
        ask = Signal(ASK, name="levels_first")
        m.d.comb += [ask.valid.eq(1), ask.address.eq(turns.address)]
        for c, port in enumerate(self.levels_ask):
            m.d.comb += [port.valid.eq(ask.valid), port.address.eq(ask.address)]
            after = Signal.like(ask, name=f"levels_after_{c}", init={"valid": 1})
            with m.If(self.advance):
                m.d.sync += after.eq(ask)
            ask = after
            self._edge(m, run, c)

    def _edge(self, m: Module, run: Any, c: int) -> None:
        layout = data.StructLayout({"level": 32, "flip": 1})
        now, kept = Signal(layout, name=f"level_{c}"), Signal(layout, name=f"level_{c}_kept", reset_less=True)
        answer, made = self.levels[c], self.made[c]
        m.submodules[f"edge_{c}"] = edge = XnorEdge()
        m.d.comb += [
            Value.cast(now).eq(Mux(self.advance, Cat(answer.level, answer.flip), Value.cast(kept))),
            edge.twice.eq(run.twice),
            edge.length.eq(run.length),
            edge.word.eq(self.south[c].word),
            edge.level.eq(now.level),
            edge.flip.eq(now.flip),
            made.value.eq(edge.value),
            made.bit.eq(edge.bit),
        ]
        m.d.sync += kept.eq(now)
