"""The vector unit: operations on blocks of OPERANDS and on COLUMNS, a beat of the lanes a cycle (docs/isa.md)."""

from __future__ import annotations

from typing import Any, NamedTuple

from amaranth import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from ...dataflow.engine_time import DIVIDE_LATENCY
from ...dataflow.program.control import MachineError
from ...dataflow.program.isa import Unit
from ...dataflow.program.spaces import COLUMN_BEATS, VECTOR_DEPTH, VECTOR_OPERANDS, Space, Target
from ...dataflow.program.unit_time import vector_plan
from ...dataflow.program.vector_operations import OPERATIONS, Slot, VectorOpcode
from ..blocks.fp.datapath import leading_zeros, shift_left
from ..blocks.passing import Passing
from ..blocks.place import place
from ..blocks.recurrence import Fp32Divide, Fp32SquareRoot
from .banks import READ
from .command import take_command, unit_ports
from .load import write_layout
from .unit_banks import ColumnBanks, LoadedBanks, StoredBanks
from .vector_lane import CONSTANTS, VectorLane, slot_age

__all__ = ["VectorUnit"]

_ONE = 0x3F800000
_PART = "vector_lane"


class _Beats(NamedTuple):
    """Beats by age: bit ``i`` of ``flight`` says that one was read ``i`` cycles ago, at ``address`` now.

    ``beat`` of its row and slot, ``into`` of RESULTS, ``term``, and whether sums start with it.
    """

    flight: Value
    address: Value
    beat: Passing
    into: Passing
    term: Passing
    fresh: Passing


class VectorUnit(wiring.Component):
    """Runs the commands of `Unit.VECTOR` one at a time; ``done`` is up in the cycle in which the last word is written,
    `vector_cycles` after the command was taken.

    ``write`` is that of a load; ``results_read`` and ``columns_read`` answer a store as `OutputBanks` does. With
    ``error`` not 0 the unit stands still until reset, and nothing that was wrong has been written; ``value`` is the
    first word of a bank, or beat of a slot, that there is not.

    With ``blackbox`` the lanes are instances of the module in `parts`.
    """

    def __init__(self, target: Target, lanes: int, *, blackbox: bool = False) -> None:
        self.target, self.store_lanes, self.blackbox = target, lanes, blackbox
        self.lanes = target.spec.vector.lanes
        self.plan = vector_plan(target)
        super().__init__(
            {
                **unit_ports(Unit.VECTOR, target),
                "write": In(write_layout(lanes)),
                "writes": In(1),
                "read": In(READ),
                "results_read": Out(32).array(lanes),
                "columns_read": Out(32).array(lanes),
            }
        )

    @property
    def parts(self) -> dict[str, Any]:
        """The module that a black-boxed unit is made of, by name."""
        return {_PART: VectorLane(self.target)} if self.blackbox else {}

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        c, begins, runs = take_command(m, self, Unit.VECTOR)
        with m.If(self.done):
            m.d.sync += runs.eq(0)
        self._datapath(m, c, self._issue(m, c, begins, runs))
        return m

    def _is(self, c: Any, name: str) -> Any:
        """Whether the operation is one with that property."""
        return _among(c.operation, [o for o, operation in OPERATIONS.items() if getattr(operation, name)])

    def _issue(self, m: Module, c: Any, begins: Any, runs: Any) -> _Beats:
        plan, deviates = self.plan, c.operation == VectorOpcode.DEVIATION
        beat, term, row = Signal(range(VECTOR_DEPTH)), Signal(16), Signal(16)
        address, base = Signal(range(VECTOR_DEPTH + 1)), Signal(range(VECTOR_DEPTH + 1))
        pause, left = Signal(range(max(plan.again, self.lanes) + 1)), Signal(range(plan.rooted + 1))
        issues, drains, beat_ends, term_ends = Signal(), Signal(), Signal(), Signal()
        last, beyond, wait = Signal(), Signal(), Signal.like(pause)
        waits = self._is(c, "accumulates") | self._is(c, "of_terms")
        m.d.comb += [
            beyond.eq(runs & ~drains & (address == VECTOR_DEPTH)),
            issues.eq(runs & ~drains & (pause == 0) & ~beyond & (self.error == 0)),
            beat_ends.eq(beat == c.beats - 1),
            term_ends.eq(beat_ends & (term == c.terms - 1)),
            last.eq(term_ends & (row == c.rows - 1)),
            self.done.eq(drains & (left == 0)),
        ]
        with m.If(deviates):
            m.d.comb += wait.eq(self.lanes - 1)
        with m.Elif(waits & beat_ends & (c.beats < plan.again)):
            m.d.comb += wait.eq(plan.again - c.beats)
        m.d.sync += [pause.eq(Mux(issues, wait, Mux(pause == 0, 0, pause - 1))), left.eq(left - 1)]
        with m.If(issues):
            m.d.sync += [address.eq(address + 1), beat.eq(Mux(beat_ends, 0, beat + 1))]
            with m.If(beat_ends):
                m.d.sync += term.eq(Mux(term_ends, 0, term + 1))
            with m.If(term_ends):
                m.d.sync += [row.eq(row + 1), base.eq(base + c.beats)]
            with m.If(last):
                m.d.sync += [drains.eq(1), left.eq(Mux(deviates, plan.rooted, plan.ended) - 1)]
        with m.If(~runs):
            m.d.sync += [x.eq(0) for x in (beat, term, row, address, base, pause, drains)]
        self._require(m, c, begins, beyond)
        flight = Signal(plan.rooted)
        m.d.sync += flight.eq(Cat(issues, flight))
        fresh = Mux(self._is(c, "of_terms"), term == 0, c.first & (row == 0))
        return _Beats(
            flight=Cat(issues, flight),
            address=address,
            beat=Passing(m, "beat", beat, 0),
            into=Passing(m, "into", (base + beat)[: len(beat)], 0),
            term=Passing(m, "term", term[: len(beat)], 0),
            fresh=Passing(m, "fresh", Value.cast(fresh), 0),
        )

    def _require(self, m: Module, c: Any, begins: Any, beyond: Any) -> None:
        columns, of_slots = self._is(c, "columns"), self._is(c, "reads") | self._is(c, "writes")
        with m.If(self.error == 0):
            with m.If(begins & (((c.terms != 1) & ~self._is(c, "of_terms")) | (columns & (c.rows != 1)))):
                m.d.sync += [self.error.eq(MachineError.COMMAND), self.value.eq(0)]
            with m.Elif(begins & of_slots & (c.beats > COLUMN_BEATS)):
                m.d.sync += [self.error.eq(MachineError.PLACE), self.value.eq(COLUMN_BEATS)]
            with m.Elif(beyond):
                m.d.sync += [self.error.eq(MachineError.PLACE), self.value.eq(VECTOR_DEPTH)]

    def _datapath(self, m: Module, c: Any, beats: _Beats) -> None:
        """Banks, lanes between them, and what belongs to no lane."""
        target, plan, lanes = self.target, self.plan, self.lanes
        m.submodules.operands = operands = LoadedBanks(target, Space.OPERANDS, self.store_lanes)
        m.submodules.results = results = StoredBanks(target, Space.RESULTS, self.store_lanes)
        m.submodules.columns = columns = ColumnBanks(target, self.store_lanes)
        m.d.comb += [x.write.eq(self.write) for x in (operands, columns)]
        m.d.comb += [x.writes.eq(self.writes) for x in (operands, columns)]
        m.d.comb += [x.read.eq(self.read) for x in (results, columns)]
        m.d.comb += [
            operands.half.eq(c.operands_half),
            operands.address.eq(beats.address),
            columns.half.eq(c.columns_half),
            results.half.eq(c.results_half),
            results.address.eq(beats.into.at(plan.ended)),
            *(out.eq(word) for out, word in zip(self.results_read, results.lanes_read, strict=True)),
            *(out.eq(word) for out, word in zip(self.columns_read, columns.lanes_read, strict=True)),
        ]
        position = self._position(m, beats)
        partial = self._partial(m, beats)
        parts: list[Any] = []
        for i in range(lanes):
            lane = place(m, f"lane_{i}", VectorLane, target, module=_PART if self.blackbox else None)
            parts.append(lane)
            writes = self._is(c, "result") & beats.flight[plan.ended]
            positions = c.operation == VectorOpcode.POSITION
            m.d.comb += [
                lane.operation.eq(c.operation),
                lane.first.eq(c.first),
                *(getattr(lane, name).eq(c[name]) for name in CONSTANTS),
                *(getattr(lane, "abc"[x]).eq(operands.words[x * lanes + i]) for x in range(VECTOR_OPERANDS)),
                *(lane.slots[s].eq(columns.words[s][i]) for s in Slot),
                lane.partial.eq(partial[i][0]),
                partial[i][1].eq(lane.kept),
                lane.fresh.eq(beats.fresh.at(plan.scaled)),
                lane.fresh_dot.eq(beats.fresh.at(plan.met)),
                results.enables[i].eq(writes & (~positions | lane.takes)),
                results.words[i].eq(Mux(positions, position, lane.result)),
            ]
        self._slots(m, c, beats, columns, parts)

    def _partial(self, m: Module, beats: _Beats) -> list[tuple[Any, Any]]:
        """Of each lane what a sum or a largest one of terms is so far, and where it becomes."""
        plan, found = self.plan, []
        for i in range(self.lanes):
            m.submodules[f"partial_{i}"] = memory = Memory(shape=32, depth=VECTOR_DEPTH, init=[])
            to, out = memory.write_port(), memory.read_port()
            m.d.comb += [
                to.en.eq(beats.flight[plan.summed]),
                to.addr.eq(beats.beat.at(plan.summed)),
                out.addr.eq(beats.beat.at(plan.scaled - 1)),
            ]
            found.append((out.data, to.data))
        return found

    def _position(self, m: Module, beats: _Beats) -> Any:
        """The number of the term as FP32."""
        number = beats.term.at(self.plan.ended)
        zeros, width = leading_zeros(m, "term", number), len(number)
        whole = shift_left(m, "term_fraction", Cat(Const(0, 24 - width), number), zeros)
        position = Signal(32)
        m.d.comb += position.eq(Mux(number.any(), Cat(whole[:23], (127 + width - 1 - zeros)[:8]), 0))
        return position

    def _slots(self, m: Module, c: Any, beats: _Beats, columns: Any, lanes: list[Any]) -> None:
        """Slots, each read and written at its age."""
        plan = self.plan
        roots = self._roots(m, beats.flight[plan.added], [lane.dot for lane in lanes])
        for s in Slot:
            ages = {slot_age(s, o, plan) for o in VectorOpcode}
            early = [o for o in VectorOpcode if slot_age(s, o, plan) == min(ages)]
            read = beats.beat.at(max(ages) - 1)
            if len(ages) > 1:
                read = Mux(_among(c.operation, early), beats.beat.at(min(ages) - 1), read)
            match s:
                case Slot.SUM:
                    made, age = [lane.kept for lane in lanes], plan.summed
                case Slot.DOT:
                    made, age = [lane.dot for lane in lanes], plan.added
                case Slot.DEVIATION:
                    made, age = roots, plan.rooted
                case _:
                    made, age = [lane.result for lane in lanes], plan.ended
            writers = [o for o, operation in OPERATIONS.items() if s in operation.writes]
            m.d.comb += [
                columns.beats[s].eq(read),
                columns.into[s].eq(beats.beat.at(age)),
                columns.enables[s].eq(beats.flight[age] & _among(c.operation, writers)),
                *(to.eq(word) for to, word in zip(columns.made[s], made, strict=True)),
            ]

    def _roots(self, m: Module, leaves: Any, words: list[Any]) -> list[Any]:
        """1 / sqrt of the lanes' words, lane by lane: one root for all of them, which is wanted once a column."""
        m.submodules.root = root = Fp32SquareRoot(DIVIDE_LATENCY)
        m.submodules.divide = divide = Fp32Divide(DIVIDE_LATENCY)
        waiting, made = Signal(32 * self.lanes, reset_less=True), Signal(32 * self.lanes, reset_less=True)
        m.d.sync += [waiting.eq(waiting >> 32), made.eq(Cat(made[32:], divide.quotient))]
        with m.If(leaves):
            m.d.sync += waiting.eq(Cat(words))
        m.d.comb += [root.value.eq(waiting[:32]), divide.a.eq(_ONE), divide.b.eq(root.root)]
        return [made.word_select(i, 32) for i in range(self.lanes)]


def _among(opcode: Any, operations: list[VectorOpcode]) -> Any:
    """Whether ``opcode`` is one of them."""
    return Cat(*[opcode == o for o in operations]).any() if operations else Const(0)
