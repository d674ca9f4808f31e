"""The western edge of a row, which repeats what row 0 did some cycles a row ago (weft.hdl.blocks.control)."""

from __future__ import annotations

from typing import Any

from amaranth import EnableInserter, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from .control_format import ControlFormat
from .frame import Gridded

__all__ = ["StceRow"]


class StceRow(wiring.Component):
    """The western edge of a row: what row 0 did ``row_delay`` cycles a row ago.

    ``step`` goes out as the row's ask in the same cycle, to its first PE as ``control`` when the ask is answered, and
    to the next row as ``step_south`` after ``run.row_delay`` cycles. ``now`` counts cycles; ``due`` says that the step
    of ``row_delay`` cycles before the next belongs to the run. ``drain`` is the number of words that this row and those
    below it drain, 0 for an unused row; the row waits for those below and then drains its own.
    """

    def __init__(self, spec: Gridded) -> None:
        self.format = ControlFormat(spec)
        self.frame = self.format.frame
        super().__init__(self.ports(spec))

    @staticmethod
    def ports(spec: Gridded) -> dict[str, Any]:
        """Members of the signature, for whoever instantiates the emitted module."""
        f = ControlFormat(spec)
        return {
            "en": In(1),
            "run": In(f.run),
            "now": In(f.delay_bits),
            "due": In(1),
            "step": In(f.step),
            "step_south": Out(f.step),
            "drain": In(f.drain),
            "drain_south": Out(f.drain),
            "control": Out(f.pe.control),
        }

    def elaborate(self, platform: Any) -> Any:
        m = Module()
        self._delay(m)
        tokens = [Signal(self.format.token, name=f"token_{i}") for i in range(self.frame.latency + 1)]
        load, step = self.control.load, self._answered(m)
        m.d.sync += [after.eq(before) for before, after in zip([step.token, *tokens], tokens, strict=False)]
        m.d.sync += [load.valid.eq(step.ask.valid), load.bank.eq(step.load.bank), load.chunk.eq(step.load.chunk)]
        issue, add, finish = tokens[0], tokens[self.frame.multiply_latency], tokens[-1]
        m.d.comb += [
            self.control.issue.bank.eq(issue.bank),
            self.control.issue.offset.eq(self._place(issue)),
            self.control.issue.pair.eq(issue.pair),
            self.control.issue.takeover.eq(issue.takeover),
            self.control.add.first.eq(add.first),
            self.control.add.context.eq(add.context),
            self.control.finish.valid.eq(finish.valid),
            self.control.finish.last.eq(finish.last),
            self.control.finish.context.eq(finish.context),
        ]
        self._more(m, tokens)
        self._drain(m, tokens[-2])
        return EnableInserter(self.en)(m)

    def _answered(self, m: Module) -> Any:
        """The step whose ask is answered in the next cycle."""
        step = self.step
        for i in range(self.frame.read_latency - 1):
            later = Signal(self.format.step, name=f"asked_{i}")
            m.d.sync += later.eq(step)
            step = later
        return step

    def _place(self, issue: Any) -> Any:
        """Where the words of an issue begin in their part."""
        return issue.offset

    def _more(self, m: Module, tokens: list[Any]) -> None:
        """What PEs of another kind are told besides, of the issues of these cycles, the last first."""

    def _passed_on(self, m: Module, coming: Any) -> Any:
        """What the row below does, which is what this one did."""
        return coming

    def _delay(self, m: Module) -> None:
        """A ring of the last steps; what it holds from before the run is masked.

        It is read a cycle ahead into a register, since the step of the last row decides in its own cycle what the
        controller does next. A step that is due in the next cycle already is not in the ring yet.
        """
        m.submodules.ring = ring = Memory(shape=self.format.step.size, depth=1 << self.format.delay_bits, init=[])
        write, read = ring.write_port(), ring.read_port(domain="comb")
        m.d.comb += [
            write.en.eq(1),
            write.addr.eq(self.now),
            write.data.eq(self.step),
            read.addr.eq(self.now + 1 - self.run.row_delay),
        ]
        coming = Mux(self.run.row_delay == 1, Value.cast(self.step), read.data)
        m.d.sync += Value.cast(self.step_south).eq(Mux(self.due, self._passed_on(m, coming), 0))

    def _drain(self, m: Module, leaves_next: Any) -> None:
        run, drain = self.run, self.control.drain
        left = Signal(self.format.drain)
        with m.If(leaves_next.valid & leaves_next.last & (leaves_next.context == 0)):
            m.d.sync += left.eq(self.drain)
        with m.Elif(left != 0):
            m.d.sync += left.eq(left - 1)
        m.d.sync += self.drain_south.eq(Mux(self.drain > run.interleave, self.drain - run.interleave, 0))
        m.d.comb += [drain.valid.eq((left != 0) & (left <= run.interleave)), drain.context.eq(run.interleave - left)]
