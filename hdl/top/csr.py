"""What a host sees of the machine: registers on AXI4-Lite (dataflow/program/control.py; Arm IHI 0022H, B1)."""

from __future__ import annotations

from typing import Any

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ...dataflow.program.control import MAGIC, Access, ControlRegister, control_of
from ...dataflow.program.isa import VERSION, units_of
from ...dataflow.program.spaces import Target
from .axi import ADDRESS_BITS, Response
from .queue import Queue

__all__ = ["AxiLite", "ControlRegisters", "counters_of"]

_BITS = 12
"""Of a byte address: 4 KiB, the least that an interconnect decodes."""


def counters_of(target: Target) -> tuple[str, ...]:
    """The machine's counters of 64 bits, by name."""
    registers = control_of(units_of(target))
    return tuple(r.name.removesuffix("_low") for r in registers if r.address >= 0x80 and r.name.endswith("_low"))


class AxiLite(wiring.Signature):
    """A manager's bus of 32 bits."""

    def __init__(self) -> None:
        address = stream.Signature(data.StructLayout({"addr": _BITS}))
        super().__init__(
            {
                "aw": Out(address),
                "w": Out(stream.Signature(data.StructLayout({"data": 32, "strb": 4}))),
                "b": In(stream.Signature(data.StructLayout({"resp": 2}))),
                "ar": Out(address),
                "r": In(stream.Signature(data.StructLayout({"data": 32, "resp": 2}))),
            }
        )


class ControlRegisters(wiring.Component):
    """The machine's registers.

    A read or write of a word that is none of them is answered with a slave error; what a write does to a register that
    is only read is nothing. Bytes that a write does not strobe stay. ``start`` and ``stop`` are up for a cycle;
    ``count`` says of each counter by how much it grows in this cycle, while the machine is busy.
    """

    def __init__(self, target: Target) -> None:
        self.target, self.counters, self.control = target, counters_of(target), control_of(units_of(target))
        super().__init__(
            {
                "bus": In(AxiLite()),
                "start": Out(1),
                "stop": Out(1),
                "program": Out(ADDRESS_BITS),
                "length": Out(32),
                "base": Out(ADDRESS_BITS),
                "size": Out(32),
                "watchdog": Out(32),
                "interrupt": Out(1),
                "busy": In(1),
                "nonfinite": In(1),
                "drained": In(1),
                "error": In(4),
                "error_instruction": In(32),
                "error_value": In(32),
                "instruction": In(32),
                **{f"count_{name}": In(1) for name in self.counters},
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        held = {r.name: Signal(32, name=r.name, init=r.reset or 0) for r in self.control if r.access == Access.BOTH}
        asked = Signal(2)
        raised = Signal(2)
        was_busy = Signal()
        done = Signal()
        writes, write_to, put, mask = self._writes(m)
        m.d.comb += [
            self.start.eq(asked[0]),
            self.stop.eq(asked[1]),
            self.program.eq(Cat(held["program_low"], held["program_high"])),
            self.length.eq(held["program_length"]),
            self.base.eq(Cat(held["window_low"], held["window_high"])),
            self.size.eq(held["window_bytes"]),
            self.watchdog.eq(held["watchdog"]),
            self.interrupt.eq((raised & held["interrupt_enable"][:2]).any()),
        ]
        nonfinite = Signal()
        cleared = Signal(2)
        begins = asked[0] & ~self.busy & (self.error == 0)
        ends = was_busy & ~self.busy
        m.d.sync += [
            was_busy.eq(self.busy),
            asked.eq(0),
            raised.eq(raised & ~cleared | Cat(ends & (self.error == 0), ends & (self.error != 0))),
            nonfinite.eq((nonfinite & ~begins) | self.nonfinite),
        ]
        with m.If(begins):
            m.d.sync += done.eq(0)
        with m.Elif(ends):
            m.d.sync += done.eq(self.error == 0)
        with m.If(writes), m.Switch(write_to):
            for r in self.control:
                with m.Case(r.address >> 2):
                    match r.access:
                        case Access.BOTH:
                            m.d.sync += held[r.name].eq((held[r.name] & ~mask) | (put & mask))
                        case Access.WRITE:
                            m.d.sync += asked.eq((put & mask)[:2])
                        case Access.CLEAR:
                            m.d.comb += cleared.eq((put & mask)[:2])
                        case Access.READ:
                            pass
        counters = self._counters(m, begins)
        status = Cat(self.busy, done, self.error != 0, nonfinite, self.drained)
        shown = {**held, **self._known(), "status": status, "interrupt": raised}
        shown |= {name: getattr(self, name) for name in ("error", "error_instruction", "error_value", "instruction")}
        self._reads(m, {r.name: shown[r.name] for r in self.control if r.name in shown}, counters)
        return m

    def _known(self) -> dict[str, Any]:
        """What the machine is."""
        pattern = self.target.pattern
        digits = int(self.target.hash, 16)
        return {
            "identity": Const(MAGIC, 32),
            "version": Const(VERSION, 32),
            "machine_low": Const(digits & 0xFFFFFFFF, 32),
            "machine_high": Const(digits >> 32, 32),
            "pattern": Const(0 if pattern is None else pattern.group << 8 | pattern.keep, 32),
        }

    def _counters(self, m: Module, begins: Any) -> dict[str, Any]:
        """Cycles since the start; they stand still when the machine does."""
        counters = {}
        for name in self.counters:
            counters[name] = counter = Signal(64, name=f"counter_{name}")
            with m.If(begins):
                # the cycle of the start is one, and nothing is there yet to be executed
                m.d.sync += counter.eq(int(name in ("cycles", "fetch_stalls")))
            with m.Elif(self.busy):
                m.d.sync += counter.eq(counter + getattr(self, f"count_{name}"))
        return counters

    def _writes(self, m: Module) -> tuple[Any, Any, Any, Any]:
        """A write is done when both its address and its data are there and the answer before it is taken.

        Queues stand between: no output of the bus may depend on an input of it in the same cycle (A3.2.1).
        """
        bus, aw, w = self.bus, self._through(m, "aw"), self._through(m, "w")
        writes = Signal()
        answers = Signal()
        failed = Signal()
        to = aw.payload.addr[2:]
        mask = Signal(32)
        m.d.comb += [
            writes.eq(aw.valid & w.valid & (~answers | bus.b.ready)),
            aw.ready.eq(writes),
            w.ready.eq(writes),
            bus.b.valid.eq(answers),
            bus.b.payload.resp.eq(Mux(failed, Response.SLAVE_ERROR, Response.OKAY)),
            mask.eq(Cat(*[w.payload.strb[i].replicate(8) for i in range(4)])),
        ]
        with m.If(writes):
            m.d.sync += [answers.eq(1), failed.eq(~self._known_address(to))]
        with m.Elif(bus.b.ready):
            m.d.sync += answers.eq(0)
        return writes, to, w.payload.data, mask

    def _through(self, m: Module, name: str) -> Any:
        """A channel of the bus behind a queue."""
        channel = getattr(self.bus, name)
        m.submodules[name] = queue = Queue(channel.payload.shape(), 2)
        wiring.connect(m, wiring.flipped(channel), queue.into)
        return queue.out

    def _reads(self, m: Module, shown: dict[str, Any], counters: dict[str, Any]) -> None:
        """The upper half of a counter is what it was when the lower one was read."""
        bus, ar = self.bus, self._through(m, "ar")
        at = ar.payload.addr[2:]
        upper = Signal(32)
        takes = Signal()
        valid = Signal()
        value = Signal(32)
        failed = Signal()
        m.d.comb += [
            takes.eq(ar.valid & (~valid | bus.r.ready)),
            ar.ready.eq(takes),
            bus.r.valid.eq(valid),
            bus.r.payload.data.eq(value),
            bus.r.payload.resp.eq(Mux(failed, Response.SLAVE_ERROR, Response.OKAY)),
        ]
        with m.If(takes):
            m.d.sync += [valid.eq(1), value.eq(0), failed.eq(~self._known_address(at))]
            with m.Switch(at):
                for r in self.control:
                    with m.Case(r.address >> 2):
                        self._read(m, r, shown, counters, value, upper)
        with m.Elif(bus.r.ready):
            m.d.sync += valid.eq(0)

    def _read(
        self, m: Module, r: ControlRegister, shown: dict[str, Any], counters: dict[str, Any], value: Any, upper: Any
    ) -> None:
        if r.name in shown:
            m.d.sync += value.eq(shown[r.name])
        elif r.name.endswith("_low"):
            counter = counters[r.name.removesuffix("_low")]
            m.d.sync += [value.eq(counter[:32]), upper.eq(counter[32:])]
        elif r.name.endswith("_high"):
            m.d.sync += value.eq(upper)
        else:
            assert r.access == Access.WRITE, r.name

    def _known_address(self, word: Any) -> Any:
        return Cat(*[word == r.address >> 2 for r in self.control]).any()
