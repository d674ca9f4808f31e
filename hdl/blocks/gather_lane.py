"""A lane of the gather engine: the element that it has, and what becomes of it cycle by cycle."""

from __future__ import annotations

from typing import Any

from amaranth import Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ...dataflow.accelerator import AcceleratorSpec
from ...dataflow.gather.spec import READ_LATENCY
from .gather_pe import GatherFormat

__all__ = ["GatherLane"]


class GatherLane(wiring.Component):
    """``element`` is the one that is served, ``served``, in ``part`` of a slot, of which ``issues`` says that it has a
    word of the row; ``ends``: it is the last cycle of the slot.

    What is issued in cycle ``t`` is asked for in ``t + 1`` and read in ``t + READ``, when ``value`` and ``port`` are
    those of its element, and ``some`` says whether there is one. ``made``: the sums of ``made_part`` are those of a
    whole line, in the cycle in which they leave the adders. ``ended``: those of a line are all there.
    """

    def __init__(self, spec: AcceleratorSpec) -> None:
        self.spec = spec
        self.format = GatherFormat(spec)
        super().__init__(self.ports(spec))

    @staticmethod
    def ports(spec: AcceleratorSpec) -> dict[str, Any]:
        """Members of the signature, for whoever instantiates the emitted module."""
        f = GatherFormat(spec)
        port = {"port": Out(f.port)} if f.port else {}
        return {
            "start": In(1),
            "served": In(1),
            "issues": In(1),
            "ends": In(1),
            "part": In(f.context),
            "element": In(f.element),
            **({"row_words": In(f.row_words), "interleave": In(f.interleave["interleave"])} if f.interleave else {}),
            **{name: In(1) for name in f.encodings if name == "kept_gradient"},
            "value": Out(f.units.word),
            "some": Out(1),
            **port,
            "control": Out(f.control),
            "made": Out(1),
            "made_part": Out(f.context),
            "ended": Out(1),
        }

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        f, pe = self.format, self.spec.pe
        begun = Signal(f.held, name="begun")
        mine, context = begun, self.part
        if f.interleave:
            turn, first = self._turn(m)
            mine, context = begun.bit_select(turn, 1), first + self.part
        with m.If(self.start):
            m.d.sync += begun.eq(0)
        with m.Elif(self.served & self.ends):
            m.d.sync += mine.eq(~self.element.last)
        now = Signal(
            data.StructLayout({"valid": 1, "first": 1, "last": 1, "ends": 1, "context": f.context}), name="token_0"
        )
        m.d.comb += [
            now.valid.eq(self.served & self.issues),
            now.first.eq(~mine),
            now.last.eq(self.element.last),
            now.ends.eq(self.served & self.ends & self.element.last),
            now.context.eq(context),
        ]
        tokens = [now]
        for i in range(READ_LATENCY + pe.multiply_latency + pe.add_latency):
            tokens.append(Signal.like(now, name=f"token_{i + 1}"))
            m.d.sync += tokens[-1].eq(tokens[-2])
        self._element(m)
        add, finish = tokens[READ_LATENCY + pe.multiply_latency], tokens[-1]
        m.d.comb += [
            self.control.add.first.eq(add.first),
            self.control.add.context.eq(add.context),
            self.control.finish.valid.eq(finish.valid),
            self.control.finish.context.eq(finish.context),
            self.made.eq(finish.valid & finish.last),
            self.made_part.eq(finish.context),
            self.ended.eq(finish.ends),
        ]
        return m

    def _turn(self, m: Module) -> tuple[Any, Any]:
        """Which of a lane's lines an element is of, and where its sums begin: the next after each that is served."""
        turn, first = Signal(range(self.format.held), name="turn"), Signal(self.format.context, name="first_sum")
        with m.If(self.start):
            m.d.sync += [turn.eq(0), first.eq(0)]
        with m.Elif(self.served & self.ends):
            over = turn + 1 == self.interleave
            m.d.sync += [turn.eq(Mux(over, 0, turn + 1)), first.eq(Mux(over, 0, first + self.row_words))]
        return turn, first

    def _element(self, m: Module) -> None:
        """The value of an element on its way, as the PEs multiply it: a line without any has a bubble."""
        f = self.format
        raw = Signal(f.raw, name="raw", reset_less=True)
        m.d.sync += raw.eq(Mux(self.element.empty, f.units.bubble, self.element.value))
        gradient = self.kept_gradient if f.encodings else 0
        entered = f.units.enter(m, "entered", raw, gradient)
        m.d.sync += self.value.eq(entered)
        waiting = [("some", ~self.element.empty), *([("port", self.element.port)] if f.port else [])]
        for name, given in waiting:
            for i in range(READ_LATENCY - 1):
                after = Signal(len(given), name=f"{name}_{i + 1}", reset_less=True)
                m.d.sync += after.eq(given)
                given = after
            m.d.sync += getattr(self, name).eq(given)
