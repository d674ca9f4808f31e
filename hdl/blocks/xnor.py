"""The XNOR engine: the grid of its PEs, its edges and its controller (docs/design/xnor.md)."""

from __future__ import annotations

from typing import Any, ClassVar

from amaranth import C, Cat, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ...dataflow.xnor.spec import XnorSpec
from .beats import BEAT, added, differs, negated, shifted
from .control import Decision, StceControl
from .control_format import ASK, COUNT_BITS
from .enabled import enabled
from .grid import ASK as ASK_PORT
from .grid import Grid
from .row import StceRow
from .skid import SouthSkid
from .xnor_edge import XnorEdge, XnorTurns
from .xnor_pe import XnorPe
from .xnor_tiles import XnorTiles

__all__ = ["Xnor", "XnorControl", "XnorRow"]


class XnorControl(StceControl):
    """The schedule of a run, as the STCE's, and the beat of every issue of row 0.

    In OS a tile begins with the first beat of a word, and each slot has the next one. In WS the first slot that row 0
    holds of a tile has the beat in which the last one of the rows of the tile before, along k, was followed.

    With ``run.skips`` (OS) a tile has as many slots as ``tiles`` answers to ``tiles_ask``, and nothing is asked for
    twice: words and pairs of every tile are its own, one behind the other.
    """

    def more_ports(self) -> dict[str, Any]:
        return {"tiles_ask": Out(ASK), "tiles": In(COUNT_BITS)}

    def _part_ends(self, m: Module, now: Decision) -> Any:
        m.submodules.tiles = tiles = enabled(XnorTiles(self.format.run))
        m.d.comb += [
            tiles.en.eq(self.en),
            tiles.run.eq(self.run),
            tiles.slots.eq(self.tiles),
            tiles.start.eq(self.start),
            tiles.takes.eq(now.takes),
            tiles.ends_run.eq(now.final),
            tiles.issues.eq(now.issues),
            self.tiles_ask.eq(tiles.ask),
        ]
        return tiles.last

    def _begins_tile(self, m: Module, first: Any) -> Any:
        return first & m.submodules.tiles.first

    def _repeats(self, now: Decision) -> Any:
        return super()._repeats(now) & ~self.run.skips

    def _first_pairs(self, now: Decision) -> Any:
        return super()._first_pairs(now) & (now.first_round | ~self.run.skips)

    def _chain_free(self, m: Module, free: Any) -> Any:
        return Mux(self.run.skips, m.submodules.tiles.free, free)

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
        half = Signal()
        m.d.sync += half.eq(half ^ self.step.token.takeover)
        m.d.comb += [
            self.control.issue.differ.eq(differs(tokens[0].beat)),
            self.control.issue.half.eq(half),
            self.control.weigh.shift.eq(shifted(weighed)),
            self.control.weigh.negate.eq(negated(self.run, weighed)),
        ]

    def _passed_on(self, m: Module, coming: Any) -> Any:
        passed, before = Signal(self.format.step, name="passed"), Signal(self.format.step, name="coming")
        m.d.comb += [Value.cast(before).eq(coming), passed.eq(before)]
        m.d.comb += passed.token.beat.eq(added(m, "passed_beat", self.run, before.token.beat, self.run.beat_row))
        return Value.cast(passed)


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
    - ``tiles`` (where ``run.skips``): the slots of a tile, by its number; behind the last one anything.
    - ``levels[c]``: the threshold of the word that leaves column ``c`` next, by the columns of C that it makes.
    - ``south[c]``: the sums of column ``c``, from the cycle in which they leave until they are taken; beside them
      ``made[c]``, what becomes of each: its value, and whether it passes its threshold.
    """

    control = XnorControl
    row = "xnor_row"
    pe = "xnor_pe"
    kinds = {"xnor_pe": XnorPe, "xnor_row": XnorRow}
    zero = 0
    turns: ClassVar[type[XnorTurns]] = XnorTurns

    def __init__(self, spec: XnorSpec, *, blackbox: bool = False) -> None:
        self.spec = spec
        bits = spec.word_bits
        pair = wiring.Signature({"sign": Out(bits), "mask": Out(bits), "valid": Out(1)})
        super().__init__(spec, 2 * bits, pair, blackbox=blackbox)

    def more_ports(self) -> dict[str, Any]:
        level = wiring.Signature({"level": Out(32), "flip": Out(1)})
        made = wiring.Signature({"value": Out(32), "passes": Out(1)})
        cols = self.spec.cols
        return {
            "tiles_ask": Out(ASK_PORT),
            "tiles": In(COUNT_BITS),
            "levels_ask": Out(ASK_PORT).array(cols),
            "levels": In(level).array(cols),
            "made": Out(made).array(cols),
        }

    def _entering_word(self, m: Module, name: str, word: Any) -> Any:
        return word

    def _entering_pair(self, m: Module, c: int, shift: Any) -> Any:
        pair, north = Signal(self.format.pe.pair, name=f"pair_{c}"), self.north[c]
        # Only words of WS may stay: what is still on its way of an OS run must not, when a WS run begins at once.
        keeps = shift & self.run.weight_stationary
        m.d.comb += [pair.sign.eq(north.sign), pair.mask.eq(Mux(north.valid, north.mask, 0)), pair.valid.eq(keeps)]
        return pair

    def _behind(self, m: Module, run: Any, skid: SouthSkid) -> None:
        """Thresholds are asked for a column after the other, as results leave; one stays while its word waits."""
        control = m.submodules.control
        m.d.comb += [
            self.tiles_ask.valid.eq(control.tiles_ask.valid),
            self.tiles_ask.address.eq(control.tiles_ask.address),
            control.tiles.eq(self.tiles),
        ]
        m.submodules.turns = turns = self.turns(self.format.run, self.frame.accumulators)
        m.d.comb += [
            turns.en.eq(self.advance),
            turns.start.eq(self.start),
            turns.run.eq(run),
            turns.leaves.eq(skid.leaving[0].valid),
        ]
        ask = self._first_ask(m, "levels", turns.address)
        for c, port in enumerate(self.levels_ask):
            ask = self._ask_and_pass_on(m, f"levels_after_{c}", port, ask)
            self._edge(m, run, c)

    def _first_ask(self, m: Module, name: str, address: Any) -> Any:
        """That of column 0, in every cycle."""
        ask = Signal(ASK, name=f"{name}_first")
        m.d.comb += [ask.valid.eq(1), ask.address.eq(address)]
        return ask

    def _ask_and_pass_on(self, m: Module, name: str, port: Any, ask: Any) -> Any:
        """``port`` asks; the ask of the column east of it, an array cycle later."""
        m.d.comb += [port.valid.eq(ask.valid), port.address.eq(ask.address)]
        after = Signal.like(ask, name=name, init={"valid": 1})
        with m.If(self.advance):
            m.d.sync += after.eq(ask)
        return after

    def _edge(self, m: Module, run: Any, c: int) -> Any:
        """What is made of the words of column ``c``; the level that the one now at its edge meets."""
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
            made.passes.eq(edge.passes),
        ]
        m.d.sync += kept.eq(now)
        return now.level
