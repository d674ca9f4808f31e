"""SORE right behind WUVE: updated weights enter a tile buffer and leave it as groups in both directions.

Order and pace are those of docs/design/machine.md; `weft.dataflow.pregenerate` computes both.
"""

from __future__ import annotations

from typing import Any

from amaranth import Array, Cat, Module, Mux, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from ...dataflow.accelerator import AcceleratorSpec
from ...dataflow.pregenerate import TilePlan, tile_plan
from ...workloads.sparsity import NMPattern
from ...workloads.update_rule import SGD, UpdateRule
from .buildable import check_buildable
from .enabled import enabled
from .payload import payload_of, payload_wires
from .skid import StreamSkid
from .sorter import Sore
from .streams import chosen, pairs_of, parameters_of, stream_contract, updated_of
from .update import Wuve

__all__ = ["Pregenerate", "TileBuffer"]


class TileBuffer(wiring.Component):
    """Two tiles of weights, one filled a beat a cycle while the groups of the other are read.

    In a cycle with ``write`` the ``value`` and ``valid`` of every lane are the next beat of a tile. The cycle after its
    last beat begins the reading: with ``step``, ``group_value`` and ``group_valid`` are what `Sore` takes in then, for
    all rounds of groups along the first axis of the blocks, and with ``both`` for all along the second. The writer
    keeps tiles ``distance`` cycles apart, measured between their last beats.
    """

    def __init__(self, spec: AcceleratorSpec, pattern: NMPattern, plan: TilePlan) -> None:
        self.pattern, self.plan = pattern, plan
        self.distance, self.bits = plan.distance, spec.pe.operand.bits
        self.serial = spec.sore.kind == "serial"
        self.beat, self.lanes = spec.wuve.lanes, spec.sore.lanes
        words = 1 if self.serial else pattern.group
        super().__init__(
            {
                "both": In(1),
                "write": In(1),
                "value": In(self.bits).array(self.beat),
                "valid": In(1).array(self.beat),
                "step": Out(1),
                "group_value": Out(self.bits).array(self.lanes, words),
                "group_valid": Out(words).array(self.lanes),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        filled, writing, beat = self._write(m)
        second, turn, phase, reading = self._count(m, filled, writing)
        tiles = [self._cells(m, half, writing, beat) for half in range(2)]
        for i in range(self.lanes):
            for x, value in enumerate(self.group_value[i]):
                word = self._read(tiles, i, reading, second, turn, phase if self.serial else x)
                m.d.comb += [value.eq(word[: self.bits]), self.group_valid[i][x].eq(word[self.bits])]
        return m

    def _write(self, m: Module) -> tuple[Value, Value, Value]:
        """Whether the last beat of a tile is written now; the half and the beat that are written next."""
        filled = Signal()
        half = Signal()
        beat = Signal(range(max(self.plan.fill, 2)))
        m.d.comb += filled.eq(self.write & (beat == self.plan.fill - 1))
        with m.If(self.write):
            m.d.sync += beat.eq(Mux(filled, 0, beat + 1))
        m.d.sync += half.eq(half ^ filled)
        return filled, half, beat

    def _count(self, m: Module, filled: Value, writing: Value) -> tuple[Value, Value, Value, Value]:
        """The loops over a tile that is read: direction, round, and element in a serial engine; and its half."""
        second = Signal()
        half = Signal()
        turn = Signal(range(max(self.plan.rounds, 2)))
        phase = Signal(range(max(self.pattern.group, 2)))
        round_ends = Signal()
        way_ends = Signal()
        tile_ends = Signal()
        m.d.comb += [
            round_ends.eq(phase == self.pattern.group - 1 if self.serial else 1),
            way_ends.eq(round_ends & (turn == self.plan.rounds - 1)),
            tile_ends.eq(way_ends & (second | ~self.both)),
        ]
        with m.If(self.step):
            if self.serial:
                m.d.sync += phase.eq(Mux(round_ends, 0, phase + 1))
            with m.If(round_ends):
                m.d.sync += turn.eq(Mux(way_ends, 0, turn + 1))
            with m.If(way_ends):
                m.d.sync += second.eq(~tile_ends)
            with m.If(tile_ends):
                m.d.sync += self.step.eq(0)
        with m.If(filled):
            m.d.sync += [self.step.eq(1), half.eq(writing)]
        return second, turn, phase, half

    def _cells(self, m: Module, half: int, writing: Value, now: Value) -> list[list[list[Value]]]:
        """The registers of a half, [blocks][M][M]; each is written by one lane, with one beat."""
        group, plan = self.pattern.group, self.plan
        takes = [Signal(name=f"takes_{half}_{beat}") for beat in range(plan.fill)]
        m.d.comb += [take.eq(self.write & (writing == half) & (now == b)) for b, take in enumerate(takes)]
        cells = []
        for e in range(plan.blocks * group * group):
            cell = Signal(self.bits + 1, name=f"cell_{half}_{e}", reset_less=True)
            beat, lane = divmod(e, self.beat)
            with m.If(takes[beat]):
                m.d.sync += cell.eq(Cat(self.value[lane], self.valid[lane]))
            cells.append(cell)
        rows = [cells[i : i + group] for i in range(0, len(cells), group)]
        return [rows[i : i + group] for i in range(0, len(rows), group)]

    def _read(self, tiles: Any, lane: int, half: Value, second: Value, turn: Value, place: Any) -> Value:
        """Element ``place`` of the group of a lane."""
        group = self.pattern.group

        def of_round(tile: Any, r: int) -> Value:
            block, line = divmod(r * self.lanes + lane, group)
            along = Array(tile[block][x][line] for x in range(group))[place]
            across = Array(tile[block][line])[place]
            return Mux(second, across, along)

        halves = [Array(of_round(tile, r) for r in range(self.plan.rounds))[turn] for tile in tiles]
        return Mux(half, halves[1], halves[0])


class Pregenerate(wiring.Component):
    """WUVE, a `TileBuffer` and SORE: updated parameters, and their compact copies.

    Beats enter at ``into``, of which ``fill`` make a tile; what leaves WUVE goes out at ``updated``, what leaves SORE
    at ``pairs``. Between tiles ``into.ready`` is low for as long as SORE needs more than they do. ``both`` stands still
    during a run: two copies or one. The rounds of the first copy of a tile come before those of the second.

    With ``blackbox`` the lanes of both engines are instances of the modules in `parts`.
    """

    def __init__(
        self, spec: AcceleratorSpec, pattern: NMPattern, rule: UpdateRule = SGD, *, blackbox: bool = False
    ) -> None:
        check_buildable(spec, pattern)
        self.wuve = Wuve(spec, rule, stalls=True, blackbox=blackbox)
        self.sore = Sore(spec, pattern, stalls=True, blackbox=blackbox)
        self.plans = tuple(tile_plan(spec, rule, pattern, copies) for copies in (1, 2))
        self.buffer = enabled(TileBuffer(spec, pattern, self.plans[0]))
        self._into, self._updated, self._pairs = parameters_of(self.wuve), updated_of(self.wuve), pairs_of(self.sore)
        self._constants = chosen(self.wuve, rule.constants)
        super().__init__(
            {
                "both": In(1),
                **self._constants,
                "into": In(stream.Signature(payload_of(self._into))),
                "updated": Out(stream.Signature(payload_of(self._updated))),
                "pairs": Out(stream.Signature(payload_of(self._pairs))),
            }
        )

    @property
    def parts(self) -> dict[str, Any]:
        """The modules that a black-boxed one is made of, by name."""
        return self.wuve.parts | self.sore.parts

    @property
    def contract(self) -> str:
        """What the Verilog says above the module."""
        one, two = self.plans
        said = (
            f"WUVE between streams, and SORE behind it. {one.fill} beats of into, parameters in the lanes with valid, "
            f"are a tile; each leaves at updated {self.wuve.latency} cycles in which the engines run after it was "
            f"taken. The pairs of a tile leave at pairs: {one.rounds} rounds along the first axis of its blocks, and "
            f"with both as many along the second. Behind a tile into__ready is low for {one.distance - one.fill} "
            f"cycles, with both for {two.distance - two.fill}. Whoever waits for a beat of one output must take those "
            "of the other that leave before it. The constants and both stand still during a run."
        )
        return stream_contract(said, self)

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        wuve, buffer, sore = self.wuve, self.buffer, self.sore
        m.submodules.wuve, m.submodules.buffer, m.submodules.sore = wuve, buffer, sore
        m.submodules.skid = skid = StreamSkid({"updated": payload_of(self._updated), "pairs": payload_of(self._pairs)})
        wiring.connect(m, skid.updated, wiring.flipped(self.updated))
        wiring.connect(m, skid.pairs, wiring.flipped(self.pairs))
        m.d.comb += [engine.en.eq(skid.advance) for engine in (wuve, buffer, sore)]
        m.d.comb += [getattr(wuve, name).eq(getattr(self, name)) for name in self._constants]
        m.d.comb += buffer.both.eq(self.both)
        self._pace(m, skid.advance)
        m.d.comb += [port.eq(field) for field, port in payload_wires(self.into.payload, self._into, wuve)]

        leaving, made = skid.updated_leaving, skid.pairs_leaving
        m.d.comb += [leaving.valid.eq(wuve.left), made.valid.eq(sore.pairs_leave), buffer.write.eq(wuve.left)]
        m.d.comb += [field.eq(port) for field, port in payload_wires(leaving.payload, self._updated, wuve)]
        m.d.comb += [field.eq(port) for field, port in payload_wires(made.payload, self._pairs, sore)]
        for i in range(wuve.lanes):
            m.d.comb += [buffer.value[i].eq(wuve.weight16[i]), buffer.valid[i].eq(wuve.leaving[i])]
        m.d.comb += sore.step.eq(buffer.step)
        for i in range(sore.lanes):
            m.d.comb += sore.valid[i].eq(buffer.group_valid[i])
            m.d.comb += [to.eq(word) for to, word in zip(sore.value[i], buffer.group_value[i], strict=True)]
        return m

    def _pace(self, m: Module, advance: Value) -> None:
        """After the last beat of a tile, wait: the next must not fill up before SORE is through with this one."""
        one, two = self.plans
        waits = [plan.distance - plan.fill for plan in self.plans]
        beat = Signal(range(max(one.fill, 2)))
        pause = Signal(range(max(*waits, 1) + 1))
        enter = self.wuve.enter
        m.d.comb += [enter.eq(self.into.valid & (pause == 0)), self.into.ready.eq(advance & (pause == 0))]
        with m.If(advance & (pause != 0)):
            m.d.sync += pause.eq(pause - 1)
        with m.If(advance & enter):
            m.d.sync += beat.eq(beat + 1)
            with m.If(beat == two.fill - 1):
                m.d.sync += [beat.eq(0), pause.eq(Mux(self.both, waits[1], waits[0]))]
