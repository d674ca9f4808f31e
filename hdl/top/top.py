"""The accelerator: a host's registers, a sequencer, its units, and their buses (docs/design/accelerator.md)."""

from __future__ import annotations

from typing import Any

from amaranth import Cat, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ...dataflow.program.isa import Unit, registers_of, units_of
from ...dataflow.program.spaces import Space, Target
from ..blocks.sorter import Sore, drive_sore
from .axi import Axi4, require_beat
from .banks import BiasBank
from .csr import AxiLite, ControlRegisters
from .load import LoadUnit
from .product import ProductUnit
from .sequencer import INSTRUCTION_BYTES, Sequencer
from .store import StoreUnit
from .update import UpdateUnit
from .vector import VectorUnit
from .xnor_product import XnorUnit

__all__ = ["Top"]


class Top(wiring.Component):
    """The machine of ``target`` with a data bus of ``beat_bytes``.

    ``control`` is the host's; ``data`` and ``instructions`` go to memory, which may be one and the same. ``interrupt``
    is high while an enabled one is raised. With ``blackbox`` PEs and lanes are instances of the modules in `parts`.
    """

    def __init__(self, target: Target, beat_bytes: int = 8, *, blackbox: bool = False) -> None:
        require_beat(beat_bytes)
        self.target, self.beat_bytes = target, beat_bytes
        self.lanes = lanes = beat_bytes // target.spec.pe.operand.bytes
        own = {unit: registers_of(unit, target) for unit in units_of(target)}
        self.registers, self.sequencer = ControlRegisters(target), Sequencer(own)
        self.sore = None if target.pattern is None else Sore(target.spec, target.pattern, blackbox=blackbox)
        self.units: dict[Unit, Any] = {
            Unit.LOAD: LoadUnit(target, beat_bytes),
            Unit.STORE: StoreUnit(target, beat_bytes),
            Unit.PRODUCT: ProductUnit(target, lanes, blackbox=blackbox),
            Unit.VECTOR: VectorUnit(target, lanes, blackbox=blackbox),
            Unit.UPDATE: UpdateUnit(target, lanes, blackbox=blackbox),
        }
        if target.spec.xnor is not None:
            self.units[Unit.XNOR] = XnorUnit(target, lanes, blackbox=blackbox)
        fetched = Axi4(INSTRUCTION_BYTES).members
        super().__init__(
            {
                "control": In(AxiLite()),
                "data": Out(Axi4(beat_bytes)),
                "instructions": Out(wiring.Signature({"ar": fetched["ar"], "r": fetched["r"]})),
                "interrupt": Out(1),
            }
        )

    @property
    def parts(self) -> dict[str, Any]:
        """The modules that a black-boxed machine is made of, by name."""
        found: dict[str, Any] = {} if self.sore is None else self.sore.parts
        for unit in self.units.values():
            found |= getattr(unit, "parts", {})
        return found

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.registers, m.submodules.sequencer = registers, sequencer = self.registers, self.sequencer
        for unit, component in self.units.items():
            m.submodules[unit.name.lower()] = component
        load, store = self.units[Unit.LOAD], self.units[Unit.STORE]
        if self.sore is not None:
            m.submodules.sore = self.sore
            m.d.comb += drive_sore(load.sore, self.sore)
            self._share_sore(m, load, self.units[Unit.UPDATE])
        wiring.connect(m, wiring.flipped(self.control), registers.bus)
        for name in ("ar", "r"):
            self._connect(m, getattr(load, name), getattr(self.data, name), name)
            self._connect(m, getattr(sequencer, name), getattr(self.instructions, name), name)
        for name in ("aw", "w", "b"):
            self._connect(m, getattr(store, name), getattr(self.data, name), name)
        m.d.comb += [
            sequencer.start.eq(registers.start),
            sequencer.stop.eq(registers.stop),
            sequencer.address.eq(registers.program),
            sequencer.length.eq(registers.length),
            sequencer.watchdog.eq(registers.watchdog),
            self.interrupt.eq(registers.interrupt),
            *(
                getattr(registers, name).eq(getattr(sequencer, name))
                for name in ("busy", "error", "error_instruction", "error_value", "instruction")
            ),
            *(component.base.eq(registers.base) for component in (load, store)),
            *(component.size.eq(registers.size) for component in (load, store)),
        ]
        for unit, component in self.units.items():
            name = unit.name.lower()
            wiring.connect(m, getattr(sequencer, name), component.command)
            m.d.comb += [
                getattr(sequencer, f"{name}_{what}").eq(getattr(component, what)) for what in ("done", "error", "value")
            ]
        self._spaces(m)
        self._counters(m)
        self._drained(m)
        return m

    def _connect(self, m: Module, inside: Any, outside: Any, name: str) -> None:
        """A stream of a unit and that of a port, whichever way it goes."""
        if name in ("r", "b"):
            wiring.connect(m, wiring.flipped(outside), inside)
        else:
            wiring.connect(m, inside, wiring.flipped(outside))

    def _share_sore(self, m: Module, load: Any, update: Any) -> None:
        """Load and update have SORE in turns; one that begins while the other is at it ends in an error."""
        m.d.comb += [update.sore_busy.eq(load.sorts), load.sore_busy.eq(update.sorts)]
        if update.copies is not None:
            with m.If(update.sorts):
                m.d.comb += drive_sore(update.sore, self.sore)

    def _spaces(self, m: Module) -> None:
        """What load writes and store reads."""
        load, store, product, vector, update, *xnor = self.units.values()
        m.submodules.bias = bias = BiasBank(self.lanes)
        for component in (product, vector, update, *xnor, bias):
            m.d.comb += [component.write.eq(load.write), component.writes.eq(load.writes)]
        for component in (product, vector, update, *xnor):
            m.d.comb += component.read.eq(store.read)
        shown = {
            Space.OUTPUT: product.lanes_read,
            Space.RESULTS: vector.results_read,
            Space.COLUMNS: vector.columns_read,
            Space.UPDATED: update.updated_read,
            Space.PAIRS: update.pairs_read,
        }
        for unit in xnor:
            shown |= {Space.SUMS: unit.sums_read, Space.SIGNS: unit.signs_read}
        with m.Switch(store.space):
            for space, lanes in shown.items():
                with m.Case(space):
                    m.d.comb += [own.eq(word) for own, word in zip(store.lanes_read, lanes, strict=True)]
        m.d.comb += [bias.half.eq(store.bias_half), bias.place.eq(store.bias_place)]
        m.d.comb += [own.eq(word) for own, word in zip(store.bias_read, bias.words_read, strict=True)]
        skips = Signal()
        with m.If(store.nonfinite):
            m.d.sync += skips.eq(1)
        with m.If(self.registers.start & ~self.sequencer.busy):
            m.d.sync += skips.eq(0)
        m.d.comb += [update.skip.eq(skips), self.registers.nonfinite.eq(store.nonfinite)]

    def _counters(self, m: Module) -> None:
        registers, sequencer = self.registers, self.sequencer
        load, data = self.units[Unit.LOAD], self.data
        m.d.comb += [
            registers.count_cycles.eq(1),
            registers.count_fetch_stalls.eq(sequencer.fetch_stall),
            registers.count_load_memory_stalls.eq(load.starved),
            registers.count_store_memory_stalls.eq(data.w.valid & ~data.w.ready),
            registers.count_read_beats.eq(data.r.valid & data.r.ready),
            registers.count_write_beats.eq(data.w.valid & data.w.ready),
        ]
        for unit in self.units:
            name = unit.name.lower()
            for counter, what in (("queue_stalls", "queue_stall"), ("busy", "runs"), ("event_stalls", "event_stall")):
                m.d.comb += getattr(registers, f"count_{name}_{counter}").eq(getattr(sequencer, f"{name}_{what}"))

    def _drained(self, m: Module) -> None:
        """Whether all bursts have been answered and none can follow: a unit without an error of its own runs its
        command to the end, whatever stopped the program; one with an error asks for nothing more."""
        data, instructions, counts = self.data, self.instructions, []
        ways = (
            ("reads", data.ar, data.r, data.r.payload.last),
            ("writes", data.aw, data.b, 1),
            ("fetches", instructions.ar, instructions.r, instructions.r.payload.last),
        )
        for name, asks, answers, last in ways:
            count = Signal(8, name=f"{name}_under_way")
            m.d.sync += count.eq(count + (asks.valid & asks.ready) - (answers.valid & answers.ready & last))
            counts += [count.any(), asks.valid]
        moves = [self.units[unit].busy & (self.units[unit].error == 0) for unit in (Unit.LOAD, Unit.STORE)]
        m.d.comb += self.registers.drained.eq(~(Cat(*counts, *moves).any() | self.sequencer.busy))
